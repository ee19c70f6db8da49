//! The input schema of a tool (JSON Schema), as far as a command line needs it: the names and types of arguments, and
//! the conversion of `name=value` to JSON. Other rules of a schema are left to the server.

use std::cell::RefCell;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::error::Error;
use crate::jsonrpc::{all_members, member};

/// The largest number of `$ref` that are followed in a row.
const MAX_REFERENCES: usize = 16;
/// The largest number of alternatives of one argument. A schema may refer to itself.
const MAX_ALTERNATIVES: usize = 256;

/// The schema of a tool's arguments.
#[derive(Debug, Default)]
pub struct InputSchema {
    /// The whole schema.
    whole: Value,
    /// The properties, each with its schema, in the order of the server.
    properties: Vec<(String, Value)>,
}

impl<'de> Deserialize<'de> for InputSchema {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        let whole = serde_json::from_str(raw.get()).map_err(D::Error::custom)?;
        // A `Value` does not keep the order of its members.
        let properties = RefCell::new(Vec::new());
        let is_object = all_members(member(raw.get(), "properties").unwrap_or("{}"), |name, schema| {
            let schema = serde_json::from_str(schema).map(|schema| (name.to_owned(), schema));
            schema.map(|property| properties.borrow_mut().push(property)).is_ok()
        });
        match is_object {
            true => Ok(Self { whole, properties: properties.into_inner() }),
            false => Err(D::Error::custom("the properties of a schema are no object")),
        }
    }
}

impl InputSchema {
    /// The arguments with their types for people, required arguments first. `?` marks optional ones, `…` further
    /// arguments.
    pub(super) fn signature(&self) -> String {
        let show = |(name, schema): &&(String, Value)| {
            let mark = if self.is_required(name) { "" } else { "?" };
            let default = schema.get("default").map(|value| format!(" = {value}")).unwrap_or_default();
            format!("{name}{mark}: {}{default}", self.kind(schema))
        };
        let (required, optional): (Vec<_>, Vec<_>) =
            self.properties.iter().partition(|(name, _)| self.is_required(name));
        let mut parts: Vec<String> = required.iter().chain(&optional).map(show).collect();
        if self.is_open() {
            parts.push("…".to_owned());
        }
        parts.join(", ")
    }

    /// The arguments in JSON from pairs of name and text.
    ///
    /// # Errors
    /// [`Error::Arguments`] for an unknown or repeated name, a missing required argument, or a text that has none of
    /// the types.
    pub fn arguments(&self, pairs: &[(String, String)]) -> Result<Map<String, Value>, Error> {
        let mut arguments = Map::new();
        for (name, text) in pairs {
            let schema = self.properties.iter().find(|(known, _)| known == name).map(|(_, schema)| schema);
            let value = match schema {
                Some(schema) => self.value(name, schema, text)?,
                None if self.is_open() => untyped(text),
                None => return Err(self.complain(&format!("there is no argument \"{name}\""))),
            };
            if arguments.insert(name.clone(), value).is_some() {
                return Err(Error::Arguments(format!("\"{name}\" is given twice")));
            }
        }
        let missing: Vec<&str> = self.required().filter(|name| !arguments.contains_key(*name)).collect();
        if missing.is_empty() { Ok(arguments) } else { Err(self.complain(&format!("missing: {}", missing.join(", ")))) }
    }

    /// The error for wrong arguments, with the signature.
    fn complain(&self, what: &str) -> Error {
        let signature = self.signature();
        let takes = if signature.is_empty() { "no arguments".to_owned() } else { signature };
        Error::Arguments(format!("{what}; the tool takes {takes}"))
    }

    /// The names of the required arguments.
    fn required(&self) -> impl Iterator<Item = &str> {
        self.whole.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
    }

    fn is_required(&self, name: &str) -> bool {
        self.required().any(|required| required == name)
    }

    /// Whether the tool takes arguments that the schema does not list: as `additionalProperties` says, otherwise only
    /// without `properties`.
    fn is_open(&self) -> bool {
        match self.whole.get("additionalProperties") {
            Some(Value::Bool(open)) => *open,
            Some(_) => true,
            None => self.whole.get("properties").is_none(),
        }
    }

    /// The value of an argument: `text` as the first type of the schema that fits, strings last. With `enum`, one of
    /// its values.
    fn value(&self, name: &str, schema: &Value, text: &str) -> Result<Value, Error> {
        let mut types = self.types(schema);
        // Everything can be read as text: that comes last.
        types.sort_by_key(|kind| *kind == "string");
        let value = types.iter().find_map(|kind| typed(kind, text));
        let value = if types.is_empty() { Some(untyped(text)) } else { value };
        let schema = self.resolve(schema);
        let allowed = schema.get("enum").and_then(Value::as_array);
        let value = match (value, allowed) {
            (Some(value), Some(allowed)) if allowed.contains(&value) => Some(value),
            // `1` may be meant as text where nothing but texts are listed.
            (_, Some(allowed)) => allowed.iter().find(|value| value.as_str() == Some(text)).cloned(),
            (value, None) => value,
        };
        value.ok_or_else(|| {
            let shown: String = text.chars().take(60).collect();
            Error::Arguments(format!("\"{name}\" must be {}, and \"{shown}\" is not", self.kind(schema)))
        })
    }

    /// The schema that local references lead to.
    fn resolve<'a>(&'a self, mut schema: &'a Value) -> &'a Value {
        for _ in 0..MAX_REFERENCES {
            let target = schema.get("$ref").and_then(Value::as_str).and_then(|reference| reference.strip_prefix('#'));
            match target.and_then(|pointer| self.whole.pointer(pointer)) {
                Some(target) => schema = target,
                None => break,
            }
        }
        schema
    }

    /// The types that the schema allows, in its order, without repetitions. Empty if it allows any type.
    fn types<'a>(&'a self, schema: &'a Value) -> Vec<&'a str> {
        let mut types = Vec::new();
        let (mut alternatives, mut next) = (vec![schema], 0);
        while let Some(schema) = alternatives.get(next) {
            next += 1;
            let schema = self.resolve(schema);
            match schema.get("type") {
                Some(Value::String(kind)) => types.push(kind.as_str()),
                Some(Value::Array(kinds)) => types.extend(kinds.iter().filter_map(Value::as_str)),
                _ => {
                    let words = ["anyOf", "oneOf", "allOf"].iter().filter_map(|word| schema.get(word));
                    let room = MAX_ALTERNATIVES.saturating_sub(alternatives.len());
                    alternatives.extend(words.filter_map(Value::as_array).flatten().take(room));
                }
            }
        }
        let mut known = std::collections::HashSet::new();
        types.retain(|kind| known.insert(*kind));
        types
    }

    /// The allowed values or types for people.
    fn kind(&self, schema: &Value) -> String {
        let schema = self.resolve(schema);
        if let Some(allowed) = schema.get("enum").and_then(Value::as_array) {
            return allowed.iter().take(20).map(Value::to_string).collect::<Vec<_>>().join(" | ");
        }
        let types = self.types(schema);
        if types.is_empty() { "any".to_owned() } else { types.join(" | ") }
    }
}

/// The text as a value of this type. `None` if the text has another type.
fn typed(kind: &str, text: &str) -> Option<Value> {
    if kind == "string" {
        return Some(text.into());
    }
    let value: Value = serde_json::from_str(text).ok()?;
    let fits = match kind {
        "number" => value.is_number(),
        // 2.0 is an integer, too (JSON Schema 2020-12, validation, section 6.1.1).
        "integer" => value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "null" => value.is_null(),
        _ => false,
    };
    fits.then_some(value)
}

/// The value of a text in JSON. Other text stands for itself as a string.
fn untyped(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| text.into())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]
    use super::*;
    use serde_json::json;

    fn schema(value: &Value) -> InputSchema {
        serde_json::from_str(&value.to_string()).unwrap()
    }

    fn build(schema: &InputSchema, pairs: &[(&str, &str)]) -> Result<Value, String> {
        let pairs: Vec<_> = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        match schema.arguments(&pairs) {
            Ok(arguments) => Ok(Value::Object(arguments)),
            Err(Error::Arguments(message)) => Err(message),
            Err(other) => panic!("{other}"),
        }
    }

    fn one(kind: Value, text: &str) -> Result<Value, String> {
        let schema = schema(&json!({ "properties": { "v": kind }, "$defs": { "n": { "type": "number" } } }));
        build(&schema, &[("v", text)]).map(|object| object.get("v").unwrap().clone())
    }

    #[test]
    fn values_take_the_type_that_the_schema_names() {
        for (kind, text, expected) in [
            (json!({"type": "number"}), "2", json!(2)),
            (json!({"type": "number"}), "-2.5", json!(-2.5)),
            (json!({"type": "integer"}), "18446744073709551615", json!(18446744073709551615_u64)),
            (json!({"type": "integer"}), "2.0", json!(2.0)),
            (json!({"type": "boolean"}), "true", json!(true)),
            (json!({"type": "string"}), "7", json!("7")),
            (json!({"type": "string"}), "", json!("")),
            (json!({"type": "array"}), "[1, \"a\"]", json!([1, "a"])),
            (json!({"type": "object"}), "{\"a\":null}", json!({"a": null})),
            (json!({"type": ["string", "null"]}), "null", json!(null)),
            (json!({"type": ["string", "number"]}), "x", json!("x")),
            (json!({"anyOf": [{"type": "string"}, {"type": "integer"}]}), "5", json!(5)),
            (json!({"$ref": "#/$defs/n"}), "5", json!(5)),
            (json!({"enum": ["a", "1"]}), "1", json!("1")),
            (json!({"type": "string", "enum": ["a", "b"]}), "b", json!("b")),
            (json!({}), "{\"a\":1}", json!({"a": 1})),
            (json!(true), "plain text", json!("plain text")),
        ] {
            assert_eq!(one(kind.clone(), text), Ok(expected), "{kind} {text}");
        }
    }

    #[test]
    fn a_value_of_another_type_is_named() {
        for (kind, text, says) in [
            (json!({"type": "number"}), "two", "\"v\" must be number, and \"two\" is not"),
            (json!({"type": "number"}), "\"2\"", "number"),
            (json!({"type": "number"}), "NaN", "number"),
            (json!({"type": "integer"}), "2.5", "integer"),
            (json!({"type": "boolean"}), "yes", "boolean"),
            (json!({"type": "array"}), "{}", "array"),
            (json!({"type": "object"}), "[", "object"),
            (json!({"enum": ["a", "b"]}), "c", "\"a\" | \"b\""),
            (json!({"$ref": "#/$defs/n"}), "x", "number"),
        ] {
            let message = one(kind.clone(), text).unwrap_err();
            assert!(message.contains(says), "{kind} {text}: {message}");
        }
    }

    #[test]
    fn names_are_checked() {
        let add = schema(&json!({
            "type": "object", "required": ["a", "b"],
            "properties": { "a": {"type": "number"}, "b": {"type": "number"} }
        }));
        assert_eq!(build(&add, &[("a", "2"), ("b", "5")]), Ok(json!({"a": 2, "b": 5})));
        let takes = "the tool takes a: number, b: number";
        assert_eq!(build(&add, &[("a", "1")]), Err(format!("missing: b; {takes}")));
        assert_eq!(
            build(&add, &[("a", "1"), ("b", "1"), ("c", "1")]),
            Err(format!("there is no argument \"c\"; {takes}"))
        );
        assert_eq!(build(&add, &[("a", "1"), ("a", "1")]), Err("\"a\" is given twice".to_owned()));
        let nothing = schema(&json!({"type": "object", "properties": {}}));
        assert!(build(&nothing, &[("x", "1")]).unwrap_err().ends_with("takes no arguments"));
        let open = schema(&json!({"type": "object", "properties": {}, "additionalProperties": {"type": "number"}}));
        assert_eq!(build(&open, &[("x", "1")]), Ok(json!({"x": 1})));
        assert_eq!(build(&InputSchema::default(), &[("x", "y")]), Ok(json!({"x": "y"})));
    }

    #[test]
    fn references_that_go_in_circles_end() {
        let circle = schema(&json!({
            "properties": { "v": {"$ref": "#/$defs/a"}, "w": {"anyOf": vec![json!({"$ref": "#/properties/w"}); 20]} },
            "$defs": { "a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"} }
        }));
        assert_eq!(build(&circle, &[("v", "1"), ("w", "1")]), Ok(json!({"v": 1, "w": 1})));
    }
}
