//! Runs from end to end.

use std::fs::File;
use std::time::Duration;

use crate::common::builders::{file, line, rows};
use crate::common::eventually::until;
use crate::common::fake_upstream::{FakeUpstream, Reply};
use crate::common::process::{run, said};
use crate::stage::{ERRORS, INPUT, OUTPUT, Stage, run_with_input};

/// An upstream that refuses this row.
fn refusing(stage: &Stage, custom_id: &'static str) {
    stage.upstream.reply(move |call| if call.is_of(custom_id) { Reply::error(400) } else { Reply::ok() });
}

#[tokio::test]
async fn a_run_writes_its_results_and_removes_its_work_directory() {
    let stage = Stage::new(rows(50));

    let said = stage.run(&[], 0).await;

    assert!(stage.verdict().holds(), "{}", stage.verdict());
    assert!(said.contains("50 rows: 50 succeeded, 0 failed; the lines are in"), "{said}");
    assert_eq!(stage.names(), [ERRORS, INPUT, OUTPUT]);
    assert_eq!(stage.read(ERRORS), "");
}

#[tokio::test]
async fn rows_that_fail_are_the_exit_code_3_and_their_lines_are_where_they_were_asked_for() {
    let stage = Stage::new(rows(10));
    refusing(&stage, "row-3");

    stage.run(&[], 3).await;
    assert!(stage.verdict().holds(), "{}", stage.verdict());
    assert_eq!((stage.read(OUTPUT).lines().count(), stage.read(ERRORS).lines().count()), (9, 1));
    assert!(stage.read(ERRORS).contains("\"row-3\""));

    // Without a file for errors, all lines are in one, and the earlier file is replaced.
    let output = run(stage.run_command(&[INPUT, "-o", OUTPUT, "--restart"])).await;
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    assert_eq!(stage.read(OUTPUT).lines().count(), 10);
    assert!(stage.read(OUTPUT).lines().last().expect("ten lines").contains("\"row-3\""));
}

#[tokio::test]
async fn standard_input_and_output_are_files_too() {
    let stage = Stage::new("");
    let lines = rows(7);

    let output = run_with_input(stage.run_command(&["-", "--output-file", "-"]), lines.into_bytes()).await;

    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let lines = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(lines.lines().count() == 7 && lines.lines().all(|line| line.starts_with('{')), "{lines}");
    assert_eq!(stage.names(), [INPUT]);
}

#[tokio::test]
async fn what_a_run_has_left_is_not_paid_for_again_and_not_lost() {
    let stage = Stage::new(rows(3));
    refusing(&stage, "row-2");
    let run_with = async |flags: &[&str], status: i32| {
        let output = run(stage.run_command(&[&[INPUT, "-o", OUTPUT], flags].concat())).await;
        assert_eq!(output.status.code(), Some(status), "{}", said(&output));
        said(&output)
    };
    for flags in [&[][..], &["-e", ERRORS]] {
        run_with(&[flags, &["--restart"]].concat(), 3).await;
        let (sent, output) = (stage.upstream.calls().len(), stage.read(OUTPUT));

        let said = run_with(flags, 3).await;
        assert!(said.contains("the lines of all 3 rows already, of which 1 failed; --restart runs"), "{said}");
        assert_eq!((stage.upstream.calls().len(), stage.read(OUTPUT)), (sent, output), "{flags:?}");
        run_with(&[flags, &["--restart"]].concat(), 3).await;
        assert_eq!(stage.upstream.calls().len(), sent + 3, "{flags:?}");
    }

    stage.write(OUTPUT, "something else\n");
    let said = stage.run(&[], 2).await;
    assert!(said.contains("something else than the results of all rows of in.jsonl"), "{said}");
    assert_eq!(stage.read(OUTPUT), "something else\n");

    let left = stage.path(OUTPUT).metadata().and_then(|output| output.modified()).expect("the time of a file");
    let later = left + Duration::from_secs(9);
    File::options().append(true).open(stage.path(INPUT)).and_then(|input| input.set_modified(later)).expect("a file");
    stage.run(&[], 3).await;
    assert!(stage.verdict().holds(), "the input has changed since: {}", stage.verdict());
}

#[tokio::test]
async fn a_device_is_written_and_not_replaced() {
    let stage = Stage::new(rows(1));

    let output = run(stage.run_command(&[INPUT, "-o", "/dev/null", "--work-dir", "work"])).await;

    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(!std::fs::metadata("/dev/null").expect("it is there").is_file());
}

#[tokio::test]
async fn a_work_directory_with_other_files_keeps_them() {
    let stage = Stage::new(rows(2));
    std::fs::create_dir(stage.path("work")).expect("a directory");
    stage.write("work/mine", "");

    stage.run(&["--work-dir", "work", "--restart"], 0).await;

    assert!(stage.verdict().holds(), "{}", stage.verdict());
    let left: Vec<_> = std::fs::read_dir(stage.path("work")).expect("it is there").collect();
    assert_eq!(left.len(), 1);
    assert_eq!(stage.read("work/mine"), "");
}

#[tokio::test]
async fn rows_wait_for_an_upstream_that_is_away_and_it_is_said() {
    let mut stage = Stage::before(FakeUpstream::down(), rows(5));
    let mut run = stage.start(&[]);

    run.says("an upstream does not answer: its rows wait until it does").await;
    run.says("0 of 5 rows").await;
    stage.upstream.listen();

    assert_eq!(run.ended().await.code(), Some(0), "{}", run.said());
    assert!(stage.verdict().holds(), "{}", stage.verdict());
}

#[tokio::test]
async fn why_no_row_goes_on_is_said_at_once() {
    // What the server answers, and a part of what is said.
    let cases = [(Reply::error(401), "--upstream-key"), (Reply::error(429).header("retry-after", "2"), "429")];
    for (answer, words) in cases {
        let stage = Stage::new(rows(40));
        let refused = answer.clone();
        stage.upstream.reply(move |_| refused.clone());
        let run = stage.start(&[]);

        until(words, || run.said().lines().any(|line| line.contains(" of 40 rows") && line.contains(words))).await;
        run.kill();
    }
}

#[tokio::test]
async fn a_run_takes_the_settings_file_of_a_server() {
    let stage = Stage::new(file([line("a"), line("b").model("fast")]));
    let url = format!("http://{}/v1", stage.upstream.address);
    let settings = format!(
        "listen = \"127.0.0.1:1\"\nmax_retries = 0\n[[upstreams]]\nname = \"gpu\"\nurl = \"{url}\"\nmodels = \
         [\"m\"]\naliases = {{ fast = \"m\" }}\n"
    );
    stage.write("settings.toml", settings);
    stage.upstream.reply(|call| if call.is_of("b") { Reply::error(500) } else { Reply::ok() });

    let output = run(stage.command(&["run", INPUT, "-o", OUTPUT, "--config", "settings.toml"])).await;

    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    let calls = stage.upstream.calls();
    assert_eq!(calls.len(), 2, "no call is tried again");
    assert!(calls.iter().all(|call| call.text().contains("\"model\":\"m\"")));
}

#[tokio::test]
async fn what_cannot_work_is_refused_before_anything_is_sent() {
    let stage = Stage::new(rows(1));
    let cases: [(&[&str], i32, &str); 8] = [
        (&["nowhere.jsonl", "-o", OUTPUT], 1, "nowhere.jsonl cannot be read"),
        (&[INPUT, "-o", OUTPUT, "--config", "nowhere.toml"], 2, "nowhere.toml cannot be read"),
        (&[INPUT], 2, "--output-file"),
        (&[INPUT, "-o", INPUT], 2, "would replace the input"),
        (&[INPUT, "-o", OUTPUT, "-e", OUTPUT], 2, "the output and the error file are the same"),
        (&[INPUT, "-o", "."], 2, "is a directory"),
        (&[INPUT, "-o", "nowhere/out.jsonl"], 2, "there is no directory nowhere"),
        (&[INPUT, "-o", OUTPUT, "--upstream-key", "a\nb"], 1, "--upstream-key has a line break"),
    ];
    for (arguments, status, expected) in cases {
        let output = run(stage.run_command(arguments)).await;

        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {}", said(&output));
        assert!(said(&output).contains(expected), "{arguments:?}: {}", said(&output));
        assert_eq!(stage.names(), [INPUT], "{arguments:?}");
    }
    assert!(stage.upstream.calls().is_empty());
}

#[tokio::test]
async fn a_run_whose_first_rows_fail_alike_stops_and_goes_on_when_it_is_started_again() {
    let stage = Stage::new(rows(400));
    stage.upstream.reply(|_| Reply::error(422));

    let said = stage.run(&["--max-concurrency", "4"], 1).await;

    assert!(said.contains("rows failed alike: http_status, with status 422: No. Mend the cause"), "{said}");
    assert!(said.contains("--restart") && said.contains("--pause-after-alike 0"), "{said}");
    let sent = stage.upstream.calls().len();
    assert!((50..100).contains(&sent), "{sent} rows were sent: the rest was not burnt");
    stage.upstream.reply(|_| Reply::ok());
    stage.run(&["--max-concurrency", "4"], 3).await;
    assert!(stage.verdict().holds(), "{}", stage.verdict());
}
