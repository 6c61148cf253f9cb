//! Prints what the test of this folder asserts, and the throughput of fixed numbers of calls: `make bench-upstream`.

mod load;
mod scenarios;

fn main() {
    println!("seeds {:?}, ceiling {}\n", scenarios::SEEDS, scenarios::CEILING);
    let missed = scenarios::table(true);
    println!("\nbelow their share: {missed:?}");
}
