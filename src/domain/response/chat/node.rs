//! An object of a request and where it stands. Its members are taken out one by one, so that what is left over is what
//! nobody has translated.

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

    /// The object that stands `at` a place of the body.
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

    /// Takes a member out as a value of a type, which is called `expected` if it is of another.
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

    /// Takes members out that mean nothing to a model.
    pub(super) fn forget(&mut self, names: &[&str]) {
        for name in names {
            self.fields.remove(name);
        }
    }

    /// The members that are left, for an upstream that may know them.
    pub(super) fn rest(self) -> Fields {
        self.fields.without_nulls()
    }

    /// Refuses what is left, which has no counterpart.
    pub(super) fn nothing_left(&self) -> Result<(), Unsupported> {
        match self.fields.iter().find(|(_, value)| value.get() != "null") {
            Some((name, _)) => Err(self.without_counterpart(name)),
            None => Ok(()),
        }
    }

    /// Where a member stands in the body.
    pub(super) fn place(&self, name: &str) -> String {
        if self.at.is_empty() { name.to_owned() } else { format!("{}.{name}", self.at) }
    }

    /// Refuses this object. `message` gets the place where it stands.
    pub(super) fn refuse(&self, message: impl FnOnce(&str) -> String) -> Unsupported {
        Unsupported { message: message(&self.at), param: self.at.clone() }
    }

    /// Refuses a member. `message` gets the place where it stands.
    pub(super) fn refuse_member(&self, name: &str, message: impl FnOnce(&str) -> String) -> Unsupported {
        let param = self.place(name);
        Unsupported { message: message(&param), param }
    }

    /// Refuses a member for which Chat Completions has nothing.
    pub(super) fn without_counterpart(&self, name: &str) -> Unsupported {
        self.refuse_member(name, |at| {
            format!("'{at}' cannot be sent to an upstream that has only /v1/chat/completions; leave it out.")
        })
    }

    fn missing(&self, name: &str) -> Unsupported {
        self.refuse_member(name, |at| format!("Missing required parameter: '{at}'."))
    }
}

/// The objects of the array that stands `at` a place of the body.
pub(super) fn nodes(at: &str, json: &RawValue) -> Result<Vec<Node>, Unsupported> {
    let wrong = |_| Unsupported { param: at.to_owned(), message: format!("'{at}' must be an array of objects.") };
    let values: Vec<Box<RawValue>> = serde_json::from_str(json.get()).map_err(wrong)?;
    (0..).zip(values).map(|(index, value): (usize, _)| Node::read(format!("{at}[{index}]"), &value)).collect()
}

/// Whether a value is a string.
pub(super) fn is_string(json: &RawValue) -> bool {
    json.get().starts_with('"')
}

/// A string as it was written, and of anything else a string with its JSON: what the arguments of a call should be.
pub(super) fn as_string(json: Box<RawValue>) -> Box<RawValue> {
    if is_string(&json) { json } else { raw(json.get()) }
}
