//! `stats`, `sample` and `split`.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::common::builders::{file, line, rows};
use crate::common::process::{run, said};
use crate::stage::{INPUT, Stage, run_with_input};

#[tokio::test]
async fn stats_say_what_is_in_a_file() {
    let again = line("a").body(r#"{"model":"n","messages":[{"role":"user","content":"Hello from b"}]}"#);
    let stage = Stage::new(file([line("a").to_string(), line("b").to_string(), again.to_string(), "{".to_owned()]));

    let table = run(stage.command(&["stats", INPUT, "--output", "table"])).await;
    let json = run_with_input(stage.command(&["stats", "-"]), stage.read(INPUT).into_bytes()).await;

    let stats: Value = serde_json::from_slice(&json.stdout).unwrap_or_else(|_| panic!("{}", said(&json)));
    assert_eq!(
        [&stats["rows"], &stats["bad_lines"], &stats["duplicate_custom_ids"], &stats["duplicate_bodies"]],
        [&json!(4), &json!(1), &json!(1), &json!(0)]
    );
    assert_eq!(stats["bytes"], stage.read(INPUT).len());
    assert_eq!(stats["models"], json!({ "m": 2, "n": 1 }));
    assert_eq!(stats["urls"], json!({ "/v1/chat/completions": 3 }));
    assert_eq!(stats["prompt_characters"], json!({ "min": 12, "median": 12, "max": 12, "total": 36 }));
    assert_eq!(stats["row_bytes"]["min"], 1);
    assert!(said(&table).contains("m (2), n (1)"), "{}", said(&table));
}

#[tokio::test]
async fn a_sample_has_random_rows_in_the_order_of_the_file() {
    let stage = Stage::new(rows(1_000));
    let sample = async |flags: &[&str]| {
        let output = run(stage.command(&[&["sample", INPUT], flags].concat())).await;
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let input = stage.read(INPUT);
    let place = |row: &str| input.lines().position(|line| line == row).expect("a row of the file");

    let one = sample(&["-n", "50", "--seed", "1"]).await;
    let places: Vec<_> = one.lines().map(place).collect();

    assert_eq!(places.len(), 50);
    assert!(places.is_sorted() && places.iter().collect::<BTreeSet<_>>().len() == 50, "{places:?}");
    assert!(places[0] < 500 && places[49] > 500, "{places:?}");
    assert_eq!(sample(&["-n", "50", "--seed", "1"]).await, one);
    assert_ne!(sample(&["-n", "50", "--seed", "2"]).await, one);
    assert_eq!(sample(&[]).await.lines().count(), 100);
    assert_eq!(sample(&["-n", "2000"]).await, input);
}

#[tokio::test]
async fn parts_are_within_the_limits_and_have_all_rows() {
    let input = rows(1_000);
    let longest = input.lines().map(|line| line.len() as u64 + 1).max().expect("rows");
    let bytes = (longest * 100).to_string();
    let cases: [(&[&str], usize); 3] =
        [(&["--rows", "300"], 4), (&["--bytes", &bytes], 10), (&["--rows", "50", "--bytes", &bytes], 20)];
    for (flags, parts) in cases {
        let stage = Stage::new(input.replace('\n', "\r\n\n"));

        let output = run(stage.command(&[&["split", INPUT], flags].concat())).await;

        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        let names = String::from_utf8(output.stdout).expect("UTF-8");
        let names: Vec<_> = names.lines().collect();
        assert_eq!((names.len(), names[0], names[1]), (parts, "in-0001.jsonl", "in-0002.jsonl"), "{flags:?}");
        assert!(names.iter().all(|name| stage.read(name).len() as u64 <= longest * 100 || flags[0] == "--rows"));
        let whole: String = names.iter().map(|name| stage.read(name)).collect();
        assert_eq!(whole, input, "{flags:?}");
    }
}

#[tokio::test]
async fn a_part_is_never_written_over_and_a_row_that_fits_in_none_is_an_error() {
    let stage = Stage::new(rows(3));
    stage.write("in-0002.jsonl", "mine");

    let taken = run(stage.command(&["split", INPUT, "--rows", "2"])).await;
    let long = run(stage.command(&["split", INPUT, "--bytes", "10", "--directory", "."])).await;
    let empty = run_with_input(stage.command(&["split", "-"]), Vec::new()).await;

    assert_eq!(taken.status.code(), Some(1), "{}", said(&taken));
    assert!(said(&taken).contains("in-0002.jsonl cannot be made"), "{}", said(&taken));
    assert_eq!(stage.read("in-0002.jsonl"), "mine");
    assert_eq!(long.status.code(), Some(1));
    assert!(said(&long).contains("raise --bytes"), "{}", said(&long));
    assert_eq!(empty.status.code(), Some(1));
    assert!(said(&empty).contains("standard input has no rows"), "{}", said(&empty));
}
