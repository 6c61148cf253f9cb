//! A JSON object whose members stay as they were written, including their order and the text of numbers.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use serde::de::{Deserialize, DeserializeOwned, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap as _, Serializer};
use serde_json::value::{RawValue, to_raw_value};

/// A value of this program as JSON.
///
/// # Panics
/// If it has no form in JSON, such as a map with keys that are no strings.
#[must_use]
pub fn raw(value: &(impl Serialize + ?Sized)) -> Box<RawValue> {
    to_raw_value(value).expect("the value has a form in JSON")
}

/// The members of a JSON object in order, each as it was written. If a name stands twice, the last member counts.
#[derive(Debug, Clone, Default)]
pub struct Fields(Vec<(String, Box<RawValue>)>);

impl Fields {
    /// The object in `json`.
    ///
    /// # Errors
    /// Why it is not one.
    pub fn read(json: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(json)
    }

    /// A member as it was written. `None` if it is absent or null, which mean the same in this API.
    #[must_use]
    pub fn raw(&self, name: &str) -> Option<&RawValue> {
        let (_, value) = self.0.iter().find(|(known, _)| known == name)?;
        (value.get() != "null").then_some(value)
    }

    /// A member as a value of a type; `None` if it is absent or null.
    ///
    /// # Errors
    /// Why it is of another type.
    pub fn get<T: DeserializeOwned>(&self, name: &str) -> serde_json::Result<Option<T>> {
        self.raw(name).map(|value| serde_json::from_str(value.get())).transpose()
    }

    /// Sets a member. It keeps its position if it exists, and is added at the end otherwise.
    ///
    /// # Panics
    /// If the value cannot be JSON, such as a map with keys that are no strings.
    pub fn set(&mut self, name: &str, value: &(impl Serialize + ?Sized)) {
        let value = raw(value);
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }

    /// Takes a member out.
    pub fn remove(&mut self, name: &str) -> Option<Box<RawValue>> {
        let position = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.remove(position).1)
    }

    /// The object without the members that are null.
    #[must_use]
    pub fn without_nulls(mut self) -> Self {
        self.0.retain(|(_, value)| value.get() != "null");
        self
    }

    /// The members in their order, nulls among them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &RawValue)> {
        self.0.iter().map(|(name, value)| (name.as_str(), &**value))
    }

    /// The object as JSON.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("it came from JSON")
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Members)
    }
}

/// Reads the members of an object in their order. A name that occurs twice has its last value.
struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Fields;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let mut fields = Fields::default();
        // An object may have a million members, so a linear search for each would be too slow.
        let mut positions: HashMap<String, usize> = HashMap::new();
        while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
            match positions.entry(name) {
                Entry::Occupied(known) => fields.0[*known.get()].1 = value,
                Entry::Vacant(new) => {
                    fields.0.push((new.key().clone(), value));
                    new.insert(fields.0.len() - 1);
                }
            }
        }
        Ok(fields)
    }
}

impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_stay_as_they_were_written() {
        let json = r#"{"b":1.10,"a":12345678901234567890,"b":2.50,"n":null,"s":"\u00e4"}"#;
        let mut fields = Fields::read(json.as_bytes()).expect("an object");

        assert_eq!(fields.get::<f64>("b").expect("a number"), Some(2.5));
        assert!(fields.raw("n").is_none() && fields.raw("x").is_none());
        assert!(fields.get::<u8>("s").is_err());

        fields.set("x", &[1]);
        fields.set("s", "t");
        fields.remove("n");
        assert_eq!(fields.to_json(), br#"{"b":2.50,"a":12345678901234567890,"s":"t","x":[1]}"#);
        assert!(Fields::read(b"[]").is_err());
    }
}
