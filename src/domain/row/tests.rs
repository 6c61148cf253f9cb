//! What is accepted of a line, and the code, param and text of each refusal.

use super::*;
use crate::fuzz::NearlyGood;

const GOOD: &str =
    r#"{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{"model":"m","messages":[]}}"#;

#[test]
fn a_row_in_order_is_read() {
    let head = inspect(GOOD, &Endpoints::KNOWN).expect("in order");

    assert_eq!(head.custom_id, "a");
    assert_eq!(head.endpoint, Endpoint::ChatCompletions);
    assert_eq!(head.model, "m");
}

#[test]
fn unknown_members_and_any_key_order_are_accepted() {
    let line = r#" {"body":{"messages":[{}],"n":1.10,"model":"m","stream":false},"extra":[1],"url":"/v1/chat/completions","method":"POST","custom_id":"\u00e9"} "#;

    assert_eq!(inspect(line, &Endpoints::KNOWN).expect("in order").custom_id, "é");
}

#[test]
fn moderations_need_no_model() {
    let line = r#"{"custom_id":"a","method":"POST","url":"/v1/moderations","body":{"input":"x"}}"#;

    assert_eq!(inspect(line, &Endpoints::KNOWN).expect("in order").model, "");
}

#[test]
fn a_line_is_json_whatever_members_it_has() {
    let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    for input in ["1e400", r#""half \ud83d""#, "[0.1234567890123456789012345678901234567890]", &deep] {
        for model in ["", r#""model":null,"#, r#""model":"m","#] {
            let line = format!(
                r#"{{"custom_id":"a","method":"POST","url":"/v1/moderations","body":{{{model}"input":{input}}}}}"#
            );
            inspect(&line, &Endpoints::KNOWN).unwrap_or_else(|error| panic!("{error}: {model} {input:.40}"));
        }
        let wrong = format!(r#"{{"custom_id":7,"body":{{"input":{input}}}}}"#);
        assert_eq!(
            inspect(&wrong, &Endpoints::KNOWN).expect_err("it has a number as its name").param(),
            Some("custom_id")
        );
    }
}

/// A line, and the code, param and text of its refusal.
type Refusal = (&'static str, &'static str, Option<&'static str>, &'static str);

fn assert_refused(cases: &[Refusal]) {
    for (line, code, param, message) in cases {
        let error = inspect(line, &Endpoints::KNOWN).expect_err(line);

        assert_eq!((error.code(), error.param(), error.to_string().as_str()), (*code, *param, *message), "{line}");
    }
}

#[test]
fn a_line_that_is_no_row_is_refused_with_code_param_and_text() {
    assert_refused(&[
        ("{", "invalid_json_line", None, "This line is not parseable as valid JSON."),
        ("{} {}", "invalid_json_line", None, "This line is not parseable as valid JSON."),
        ("\u{feff}{}", "invalid_json_line", None, "This line is not parseable as valid JSON."),
        ("{\"custom_id\":\"\0\"}", "invalid_json_line", None, "This line is not parseable as valid JSON."),
        ("[1]", "invalid_type", None, "Invalid type for this line: expected an object, but got an array instead."),
        ("null", "invalid_type", None, "Invalid type for this line: expected an object, but got null instead."),
        ("7", "invalid_type", None, "Invalid type for this line: expected an object, but got an integer instead."),
        ("{}", "missing_required_parameter", Some("custom_id"), "Missing required parameter: 'custom_id'."),
        (
            r#"{"custom_id":7}"#,
            "invalid_type",
            Some("custom_id"),
            "Invalid type for 'custom_id': expected a string, but got an integer instead.",
        ),
        (r#"{"custom_id":"a"}"#, "missing_required_parameter", Some("method"), "Missing required parameter: 'method'."),
        (
            r#"{"custom_id":"","method":"POST","url":"/v1/responses","body":{"model":"m"}}"#,
            "invalid_value",
            Some("custom_id"),
            "Invalid 'custom_id': empty string. Expected a string with minimum length 1.",
        ),
        (
            r#"{"custom_id":"a","method":"GET","url":"/v1/responses","body":{"model":"m"}}"#,
            "invalid_method",
            Some("method"),
            "Invalid value: 'GET'. Supported values are: 'POST'.",
        ),
        (
            r#"{"custom_id":"a","method":"POST","url":"/v1/nope","body":{"model":"m"}}"#,
            "url_not_found",
            Some("url"),
            "The provided url '/v1/nope' is not supported by the Batch API.",
        ),
        (
            r#"{"custom_id":"a","method":"POST","url":"/v1/responses"}"#,
            "missing_required_parameter",
            Some("body"),
            "Missing required parameter: 'body'.",
        ),
        (
            r#"{"custom_id":"a","method":"POST","url":"/v1/responses","body":"{}"}"#,
            "invalid_type",
            Some("body"),
            "Invalid type for 'body': expected an object, but got a string instead.",
        ),
    ]);
}

#[test]
fn a_row_whose_body_is_wrong_is_refused_with_code_param_and_text() {
    assert_refused(&[
        (
            r#"{"custom_id":"a","method":"POST","url":"/v1/responses","body":{}}"#,
            "invalid_request",
            Some("body.model"),
            "Model parameter is required.",
        ),
        (
            r#"{"custom_id":"a","method":"POST","url":"/v1/responses","body":{"model":["m"]}}"#,
            "invalid_type",
            Some("body.model"),
            "Invalid type for 'body.model': expected a string, but got an array instead.",
        ),
        (
            r#"{"custom_id":"a","method":"POST","url":"/v1/responses","body":{"model":"a\u0000b"}}"#,
            "model_not_found",
            Some("body.model"),
            "The provided model 'a\\u{0}b' is not supported by the Batch API.",
        ),
        (
            r#"{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{"model":"m","messages":null}}"#,
            "invalid_request",
            Some("body.messages"),
            "Messages parameter is required.",
        ),
        (
            r#"{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{"model":"m","messages":[],"stream":true}}"#,
            "streaming_unsupported",
            Some("body.stream"),
            "Chat Completions: Streaming is not supported in the Batch API.",
        ),
        (
            r#"{"custom_id":"a","method":"POST","url":"/v1/responses","body":{"model":"m","stream":"yes"}}"#,
            "invalid_type",
            Some("body.stream"),
            "Invalid type for 'body.stream': expected a boolean, but got a string instead.",
        ),
        (
            r#"{"custom_id":"a","method":"POST","url":"/v1/responses","body":{"model":"m","model":"n"}}"#,
            "invalid_request",
            None,
            "This line has a key twice in one object; which value counts would be a guess.",
        ),
        (
            r#"{"custom_id":"a","method":"POST","url":"/v1/moderations","url":"/v1/moderations","body":{"model":null,"input":"x"}}"#,
            "invalid_request",
            None,
            "This line has a key twice in one object; which value counts would be a guess.",
        ),
    ]);
}

#[test]
fn long_and_unprintable_texts_are_shortened_in_messages() {
    assert_eq!(shown("a\nb"), "a\\nb");
    assert_eq!(shown(&"é".repeat(101)).chars().count(), 101);
}

#[test]
fn fuzz_a_line_that_is_taken_says_what_its_json_says() {
    let seeds: [&[u8]; 3] = [
        GOOD.as_bytes(),
        br#"{"custom_id":"\u00e9","url":"/v1/moderations","method":"POST","body":{"input":[1,2],"stream":false}}"#,
        br#" {"body":{"instructions":"x","input":"y","model":"a\"b"},"url":"/v1/responses","method":"POST","custom_id":"7"} "#,
    ];
    bolero::check!().with_type::<NearlyGood>().with_iterations(5_000).for_each(|made| {
        let bytes = made.bytes(&seeds);
        let Ok(line) = str::from_utf8(&bytes) else { return };
        let Ok(head) = inspect(line, &Endpoints::KNOWN) else { return };
        let call: RowCall<'_> = serde_json::from_str(line).expect("an accepted row is read again to be sent");
        assert_eq!(call.custom_id, head.custom_id);
        // A number that no 64 bits hold is a row's own matter, and no `Value`.
        let Ok(value) = serde_json::from_str::<Value>(line) else { return };
        let model = value["body"]["model"].as_str().unwrap_or_default();
        let endpoint = value["url"].as_str().and_then(|url| Endpoints::KNOWN.find(url));
        let said = (value["custom_id"].as_str(), endpoint, model);
        assert_eq!(said, (Some(&*head.custom_id), Some(head.endpoint), &*head.model));
    });
}
