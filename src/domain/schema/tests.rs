//! Schemas and answers that mean harm, and those that do not.

use serde_json::Map;

use super::*;

/// Compiles and checks where there is little stack, as a caller deep within others has.
fn on_little_stack<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let done = thread::Builder::new().stack_size(512 << 10).spawn_scoped(scope, work).expect("a thread");
        done.join().expect("no panic")
    })
}

fn compiled(schema: &Value) -> Result<Schema, String> {
    on_little_stack(|| Schema::compile(&schema.to_string()))
}

fn checked(schema: &Value, text: &str) -> Result<(), String> {
    let schema = compiled(schema).expect("a schema");
    on_little_stack(|| schema.check(text))
}

/// A schema with definitions `d0` to `d<count>`, each made by `def` of a reference to the next.
fn chain(count: usize, def: impl Fn(Value) -> Value) -> Value {
    let one = |no: usize| (format!("d{no}"), def(json!({ "$ref": format!("#/$defs/d{}", no + 1) })));
    let mut defs: Map<String, Value> = (0..count).map(one).collect();
    defs.insert(format!("d{count}"), json!({ "type": "integer" }));
    json!({ "$ref": "#/$defs/d0", "$defs": defs })
}

/// `levels` of `open` and `close` around `inner`.
fn nested(levels: usize, open: &str, inner: &str, close: &str) -> String {
    format!("{}{inner}{}", open.repeat(levels), close.repeat(levels))
}

fn patterns(count: usize, pattern: impl Fn(usize) -> String) -> Value {
    let property = |no: usize| (format!("p{no}"), json!({ "pattern": pattern(no) }));
    json!({ "properties": (0..count).map(property).collect::<Map<_, _>>() })
}

#[test]
fn what_does_not_match_is_named_with_its_place() {
    let schema = json!({
        "type": "object", "required": ["n"], "additionalProperties": false,
        "properties": { "n": { "type": "integer" }, "s": { "type": "string", "pattern": "^a+$" } },
    });

    assert_eq!(checked(&schema, r#"{"n":1,"s":"aa"}"#), Ok(()));
    let cases = [
        (r#"{"n":"one"}"#, "at /n: "),
        ("{}", "at the whole: "),
        (r#"{"n":1,"s":"b"}"#, "at /s: "),
        ("{n:1}", "it is not valid JSON: "),
        ("", "it is not valid JSON: "),
    ];
    for (text, expected) in cases {
        let wrong = checked(&schema, text).expect_err(text);
        assert!(wrong.starts_with(expected), "{text}: {wrong}");
    }
}

#[test]
fn a_schema_that_would_take_too_much_is_refused() {
    let any_of = |next: Value| json!({ "anyOf": [next] });
    let twice = |keyword: &str, next: Value| json!({ keyword: [next, next] });
    let wide = json!({ "anyOf": (0..MOST_BYTES / 10).map(|_| json!({})).collect::<Vec<_>>() });
    let doubling = chain(10, |next| twice("allOf", next));
    let unevaluated = |_| json!({ "$ref": "#/$defs/d0", "unevaluatedItems": false });
    let unevaluated =
        json!({ "$defs": doubling["$defs"], "prefixItems": (0..100).map(unevaluated).collect::<Vec<_>>() });
    let deep: Value = serde_json::from_str(&nested(120, r#"{"not":"#, "{}", "}")).expect("JSON");
    let cases = [
        (chain(4_000, any_of), "lie within each other"),
        (chain(4_000, |next| next), "lie within each other"),
        (chain(65, |next| json!({ "if": next })), "lie within each other"),
        (deep, "lie within each other"),
        (chain(40, |next| twice("allOf", next)), "apply to one value"),
        (chain(40, |next| twice("oneOf", next)), "apply to one value"),
        (chain(12, |next| json!({ "anyOf": [next, next, next] })), "apply to one value"),
        (json!({ "$ref": "#" }), "without going into the value"),
        (json!({ "allOf": [{ "$ref": "#" }, { "$ref": "#" }] }), "without going into the value"),
        (
            json!({ "$defs": { "a": { "not": { "$ref": "#/$defs/b" } }, "b": { "if": { "$ref": "#/$defs/a" } } },
            "$ref": "#/$defs/a" }),
            "without going into the value",
        ),
        (wide, "subschemas"),
        (unevaluated, "unevaluated"),
        (json!({ "description": "x".repeat(MOST_BYTES) }), "larger than"),
        (json!({ "properties": { "a": { "$id": "http://x/", "$ref": "#/b" } } }), "`$id`"),
        (json!({ "$schema": "http://json-schema.org/draft-04/schema#", "not": { "id": "http://x/" } }), "`id`"),
        (json!({ "$ref": "http://127.0.0.1:9/schema.json" }), "no JSON pointer"),
        (
            json!({ "$ref": "#/$defs/%61", "$defs": { "%61": true, "a": { "$ref": "#/$defs/a" } } }),
            "without going into the value",
        ),
        (
            json!({ "$ref": "#/$defs/x/$defs/y", "$defs": { "z": true, "x": {
                "$id": "http://x/",
                "$defs": { "z": { "type": "integer" }, "y": { "$ref": "#/$defs/z" } }
            } } }),
            "`$id`",
        ),
        (json!({ "$dynamicRef": "#x" }), "`$dynamicRef`"),
        (json!({ "type": "strang" }), "strang"),
    ];
    for (schema, expected) in &cases {
        assert_refused(schema, expected);
    }
    assert!(Schema::compile("{").is_err());
    assert!(Schema::compile(&nested(200, r#"{"not":"#, "{}", "}")).is_err(), "nested too deeply to be read");
}

#[test]
fn patterns_that_would_take_too_much_are_refused() {
    let cases = [
        (patterns(200, |no| format!("^(\\pL{{60}}){{4}}{no}$")), "patterns"),
        (patterns(64, |no| format!("^(a|b|c){{200}}{no}$")), "when they are compiled"),
        (patterns(1, |_| "^(\\pL{60}){4}7$".to_owned()), "cannot be compiled"),
        (patterns(1, |_| "((((a{100}){100}){100}){100})x".to_owned()), "cannot be compiled"),
        (patterns(1, |_| "(".repeat(2_000)), "cannot be compiled"),
        (patterns(1, |_| "(?=a(?=b".repeat(200)), "cannot be compiled"),
        (patterns(1, |_| "\\pL".repeat(1_000)), "longer than"),
        (patterns(1, |_| "(a)\\1".to_owned()), "back-references"),
        (json!({ "patternProperties": { "^(\\pL{60}){4}7$": true } }), "cannot be compiled"),
        (
            json!({ "patternProperties": (0..65).map(|no| (format!("^{no}"), json!({}))).collect::<Map<_, _>>() }),
            "patterns",
        ),
    ];
    for (schema, expected) in &cases {
        assert_refused(schema, expected);
    }
}

fn assert_refused(schema: &Value, expected: &str) {
    let wrong = compiled(schema).expect_err(expected);
    assert!(wrong.contains(expected), "{expected}: {wrong}");
    assert!(wrong.len() < 1_000, "{expected}");
}

#[test]
fn percent_signs_in_references_are_decoded() {
    let schema =
        compiled(&json!({ "$ref": "#/definitions/P%3CFoo%3E", "definitions": { "P<Foo>": { "type": "string" } } }));

    let schema = schema.expect("generators write such names");
    assert!(schema.check("\"a\"").is_ok() && schema.check("1").is_err());
}

#[test]
fn an_answer_that_would_take_too_much_is_refused_or_checked_within_bounds() {
    // Two ways to each level: without a memory of what was found out, 2^60 are tried, and as many errors are gathered.
    let two_ways = json!({ "anyOf": [
        { "type": "object", "properties": { "x": { "$ref": "#" } }, "required": ["x"] },
        { "type": "object", "properties": { "x": { "$ref": "#" } }, "required": ["x", "y"] },
    ] });
    let both_ways = json!({ "allOf": [
        { "properties": { "x": { "$ref": "#" } } }, { "additionalProperties": { "$ref": "#" } },
    ] });
    let long_way = chain(28, |next| json!({ "anyOf": [next] }));
    let long_way = json!({ "$defs": long_way["$defs"], "items": { "$ref": "#" }, "$ref": "#/$defs/d0" });
    let items = json!({ "items": { "anyOf": (0..1_000).map(|no| json!({ "const": no })).collect::<Vec<_>>() } });
    let unique = json!({ "items": { "$ref": "#" }, "uniqueItems": true });
    let pattern = json!({ "items": { "pattern": "^([a-f]|[b-g]|[c-h]){1,200}x" } });
    let names = json!({ "propertyNames": { "pattern": "^([a-f]|[b-g]|[c-h]){1,200}x" } });
    let text = "abcdefgh".repeat(50_000);
    let x = |levels| nested(levels, r#"{"x":"#, "7", "}");
    let list = |count: usize| format!("[{}7]", "7777,".repeat(count));
    let cases = [
        (&two_ways, x(20), "does not match"),
        (&two_ways, x(60), "does not match"),
        (&two_ways, x(126), "does not match"),
        (&two_ways, x(128), "recursion limit"),
        (&two_ways, x(500_000), "recursion limit"),
        (&both_ways, x(20), ""),
        (&both_ways, x(126), ""),
        (&long_way, nested(126, "[", "", "]"), "nested too deeply"),
        (&items, list(500_000), "too large to be checked"),
        (&unique, list(100_000), "does not match"),
        (&unique, nested(100, "[", &list(100_000), "]"), "too large to be checked"),
        (&pattern, format!("[\"{text}\"]"), "too large to be checked"),
        (&names, format!("{{\"{text}\":1}}"), "too large to be checked"),
        (&two_ways, " ".repeat(MOST_TEXT_BYTES + 1), "longer than"),
    ];
    for (schema, text, expected) in cases {
        let shown = shortened(&text);
        match checked(schema, &text) {
            Ok(()) => assert_eq!(expected, "", "{shown}"),
            Err(wrong) => {
                assert!(!expected.is_empty() && wrong.contains(expected), "{shown}: {wrong}");
                assert!(wrong.len() < 1_000, "{shown}");
            }
        }
    }
}

/// A union of objects that are told apart by one member, and contain it again.
fn expression() -> Value {
    let operation = |kind: Value| {
        let operand = json!({ "$ref": "#/$defs/expression" });
        json!({ "type": "object", "properties": { "kind": kind, "left": operand, "right": operand },
            "required": ["kind", "left", "right"], "additionalProperties": false })
    };
    let number = json!({ "type": "object",
        "properties": { "kind": { "const": "number" }, "value": { "type": "number" } },
        "required": ["kind", "value"], "additionalProperties": false });
    let kinds = ["number", "sum", "product"].map(|kind| json!({ "$ref": format!("#/$defs/{kind}") }));
    json!({
        "$defs": {
            "expression": { "anyOf": kinds }, "number": number,
            "sum": operation(json!({ "const": "sum" })), "product": operation(json!({ "enum": ["product"] })),
        },
        "$ref": "#/$defs/expression",
    })
}

/// Schemas as the documentation of structured outputs, Pydantic and Zod have them, each with an answer that matches and
/// one that does not.
fn ordinary() -> Vec<(Value, &'static str, &'static str)> {
    let expression = expression();
    vec![
        (
            json!({ "type": "object", "properties": { "left": { "$ref": "#" }, "right": { "$ref": "#" } } }),
            r#"{"left":{"right":{},"left":{"left":{}}}}"#,
            r#"{"left":{"right":7}}"#,
        ),
        (
            expression,
            r#"{"kind":"sum","left":{"kind":"number","value":1},"right":{"kind":"product","left":{"kind":"number","value":2},"right":{"kind":"number","value":3}}}"#,
            r#"{"kind":"sum","left":{"kind":"number","value":1}}"#,
        ),
        (
            json!({ "$defs": { "node": { "type": "object", "properties": { "value": { "type": "number" },
                    "next": { "anyOf": [{ "$ref": "#/$defs/node" }, { "type": "null" }] } },
                    "required": ["value", "next"], "additionalProperties": false } },
                "type": "object", "properties": { "list": { "$ref": "#/$defs/node" } }, "required": ["list"] }),
            r#"{"list":{"value":1,"next":{"value":2,"next":null}}}"#,
            r#"{"list":{"value":1}}"#,
        ),
        (
            json!({ "type": "object", "properties": { "item": { "oneOf": [
                { "type": "object", "required": ["type", "x"],
                    "properties": { "type": { "const": "a" }, "x": { "type": "string" } } },
                { "type": "object", "required": ["type", "y"],
                    "properties": { "type": { "const": "b" }, "y": { "type": ["integer", "null"] } } },
            ], "discriminator": { "propertyName": "type" } } } }),
            r#"{"item":{"type":"b","y":null}}"#,
            r#"{"item":{"type":"b","x":"y"}}"#,
        ),
        (
            json!({ "type": "object", "properties": {
                "name": { "type": "string", "pattern": "^[\\w .'-]{1,200}$" },
                "letters": { "type": "string", "pattern": "^\\p{L}{1,255}$" },
                "handle": { "type": "string", "pattern": "^@[a-zA-Z0-9_]{1,64}$" },
                "mail": { "type": "string", "pattern": "^[a-zA-Z0-9._%+-]+@[a-zA-Z0-9.-]+\\.[a-zA-Z]{2,}$" },
                "id": { "type": "string",
                    "pattern": "^[0-9a-f]{8}-[0-9a-f]{4}-[1-5][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$" },
                "date": { "type": "string", "pattern": "^\\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\\d|3[01])$" },
            } }),
            r#"{"name":"Ann","letters":"Änn","handle":"@a","mail":"a@b.org","id":"123e4567-e89b-12d3-a456-426614174000","date":"2024-02-29"}"#,
            r#"{"date":"2024-13-29"}"#,
        ),
        (
            json!({ "$schema": "http://json-schema.org/draft-07/schema#", "$id": "https://example.com/when",
                "definitions": { "when": { "type": "string", "format": "date-time" } },
                "properties": { "at": { "$ref": "#/definitions/when" }, "mail": { "format": "email" },
                    "id": { "format": "uuid" }, "all": { "type": "array", "items": [{ "type": "integer" }],
                        "additionalItems": { "type": "string" } } },
                "dependencies": { "at": ["mail"] } }),
            r#"{"at":"2024-02-29T10:00:00Z","mail":"a@b.org","all":[1,"a"]}"#,
            r#"{"at":"yesterday","mail":"a@b.org"}"#,
        ),
    ]
}

/// The same, for keywords that those rarely use.
fn rarer() -> Vec<(Value, &'static str, &'static str)> {
    vec![
        (
            json!({ "type": "object", "patternProperties": { "^x-": { "type": "string" } },
                "propertyNames": { "pattern": "^[a-z-]+$" }, "minProperties": 1,
                "additionalProperties": { "type": "array", "uniqueItems": true, "contains": { "const": 1 } } }),
            r#"{"x-a":"b","c":[1,2]}"#,
            r#"{"c":[2]}"#,
        ),
        (
            json!({ "allOf": [{ "$ref": "#/$defs/base" }, { "properties": { "b": { "type": "integer" } } }],
                "unevaluatedProperties": false,
                "$defs": { "base": { "type": "object", "properties": { "a": { "type": "integer" } } } } }),
            r#"{"a":1,"b":2}"#,
            r#"{"a":1,"c":2}"#,
        ),
        (
            json!({ "if": { "properties": { "kind": { "const": "a" } } },
                "then": { "required": ["a"] }, "else": { "required": ["b"] } }),
            r#"{"kind":"a","a":1}"#,
            r#"{"kind":"b","a":1}"#,
        ),
        (json!(true), "7", "{"),
        (
            json!({ "properties": { "$ref": { "type": "string" }, "$id": { "type": "string" } } }),
            r#"{"$ref":"a"}"#,
            r#"{"$ref":1}"#,
        ),
        (chain(20, |next| json!({ "anyOf": [next] })), "7", "\"7\""),
        (chain(100, |next| json!({ "items": next })), "[[[]]]", "{"),
        (chain(10, |next| json!({ "allOf": [next, next] })), "7", "\"7\""),
    ]
}

#[test]
fn an_ordinary_schema_is_taken() {
    for (schema, good, bad) in ordinary().into_iter().chain(rarer()) {
        assert_eq!(checked(&schema, good), Ok(()), "{schema}");
        let wrong = checked(&schema, bad).expect_err(bad);
        assert!(wrong.starts_with("at ") || wrong.contains("JSON"), "{bad}: {wrong}");
    }
}

#[test]
fn a_large_schema_and_a_large_answer_are_taken() {
    // The largest that OpenAI takes has 5,000 properties.
    let properties =
        |count: usize| (0..count).map(|no| (format!("property_{no}"), json!({ "type": "string", "minLength": 1 })));
    let properties = properties(3_000).collect::<Map<_, _>>();
    let object = json!({ "type": "object", "properties": properties, "additionalProperties": false });
    let answer: Map<String, Value> = (0..3_000).map(|no| (format!("property_{no}"), json!("x".repeat(100)))).collect();
    assert_eq!(checked(&object, &Value::Object(answer).to_string()), Ok(()));

    let rows = json!({ "type": "array", "items": { "type": "object", "required": ["mail", "kind"], "properties": {
        "mail": { "type": "string", "pattern": "^[^@]+@[^@]+$" }, "kind": { "enum": ["a", "b", "c"] },
        "score": { "type": "number" },
    } } });
    let answer = vec![json!({ "mail": "somebody@example.com", "kind": "b", "score": 0.5 }); 8_000];
    assert_eq!(checked(&rows, &Value::Array(answer).to_string()), Ok(()));
}

#[test]
fn alternatives_that_contain_themselves_are_checked_however_deep_the_answer_is() {
    let open = r#"{"kind":"sum","right":{"kind":"number","value":1},"left":"#;
    let deep = |inner: &str| nested(60, open, inner, "}");

    assert_eq!(checked(&expression(), &deep(r#"{"kind":"number","value":1}"#)), Ok(()));
    assert!(checked(&expression(), &deep(r#"{"kind":"number","value":"1"}"#)).is_err());
}

/// The deepest that is taken, where the least stack is left.
#[test]
fn what_is_taken_needs_no_more_stack_than_there_is() {
    let in_place: Value =
        serde_json::from_str(&nested(60, r#"{"not":"#, r##"{"items":{"$ref":"#"}}"##, "}")).expect("JSON");
    let items: Value = serde_json::from_str(&nested(125, r#"{"items":"#, "{}", "}")).expect("JSON");
    let chained = chain(300, |next| json!({ "properties": { "a": { "items": { "anyOf": [{ "not": next }] } } } }));

    for levels in [2, 30, 66] {
        let expected = if levels % 2 == 0 { Ok(()) } else { Err("it does not match the schema".to_owned()) };
        assert_eq!(checked(&in_place, &nested(levels, "[", "", "]")), expected, "{levels}");
    }
    assert_eq!(checked(&items, &nested(126, "[", "", "]")), Ok(()));
    assert_eq!(checked(&chained, r#"{"a":[]}"#), Ok(()));
    let shallow = chain(23, |next| json!({ "allOf": [next] }));
    let shallow = json!({ "$defs": shallow["$defs"], "items": { "$ref": "#" }, "not": { "$ref": "#/$defs/d0" } });
    assert_eq!(checked(&shallow, "[[[]]]"), Ok(()), "as deep as is checked on any stack");
}
