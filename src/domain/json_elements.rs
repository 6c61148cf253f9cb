//! Cuts the elements of one array out of a JSON object that comes in chunks, wherever the array stands in the object.
//! Neither the object nor the array is held.

use memchr::memchr3;

/// Finds the elements of the array that is the member `name` of an object.
///
/// Each element is given as one line: its line breaks between tokens become spaces, and all else stays as it is.
/// Whether an element is JSON is left to its reader.
pub struct ElementScanner {
    name: &'static str,
    max_rest: usize,
    max_element: usize,
    /// The object with an empty array in the place of the array.
    rest: Vec<u8>,
    state: State,
    /// Objects and arrays that are open: of the rest, or of the current element.
    depth: u32,
    string: StringState,
    /// The key that is being read, or was read last, of the object itself; as it is spelled.
    key: Vec<u8>,
    is_key: bool,
    element: Vec<u8>,
    elements: u64,
    was_found: bool,
}

/// Why a body is not read on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScanError {
    /// An element that is empty, not separated from the next one, or not closed.
    #[error("Invalid JSON in '{name}[{index}]'")]
    Malformed {
        /// The array.
        name: &'static str,
        /// The element, counted from 0.
        index: u64,
    },
    /// The member stands there twice.
    #[error("The member '{name}' stands there twice")]
    Twice {
        /// The array.
        name: &'static str,
    },
    /// An element is too long.
    #[error("'{name}[{index}]' is longer than the {limit} bytes that one request may have (--max-line-bytes)")]
    LongElement {
        /// The array.
        name: &'static str,
        /// The element, counted from 0.
        index: u64,
        /// The bound, in bytes.
        limit: usize,
    },
    /// The object without the array is too long.
    #[error("The body of the request is too large: it may have 1 MiB beside '{name}'")]
    LongRest {
        /// The array.
        name: &'static str,
    },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Outside of the array.
    Rest,
    /// Before an element, or the end of an array without elements.
    First,
    /// Before an element.
    Next,
    /// Within an element.
    Element,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum StringState {
    Outside,
    Inside,
    /// Behind a backslash.
    Escaped,
}

impl ElementScanner {
    /// A scanner at the start of an object. It holds at most `max_rest` bytes of what is no element, and elements of at
    /// most `max_element` bytes.
    #[must_use]
    pub fn new(name: &'static str, max_rest: usize, max_element: usize) -> Self {
        Self {
            name,
            max_rest,
            max_element,
            rest: Vec::new(),
            state: State::Rest,
            depth: 0,
            string: StringState::Outside,
            key: Vec::new(),
            is_key: false,
            element: Vec::new(),
            elements: 0,
            was_found: false,
        }
    }

    /// Reads the next chunk, and gives each element that ends in it to `each`.
    ///
    /// # Errors
    /// Why the body is not read on.
    pub fn push(&mut self, mut chunk: &[u8], mut each: impl FnMut(&[u8])) -> Result<(), ScanError> {
        while let Some((&byte, behind)) = chunk.split_first() {
            let plain = self.keep_text(chunk)?;
            if plain > 0 {
                chunk = &chunk[plain..];
                continue;
            }
            match self.state {
                State::Rest => self.rest(byte)?,
                State::First | State::Next => self.begin(byte)?,
                State::Element => self.element(byte, &mut each)?,
            }
            chunk = behind;
        }
        Ok(())
    }

    /// The object without the elements, and how many there were. An array that is not closed leaves an object that is
    /// none.
    #[must_use]
    pub fn finish(self) -> (Vec<u8>, u64) {
        (self.rest, self.elements)
    }

    /// Keeps what a chunk begins with of a text of an element, which most bytes are. Returns how many bytes these are.
    fn keep_text(&mut self, chunk: &[u8]) -> Result<usize, ScanError> {
        if self.state != State::Element || self.string != StringState::Inside {
            return Ok(0);
        }
        let plain = memchr3(b'"', b'\\', b'\n', chunk).unwrap_or(chunk.len());
        self.keep(&chunk[..plain])?;
        Ok(plain)
    }

    fn rest(&mut self, byte: u8) -> Result<(), ScanError> {
        if self.rest.len() >= self.max_rest {
            return Err(ScanError::LongRest { name: self.name });
        }
        self.rest.push(byte);
        if self.string != StringState::Outside {
            if self.depth == 1 && self.is_key && (self.string, byte) != (StringState::Inside, b'"') {
                self.key.push(byte);
            }
            self.string = self.string.behind(byte);
            return Ok(());
        }
        match byte {
            b'"' => {
                self.string = StringState::Inside;
                if self.depth == 1 && self.is_key {
                    self.key.clear();
                }
            }
            b'[' if self.depth == 1 && !self.is_key && self.is_named() => {
                if self.was_found {
                    return Err(ScanError::Twice { name: self.name });
                }
                self.was_found = true;
                (self.state, self.depth) = (State::First, 0);
            }
            b'{' | b'[' => {
                self.is_key = self.depth == 0;
                self.depth += 1;
            }
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            b',' if self.depth == 1 => self.is_key = true,
            b':' if self.depth == 1 => self.is_key = false,
            _ => {}
        }
        Ok(())
    }

    /// Whether the last key is the name of the array. It may be spelled with escapes.
    fn is_named(&self) -> bool {
        let decoded = || serde_json::from_slice::<String>(&[b"\"", &*self.key, b"\""].concat());
        self.key == self.name.as_bytes()
            || self.key.contains(&b'\\') && decoded().is_ok_and(|decoded| decoded == self.name)
    }

    fn begin(&mut self, byte: u8) -> Result<(), ScanError> {
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => Ok(()),
            b']' if self.state == State::First => {
                self.end();
                Ok(())
            }
            b',' | b']' | b'}' | b':' => Err(self.malformed()),
            _ => {
                self.state = State::Element;
                self.open(byte)
            }
        }
    }

    fn element(&mut self, byte: u8, each: &mut impl FnMut(&[u8])) -> Result<(), ScanError> {
        match (self.string, byte) {
            // No text of JSON has a line break as it is.
            (StringState::Inside | StringState::Escaped, b'\n') => Err(self.malformed()),
            (StringState::Inside | StringState::Escaped, _) => {
                self.string = self.string.behind(byte);
                self.keep(&[byte])
            }
            (StringState::Outside, b',' | b']') if self.depth == 0 => {
                each(self.element.trim_ascii_end());
                self.element.clear();
                self.elements += 1;
                self.state = State::Next;
                if byte == b']' {
                    self.end();
                }
                Ok(())
            }
            (StringState::Outside, b'}') if self.depth == 0 => Err(self.malformed()),
            (StringState::Outside, b'\n' | b'\r') => self.keep(b" "),
            (StringState::Outside, _) => self.open(byte),
        }
    }

    /// Keeps a byte of an element that stands outside of its texts.
    fn open(&mut self, byte: u8) -> Result<(), ScanError> {
        match byte {
            b'"' => self.string = StringState::Inside,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => self.depth -= 1,
            _ => {}
        }
        self.keep(&[byte])
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<(), ScanError> {
        if self.element.len() + bytes.len() > self.max_element {
            return Err(ScanError::LongElement { name: self.name, index: self.elements, limit: self.max_element });
        }
        self.element.extend_from_slice(bytes);
        Ok(())
    }

    fn end(&mut self) {
        self.rest.push(b']');
        (self.state, self.depth) = (State::Rest, 1);
    }

    fn malformed(&self) -> ScanError {
        ScanError::Malformed { name: self.name, index: self.elements }
    }
}

impl StringState {
    /// The state behind a byte of a text.
    fn behind(self, byte: u8) -> Self {
        match (self, byte) {
            (Self::Inside, b'\\') => Self::Escaped,
            (Self::Inside, b'"') => Self::Outside,
            _ => Self::Inside,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The elements and the rest, if the body comes in chunks of this size.
    fn scan(body: &str, size: usize) -> Result<(Vec<String>, String), ScanError> {
        let mut scanner = ElementScanner::new("rows", 100, 40);
        let mut elements = Vec::new();
        for chunk in body.as_bytes().chunks(size) {
            scanner.push(chunk, |element| elements.push(String::from_utf8(element.to_vec()).expect("it was UTF-8")))?;
        }
        let (rest, count) = scanner.finish();
        assert_eq!(count, elements.len() as u64);
        Ok((elements, String::from_utf8(rest).expect("it was UTF-8")))
    }

    #[test]
    fn elements_are_found_wherever_the_array_stands() {
        type Case = (&'static str, &'static [&'static str], &'static str);
        let cases: [Case; 9] = [
            (r#"{"a":1,"rows":[{"b":1.10},[2]],"c":"x"}"#, &[r#"{"b":1.10}"#, "[2]"], r#"{"a":1,"rows":[],"c":"x"}"#),
            (r#"{"rows" : [ 1 , "]}," ] }"#, &["1", r#""]},""#], r#"{"rows" : [] }"#),
            (
                r#"{"rows":["\"","\\"],"a":[{"rows":[1]}]}"#,
                &[r#""\"""#, r#""\\""#],
                r#"{"rows":[],"a":[{"rows":[1]}]}"#,
            ),
            ("{\"rows\":[{\r\n \"a\" :\n1}\n]}", &["{   \"a\" : 1}"], r#"{"rows":[]}"#),
            (r#"{"rows":[]}"#, &[], r#"{"rows":[]}"#),
            (r#"{"rows":{"a":[1]}}"#, &[], r#"{"rows":{"a":[1]}}"#),
            (r#"{"a":"rows","b":[1]}"#, &[], r#"{"a":"rows","b":[1]}"#),
            (r#"{"a":{"rows":[1]},"a\"":"[{"}"#, &[], r#"{"a":{"rows":[1]},"a\"":"[{"}"#),
            (r#"["rows",[1]]"#, &[], r#"["rows",[1]]"#),
        ];
        for (body, elements, rest) in cases {
            for size in [1, 2, 7, 1000] {
                let (found, left) = scan(body, size).expect("nothing is wrong");
                assert_eq!(
                    (&found[..], left.as_str()),
                    (&elements.iter().map(ToString::to_string).collect::<Vec<_>>()[..], rest),
                    "{body}"
                );
            }
        }
    }

    #[test]
    fn what_is_no_array_of_elements_is_an_error() {
        let malformed = |index| ScanError::Malformed { name: "rows", index };
        let long = "x".repeat(50);
        let cases = [
            (r#"{"rows":[1,]}"#.to_owned(), malformed(1)),
            (r#"{"rows":[,1]}"#.to_owned(), malformed(0)),
            (r#"{"rows":[1}]}"#.to_owned(), malformed(0)),
            ("{\"rows\":[\"a\nb\"]}".to_owned(), malformed(0)),
            (r#"{"rows":[1],"rows":[2]}"#.to_owned(), ScanError::Twice { name: "rows" }),
            (r#"{"rows":[1],"r\u006fws":[2]}"#.to_owned(), ScanError::Twice { name: "rows" }),
            (format!(r#"{{"rows":[1,"{long}"]}}"#), ScanError::LongElement { name: "rows", index: 1, limit: 40 }),
            (format!(r#"{{"a":"{long}","b":"{long}"}}"#), ScanError::LongRest { name: "rows" }),
        ];
        for (body, expected) in cases {
            for size in [1, 1000] {
                assert_eq!(scan(&body, size).expect_err("it is wrong"), expected, "{body}");
            }
        }
    }

    #[test]
    fn an_array_that_is_not_closed_leaves_no_object() {
        let (elements, rest) = scan(r#"{"rows":[1,{"a":2"#, 3).expect("it may go on");

        assert_eq!((elements, rest.as_str()), (vec!["1".to_owned()], r#"{"rows":["#));
    }
}
