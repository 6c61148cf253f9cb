//! One test for each thing that can be wrong with a batch's files.

use std::path::PathBuf;

use tempfile::TempDir;

use super::{VerifyArgs, VerifyReport, verify};
use crate::domain::ids::{BatchId, RequestId};
use crate::domain::line::{NeverRan, failed, never_ran};
use crate::domain::outcome::{FailureReason, HttpResponse};

fn input(ids: &[&str]) -> String {
    ids.iter().map(|id| format!(r#"{{"custom_id":"{id}","method":"POST","url":"/v1/x","body":{{}}}}"#) + "\n").collect()
}

fn line(id: &str, custom_id: &str, response: &str, error: &str) -> String {
    format!(r#"{{"id":"{id}","custom_id":"{custom_id}","response":{response},"error":{error}}}"#) + "\n"
}

fn response(status: u16) -> String {
    format!(r#"{{"status_code":{status},"request_id":"req_1","body":{{"object":"x"}}}}"#)
}

fn good(custom_id: &str) -> String {
    line(&format!("batch_req_{custom_id}"), custom_id, &response(200), "null")
}

const EXPIRED: &str = r#"{"code":"batch_expired","message":"too late"}"#;

fn bad(custom_id: &str) -> String {
    line(&format!("batch_req_{custom_id}"), custom_id, "null", EXPIRED)
}

/// Checks files with these contents; an empty text means that there is no such file.
fn checked(input: impl AsRef<[u8]>, output: &str, errors: &str) -> VerifyReport {
    let folder = TempDir::new().unwrap();
    let file = |name: &str, contents: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, contents).unwrap();
        path
    };
    let results = |name: &str, contents: &str| (!contents.is_empty()).then(|| file(name, contents.as_bytes()));
    let args = VerifyArgs {
        input: file("in", input.as_ref()),
        output: results("out", output),
        errors: results("err", errors),
    };
    let mut report = verify(&args).unwrap();
    let folder = format!("{}/", folder.path().display());
    report.problems.iter_mut().for_each(|problem| *problem = problem.replace(&folder, ""));
    report
}

fn problems(input: impl AsRef<[u8]>, output: &str, errors: &str) -> Vec<String> {
    let report = checked(input, output, errors);
    assert_eq!(report.problem_count, report.problems.len() as u64);
    assert_eq!(report.holds(), report.problems.is_empty());
    report.problems
}

#[test]
fn a_batch_with_one_line_for_each_request_holds() {
    let errors = line("batch_req_1", "c", &response(400), "null") + &bad("d");

    let report = checked(input(&["a", "b", "c", "d"]), &(good("b") + &good("a")), &errors);

    assert!(report.holds());
    assert_eq!(
        report.to_string(),
        "4 requests, 2 lines in the output file, 2 in the error file\n\
         \x20        2  status 200\n\
         \x20        1  status 400\n\
         \x20        1  batch_expired\n\
         OK: every one of 4 requests has exactly one line"
    );
}

#[test]
fn byte_order_mark_blank_lines_and_crlf_of_the_input_are_no_problem() {
    let input = "\u{feff}".to_owned() + &input(&["a", "b"]).replace('\n', "\r\n\r\n");

    let report = checked(input.trim_end(), &good("a"), &bad("b"));

    assert!(report.holds(), "{report}");
    assert_eq!(report.rows, 2);
}

#[test]
fn ids_are_compared_as_text_not_as_json() {
    let report = checked(r#"{"custom_id":"\u0061\"é"}"#, &good(r#"a\"\u00e9"#), "");

    assert!(report.holds(), "{report}");
}

#[test]
fn a_batch_without_any_result_file_owes_every_line() {
    assert_eq!(
        problems(input(&["a", "b"]), "", ""),
        [
            r#"in:1: custom_id "a" has no line in the result files"#,
            r#"in:2: custom_id "b" has no line in the result files"#
        ]
    );
}

#[test]
fn input_lines_without_a_usable_custom_id_are_reported() {
    assert_eq!(problems("{}\n", "", ""), ["in:1: the line: missing field `custom_id` (column 2)"]);
    assert_eq!(problems("\n[\"a\"]\n", "", ""), ["in:2: the line is not a JSON object"]);
    assert_eq!(problems(b"{\"custom_id\":\"\xff\"}\n", "", ""), ["in:1: the line is not UTF-8"]);
    assert!(problems("{\"custom_id\":1}\n", "", "")[0].starts_with("in:1: the line: invalid type: integer `1`"));
    assert_eq!(problems(input(&["a", "a"]), &good("a"), ""), [r#"in:2: custom_id "a" is that of line 1, too"#]);
}

#[test]
fn a_request_with_two_lines_is_reported() {
    let again = line("batch_req_2", "a", &response(200), "null");

    let expected = [r#"out:2: custom_id "a" has a second line; the first is out:1"#];
    assert_eq!(problems(input(&["a"]), &(good("a") + &again), ""), expected);
    let expected = [
        r#"err:1: id "batch_req_a" is that of out:1, too"#,
        r#"err:1: custom_id "a" has a second line; the first is out:1"#,
    ];
    assert_eq!(problems(input(&["a"]), &good("a"), &bad("a")), expected);
}

#[test]
fn a_line_for_no_request_is_reported() {
    let expected = [r#"err:1: custom_id "b" is of no request in the input file"#];
    assert_eq!(problems(input(&["a"]), &good("a"), &bad("b")), expected);
}

#[test]
fn line_ids_have_a_prefix_and_are_unique() {
    let output = line("batch_req_1", "a", &response(200), "null") + &line("req_2", "b", &response(200), "null");
    let errors = line("batch_req_1", "c", "null", EXPIRED);

    let expected =
        [r#"out:2: id "req_2" does not start with batch_req_"#, r#"err:1: id "batch_req_1" is that of out:1, too"#];
    assert_eq!(problems(input(&["a", "b", "c"]), &output, &errors), expected);
}

#[test]
fn results_may_lack_the_last_newline_and_have_no_blank_lines() {
    let marked = "\u{feff}".to_owned() + &good("a");
    for output in [good("a").trim_end(), &good("a").replace('\n', "\r\n"), &marked] {
        assert_eq!(problems(input(&["a"]), output, ""), [""; 0], "{output:?}");
    }
    assert_eq!(problems(input(&["a"]), &(good("a") + "\n"), ""), ["out:2: the line is blank"]);
    assert_eq!(problems(input(&["a"]), &("\r\n".to_owned() + &good("a")), ""), ["out:1: the line is blank"]);
}

#[test]
fn the_output_file_has_only_requests_that_succeeded() {
    let id = "batch_req_1";
    let cases = [
        (line(id, "a", &response(404), "null"), "out:1: status_code 404 stands in the output file, which has only 2xx"),
        (line(id, "a", "null", EXPIRED), "out:1: response is not a JSON object"),
        (
            line(id, "a", &response(200), EXPIRED),
            "out:1: error is not null; the output file has only requests that succeeded",
        ),
    ];
    for (output, expected) in cases {
        assert_eq!(problems(input(&["a"]), &output, ""), [expected]);
    }
}

#[test]
fn a_file_that_is_output_and_error_file_has_the_requests_that_failed_too() {
    let folder = TempDir::new().unwrap();
    let checked = |lines: &str| {
        let [asked, answered] = ["in", "out"].map(|name| folder.path().join(name));
        std::fs::write(&asked, input(&["a", "b", "c"])).unwrap();
        std::fs::write(&answered, lines).unwrap();
        verify(&VerifyArgs { input: asked, output: Some(answered.clone()), errors: Some(answered) }).unwrap()
    };
    let failed = line("batch_req_1", "b", &response(404), "null") + &bad("c");

    let report = checked(&(good("a") + &failed));

    assert!(report.holds(), "{report}");
    assert_eq!((report.output_lines, report.error_lines), (1, 2));
    let both = line("batch_req_2", "a", &response(200), EXPIRED);
    assert_eq!(checked(&(both + &failed)).problem_count, 1);
}

#[test]
fn the_error_file_has_either_a_failed_response_or_an_error() {
    let id = "batch_req_1";
    let cases = [
        (line(id, "a", "null", "null"), "err:1: response and error are both null"),
        (line(id, "a", &response(400), EXPIRED), "err:1: response and error are both given"),
        (
            line(id, "a", &response(200), "null"),
            "err:1: status_code 200 stands in the error file, which has none of 200 to 299",
        ),
        (line(id, "a", "null", r#"{"code":"x"}"#), "err:1: error: missing field `message` (column 12)"),
        (
            line(id, "a", "null", r#"{"code":"x","message":"y","param":null}"#),
            "err:1: error: unknown field `param`, expected `code` or `message` (column 33)",
        ),
        (line(id, "a", "null", r#""batch_expired""#), "err:1: error is not a JSON object"),
    ];
    for (errors, expected) in cases {
        assert_eq!(problems(input(&["a"]), "", &errors), [expected]);
    }
}

#[test]
fn responses_have_all_their_members() {
    let cases = [
        (r#"{"status_code":200,"request_id":"r"}"#, "out:1: response: missing field `body` (column 36)"),
        (r#"{"status_code":200,"body":{}}"#, "out:1: response: missing field `request_id` (column 29)"),
        (r#"{"request_id":"r","body":{}}"#, "out:1: response: missing field `status_code` (column 28)"),
        (r#"[200,"r",{}]"#, "out:1: response is not a JSON object"),
    ];
    for (response, expected) in cases {
        assert_eq!(problems(input(&["a"]), &line("batch_req_1", "a", response, "null"), ""), [expected]);
    }
}

#[test]
fn a_line_whose_ids_cannot_be_read_answers_no_request() {
    let owed = r#"in:1: custom_id "a" has no line in the result files"#;
    let cases = [
        ("{\"id\":\n", "out:1: the line: EOF while parsing a value (column 6)"),
        (&good("a").replace(r#","error":null"#, ""), "out:1: the line: missing field `error` (column 110)"),
        (&good("a").replace("custom_id", "name"), "out:1: the line: unknown field `name`"),
    ];
    for (output, expected) in cases {
        let problems = problems(input(&["a"]), output, "");

        assert!(problems[0].starts_with(expected), "{problems:?}");
        assert_eq!(problems[1..], [owed]);
    }
}

#[test]
fn only_the_first_problems_are_kept_and_all_are_counted() {
    let ids: Vec<String> = (0..25).map(|id| id.to_string()).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();

    let report = checked(input(&ids), "", "");

    assert_eq!((report.problems.len(), report.problem_count), (20, 25));
    let text = report.to_string();
    assert!(text.contains("NOT OK: 25 problems\n  in:1: ") && text.ends_with("\n  and 5 more"), "{text}");
}

#[test]
fn a_file_that_cannot_be_read_is_an_error_naming_it() {
    let args = VerifyArgs { input: PathBuf::from("/nowhere/in.jsonl"), output: None, errors: None };

    let error = verify(&args).unwrap_err().to_string();

    assert!(error.starts_with("cannot read /nowhere/in.jsonl: "), "{error}");
}

/// The line of a row whose name could not be read.
fn nameless(row: u32) -> String {
    let error = r#"{"code":"input_unavailable","message":"gone"}"#;
    line(&format!("batch_req_89abcdef0123456789abcdef{row:08x}"), "", "null", error)
}

#[test]
fn lines_without_a_name_are_told_by_their_row() {
    let input = "\n".to_owned() + &input(&["a", "b", "c"]);

    let report = checked(&input, &good("b"), &(nameless(2) + &nameless(0)));

    assert!(report.holds(), "{report}");
    assert_eq!(report.nameless_lines, 2);
    let text = report.to_string();
    assert!(text.contains("       2  without a custom_id, told by the row number in their id\nOK: "), "{text}");
}

#[test]
fn a_line_without_a_name_answers_no_other_row() {
    let stray = "err:1: the line has no custom_id, and its id is of no request without another line";
    let cases = [
        (good("a"), nameless(0), vec![stray]),
        (good("a"), nameless(1), vec![stray]),
        (String::new(), nameless(1), vec![stray, r#"in:1: custom_id "a" has no line in the result files"#]),
    ];
    for (output, errors, expected) in cases {
        assert_eq!(problems(input(&["a"]), &output, &errors), expected);
    }
}

#[test]
fn only_lines_for_unreadable_rows_may_lack_a_name() {
    let id = "batch_req_89abcdef0123456789abcdef00000000";
    let cases = [
        (line(id, "", &response(200), "null"), String::new()),
        (String::new(), line(id, "", "null", EXPIRED)),
        (String::new(), line("batch_req_1", "", "null", r#"{"code":"input_unavailable","message":"gone"}"#)),
    ];
    for (output, errors) in cases {
        let problems = problems(input(&["a"]), &output, &errors);
        assert!(problems[0].ends_with(r#"custom_id "" is of no request in the input file"#), "{problems:?}");
    }
}

#[test]
fn every_error_line_that_a_batch_can_have_is_in_order() {
    let answer = |status| HttpResponse::json(status, &serde_json::json!({ "error": "no" }));
    let page = HttpResponse { body: "<h1>\u{1b}No</h1>\r\n".into(), ..answer(502) };
    let id = RequestId { batch: BatchId::new(), row: 0 };
    let text = || "it says \"no\",\r\n\u{0}and \u{2028}more".to_owned();
    let reasons = [
        FailureReason::NonRetriableHttpStatus(answer(101)),
        FailureReason::NonRetriableHttpStatus(answer(304)),
        FailureReason::NonRetriableHttpStatus(answer(404)),
        FailureReason::RetriableHttpStatus(answer(999)),
        FailureReason::RetriableHttpStatus(page),
        FailureReason::UpstreamUnreachable(text()),
        FailureReason::UpstreamTimeout(text()),
        FailureReason::AnswerAborted(text()),
        FailureReason::UnreadableAnswer(HttpResponse { body: "<p>".into(), ..answer(200) }),
        FailureReason::InvalidAnswer(text()),
        FailureReason::FileUnreachable(text()),
        FailureReason::ToolServerUnreachable(text()),
        FailureReason::StorageUnavailable(text()),
        FailureReason::StorageFault(text()),
        FailureReason::InvalidRow(text()),
        FailureReason::Unsupported(text()),
        FailureReason::SchemaInvalid(answer(200).into(), text()),
        FailureReason::Processor(text()),
        FailureReason::WorkerDied(3),
    ];
    let ran = reasons.iter().map(|reason| (format!("{reason:?}"), failed(id, "a", reason)));
    let never = [NeverRan::Cancelled, NeverRan::Expired].map(|why| (format!("{why:?}"), never_ran(id, "a", why, None)));
    for (name, line) in ran.chain(never) {
        let line = String::from_utf8(line).expect("UTF-8");

        assert_eq!(problems(input(&["a"]), "", &line), [""; 0], "{name}: {line}");
    }
}
