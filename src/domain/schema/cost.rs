//! The cost of checking a value against a schema, computed before the check.
//!
//! `jsonschema` caches its result for each pair of a subschema behind a reference and a value, so that a check costs at
//! most one visit of every pair. It has no such cache when it collects errors: then every path to a pair costs a visit.

use std::collections::HashMap;

use serde_json::Value;

use super::shape::{NodeNo, PAIR, Shape};

/// The cost of collecting the errors of `value`: the sum over all paths to all pairs. `None` if the sum over the pairs
/// alone, which is the cost of a check, is more than `most`.
pub(super) fn of_errors(shape: &Shape, value: &Value, most: u64) -> Option<u64> {
    Walk { shape, left: most, known: HashMap::new() }.value(0, value)
}

/// Whether a check of any value of this many bytes costs at most `most`.
pub(super) fn is_small(shape: &Shape, bytes: usize, most: u64) -> bool {
    !shape.is_irregular && shape.weight.saturating_mul(bytes as u64) <= most
}

/// The depth of a value: 1 for one that contains no other.
pub(super) fn depth(value: &Value) -> usize {
    let deepest = match value {
        Value::Array(elements) => elements.iter().map(depth).max(),
        Value::Object(members) => members.values().map(depth).max(),
        _ => None,
    };
    1 + deepest.unwrap_or(0)
}

struct Walk<'a> {
    shape: &'a Shape,
    left: u64,
    /// The cost of each pair, with all paths that start from it.
    known: HashMap<(NodeNo, *const Value), u64>,
}

impl Walk<'_> {
    fn value(&mut self, no: NodeNo, value: &Value) -> Option<u64> {
        let node = &self.shape.nodes[no];
        // Pairs that lead nowhere are not worth the memory.
        let leads_on = !node.in_place.is_empty() || matches!(value, Value::Array(_) | Value::Object(_));
        let pair = (no, std::ptr::from_ref(value));
        if leads_on && let Some(known) = self.known.get(&pair) {
            return Some(*known);
        }
        let mut sum = self.spend(if leads_on { PAIR } else { 1 } + node.weight)?;
        for &other in &node.in_place {
            sum = sum.saturating_add(self.value(other, value)?);
        }
        let within = match value {
            Value::String(text) => self.text(no, text)?,
            Value::Array(elements) => self.elements(no, elements)?,
            Value::Object(members) => self.members(no, members)?,
            _ => 0,
        };
        sum = sum.saturating_add(within);
        if node.is_unevaluated {
            let size = value.as_object().map_or(0, serde_json::Map::len).max(value.as_array().map_or(0, Vec::len));
            sum = sum.saturating_add(self.spend(node.in_place_size.saturating_mul(1 + size as u64))?);
        }
        if leads_on {
            self.known.insert(pair, sum);
        }
        Some(sum)
    }

    fn elements(&mut self, no: NodeNo, elements: &[Value]) -> Option<u64> {
        let node = &self.shape.nodes[no];
        let mut sum: u64 = 0;
        for (at, element) in elements.iter().enumerate() {
            for &other in node.prefix.get(at).into_iter().chain(&node.elements) {
                sum = sum.saturating_add(self.value(other, element)?);
            }
            if node.is_unique {
                sum = sum.saturating_add(self.all_of(element)?);
            }
        }
        Some(sum)
    }

    fn members(&mut self, no: NodeNo, members: &serde_json::Map<String, Value>) -> Option<u64> {
        let node = &self.shape.nodes[no];
        let mut sum: u64 = 0;
        for (name, member) in members {
            sum = sum.saturating_add(self.text(no, name)?);
            for &other in &node.names {
                let of_one = 1 + self.shape.most_per_byte.saturating_mul(1 + name.len() as u64);
                let of_all = of_one.saturating_mul(self.shape.nodes[other].in_place_size);
                sum = sum.saturating_add(self.spend(of_all)?);
            }
            for &other in node.properties.get(name.as_str()).into_iter().chain(&node.members) {
                sum = sum.saturating_add(self.value(other, member)?);
            }
        }
        Some(sum)
    }

    /// The cost of looking at a text.
    fn text(&mut self, no: NodeNo, text: &str) -> Option<u64> {
        let length = text.len() as u64;
        self.spend(1 + length / 64 + self.shape.nodes[no].per_byte.saturating_mul(1 + length))
    }

    /// The cost of comparing a value and all that is in it.
    fn all_of(&mut self, value: &Value) -> Option<u64> {
        let mut sum = self.spend(2 + value.as_str().map_or(0, |text| text.len() as u64 / 16))?;
        let mut add = |more: Option<u64>| {
            sum = sum.saturating_add(more?);
            Some(())
        };
        match value {
            Value::Array(elements) => elements.iter().try_for_each(|element| add(self.all_of(element)))?,
            Value::Object(members) => members.values().try_for_each(|member| add(self.all_of(member)))?,
            _ => {}
        }
        Some(sum)
    }

    fn spend(&mut self, cost: u64) -> Option<u64> {
        self.left = self.left.checked_sub(cost)?;
        Some(cost)
    }
}
