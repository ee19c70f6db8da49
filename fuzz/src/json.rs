//! JSON as serde_json reads it: the reference for the gateway's own reader. Values stay raw.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// The text of the bytes, if it is one JSON value.
pub fn is_json(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    serde_json::from_str::<IgnoredAny>(text).ok().map(|_| text)
}

/// The raw elements of an array. `None` for another text.
pub fn array(text: &str) -> Option<Vec<&str>> {
    let elements: Vec<&RawValue> = serde_json::from_str(text).ok()?;
    Some(elements.into_iter().map(RawValue::get).collect())
}

/// The members of an object: decoded names with raw values, in the order of the text.
#[derive(Debug, Default)]
pub struct Object<'a>(pub Vec<(String, &'a str)>);

impl<'a> Object<'a> {
    /// Reads an object. `None` for another text, and where a name cannot be decoded.
    pub fn read(text: &'a str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// How often a name appears.
    pub fn count(&self, name: &str) -> usize {
        self.0.iter().filter(|(member, _)| member == name).count()
    }

    /// The raw value of the last member of this name; `None` if there is none, or if it is `null`.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        let found = self.0.iter().rev().find(|(member, _)| member == name);
        found.map(|(_, value)| *value).filter(|value| *value != "null")
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Vec<(String, &'de str)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, &'de RawValue>()? {
                    members.push((name, value.get()));
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(Members).map(Object)
    }
}

/// The depth of the nesting of arrays and objects. `None` for no JSON, and where serde_json goes no deeper.
pub fn depth(text: &str) -> Option<usize> {
    serde_json::from_str::<Depth>(text).ok().map(|depth| depth.0)
}

struct Depth(usize);

impl<'de> Deserialize<'de> for Depth {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Values;
        impl<'de> Visitor<'de> for Values {
            type Value = usize;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_unit<E>(self) -> Result<usize, E> {
                Ok(0)
            }

            fn visit_bool<E>(self, _: bool) -> Result<usize, E> {
                Ok(0)
            }

            fn visit_i64<E>(self, _: i64) -> Result<usize, E> {
                Ok(0)
            }

            fn visit_u64<E>(self, _: u64) -> Result<usize, E> {
                Ok(0)
            }

            fn visit_f64<E>(self, _: f64) -> Result<usize, E> {
                Ok(0)
            }

            fn visit_str<E>(self, _: &str) -> Result<usize, E> {
                Ok(0)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<usize, A::Error> {
                let mut depth = 1;
                while let Some(Depth(inside)) = seq.next_element()? {
                    depth = depth.max(inside + 1);
                }
                Ok(depth)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<usize, A::Error> {
                let mut depth = 1;
                while let Some((IgnoredAny, Depth(inside))) = map.next_entry()? {
                    depth = depth.max(inside + 1);
                }
                Ok(depth)
            }
        }
        deserializer.deserialize_any(Values).map(Depth)
    }
}
