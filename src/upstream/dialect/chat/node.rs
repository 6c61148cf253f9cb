//! An object of a request and its path. The translation takes the members out one by one; the members left over are
//! those that it does not know.

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::domain::response::{Fields, Unsupported, raw};

/// An object of a request whose members are yet to be translated.
pub(super) struct Node {
    at: String,
    fields: Fields,
}

impl Node {
    /// The request's whole body.
    pub(super) fn body(fields: Fields) -> Self {
        Self { at: String::new(), fields }
    }

    /// The object at the path `at` of the body.
    pub(super) fn read(at: String, json: &RawValue) -> Result<Self, Unsupported> {
        match serde_json::from_str(json.get()) {
            Ok(fields) => Ok(Self { at, fields }),
            Err(_) => Err(Unsupported { message: format!("'{at}' must be an object."), param: at }),
        }
    }

    /// Takes a member out as it was written; `None` if it is absent or null.
    pub(super) fn take(&mut self, name: &str) -> Option<Box<RawValue>> {
        self.fields.remove(name).filter(|value| value.get() != "null")
    }

    /// Takes a member out as a value of type `T`. The error message names the type as `expected`.
    pub(super) fn take_as<T: DeserializeOwned>(
        &mut self,
        name: &str,
        expected: &str,
    ) -> Result<Option<T>, Unsupported> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let wrong = |_| self.refuse_member(name, |at| format!("'{at}' must be {expected}."));
        serde_json::from_str(value.get()).map(Some).map_err(wrong)
    }

    /// Takes out a member that must be there.
    pub(super) fn need(&mut self, name: &str) -> Result<Box<RawValue>, Unsupported> {
        self.take(name).ok_or_else(|| self.missing(name))
    }

    /// Takes out a member that must be there as a string.
    pub(super) fn need_text(&mut self, name: &str) -> Result<String, Unsupported> {
        self.take_as(name, "a string")?.ok_or_else(|| self.missing(name))
    }

    /// Takes out an object.
    pub(super) fn take_node(&mut self, name: &str) -> Result<Option<Self>, Unsupported> {
        self.take(name).map(|value| Self::read(self.place(name), &value)).transpose()
    }

    /// Takes out an array of objects; no objects if it is absent or null.
    pub(super) fn take_nodes(&mut self, name: &str) -> Result<Vec<Self>, Unsupported> {
        self.take(name).map_or(Ok(Vec::new()), |value| nodes(&self.place(name), &value))
    }

    /// Drops members that do not matter to a model.
    pub(super) fn forget(&mut self, names: &[&str]) {
        for name in names {
            self.fields.remove(name);
        }
    }

    /// The members that are left, to be forwarded: the upstream may know them.
    pub(super) fn rest(self) -> Fields {
        self.fields.without_nulls()
    }

    /// Refuses the members that are left, which have no counterpart.
    pub(super) fn nothing_left(&self) -> Result<(), Unsupported> {
        match self.fields.iter().find(|(_, value)| value.get() != "null") {
            Some((name, _)) => Err(self.without_counterpart(name)),
            None => Ok(()),
        }
    }

    /// The path of a member in the body.
    pub(super) fn place(&self, name: &str) -> String {
        if self.at.is_empty() { name.to_owned() } else { format!("{}.{name}", self.at) }
    }

    /// Refuses this object. `message` gets its path.
    pub(super) fn refuse(&self, message: impl FnOnce(&str) -> String) -> Unsupported {
        Unsupported { message: message(&self.at), param: self.at.clone() }
    }

    /// Refuses a member. `message` gets its path.
    pub(super) fn refuse_member(&self, name: &str, message: impl FnOnce(&str) -> String) -> Unsupported {
        let param = self.place(name);
        Unsupported { message: message(&param), param }
    }

    /// Refuses a member without a counterpart in Chat Completions.
    pub(super) fn without_counterpart(&self, name: &str) -> Unsupported {
        self.refuse_member(name, |at| {
            format!("'{at}' cannot be sent to an upstream that has only /v1/chat/completions; leave it out.")
        })
    }

    fn missing(&self, name: &str) -> Unsupported {
        self.refuse_member(name, |at| format!("Missing required parameter: '{at}'."))
    }
}

/// The objects of the array at the path `at` of the body.
pub(super) fn nodes(at: &str, json: &RawValue) -> Result<Vec<Node>, Unsupported> {
    let wrong = |_| Unsupported { param: at.to_owned(), message: format!("'{at}' must be an array of objects.") };
    let values: Vec<Box<RawValue>> = serde_json::from_str(json.get()).map_err(wrong)?;
    (0..).zip(values).map(|(index, value): (usize, _)| Node::read(format!("{at}[{index}]"), &value)).collect()
}

/// Whether a value is a string.
pub(super) fn is_string(json: &RawValue) -> bool {
    json.get().starts_with('"')
}

/// The value itself if it is a string, else a string with its JSON. The arguments of a call should be such a string.
pub(super) fn as_string(json: Box<RawValue>) -> Box<RawValue> {
    if is_string(&json) { json } else { raw(json.get()) }
}
