//! A typed reader over one table of the configuration. Every value is asked for by name, with its default and its
//! bounds; what nobody asked for is an unknown key. Problems are collected, never thrown: one pass finds them all.

use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use config::{Map, Value, ValueKind};

use super::reading::Reading;
use super::source::KeyPath;
use super::suggest;
use super::units::{parse_bytes, parse_duration, show_bytes, show_duration};

/// One table of the configuration. A table that is not there reads as an empty one.
pub(super) struct Section<'a> {
    pub(super) reading: &'a Reading<'a>,
    pub(super) path: KeyPath,
    table: Option<&'a Map<String, Value>>,
    known: Vec<String>,
}

impl<'a> Section<'a> {
    pub(super) fn root(reading: &'a Reading<'a>) -> Self {
        Self { reading, path: KeyPath::default(), table: Some(&reading.source.tree), known: Vec::new() }
    }

    fn at(reading: &'a Reading<'a>, path: KeyPath, value: Option<&'a Value>) -> Self {
        let table = match value.map(|value| &value.kind) {
            None => None,
            Some(ValueKind::Table(table)) => Some(table),
            Some(other) => {
                reading.problem(&path, format!("{} where a table belongs; write [{path}] above its keys", kind(other)));
                None
            }
        };
        Self { reading, path, table, known: Vec::new() }
    }

    /// Whether the table is there at all.
    pub(super) fn is_present(&self) -> bool {
        self.table.is_some()
    }

    /// Whether a key is there.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(key))
    }

    /// Adds a problem with a key of this table.
    pub(super) fn problem(&self, key: &str, text: impl Into<String>) {
        self.reading.problem(&self.path.key(key), text);
    }

    /// Adds a warning about a key of this table.
    pub(super) fn warning(&self, key: &str, text: impl Into<String>) {
        self.reading.warning(&self.path.key(key), text);
    }

    fn value(&mut self, key: &str) -> Option<&'a Value> {
        self.known.push(key.to_owned());
        self.table?.get(key)
    }

    /// A text without NUL, which neither a path nor an environment could hold.
    pub(super) fn string(&mut self, key: &str) -> Option<String> {
        let value = self.value(key)?;
        self.text(&self.path.key(key), value)
    }

    fn text(&self, path: &KeyPath, value: &Value) -> Option<String> {
        match &value.kind {
            ValueKind::String(text) if !text.contains('\0') => return Some(text.clone()),
            ValueKind::String(_) => self.reading.problem(path, "holds a NUL character; remove it"),
            other => self.reading.problem(path, format!("{} where a text belongs; put it in quotes", kind(other))),
        }
        None
    }

    /// A text that is not empty.
    pub(super) fn nonempty(&mut self, key: &str) -> Option<String> {
        let text = self.string(key)?;
        if text.trim().is_empty() {
            self.problem(key, "empty; give a value or remove the key");
            return None;
        }
        Some(text)
    }

    /// A list of texts; empty if it is not there.
    pub(super) fn strings(&mut self, key: &str) -> Vec<String> {
        self.optional_strings(key).unwrap_or_default()
    }

    /// A list of texts.
    pub(super) fn optional_strings(&mut self, key: &str) -> Option<Vec<String>> {
        let value = self.value(key)?;
        let path = self.path.key(key);
        let ValueKind::Array(items) = &value.kind else {
            let what = kind(&value.kind);
            let todo = if self.reading.source.is_variable(&path) {
                "a variable cannot set a list: set it in the file"
            } else {
                "write [\"…\", \"…\"]"
            };
            self.reading.problem(&path, format!("{what} where a list of texts belongs; {todo}"));
            return None;
        };
        Some(items.iter().enumerate().filter_map(|(index, item)| self.text(&path.index(index), item)).collect())
    }

    /// True or false.
    pub(super) fn flag(&mut self, key: &str) -> Option<bool> {
        let value = self.value(key)?;
        if let ValueKind::Boolean(flag) = value.kind {
            return Some(flag);
        }
        self.problem(key, format!("{} where true or false belongs; write one of them", kind(&value.kind)));
        None
    }

    /// Whether the value of a key is a text.
    pub(super) fn is_text(&self, key: &str) -> bool {
        matches!(self.table.and_then(|table| table.get(key)).map(|value| &value.kind), Some(ValueKind::String(_)))
    }

    /// A number with up to three decimals within bounds, or none; both in thousandths.
    pub(super) fn thousandths(&mut self, key: &str, bounds: RangeInclusive<usize>) -> Option<usize> {
        let value = self.value(key)?;
        let path = self.path.key(key);
        let number = match value.kind {
            ValueKind::I64(number) => usize::try_from(number).ok().and_then(|number| number.checked_mul(1000)),
            // The cast cannot lose anything: what is not in these bounds is refused.
            ValueKind::Float(number) if (0.0..1e9).contains(&number) => Some((number * 1000.0).round() as usize),
            _ => None,
        };
        if number.is_none() {
            self.reading.problem(&path, "not a number of 0 or more; write one, such as 1.5");
        }
        self.within(&path, number?, &bounds, |number| format!("{}", *number as f64 / 1000.0))
    }

    /// A whole number within bounds.
    pub(super) fn count(&mut self, key: &str, default: usize, bounds: RangeInclusive<usize>) -> usize {
        self.optional_count(key, bounds).unwrap_or(default)
    }

    /// A whole number within bounds, or none.
    pub(super) fn optional_count(&mut self, key: &str, bounds: RangeInclusive<usize>) -> Option<usize> {
        let value = self.value(key)?;
        let path = self.path.key(key);
        let number = match &value.kind {
            ValueKind::I64(number) => usize::try_from(*number).ok(),
            // A variable is always a text.
            ValueKind::String(text) if self.reading.source.is_variable(&path) => text.parse().ok(),
            _ => None,
        };
        if number.is_none() {
            self.reading
                .problem(&path, format!("not a whole number of 0 or more; write one, such as {}", bounds.start()));
        }
        self.within(&path, number?, &bounds, |number| number.to_string())
    }

    /// A duration within bounds.
    pub(super) fn duration(&mut self, key: &str, default: Duration, bounds: RangeInclusive<Duration>) -> Duration {
        self.optional_duration(key, bounds).unwrap_or(default)
    }

    /// A duration within bounds, or none.
    pub(super) fn optional_duration(&mut self, key: &str, bounds: RangeInclusive<Duration>) -> Option<Duration> {
        let value = self.value(key)?;
        let path = self.path.key(key);
        let parsed = match &value.kind {
            ValueKind::String(text) => parse_duration(text).map_err(|error| error.to_string()),
            ValueKind::I64(number) => Err(format!("a number without a unit; write \"{number}s\" for seconds")),
            other => Err(format!("{} where a duration belongs; write one, such as \"15s\"", kind(other))),
        };
        match parsed {
            Ok(duration) => self.within(&path, duration, &bounds, |duration| show_duration(*duration)),
            Err(text) => {
                self.reading.problem(&path, text);
                None
            }
        }
    }

    /// A duration within bounds, or the word `off`: none.
    pub(super) fn duration_or_off(
        &mut self,
        key: &str,
        default: Option<Duration>,
        bounds: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        match self.table.and_then(|table| table.get(key)).map(|value| &value.kind) {
            Some(ValueKind::String(text)) if text == "off" => {
                self.known.push(key.to_owned());
                None
            }
            _ => self.optional_duration(key, bounds).or(default),
        }
    }

    /// A size in bytes within bounds.
    pub(super) fn bytes(&mut self, key: &str, default: usize, bounds: RangeInclusive<usize>) -> usize {
        self.optional_bytes(key, bounds).unwrap_or(default)
    }

    /// A size in bytes within bounds, or none.
    pub(super) fn optional_bytes(&mut self, key: &str, bounds: RangeInclusive<usize>) -> Option<usize> {
        let value = self.value(key)?;
        let path = self.path.key(key);
        let parsed = match &value.kind {
            ValueKind::String(text) => parse_bytes(text).map_err(|error| error.to_string()),
            ValueKind::I64(number) => usize::try_from(*number).map_err(|_| "negative; write a size".to_owned()),
            other => Err(format!("{} where a size belongs; write one, such as \"16MiB\"", kind(other))),
        };
        match parsed {
            Ok(bytes) => self.within(&path, bytes, &bounds, |bytes| show_bytes(*bytes)),
            Err(text) => {
                self.reading.problem(&path, text);
                None
            }
        }
    }

    fn within<T: PartialOrd>(
        &self,
        path: &KeyPath,
        value: T,
        bounds: &RangeInclusive<T>,
        show: impl Fn(&T) -> String,
    ) -> Option<T> {
        if bounds.contains(&value) {
            return Some(value);
        }
        let (value, least, most) = (show(&value), show(bounds.start()), show(bounds.end()));
        self.reading.problem(path, format!("{value} is out of bounds; use {least} to {most}"));
        None
    }

    /// An IP address and a port.
    pub(super) fn socket_addr(&mut self, key: &str, default: SocketAddr) -> SocketAddr {
        let Some(text) = self.string(key) else { return default };
        text.parse().unwrap_or_else(|_| {
            self.problem(key, format!("{text:?} is not an IP address and a port; write one, such as \"{default}\""));
            default
        })
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&mut self, key: &str, default: T, choices: &[(&str, T)]) -> T {
        let Some(text) = self.string(key) else { return default };
        if let Some((_, choice)) = choices.iter().find(|(word, _)| *word == text) {
            return *choice;
        }
        let words: Vec<_> = choices.iter().map(|(word, _)| format!("{word:?}")).collect();
        self.problem(key, format!("{text:?} is none of {0}; use one of them", words.join(", ")));
        default
    }

    /// A text that is parsed; what is wrong with it is said by the error.
    pub(super) fn parsed<T: std::str::FromStr<Err: Display>>(&mut self, key: &str) -> Option<T> {
        let text = self.string(key)?;
        text.parse().map_err(|error| self.problem(key, format!("{error}"))).ok()
    }

    /// The table under a key.
    pub(super) fn section(&mut self, key: &str) -> Section<'a> {
        let value = self.value(key);
        Section::at(self.reading, self.path.key(key), value)
    }

    /// The tables under a key, by their names, sorted.
    pub(super) fn sections(&mut self, key: &str) -> Vec<(String, Section<'a>)> {
        let section = self.section(key);
        let mut tables: Vec<_> = section.table.into_iter().flatten().collect();
        tables.sort_by_key(|(name, _)| *name);
        let table = |(name, value): (&String, &'a Value)| {
            (name.clone(), Section::at(self.reading, section.path.key(name), Some(value)))
        };
        tables.into_iter().map(table).collect()
    }

    /// The list of tables under a key.
    pub(super) fn list(&mut self, key: &str) -> Vec<Section<'a>> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let path = self.path.key(key);
        let ValueKind::Array(items) = &value.kind else {
            let text = format!("{} where a list of tables belongs; write [[{path}]] above each", kind(&value.kind));
            self.reading.problem(&path, text);
            return Vec::new();
        };
        let entry = |(index, item)| Section::at(self.reading, path.index(index), Some(item));
        items.iter().enumerate().map(entry).collect()
    }

    /// The texts in a table whose keys are free, sorted by key. The case of the keys is kept.
    pub(super) fn texts(&mut self, key: &str) -> Vec<(String, String)> {
        let section = self.section(key);
        let mut values: Vec<_> = section.table.into_iter().flatten().collect();
        values.sort_by_key(|(name, _)| *name);
        let text = |(name, value): (&String, &Value)| Some((name.clone(), self.text(&section.path.key(name), value)?));
        values.into_iter().filter_map(text).collect()
    }

    /// Ends the reading of this table: what was not asked for is a problem.
    pub(super) fn finish(self) {
        let is_known = |key: &str| self.known.iter().any(|known| known == key);
        for key in self.table.into_iter().flat_map(Map::keys).filter(|key| !is_known(key)) {
            let hint = suggest::nearest(key, self.known.iter().map(String::as_str));
            let all = if hint.is_empty() { format!(" (known here: {})", self.known.join(", ")) } else { String::new() };
            self.problem(key, format!("unknown key{hint}; correct or remove it{all}"));
        }
        #[cfg(test)]
        self.reading.known.borrow_mut().extend(self.known.iter().map(|key| self.path.key(key).to_string()));
    }
}

/// What a value is, for a message. Never the value itself: it may be a secret.
fn kind(value: &ValueKind) -> &'static str {
    match value {
        ValueKind::Nil => "nothing",
        ValueKind::Boolean(_) => "true or false",
        ValueKind::Float(_) => "a number with a fraction",
        ValueKind::String(_) => "a text",
        ValueKind::Table(_) => "a table",
        ValueKind::Array(_) => "a list",
        _ => "a number",
    }
}
