//! JSON for people: indented, with every token as it came. Numbers are never read as numbers, which would round them.

/// Indents a text that is JSON. Of any other text, only the spaces outside of strings change.
pub(super) fn indented(json: &str) -> String {
    let mut text = String::with_capacity(json.len() * 2);
    let mut depth: usize = 0;
    let mut rest = json.char_indices().peekable();
    while let Some((at, c)) = rest.next() {
        match c {
            '"' => {
                let end = end_of_string(&json[at + 1..]).map_or(json.len(), |length| at + 1 + length);
                text.push_str(&json[at..end]);
                while rest.next_if(|(next, _)| *next < end).is_some() {}
            }
            '{' | '[' => {
                text.push(c);
                while rest.next_if(|(_, next)| next.is_ascii_whitespace()).is_some() {}
                if let Some((_, close)) = rest.next_if(|(_, next)| matches!(next, '}' | ']')) {
                    text.push(close);
                } else {
                    depth += 1;
                    new_line(&mut text, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                new_line(&mut text, depth);
                text.push(c);
            }
            ',' => {
                text.push(c);
                new_line(&mut text, depth);
            }
            ':' => text.push_str(": "),
            c if c.is_ascii_whitespace() => {}
            c => text.push(c),
        }
    }
    text
}

/// The length of what is left of a string, its last quote included; `None` if it does not end.
fn end_of_string(rest: &str) -> Option<usize> {
    let mut is_escaped = false;
    for (at, byte) in rest.bytes().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => return Some(at + 1),
            _ => {}
        }
    }
    None
}

fn new_line(text: &mut String, depth: usize) {
    text.push('\n');
    // Deeper levels would only be blanks: a hostile body of brackets must not become many times as long.
    (0..depth.min(32)).for_each(|_| text.push_str("  "));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_stay_as_they_came() {
        let cases = [
            (
                r#"{"a":1.10,"b":[12345678901234567890, 1e400]}"#,
                "{\n  \"a\": 1.10,\n  \"b\": [\n    12345678901234567890,\n    1e400\n  ]\n}",
            ),
            (r#"{ "a" : { } , "b":[ ] }"#, "{\n  \"a\": {},\n  \"b\": []\n}"),
            (r#"["a\"],{\\", "\u00e9é :,"]"#, "[\n  \"a\\\"],{\\\\\",\n  \"\\u00e9é :,\"\n]"),
            (r#""only""#, r#""only""#),
            (r#"{"cut":"of"#, "{\n  \"cut\": \"of"),
            ("]]", "\n]\n]"),
        ];
        for (json, expected) in cases {
            assert_eq!(indented(json), expected, "{json}");
        }
        assert!(indented(&"[".repeat(10_000)).len() < 1_000_000);
    }
}
