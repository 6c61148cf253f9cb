//! `results`.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;
use tempfile::TempDir;

use crate::command::first_line_only;
use crate::common::eventually::until;
use crate::stand_in::{StandIn, batch_object, error_line, output_line};

/// A directory and two paths in it.
fn files() -> (TempDir, [PathBuf; 2], [String; 2]) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let paths = ["out.jsonl", "err.jsonl"].map(|name| directory.path().join(name));
    let texts = [0, 1].map(|at: usize| paths[at].display().to_string());
    (directory, paths, texts)
}

fn outputs(numbers: std::ops::Range<u32>) -> String {
    numbers.map(|number| output_line(&format!("row-{number}"))).collect()
}

/// The flags, what is printed, and what is in each of the two files.
type TargetCase<'a> = (&'a [&'a str], &'a str, Option<&'a str>, Option<&'a str>);

/// What is in a file, which is removed.
fn taken(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok();
    let _ = fs::remove_file(path);
    text
}

/// A server whose batch has ended with three output lines and one error line.
async fn ended(has_extensions: bool) -> StandIn {
    let server = StandIn::with_batch("completed", [4, 3, 1], has_extensions).await;
    server.world().results = [outputs(0..3), error_line("row-3")];
    server
}

#[tokio::test]
async fn the_lines_of_a_batch_that_has_ended_go_where_they_are_sent() {
    for has_extensions in [false, true] {
        let server = ended(has_extensions).await;
        let [output, errors] = server.world().results.clone();
        let (_directory, paths, [out, err]) = files();
        let cases: [TargetCase<'_>; 6] = [
            (&[], &format!("{output}{errors}"), None, None),
            (&["--kind", "output"], &output, None, None),
            (&["--kind", "errors"], &errors, None, None),
            (&["-o", &out], "", Some(&format!("{output}{errors}")), None),
            (&["-o", &out, "-e", &err], "", Some(&output), Some(&errors)),
            (&["-e", &err], &output, None, Some(&errors)),
        ];
        for (flags, printed, in_output, in_errors) in cases {
            let said = server.cli(&[&["results", "batch_1"], flags].concat()).exits(3).await;
            assert_eq!(said.out, printed, "{flags:?} {has_extensions}");
            let found = paths.each_ref().map(|path| taken(path));
            assert_eq!(found.each_ref().map(Option::as_deref), [in_output, in_errors], "{flags:?} {has_extensions}");
        }
        // A file is replaced, and what is no file is written to.
        fs::write(&paths[0], "old").expect("it can be written");
        server.cli(&["results", "batch_1", "-o", &out, "-e", "/dev/null"]).exits(3).await;
        assert_eq!(fs::read_to_string(&paths[0]).expect("it is there"), output);
        assert!(!fs::metadata("/dev/null").expect("it is there").is_file());
        assert_eq!(fs::read_dir(paths[0].parent().expect("a directory")).expect("it is there").count(), 1);
    }
}

#[tokio::test]
async fn what_there_is_of_a_running_batch_is_shown_or_waited_for() {
    let server = StandIn::with_batch("in_progress", [4, 2, 0], true).await;
    server.world().results[0] = outputs(0..2);
    let said = server.cli(&["results", "batch_1"]).exits(0).await;
    assert_eq!(said.out, outputs(0..2));
    assert!(said.err.contains("batch_1 is in_progress: these are the lines so far; --follow waits"), "{said:?}");

    let server = StandIn::with_batch("in_progress", [1, 0, 0], false).await;
    let running = server.cli(&["results", "batch_1"]).start();
    running.notes("shows results at the end only: waiting for batch_1").await;
    server.world().results[0] = outputs(0..1);
    server.world().batches[0] = batch_object("batch_1", "completed", [1, 1, 0]);
    let said = running.end().await;
    assert_eq!((said.code, said.out), (0, outputs(0..1)));
}

#[tokio::test]
async fn lines_are_followed_as_they_come_over_broken_connections_and_outages() {
    let server = StandIn::with_batch("in_progress", [6, 0, 0], true).await;
    let running = server.cli(&["results", "batch_1", "--follow"]).start();
    server.world().results[0] = outputs(0..1);
    running.says("row-0").await;
    {
        let mut world = server.world();
        // The connection breaks in the middle of the second of these lines, and once more in the third.
        world.breaks = vec![10, output_line("row-1").len() + 10];
        world.results = [outputs(0..4), error_line("row-4")];
    }
    running.says("row-4").await;
    server.world().is_away = true;
    running.notes("trying again").await;
    {
        let mut world = server.world();
        world.is_away = false;
        world.results[0] = outputs(0..4) + &output_line("row-5");
        world.batches[0] = batch_object("batch_1", "completed", [6, 5, 1]);
    }

    let said = running.end().await;

    assert_eq!(said.code, 3, "{said:?}");
    assert_eq!(said.out, format!("{}{}{}", outputs(0..4), error_line("row-4"), output_line("row-5")));
    assert_eq!(server.world().breaks, [0; 0], "both connections broke");
}

#[tokio::test]
async fn following_goes_on_behind_the_whole_lines_that_files_have() {
    for has_extensions in [false, true] {
        let server = ended(has_extensions).await;
        let [output, errors] = server.world().results.clone();
        let (_directory, paths, [out, err]) = files();
        let half = &output_line("row-1")[..20];
        // One file for both kinds, whose lines may be in any order; or two files.
        fs::write(&paths[0], format!("{errors}{}{half}", outputs(0..1))).expect("it can be written");
        server.cli(&["results", "batch_1", "--follow", "-o", &out]).exits(3).await;
        let whole = format!("{errors}{output}");
        assert_eq!(fs::read_to_string(&paths[0]).expect("it is there"), whole, "{has_extensions}");
        // Half a line behind which nothing comes.
        fs::write(&paths[0], format!("{whole}{half}")).expect("it can be written");
        server.cli(&["results", "batch_1", "--follow", "-o", &out]).exits(3).await;
        assert_eq!(fs::read_to_string(&paths[0]).expect("it is there"), whole, "nothing comes twice");

        fs::write(&paths[0], format!("{}{half}", outputs(0..1))).expect("it can be written");
        server.cli(&["results", "batch_1", "--follow", "-o", &out, "-e", &err]).exits(3).await;
        assert_eq!(fs::read_to_string(&paths[0]).expect("it is there"), output);
        assert_eq!(fs::read_to_string(&paths[1]).expect("it is there"), errors);
    }
}

#[tokio::test]
async fn a_file_of_another_batch_is_not_gone_on_with() {
    for has_extensions in [false, true] {
        let server = ended(has_extensions).await;
        let (_directory, paths, [out, _]) = files();
        for other in [output_line("other"), outputs(0..3).replace("row-", "other-row-"), outputs(0..9)] {
            fs::write(&paths[0], &other).expect("it can be written");
            let said = server.cli(&["results", "batch_1", "--follow", "-o", &out]).exits(1).await;
            assert!(said.err.contains("batch"), "{said:?}");
            assert_eq!(fs::read_to_string(&paths[0]).expect("it is there"), other);
        }
    }
}

#[tokio::test]
async fn an_interrupted_command_goes_on_when_it_is_run_again() {
    let server = StandIn::with_batch("in_progress", [4, 2, 0], true).await;
    server.world().results[0] = outputs(0..2);
    let (_directory, paths, [out, _]) = files();
    let command = ["results", "batch_1", "--follow", "-o", &out];
    let running = server.cli(&command).start();
    until("two lines", || fs::read_to_string(&paths[0]).is_ok_and(|text| text == outputs(0..2))).await;
    running.interrupt();
    let said = running.end().await;
    assert_eq!(said.code, 130);
    assert!(said.err.contains("run the same command again to go on"), "{said:?}");

    server.world().results[0] = outputs(0..4);
    server.world().batches[0] = batch_object("batch_1", "completed", [4, 4, 0]);
    server.cli(&command).exits(0).await;

    assert_eq!(fs::read_to_string(&paths[0]).expect("it is there"), outputs(0..4));
}

#[tokio::test]
async fn lines_come_in_the_order_of_the_input_if_the_server_can_do_it() {
    let server = ended(true).await;
    // The second attempt skips what the first has written.
    server.world().breaks = vec![outputs(0..1).len() + 7];
    let said = server.cli(&["results", "batch_1", "--order", "input"]).exits(3).await;
    assert_eq!(said.out, server.world().results.concat());
    assert_eq!(server.count("GET /v1/batches/batch_1/results?kind=all&order=input"), 2);

    let said = ended(false).await.cli(&["results", "batch_1", "--order", "input"]).exits(1).await;
    assert!(said.err.contains("cannot give results in the order of the input; leave out --order"), "{said:?}");
    server.cli(&["results", "batch_1", "--order", "input", "--follow"]).exits(2).await;
}

#[tokio::test]
async fn a_reader_that_goes_ends_the_command_quietly() {
    for has_extensions in [false, true] {
        let server = StandIn::with_batch("completed", [9999, 9999, 0], has_extensions).await;
        server.world().results[0] = outputs(0..9999);
        let flags: [&[&str]; 2] = [&["results", "batch_1"], &["files", "download", "file-output"]];
        for arguments in flags {
            let (code, line, err) = first_line_only(server.cli(arguments)).await;
            assert_eq!((code, line, err.as_str()), (Some(0), output_line("row-0"), ""), "{arguments:?}");
        }
    }
}

#[tokio::test]
async fn a_batch_without_lines_has_none() {
    for has_extensions in [false, true] {
        let server = StandIn::with_batch("failed", [0; 3], has_extensions).await;
        // The server does not wait for a batch that has failed either.
        server.world().batches[0]["errors"] = json!({ "object": "list", "data": [] });
        assert_eq!(server.cli(&["results", "batch_1"]).exits(4).await.out, "");
    }
}
