//! `examples/custom_processor.rs`, which `cargo test` builds beside the tests.

use std::process::Command;

use crate::common::process::{run, said};

#[tokio::test]
async fn a_program_can_embed_the_service_with_a_processor_of_its_own() {
    let this = std::env::current_exe().expect("this program has a path");
    let profile = this.ancestors().nth(2).expect("tests are built in target/<profile>/deps");
    let example = profile.join("examples").join("custom_processor");
    assert!(example.exists(), "run all tests, or `cargo build --example custom_processor` before: it is not built");

    let output = run(Command::new(example)).await;

    let said = said(&output);
    assert!(output.status.success(), "{said}");
    assert!(said.contains(r#""content":"HELLO, WORLD""#), "{said}");
}
