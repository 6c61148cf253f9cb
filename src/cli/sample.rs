//! `batchwright sample`: random rows of an input file, in its order.

use std::io::{self, BufWriter, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::input;

/// The arguments of `sample`.
#[derive(Args, Debug, Clone)]
pub struct SampleArgs {
    /// Batch input file; `-` is standard input.
    #[arg(value_name = "INPUT")]
    pub input: PathBuf,

    /// Rows to print, on standard output. They are held in memory.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 100)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub rows: u32,

    /// Number that determines which rows are chosen: the same rows of the same file each time. Without it, others are
    /// chosen each time.
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
}

pub(super) fn run(args: &SampleArgs) -> anyhow::Result<ExitCode> {
    let mut random = args.seed.map_or_else(rand::make_rng::<StdRng>, StdRng::seed_from_u64);
    let most = args.rows as usize;
    // Each with its number in the file.
    let mut chosen: Vec<(u64, Vec<u8>)> = Vec::new();
    let mut read = 0_u64;
    input::for_each_row(&args.input, |row| {
        // Algorithm R: each row so far is among the chosen with the same probability.
        if chosen.len() < most {
            chosen.push((read, row.to_vec()));
        } else if let Ok(place) = usize::try_from(random.random_range(0..=read))
            && let Some(replaced) = chosen.get_mut(place)
        {
            *replaced = (read, row.to_vec());
        }
        read += 1;
        Ok(())
    })?;
    chosen.sort_unstable_by_key(|(number, _)| *number);
    let mut out = BufWriter::new(io::stdout().lock());
    for (_, row) in &chosen {
        out.write_all(row)?;
        out.write_all(b"\n")?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}
