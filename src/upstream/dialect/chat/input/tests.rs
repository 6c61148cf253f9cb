//! Conversations, item by item.

use super::*;

fn translated(members: &str) -> Result<String, Unsupported> {
    let body = Fields::read(format!("{{{members}}}").as_bytes()).expect("an object");
    let messages = take(&mut Node::body(body))?;
    Ok(serde_json::to_string(&messages).expect("it came from JSON"))
}

fn assert_items(items: &[&str], expected: &[&str]) {
    let items = items.join(",");
    let messages = translated(&format!(r#""input":[{items}]"#));
    assert_eq!(messages, Ok(format!("[{}]", expected.join(","))), "{items}");
}

fn call(id: &str) -> String {
    format!(r#"{{"type":"function_call","id":"fc_{id}","call_id":"{id}","name":"f","arguments":"{{\"n\":1.0}}"}}"#)
}

fn tool_call(id: &str) -> String {
    format!(r#"{{"id":"{id}","type":"function","function":{{"name":"f","arguments":"{{\"n\":1.0}}"}}}}"#)
}

fn calls(ids: &[&str]) -> String {
    let calls: Vec<_> = ids.iter().map(|id| tool_call(id)).collect();
    format!(r#"{{"role":"assistant","tool_calls":[{}]}}"#, calls.join(","))
}

fn output(id: &str) -> String {
    format!(r#"{{"type":"function_call_output","call_id":"{id}","output":"of {id}"}}"#)
}

fn tool(id: &str) -> String {
    format!(r#"{{"role":"tool","tool_call_id":"{id}","content":"of {id}"}}"#)
}

const USER: &str = r#"{"role":"user","content":"hi"}"#;
const REASONING: &str =
    r#"{"type":"reasoning","id":"rs_1","summary":[],"content":[{"type":"reasoning_text","text":"so"}]}"#;

#[test]
fn instructions_come_first() {
    for (members, expected) in [
        (r#""input":"h\u00efi""#, r#"[{"role":"user","content":"h\u00efi"}]"#),
        (
            r#""input":"hi","instructions":"be brief""#,
            r#"[{"role":"system","content":"be brief"},{"role":"user","content":"hi"}]"#,
        ),
        (
            r#""input":"hi","instructions":[{"role":"developer","content":"a"},{"role":"user","content":"b"}]"#,
            r#"[{"role":"system","content":"a"},{"role":"user","content":"b"},{"role":"user","content":"hi"}]"#,
        ),
    ] {
        assert_eq!(translated(members).as_deref(), Ok(expected));
    }
}

#[test]
fn what_the_system_says_in_the_beginning_is_one_message() {
    let developer = |text| format!(r#"{{"role":"developer","content":"{text}"}}"#);
    let system = |content| format!(r#"{{"role":"system","content":{content}}}"#);
    let (a, b, c) = (developer("a"), system(r#"[{"type":"input_text","text":"b"}]"#), developer("c"));
    let image = system(r#"[{"type":"input_image","image_url":"data:x"}]"#);
    let named = r#"{"role":"system","content":"n","name":"N"}"#;
    let a_and_b = system(r#""a\n\nb""#);

    assert_items(&[&a, &b, USER], &[&a_and_b, USER]);
    assert_items(
        &[&a, r#"{"type":"mcp_list_tools","id":"mcpl_1","server_label":"s","tools":[]}"#, &b, USER],
        &[&a_and_b, USER],
    );
    assert_items(&[&a, &b, USER, &a, &c], &[&a_and_b, USER, &system(r#""a""#), &system(r#""c""#)]);
    assert_items(&[&developer(""), &b], &[&system(r#""b""#)]);
    assert_items(
        &[&a, &image, &c, USER],
        &[
            &system(concat!(
                r#"[{"type":"text","text":"a"},{"type":"image_url","image_url":{"url":"data:x"}},"#,
                r#"{"type":"text","text":"c"}]"#
            )),
            USER,
        ],
    );
    assert_items(&[&a, &b, named, USER], &[&a_and_b, named, USER]);

    let instructed = translated(&format!(r#""input":[{a},{b},{USER}],"instructions":"be \"brief\"""#));
    assert_eq!(instructed, Ok(format!("[{},{USER}]", system(r#""be \"brief\"\n\na\n\nb""#))));
}

#[test]
fn every_role_has_its_message() {
    assert_items(
        &[
            r#"{"type":"message","id":"msg_1","status":"completed","role":"user","content":"a"}"#,
            r#"{"role":"system","content":"b"}"#,
            r#"{"role":"developer","content":[{"type":"input_text","text":"c"}]}"#,
            r#"{"role":"assistant","content":[{"type":"output_text","text":"d","annotations":[],"logprobs":[]}]}"#,
            r#"{"role":"user","name":"Ada","content":"e"}"#,
        ],
        &[
            r#"{"role":"user","content":"a"}"#,
            r#"{"role":"system","content":"b"}"#,
            r#"{"role":"system","content":"c"}"#,
            r#"{"role":"assistant","content":"d"}"#,
            r#"{"role":"user","content":"e","name":"Ada"}"#,
        ],
    );
}

#[test]
fn parts_of_every_kind_are_kept() {
    for (part, expected) in [
        (r#"{"type":"input_text","text":"t"}"#, r#"{"type":"text","text":"t"}"#),
        (
            r#"{"type":"input_text","text":"t","prompt_cache_breakpoint":{"mode":"explicit"}}"#,
            r#"{"type":"text","text":"t","prompt_cache_breakpoint":{"mode":"explicit"}}"#,
        ),
        (
            r#"{"type":"input_image","image_url":"data:x","detail":"high","file_id":null}"#,
            r#"{"type":"image_url","image_url":{"url":"data:x","detail":"high"}}"#,
        ),
        (r#"{"type":"input_image","image_url":"http://x"}"#, r#"{"type":"image_url","image_url":{"url":"http://x"}}"#),
        (
            r#"{"type":"input_file","filename":"a.pdf","file_data":"data:y"}"#,
            r#"{"type":"file","file":{"filename":"a.pdf","file_data":"data:y"}}"#,
        ),
        (r#"{"type":"input_file","file_id":"file-1"}"#, r#"{"type":"file","file":{"file_id":"file-1"}}"#),
        (
            r#"{"type":"input_audio","input_audio":{"data":"z","format":"wav"}}"#,
            r#"{"type":"input_audio","input_audio":{"data":"z","format":"wav"}}"#,
        ),
    ] {
        let message = |part| format!(r#"{{"role":"user","content":[{part}]}}"#);

        assert_items(&[&message(part)], &[&message(expected)]);
    }
}

#[test]
fn refusals_of_the_assistant_are_kept() {
    assert_items(
        &[
            r#"{"role":"assistant","content":[{"type":"refusal","refusal":"no"}]}"#,
            r#"{"role":"assistant","content":[{"type":"output_text","text":"a"},{"type":"refusal","refusal":"no"}]}"#,
        ],
        &[
            r#"{"role":"assistant","content":null,"refusal":"no"}"#,
            r#"{"role":"assistant","content":[{"type":"text","text":"a"},{"type":"refusal","refusal":"no"}]}"#,
        ],
    );
}

#[test]
fn adjacent_calls_are_one_message_and_outputs_keep_the_ids() {
    assert_items(
        &[USER, &call("a"), &call("b"), &output("b"), &output("a"), &call("c"), &output("c")],
        &[USER, &calls(&["a", "b"]), &tool("b"), &tool("a"), &calls(&["c"]), &tool("c")],
    );
}

#[test]
fn calls_right_after_a_message_of_the_assistant_belong_to_it() {
    assert_items(
        &[r#"{"role":"assistant","content":"look"}"#, &call("a"), &output("a")],
        &[&calls(&["a"]).replace(r#""tool_calls""#, r#""content":"look","tool_calls""#), &tool("a")],
    );
}

#[test]
fn nothing_comes_between_calls_and_their_outputs() {
    assert_items(
        &[&call("a"), r#"{"role":"assistant","content":"look"}"#, &output("a")],
        &[&calls(&["a"]).replace(r#""tool_calls""#, r#""content":"look","tool_calls""#), &tool("a")],
    );
    assert_items(&[&call("a"), &output("a"), &call("b"), USER], &[&calls(&["a"]), &tool("a"), &calls(&["b"]), USER]);
    assert_items(&[&call("a"), &call("b"), &output("a"), &call("c")], &[&calls(&["a", "b", "c"]), &tool("a")]);
}

#[test]
fn outputs_are_text_or_parts() {
    let output = |output| format!(r#"{{"type":"function_call_output","call_id":"a","name":"f","output":{output}}}"#);
    let tool = |content| format!(r#"{{"role":"tool","tool_call_id":"a","content":{content}}}"#);

    for (given, expected) in [
        (r#"[{"type":"input_text","text":"t"}]"#, r#""t""#),
        (
            r#"[{"type":"input_text","text":"t"},{"type":"input_image","image_url":"data:x"}]"#,
            r#"[{"type":"text","text":"t"},{"type":"image_url","image_url":{"url":"data:x"}}]"#,
        ),
    ] {
        assert_items(&[&output(given)], &[&tool(expected)]);
    }
}

#[test]
fn reasoning_goes_under_both_its_names_with_what_the_assistant_says_next() {
    let thoughtful =
        |content| format!(r#"{{"role":"assistant","content":{content},"reasoning_content":"so","reasoning":"so"}}"#);
    let answer = r#"{"role":"assistant","content":"yes"}"#;

    assert_items(&[REASONING, answer], &[&thoughtful(r#""yes""#)]);
    assert_items(&[REASONING, USER], &[&thoughtful(r#""""#), USER]);
    assert_items(&[USER, REASONING], &[USER, &thoughtful(r#""""#)]);
    let calls = calls(&["a"]).replace(r#""tool"#, r#""reasoning_content":"so","reasoning":"so","tool"#);
    assert_items(&[answer, REASONING, &call("a"), &output("a")], &[answer, &calls, &tool("a")]);
}

#[test]
fn reasoning_between_calls_of_one_turn_is_gathered() {
    let both = calls(&["a", "b"]).replace(r#""tool"#, r#""reasoning_content":"so\nso","reasoning":"so\nso","tool"#);

    assert_items(
        &[REASONING, &call("a"), REASONING, &call("b"), &output("a"), &output("b")],
        &[&both, &tool("a"), &tool("b")],
    );
}

#[test]
fn summaries_stand_in_for_reasoning_and_empty_reasoning_is_dropped() {
    let answer = r#"{"role":"assistant","content":"yes"}"#;
    assert_items(
        &[
            r#"{"type":"reasoning","summary":[{"type":"summary_text","text":"a"},{"type":"summary_text","text":"b"}],
                "encrypted_content":"gAAA"}"#,
            answer,
        ],
        &[r#"{"role":"assistant","content":"yes","reasoning_content":"a\nb","reasoning":"a\nb"}"#],
    );
    assert_items(&[r#"{"type":"reasoning","summary":[],"content":null}"#, answer], &[answer]);
}

#[test]
fn calls_of_mcp_tools_are_calls_of_functions_with_their_outputs() {
    let function = call("f");
    let mcp = |id: &str, rest: &str| {
        format!(r#"{{"type":"mcp_call","id":"{id}","server_label":"s","name":"n","arguments":"{{}}",{rest}}}"#)
    };
    let call =
        |id: &str| format!(r#"{{"id":"{id}","type":"function","function":{{"name":"s__n","arguments":"{{}}"}}}}"#);
    let calls = |calls: &str| format!(r#"{{"role":"assistant","tool_calls":[{calls}]}}"#);

    for (rest, content) in [
        (r#""status":"completed","approval_request_id":"mcpr_1","output":"of a","error":null"#, "of a"),
        (r#""error":"no such tool""#, "Error: no such tool"),
        (r#""error":{"type":"http_error","code":500,"message":"it broke"},"output":null"#, "Error: it broke"),
        (
            concat!(
                r#""output":null,"error":{"type":"mcp_tool_execution_error","#,
                r#""content":[{"type":"text","text":"no such file"},{"type":"text","text":"ask again"}]}"#
            ),
            r"Error: no such file\nask again",
        ),
        (r#""error":{"content":1.0}"#, r#"Error: {\"content\":1.0}"#),
    ] {
        let tool = tool("a").replace("of a", content);
        assert_items(
            &[r#"{"type":"mcp_list_tools","id":"mcpl_1","server_label":"s","tools":[]}"#, &mcp("a", rest)],
            &[&calls(&call("a")), &tool],
        );
    }
    assert_items(
        &[&function, &mcp("a", r#""output":"of a""#), &mcp("b", r#""output":"of b""#), &output("f")],
        &[&calls(&format!("{},{},{}", tool_call("f"), call("a"), call("b"))), &tool("a"), &tool("b"), &tool("f")],
    );
}

#[test]
fn arguments_that_are_an_object_become_the_string_they_should_be() {
    let call = call("a").replace(r#""{\"n\":1.0}""#, r#"{"n":1.0}"#);

    assert_items(&[&call, &output("a")], &[&calls(&["a"]), &tool("a")]);
}

#[test]
fn what_cannot_be_a_message_is_refused_by_its_place() {
    for (item, param) in [
        (r#"{"type":"item_reference","id":"msg_1"}"#, ""),
        (r#"{"type":"web_search_call","id":"ws_1"}"#, ""),
        (r#"{"type":"custom_tool_call"}"#, ""),
        (r#"{"type":"compaction","encrypted_content":"x"}"#, ""),
        (r#"{"type":"mcp_approval_request"}"#, ""),
        (r#"{"type":"mcp_approval_response","approve":false}"#, ""),
        (r#"{"type":"mcp_call","id":"a","server_label":"s","name":"n","arguments":"{}"}"#, ""),
        (r#"{"type":"reasoning","summary":[],"encrypted_content":"gAAA"}"#, ".encrypted_content"),
        (r#"{"type":"reasoning","summary":"x"}"#, ".summary"),
        (r#"{"type":"function_call","call_id":"a","name":"f","arguments":"","namespace":"n"}"#, ".namespace"),
        (r#"{"type":"function_call","name":"f","arguments":""}"#, ".call_id"),
        (r#"{"type":"function_call_output","output":"x"}"#, ".call_id"),
        (r#"{"type":"function_call_output","call_id":"a","output":"x","caller":{"type":"direct"}}"#, ".caller"),
        (r#"{"type":"function_call_output","call_id":"a","output":[{"type":"x"}]}"#, ".output[0]"),
        (r#"{"role":"tool","content":"x"}"#, ".role"),
        (r#"{"content":"x"}"#, ".role"),
        (r#"{"role":"user"}"#, ".content"),
        (r#"{"role":"user","content":7}"#, ".content"),
        (r#"{"role":"user","content":[{"type":"input_video"}]}"#, ".content[0]"),
        (r#"{"role":"user","content":[{"type":"input_text"}]}"#, ".content[0].text"),
        (r#"{"role":"user","content":[{"type":"input_image","file_id":"file-1"}]}"#, ".content[0].file_id"),
        (r#"{"role":"user","content":[{"type":"input_file","file_url":"http://x"}]}"#, ".content[0].file_url"),
    ] {
        let refused = translated(&format!(r#""input":[{USER},{item}]"#)).expect_err(item);

        let place = format!("input[1]{param}");
        assert_eq!(refused.param, place, "{item}");
        assert!(refused.message.contains(&format!("'{place}'")), "{}", refused.message);
        assert!(refused.message.ends_with('.'), "{}", refused.message);
    }
}

#[test]
fn an_input_is_needed() {
    for (members, message) in [
        (r#""instructions":"x""#, "Missing required parameter: 'input'."),
        (r#""input":7"#, "'input' must be an array of objects."),
        (r#""input":["x"]"#, "'input[0]' must be an object."),
    ] {
        assert_eq!(translated(members).expect_err(members).message, message);
    }
}
