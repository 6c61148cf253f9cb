//! The graph of a schema's subschemas, and the bounds that follow from the schema alone.
//!
//! References are followed once and without recursion, so that no schema can exhaust the stack here. This module must
//! know every keyword that `jsonschema` descends into: an unknown keyword would be checked without being counted.

use std::collections::HashMap;

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

/// Subschemas, each counted once.
const MOST_NODES: usize = 20_000;
/// Subschemas that are applied to the same value within each other, references among them: how deep one check of one
/// value recurses.
const MOST_IN_PLACE_DEPTH: usize = 64;
/// Subschemas that are applied to the same value, counted as often as they are referred to.
const MOST_IN_PLACE: u64 = 10_000;
/// The same for all subschemas with `unevaluatedProperties` or `unevaluatedItems` together: each is compiled together
/// with all subschemas that apply to the same value.
const MOST_UNEVALUATED: u64 = 100_000;

/// The least cost of applying a subschema to a value, including the cache entry.
pub(super) const PAIR: u64 = 8;

/// A subschema's number.
pub(super) type NodeNo = usize;

/// Regular expressions, each with the number of the subschema that has it.
pub(super) type Patterns<'a> = Vec<(NodeNo, &'a str)>;

/// The subschemas of a schema. Number 0 is the schema itself.
#[derive(Default)]
pub(super) struct Shape {
    pub(super) nodes: Vec<SchemaNode>,
    /// The longest path from one subschema to another that stays at the same value.
    pub(super) in_place_depth: usize,
    /// The cost of applying every subschema once to a value of one byte.
    pub(super) weight: u64,
    /// The cost of the most expensive regular expression for each byte of a text.
    pub(super) most_per_byte: u64,
    /// Whether the cost of a pair depends on more than the pair, so that `weight` is no bound.
    pub(super) is_irregular: bool,
}

/// A subschema: which others it applies to which parts of a value, and its own cost.
#[derive(Default)]
pub(super) struct SchemaNode {
    /// The cost of comparing with its constants.
    pub(super) weight: u64,
    /// The cost of its regular expressions for each byte of a text.
    pub(super) per_byte: u64,
    /// Subschemas for the same value.
    pub(super) in_place: Vec<NodeNo>,
    /// Subschemas for members by their names.
    pub(super) properties: HashMap<Box<str>, NodeNo>,
    /// Subschemas that may be applied to any member.
    pub(super) members: Vec<NodeNo>,
    /// Subschemas for the names of members.
    pub(super) names: Vec<NodeNo>,
    /// Subschemas for elements by their positions.
    pub(super) prefix: Vec<NodeNo>,
    /// Subschemas that may be applied to any element.
    pub(super) elements: Vec<NodeNo>,
    /// Whether all elements are compared with each other (`uniqueItems`).
    pub(super) is_unique: bool,
    /// Whether it depends on which parts other subschemas have evaluated.
    pub(super) is_unevaluated: bool,
    /// How many subschemas are applied to the same value, itself included.
    pub(super) in_place_size: u64,
}

impl Shape {
    /// The shape of a schema, and its regular expressions.
    ///
    /// # Errors
    /// What in the schema is too large or not supported.
    pub(super) fn of(root: &Value) -> Result<(Self, Patterns<'_>), String> {
        let mut building =
            Building { root, shape: Self::default(), patterns: Vec::new(), known: HashMap::new(), open: Vec::new() };
        building.number(root)?;
        while let Some((no, schema)) = building.open.pop() {
            building.read(no, schema)?;
        }
        let Building { mut shape, patterns, .. } = building;
        shape.measure()?;
        Ok((shape, patterns))
    }

    /// Notes what a regular expression of a subschema costs for each byte of a text.
    pub(super) fn add_pattern(&mut self, no: NodeNo, per_byte: u64) {
        self.nodes[no].per_byte += per_byte;
        self.weight += 2 * per_byte;
        self.most_per_byte = self.most_per_byte.max(self.nodes[no].per_byte);
    }

    /// Measures the subschemas that apply to the same value, and finds cycles. The subschemas are visited in
    /// post-order, as a recursion would leave them.
    fn measure(&mut self) -> Result<(), String> {
        let mut depths = vec![0; self.nodes.len()];
        for start in 0..self.nodes.len() {
            self.measure_from(start, &mut depths)?;
        }
        let unevaluated = self.nodes.iter().filter(|node| node.is_unevaluated);
        if unevaluated.map(|node| node.in_place_size).sum::<u64>() > MOST_UNEVALUATED {
            return Err("its `unevaluatedProperties` and `unevaluatedItems` look at too many subschemas".to_owned());
        }
        Ok(())
    }

    /// Measures a subschema and those that it applies to the same value. `depths` has 0 for each that has no measure.
    fn measure_from(&mut self, start: NodeNo, depths: &mut [usize]) -> Result<(), String> {
        const OPEN: usize = usize::MAX;
        let mut way = vec![(start, 0)];
        while let Some((no, next)) = way.pop() {
            if next == 0 && depths[no] != 0 {
                continue;
            }
            depths[no] = OPEN;
            let child = self.nodes[no].in_place.get(next).copied();
            if child.is_some_and(|child| depths[child] == OPEN) {
                return Err("it refers to itself without going into the value".to_owned());
            }
            match child {
                Some(child) => way.extend([(no, next + 1), (child, 0)]),
                None => depths[no] = self.measure_one(no, depths)?,
            }
        }
        Ok(())
    }

    /// Measures a subschema whose `in_place` subschemas are measured, and returns its depth.
    fn measure_one(&mut self, no: NodeNo, depths: &[usize]) -> Result<usize, String> {
        let children = &self.nodes[no].in_place;
        let depth = 1 + children.iter().map(|&child| depths[child]).max().unwrap_or(0);
        let size = children.iter().fold(1, |sum: u64, &child| sum.saturating_add(self.nodes[child].in_place_size));
        if depth > MOST_IN_PLACE_DEPTH {
            return Err(format!(
                "more than {MOST_IN_PLACE_DEPTH} of its subschemas and references lie within each other"
            ));
        }
        if size > MOST_IN_PLACE {
            return Err(format!("more than {MOST_IN_PLACE} of its subschemas apply to one value"));
        }
        self.nodes[no].in_place_size = size;
        self.in_place_depth = self.in_place_depth.max(depth);
        self.weight = self.weight.saturating_add(2 * PAIR + self.nodes[no].weight);
        self.is_irregular |= self.nodes[no].is_irregular();
        Ok(depth)
    }
}

impl SchemaNode {
    fn is_irregular(&self) -> bool {
        self.is_unique || self.is_unevaluated || !self.names.is_empty()
    }
}

struct Building<'a> {
    root: &'a Value,
    shape: Shape,
    patterns: Patterns<'a>,
    /// The numbers of subschemas by their address.
    known: HashMap<*const Value, NodeNo>,
    open: Vec<(NodeNo, &'a Map<String, Value>)>,
}

impl<'a> Building<'a> {
    fn number(&mut self, schema: &'a Value) -> Result<NodeNo, String> {
        if let Some(no) = self.known.get(&std::ptr::from_ref(schema)) {
            return Ok(*no);
        }
        let no = self.shape.nodes.len();
        if no == MOST_NODES {
            return Err(format!("it has more than {MOST_NODES} subschemas"));
        }
        self.shape.nodes.push(SchemaNode::default());
        self.known.insert(schema, no);
        if let Value::Object(members) = schema {
            self.open.push((no, members));
        }
        Ok(no)
    }

    fn number_of_object(&mut self, schema: &'a Value) -> Result<Option<NodeNo>, String> {
        schema.is_object().then(|| self.number(schema)).transpose()
    }

    fn numbers(&mut self, schemas: impl Iterator<Item = &'a Value>) -> Result<Vec<NodeNo>, String> {
        schemas.map(|schema| self.number(schema)).collect()
    }

    fn read(&mut self, no: NodeNo, schema: &'a Map<String, Value>) -> Result<(), String> {
        let mut node = SchemaNode::default();
        for (name, value) in schema {
            match (name.as_str(), value) {
                ("$ref", Value::String(reference)) => node.in_place.push(self.behind(reference)?),
                ("$dynamicRef" | "$recursiveRef", Value::String(_)) => return Err(only_pointers(name)),
                ("$id", Value::String(_)) if no != 0 => return Err(only_pointers(name)),
                // Draft 4 has `id` for `$id`; in later drafts `id` means nothing.
                ("id", Value::String(_)) if no != 0 && self.is_of_draft_4() => return Err(only_pointers(name)),
                ("allOf" | "anyOf" | "oneOf", Value::Array(schemas)) => {
                    node.in_place.extend(self.numbers(schemas.iter())?);
                }
                ("not" | "if" | "then" | "else", Value::Object(_)) => node.in_place.push(self.number(value)?),
                ("dependentSchemas" | "dependencies", Value::Object(schemas)) => {
                    node.weight += schemas.len() as u64;
                    node.in_place.extend(self.numbers(schemas.values())?);
                }
                ("properties", Value::Object(schemas)) => {
                    node.weight += schemas.len() as u64;
                    let names = schemas.keys().map(|name| name.as_str().into());
                    node.properties.extend(names.zip(self.numbers(schemas.values())?));
                }
                ("patternProperties", Value::Object(schemas)) => {
                    self.patterns.extend(schemas.keys().map(|pattern| (no, pattern.as_str())));
                    node.members.extend(self.numbers(schemas.values())?);
                }
                ("pattern", Value::String(pattern)) => self.patterns.push((no, pattern)),
                ("additionalProperties", Value::Object(_)) => node.members.push(self.number(value)?),
                ("propertyNames", Value::Object(_)) => node.names.push(self.number(value)?),
                ("prefixItems" | "items", Value::Array(schemas)) => {
                    let numbers = self.numbers(schemas.iter())?;
                    // Which of the two applies depends on the draft. Counting both is an upper bound.
                    node.elements.extend(std::mem::replace(&mut node.prefix, numbers));
                }
                ("items" | "additionalItems" | "contains", Value::Object(_)) => node.elements.push(self.number(value)?),
                ("unevaluatedProperties", value) => {
                    node.is_unevaluated = true;
                    node.members.extend(self.number_of_object(value)?);
                }
                ("unevaluatedItems", value) => {
                    node.is_unevaluated = true;
                    node.elements.extend(self.number_of_object(value)?);
                }
                ("uniqueItems", Value::Bool(true)) => node.is_unique = true,
                ("enum" | "const" | "required" | "dependentRequired", value) => node.weight += size(value),
                _ => {}
            }
        }
        self.shape.nodes[no] = node;
        Ok(())
    }

    /// The target of a reference. `jsonschema` must find the same target, or another schema would be measured than is
    /// checked. So percent signs are decoded, and a path through an object with an `$id`, which `jsonschema` takes for
    /// another document, is refused.
    fn behind(&mut self, reference: &str) -> Result<NodeNo, String> {
        let no_pointer = || format!("its reference {reference:?} is no JSON pointer into it");
        let pointer = reference.strip_prefix('#').and_then(|pointer| percent_decode_str(pointer).decode_utf8().ok());
        let pointer = pointer.ok_or_else(no_pointer)?;
        let on_the_way = pointer.match_indices('/').skip(1).map_while(|(end, _)| self.root.pointer(&pointer[..end]));
        for object in on_the_way {
            let has_text = |name: &&str| object.get(name).is_some_and(Value::is_string);
            if let Some(name) = ["$id", "id"].into_iter().find(has_text) {
                return Err(only_pointers(name));
            }
        }
        let target = self.root.pointer(&pointer).ok_or_else(no_pointer)?;
        self.number(target)
    }

    fn is_of_draft_4(&self) -> bool {
        self.root.get("$schema").and_then(Value::as_str).is_some_and(|draft| draft.contains("draft-04"))
    }
}

fn only_pointers(name: &str) -> String {
    format!("it has `{name}`; only `$ref` with a JSON pointer is taken")
}

/// The highest cost of a comparison with a constant.
fn size(value: &Value) -> u64 {
    match value {
        Value::String(text) => 1 + text.len() as u64 / 16,
        Value::Array(elements) => 1 + elements.iter().map(size).sum::<u64>(),
        Value::Object(members) => {
            1 + members.iter().map(|(name, value)| 1 + name.len() as u64 / 16 + size(value)).sum::<u64>()
        }
        _ => 1,
    }
}
