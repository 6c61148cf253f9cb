//! Cutting a stream of chunks of JSON into the elements of one array, such as the requests in the body of a call.
//!
//! The body is an object. The elements of the array that one of its members has come out one by one; all other members
//! are kept, and so must be few. Only brackets and strings are looked at: whoever gets an element, or the rest,
//! parses it.

/// Cuts chunks of a JSON object into the elements of the array that a member has, and the rest.
pub struct ElementSplitter {
    member: &'static str,
    limits: ElementLimits,
    /// The object without the elements.
    rest: Vec<u8>,
    /// The current element, while the array is open.
    element: Option<Vec<u8>>,
    /// Whether the array has had a comma.
    has_comma: bool,
    /// How many brackets are open: in the element, or else in the rest.
    depth: usize,
    in_string: bool,
    is_escaped: bool,
    /// Where the last string directly in the object begins in the rest, and the end of the last that is a name.
    string_at: usize,
    name: Option<(usize, usize)>,
}

/// The bounds of what an [`ElementSplitter`] holds, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct ElementLimits {
    /// Of an element.
    pub element: usize,
    /// Of everything else.
    pub rest: usize,
}

/// Why the rest of a body is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ElementError {
    /// An element is too long.
    #[error("an element is longer than {0} bytes")]
    ElementTooLong(usize),
    /// The other members are too long.
    #[error("what is beside the array is longer than {0} bytes")]
    RestTooLong(usize),
}

impl ElementSplitter {
    /// A splitter at the start of a body, for the array of a member of this name.
    #[must_use]
    pub fn new(member: &'static str, limits: ElementLimits) -> Self {
        let (rest, element) = (Vec::new(), None);
        let (has_comma, depth, in_string, is_escaped, string_at, name) = (false, 0, false, false, 0, None);
        Self { member, limits, rest, element, has_comma, depth, in_string, is_escaped, string_at, name }
    }

    /// Takes the next chunk, and gives every element that ends in it to `each`: its text, which may be empty or no JSON
    /// if the body is none.
    ///
    /// # Errors
    /// Something is longer than its bound, or what `each` returned.
    pub fn push<E: From<ElementError>>(
        &mut self,
        chunk: &[u8],
        mut each: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        for &byte in chunk {
            if self.element.is_some() {
                self.in_array(byte, &mut each)?;
            } else {
                self.outside(byte)?;
            }
        }
        Ok(())
    }

    /// The object with an empty array in the place of the elements. No JSON if the body was cut off.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.rest
    }

    fn in_array<E: From<ElementError>>(
        &mut self,
        byte: u8,
        each: &mut impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let is_between = self.depth == 0 && !self.in_string;
        let element = self.element.get_or_insert_default();
        if is_between && matches!(byte, b',' | b']') {
            let text = element.trim_ascii();
            // An empty array has no element.
            if self.has_comma || byte == b',' || !text.is_empty() {
                each(text)?;
            }
            element.clear();
            self.has_comma = byte == b',';
            if byte == b']' {
                self.element = None;
                self.depth = 1;
                self.rest.push(byte);
            }
            return self.bounded().map_err(E::from);
        }
        if element.len() >= self.limits.element {
            return Err(ElementError::ElementTooLong(self.limits.element).into());
        }
        element.push(byte);
        self.look_at(byte);
        Ok(())
    }

    fn outside(&mut self, byte: u8) -> Result<(), ElementError> {
        let is_in_object = self.depth == 1 && !self.in_string;
        match byte {
            b'"' if is_in_object => self.string_at = self.rest.len(),
            b':' if is_in_object => self.name = Some((self.string_at, self.rest.len())),
            b',' if is_in_object => self.name = None,
            _ => {}
        }
        self.rest.push(byte);
        if byte == b'[' && is_in_object && self.is_named() {
            self.element = Some(Vec::new());
            self.depth = 0;
        } else {
            self.look_at(byte);
        }
        self.bounded()
    }

    /// Whether the value that begins here is that of the member.
    fn is_named(&self) -> bool {
        let name = self.name.and_then(|(start, end)| self.rest.get(start..end));
        name.and_then(|name| serde_json::from_slice::<String>(name).ok()).is_some_and(|name| name == self.member)
    }

    fn look_at(&mut self, byte: u8) {
        if self.is_escaped {
            self.is_escaped = false;
            return;
        }
        match byte {
            b'\\' if self.in_string => self.is_escaped = true,
            b'"' => self.in_string = !self.in_string,
            b'{' | b'[' if !self.in_string => self.depth += 1,
            b'}' | b']' if !self.in_string => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
    }

    fn bounded(&self) -> Result<(), ElementError> {
        if self.rest.len() > self.limits.rest { Err(ElementError::RestTooLong(self.limits.rest)) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: ElementLimits = ElementLimits { element: 30, rest: 200 };

    /// A body, its elements, and its rest.
    type Case = (&'static str, &'static [&'static str], &'static str);

    /// The elements and the rest of a body that comes in chunks of this size.
    fn split(body: &str, size: usize) -> Result<(Vec<String>, String), ElementError> {
        let mut splitter = ElementSplitter::new("requests", LIMITS);
        let mut elements = Vec::new();
        for chunk in body.as_bytes().chunks(size) {
            splitter.push(chunk, |element| {
                elements.push(str::from_utf8(element).expect("UTF-8").to_owned());
                Ok::<_, ElementError>(())
            })?;
        }
        Ok((elements, String::from_utf8(splitter.finish()).expect("UTF-8")))
    }

    #[test]
    fn elements_come_out_one_by_one_and_the_rest_is_kept() {
        let cases: [Case; 11] = [
            (r#"{"requests":[{"a":1},{"b":[2,3]}]}"#, &[r#"{"a":1}"#, r#"{"b":[2,3]}"#], r#"{"requests":[]}"#),
            (r#"{"a":"[","requests" : [ 1 , 2 ] ,"b":{}}"#, &["1", "2"], r#"{"a":"[","requests" : [] ,"b":{}}"#),
            (r#"{"requests":["]\",[",{"a":"\\"}]}"#, &[r#""]\",[""#, r#"{"a":"\\"}"#], r#"{"requests":[]}"#),
            (r#"{"requests":[]}"#, &[], r#"{"requests":[]}"#),
            (r#"{"requests":[ ]}"#, &[], r#"{"requests":[]}"#),
            (r#"{"requests":[1,]}"#, &["1", ""], r#"{"requests":[]}"#),
            (r#"{"re\u0071uests":[1]}"#, &["1"], r#"{"re\u0071uests":[]}"#),
            (r#"{"a":{"requests":[1]},"b":["requests",[2]]}"#, &[], r#"{"a":{"requests":[1]},"b":["requests",[2]]}"#),
            (r#"{"requests":{"a":[1]}}"#, &[], r#"{"requests":{"a":[1]}}"#),
            (r#"{"requests":[1"#, &[], r#"{"requests":["#),
            (r#"["requests",[1]]"#, &[], r#"["requests",[1]]"#),
        ];
        for (body, elements, rest) in cases {
            for size in [1, 3, 100] {
                let (found, left) = split(body, size).expect("within the limits");
                let found: Vec<&str> = found.iter().map(String::as_str).collect();
                assert_eq!((&found[..], left.as_str()), (elements, rest), "{body}");
            }
        }
    }

    #[test]
    fn what_is_held_is_bounded() {
        let long = format!(r#"{{"requests":["{}"]}}"#, "x".repeat(40));
        assert_eq!(split(&long, 7), Err(ElementError::ElementTooLong(30)));
        let beside = format!(r#"{{"a":"{}","requests":[]}}"#, "x".repeat(300));
        assert_eq!(split(&beside, 7), Err(ElementError::RestTooLong(200)));
        let many = format!(r#"{{"requests":[{}1]}}"#, "1,".repeat(150));
        assert!(split(&many, 7).is_ok());
    }
}
