//! Settings: each under its new name, or refused under its old one.

use super::*;

/// The chat body for a body with these members and an input, without its messages.
fn translated(members: &str) -> Result<String, Unsupported> {
    let body = format!(r#"{{"input":"hi",{members}}}"#);
    let mut chat = request(&Fields::read(body.as_bytes()).expect("an object"))?;
    chat.remove("messages").expect("there is an input");
    Ok(String::from_utf8(chat.to_json()).expect("JSON is UTF-8"))
}

fn assert_translated(cases: &[(&str, &str)]) {
    for (members, expected) in cases {
        assert_eq!(translated(members).as_deref(), Ok(*expected), "{members}");
    }
}

#[test]
fn what_both_apis_call_the_same_and_what_neither_knows_stays_as_it_was_written() {
    let members = concat!(
        r#""model":"m","temperature":0.70,"top_p":1e-1,"parallel_tool_calls":false,"metadata":{"b":"1","a":"2"},"#,
        r#""user":"u","service_tier":"flex","safety_identifier":"s","prompt_cache_key":"k","#,
        r#""prompt_cache_retention":"24h","seed":12345678901234567890,"stop":["\u00e4"],"top_k":20,"min_p":0.10,"#,
        r#""chat_template_kwargs":{"enable_thinking": false,"x":null}"#
    );

    assert_translated(&[(members, &format!("{{{members}}}")), (r#""temperature":null,"seed":null"#, "{}")]);
}

#[test]
fn settings_with_another_name_get_it() {
    assert_translated(&[
        (r#""max_output_tokens":100"#, r#"{"max_tokens":100}"#),
        (r#""reasoning":{"effort":"low","summary":null}"#, r#"{"reasoning_effort":"low"}"#),
        (r#""reasoning":{}"#, "{}"),
        (r#""text":{"verbosity":"high"}"#, r#"{"verbosity":"high"}"#),
        (r#""text":{"format":{"type":"text"}}"#, "{}"),
        (r#""text":{"format":{"type":"json_object"}}"#, r#"{"response_format":{"type":"json_object"}}"#),
        (
            concat!(
                r#""text":{"format":{"type":"json_schema","name":"n","description":"d","#,
                r#""schema":{"b":1.0,"a":2},"strict":true}}"#
            ),
            concat!(
                r#"{"response_format":{"type":"json_schema","json_schema":"#,
                r#"{"name":"n","description":"d","schema":{"b":1.0,"a":2},"strict":true}}}"#
            ),
        ),
    ]);
}

#[test]
fn log_probabilities_are_asked_for_in_either_way() {
    assert_translated(&[
        (r#""top_logprobs":5"#, r#"{"logprobs":true,"top_logprobs":5}"#),
        (r#""top_logprobs":0"#, "{}"),
        (r#""include":["message.output_text.logprobs"]"#, r#"{"logprobs":true}"#),
        (r#""include":["message.output_text.logprobs"],"top_logprobs":0"#, r#"{"logprobs":true,"top_logprobs":0}"#),
        (r#""include":[]"#, "{}"),
    ]);
}

#[test]
fn functions_are_nested() {
    assert_translated(&[
        (
            concat!(
                r#""tools":[{"type":"function","name":"f","description":"d","#,
                r#""parameters":{"z":1.50,"a": {}},"strict":null},"#,
                r#"{"name":"g","type":"function","strict":false}]"#
            ),
            concat!(
                r#"{"tools":[{"type":"function","function":{"name":"f","description":"d","#,
                r#""parameters":{"z":1.50,"a": {}}}},{"type":"function","function":{"name":"g","strict":false}}]}"#
            ),
        ),
        (r#""tools":[]"#, "{}"),
    ]);
}

#[test]
fn choices_of_a_tool_are_nested() {
    let tool = r#""tools":[{"type":"function","name":"f"}]"#;
    let nested = r#""tools":[{"type":"function","function":{"name":"f"}}]"#;
    for (choice, expected) in [
        (r#""auto""#, r#""auto""#),
        (r#""required""#, r#""required""#),
        (r#"{"type":"function","name":"f"}"#, r#"{"type":"function","function":{"name":"f"}}"#),
    ] {
        let chat = translated(&format!(r#"{tool},"tool_choice":{choice}"#));

        assert_eq!(chat, Ok(format!(r#"{{{nested},"tool_choice":{expected}}}"#)));
    }
}

#[test]
fn tools_that_are_not_allowed_are_left_out() {
    let tool = |name| format!(r#"{{"type":"function","name":"{name}"}}"#);
    let nested = |name| format!(r#"{{"type":"function","function":{{"name":"{name}"}}}}"#);
    let allowing = |mode: &str, allowed: &str| {
        let tools = [tool("f"), tool("g"), tool("h")].join(",");
        translated(&format!(
            r#""tools":[{tools}],"tool_choice":{{"type":"allowed_tools","mode":"{mode}","tools":[{allowed}]}}"#
        ))
    };

    assert_eq!(
        allowing("required", &[tool("h"), tool("f")].join(",")),
        Ok(format!(r#"{{"tools":[{},{}],"tool_choice":"required"}}"#, nested("f"), nested("h")))
    );
    assert_eq!(allowing("auto", &tool("g")), Ok(format!(r#"{{"tools":[{}],"tool_choice":"auto"}}"#, nested("g"))));
    assert_eq!(allowing("auto", ""), Ok("{}".to_owned()));
    let unknown = allowing("auto", &[tool("f"), tool("x")].join(",")).expect_err("there is no such tool");
    assert_eq!(unknown.param, "tool_choice.tools[1]");
    assert_eq!(unknown.message, "'tool_choice.tools[1]' allows 'x', which is not among 'tools'.");
    let search = allowing("auto", r#"{"type":"web_search"}"#).expect_err("it is no function");
    assert!(search.message.contains("'web_search'"), "{}", search.message);
}

#[test]
fn a_choice_among_no_tools_is_sent_only_if_it_needs_one() {
    assert_translated(&[
        (r#""tool_choice":"auto""#, "{}"),
        (r#""tool_choice":"none","tools":[]"#, "{}"),
        (r#""tool_choice":"required""#, r#"{"tool_choice":"required"}"#),
    ]);
}

#[test]
fn what_asks_for_nothing_of_the_upstream_is_left_out() {
    assert_translated(&[
        (r#""store":true,"max_tool_calls":3"#, "{}"),
        (r#""stream":false,"background":false,"truncation":"disabled","n":1"#, "{}"),
        (r#""previous_response_id":null,"conversation":null,"prompt":null,"stream_options":null"#, "{}"),
    ]);
}

#[test]
fn what_has_no_counterpart_is_refused_by_its_name() {
    for (members, param) in [
        (r#""previous_response_id":"resp_1""#, "previous_response_id"),
        (r#""conversation":"conv_1""#, "conversation"),
        (r#""prompt":{"id":"pmpt_1"}"#, "prompt"),
        (r#""context_management":[]"#, "context_management"),
        (r#""truncation":"auto""#, "truncation"),
        (r#""stream":true"#, "stream"),
        (r#""stream_options":{}"#, "stream_options"),
        (r#""background":true"#, "background"),
        (r#""n":2"#, "n"),
        (r#""reasoning":{"summary":"auto"}"#, "reasoning.summary"),
        (r#""reasoning":{"effort":"low","generate_summary":"auto"}"#, "reasoning.generate_summary"),
        (r#""reasoning":{"mode":"pro"}"#, "reasoning.mode"),
        (r#""text":{"format":{"type":"grammar"}}"#, "text.format.type"),
        (r#""text":{"format":{"type":"json_object","x":1}}"#, "text.format.x"),
        (r#""text":{"x":1}"#, "text.x"),
        (r#""include":["message.output_text.logprobs","reasoning.encrypted_content"]"#, "include"),
        (r#""tools":[{"type":"function","name":"f"},{"type":"web_search"}]"#, "tools[1]"),
        (r#""tools":[{"type":"custom","name":"c"}]"#, "tools[0]"),
        (r#""tool_choice":{"type":"mcp","server_label":"s"}"#, "tool_choice"),
        (r#""tool_choice":{"type":"allowed_tools","mode":"auto","tools":[{"type":"mcp"}]}"#, "tool_choice.tools[0]"),
        (r#""tool_choice":{"type":"allowed_tools","mode":"auto","tools":[],"x":1}"#, "tool_choice.x"),
        (r#""tool_choice":{"type":"allowed_tools","mode":"none","tools":[]}"#, "tool_choice.mode"),
    ] {
        let refused = translated(members).expect_err(members);

        assert_eq!(refused.param, param, "{members}");
        let name = param.split(['.', '[']).next().expect("a split has a first part");
        assert!(refused.message.contains(&format!("'{name}")), "{}", refused.message);
        assert!(refused.message.ends_with('.'), "{}", refused.message);
    }
}

#[test]
fn what_is_not_what_the_api_says_is_refused_by_its_place() {
    for (members, param, message) in [
        (r#""tools":{}"#, "tools", "'tools' must be an array of objects."),
        (r#""tools":[1]"#, "tools[0]", "'tools[0]' must be an object."),
        (r#""tools":[{}]"#, "tools[0].type", "Missing required parameter: 'tools[0].type'."),
        (r#""text":"x""#, "text", "'text' must be an object."),
        (r#""text":{"format":{}}"#, "text.format.type", "Missing required parameter: 'text.format.type'."),
        (r#""include":"x""#, "include", "'include' must be an array of strings."),
        (r#""top_logprobs":-1"#, "top_logprobs", "'top_logprobs' must be a whole number."),
    ] {
        assert_eq!(translated(members), Err(Unsupported { param: param.to_owned(), message: message.to_owned() }));
    }
}

#[test]
fn two_names_for_one_setting_are_refused_rather_than_one_of_them_lost() {
    for (members, param) in [
        (r#""max_output_tokens":1,"max_tokens":2"#, "max_tokens"),
        (r#""messages":[]"#, "messages"),
        (r#""reasoning":{"effort":"low"},"reasoning_effort":"high""#, "reasoning_effort"),
        (r#""text":{"format":{"type":"json_object"}},"response_format":{}"#, "response_format"),
    ] {
        assert_eq!(translated(members).expect_err(members).param, param);
    }
    assert_translated(&[(r#""max_tokens":2"#, r#"{"max_tokens":2}"#)]);
}
