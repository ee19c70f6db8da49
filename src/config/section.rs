//! A typed reader of one table of the configuration. A caller asks for each value by name, with its default and its
//! bounds; a key that no caller asks for is a problem. Problems are collected, so that one pass finds all of them.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use config::{Map, Value, ValueKind};

use super::reading::Reading;
use super::source::KeyPath;
use super::suggest;
use super::units::{InvalidUnit, parse_bytes, parse_duration, show_bytes, show_duration};

/// One table of the configuration. An absent table reads like an empty one.
pub(super) struct Section<'a> {
    pub(super) reading: &'a Reading<'a>,
    /// The path of the table.
    pub(super) path: KeyPath,
    table: Option<&'a Map<String, Value>>,
    /// The keys that were asked for.
    known: Vec<String>,
}

impl<'a> Section<'a> {
    /// Reads the whole configuration with `read`. Adds a problem for each key at the top that `read` does not ask for.
    pub(super) fn root<T>(reading: &'a Reading<'a>, read: impl FnOnce(&mut Self) -> T) -> T {
        let table = Some(&reading.source.tree);
        Self { reading, path: KeyPath::default(), table, known: Vec::new() }.read(read)
    }

    /// The table `value` at `path`. Another kind of value is a problem, and reads like an absent table.
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

    /// Whether the configuration has this table.
    pub(super) fn is_present(&self) -> bool {
        self.table.is_some()
    }

    /// Whether the table has the key.
    pub(super) fn has(&self, key: &str) -> bool {
        self.kind_of(key).is_some()
    }

    /// Drops the content of the table: no key of it is unknown any more.
    pub(super) fn ignore(&mut self) {
        self.table = None;
    }

    /// Adds a problem with a key of this table.
    pub(super) fn problem(&self, key: &str, text: impl Into<String>) {
        self.reading.problem(&self.path.key(key), text);
    }

    /// Adds a warning about a key of this table.
    pub(super) fn warning(&self, key: &str, text: impl Into<String>) {
        self.reading.warning(&self.path.key(key), text);
    }

    /// The value of a key, which counts as known from now on.
    fn value(&mut self, key: &str) -> Option<&'a Value> {
        self.known.push(key.to_owned());
        self.table?.get(key)
    }

    fn kind_of(&self, key: &str) -> Option<&'a ValueKind> {
        Some(&self.table?.get(key)?.kind)
    }

    /// A string without NUL, because neither a path nor a variable can contain NUL.
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

    /// A string that is not blank.
    pub(super) fn nonempty(&mut self, key: &str) -> Option<String> {
        let text = self.string(key)?;
        if text.trim().is_empty() {
            self.problem(key, "empty; give a value or remove the key");
            return None;
        }
        Some(text)
    }

    /// A list of strings. Empty if the key is absent.
    pub(super) fn strings(&mut self, key: &str) -> Vec<String> {
        self.optional_strings(key).unwrap_or_default()
    }

    /// A list of strings, without the items that are problems.
    pub(super) fn optional_strings(&mut self, key: &str) -> Option<Vec<String>> {
        let value = self.value(key)?;
        let path = self.path.key(key);
        let ValueKind::Array(items) = &value.kind else {
            let what = kind(&value.kind);
            let todo = match self.reading.source.is_variable(&path) {
                true => "a variable cannot set a list: set it in the file",
                false => "write [\"…\", \"…\"]",
            };
            self.reading.problem(&path, format!("{what} where a list of texts belongs; {todo}"));
            return None;
        };
        Some(items.iter().enumerate().filter_map(|(index, item)| self.text(&path.index(index), item)).collect())
    }

    /// A boolean.
    pub(super) fn flag(&mut self, key: &str) -> Option<bool> {
        let value = self.value(key)?;
        if let ValueKind::Boolean(flag) = value.kind {
            return Some(flag);
        }
        self.problem(key, format!("{} where true or false belongs; write one of them", kind(&value.kind)));
        None
    }

    /// Whether the value of a key is a string.
    pub(super) fn is_text(&self, key: &str) -> bool {
        matches!(self.kind_of(key), Some(ValueKind::String(_)))
    }

    /// A number, rounded to three decimals, in thousandths. `bounds` are in thousandths too.
    pub(super) fn thousandths(&mut self, key: &str, bounds: RangeInclusive<usize>) -> Option<usize> {
        let number = match self.value(key)?.kind {
            ValueKind::I64(number) => usize::try_from(number).ok().and_then(|number| number.checked_mul(1000)),
            // The cast cannot lose anything: what is not in these bounds is refused.
            ValueKind::Float(number) if (0.0..1e9).contains(&number) => Some((number * 1000.0).round() as usize),
            _ => None,
        };
        if number.is_none() {
            self.problem(key, "not a number of 0 or more; write one, such as 1.5");
        }
        self.within(key, number?, &bounds, |number| format!("{}", *number as f64 / 1000.0))
    }

    /// An integer within bounds. `default` if the key is absent or its value is a problem.
    pub(super) fn count(&mut self, key: &str, default: usize, bounds: RangeInclusive<usize>) -> usize {
        self.optional_count(key, bounds).unwrap_or(default)
    }

    /// An integer within bounds.
    pub(super) fn optional_count(&mut self, key: &str, bounds: RangeInclusive<usize>) -> Option<usize> {
        let number = match &self.value(key)?.kind {
            ValueKind::I64(number) => usize::try_from(*number).ok(),
            // A variable is always a text.
            ValueKind::String(text) if self.reading.source.is_variable(&self.path.key(key)) => text.parse().ok(),
            _ => None,
        };
        if number.is_none() {
            self.problem(key, format!("not a whole number of 0 or more; write one, such as {}", bounds.start()));
        }
        self.within(key, number?, &bounds, usize::to_string)
    }

    /// A duration within bounds. `default` if the key is absent or its value is a problem.
    pub(super) fn duration(&mut self, key: &str, default: Duration, bounds: RangeInclusive<Duration>) -> Duration {
        self.optional_duration(key, bounds).unwrap_or(default)
    }

    /// A duration within bounds.
    pub(super) fn optional_duration(&mut self, key: &str, bounds: RangeInclusive<Duration>) -> Option<Duration> {
        let bare = |number: i64| Err(format!("a number without a unit; write \"{number}s\" for seconds"));
        self.measured(key, &bounds, "duration belongs; write one, such as \"15s\"", parse_duration, bare, |duration| {
            show_duration(*duration)
        })
    }

    /// A duration within bounds, or `None` for the word `off`. `default` if the key is absent or its value is a
    /// problem.
    pub(super) fn duration_or_off(
        &mut self,
        key: &str,
        default: Option<Duration>,
        bounds: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        if matches!(self.kind_of(key), Some(ValueKind::String(text)) if text == "off") {
            self.known.push(key.to_owned());
            return None;
        }
        self.optional_duration(key, bounds).or(default)
    }

    /// A size in bytes within bounds. `default` if the key is absent or its value is a problem.
    pub(super) fn bytes(&mut self, key: &str, default: usize, bounds: RangeInclusive<usize>) -> usize {
        self.optional_bytes(key, bounds).unwrap_or(default)
    }

    /// A size in bytes within bounds.
    pub(super) fn optional_bytes(&mut self, key: &str, bounds: RangeInclusive<usize>) -> Option<usize> {
        let bare = |number: i64| usize::try_from(number).map_err(|_| "negative; write a size".to_owned());
        let wanted = "size belongs; write one, such as \"16MiB\"";
        self.measured(key, &bounds, wanted, parse_bytes, bare, |bytes| show_bytes(*bytes))
    }

    /// A value within bounds, written as a string that `parse` reads, or as a number that `bare` converts. `wanted`
    /// says what belongs there.
    fn measured<T: PartialOrd>(
        &mut self,
        key: &str,
        bounds: &RangeInclusive<T>,
        wanted: &str,
        parse: fn(&str) -> Result<T, InvalidUnit>,
        bare: fn(i64) -> Result<T, String>,
        show: fn(&T) -> String,
    ) -> Option<T> {
        let parsed = match &self.value(key)?.kind {
            ValueKind::String(text) => parse(text).map_err(|error| error.to_string()),
            ValueKind::I64(number) => bare(*number),
            other => Err(format!("{} where a {wanted}", kind(other))),
        };
        let parsed = parsed.map_err(|text| self.problem(key, text)).ok()?;
        self.within(key, parsed, bounds, show)
    }

    /// The value if it is within bounds. Otherwise adds a problem.
    fn within<T: PartialOrd>(
        &self,
        key: &str,
        value: T,
        bounds: &RangeInclusive<T>,
        show: fn(&T) -> String,
    ) -> Option<T> {
        if bounds.contains(&value) {
            return Some(value);
        }
        let (value, least, most) = (show(&value), show(bounds.start()), show(bounds.end()));
        self.problem(key, format!("{value} is out of bounds; use {least} to {most}"));
        None
    }

    /// An IP address with a port. `default` if the key is absent or its value is a problem.
    pub(super) fn socket_addr(&mut self, key: &str, default: SocketAddr) -> SocketAddr {
        let Some(text) = self.string(key) else { return default };
        text.parse().unwrap_or_else(|_| {
            self.problem(key, format!("{text:?} is not an IP address and a port; write one, such as \"{default}\""));
            default
        })
    }

    /// The value in `choices` whose word stands at the key. `default` if the key is absent, or with a problem for
    /// another word.
    pub(super) fn choice<T: Copy>(&mut self, key: &str, default: T, choices: &[(&str, T)]) -> T {
        let Some(text) = self.string(key) else { return default };
        if let Some((_, choice)) = choices.iter().find(|(word, _)| *word == text) {
            return *choice;
        }
        let words: Vec<_> = choices.iter().map(|(word, _)| format!("{word:?}")).collect();
        self.problem(key, format!("{text:?} is none of {0}; use one of them", words.join(", ")));
        default
    }

    /// Reads the table under a key with `read`. Adds a problem for each key in it that `read` does not ask for.
    pub(super) fn table<T>(&mut self, key: &str, read: impl FnOnce(&mut Self) -> T) -> T {
        let value = self.value(key);
        Self::at(self.reading, self.path.key(key), value).read(read)
    }

    /// Reads each table in the table under a key, in the order of their names, which `read` gets too.
    pub(super) fn tables<T>(&mut self, key: &str, mut read: impl FnMut(&str, &mut Self) -> T) -> Vec<T> {
        let (path, entries) = self.entries(key);
        let table = |(name, value): (&'a String, &'a Value)| {
            Self::at(self.reading, path.key(name), Some(value)).read(|table| read(name, table))
        };
        entries.into_iter().map(table).collect()
    }

    /// Reads each table in the list under a key. `read` also gets its index, from 0.
    pub(super) fn list<T>(&mut self, key: &str, mut read: impl FnMut(usize, &mut Self) -> T) -> Vec<T> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let path = self.path.key(key);
        let ValueKind::Array(items) = &value.kind else {
            let text = format!("{} where a list of tables belongs; write [[{path}]] above each", kind(&value.kind));
            self.reading.problem(&path, text);
            return Vec::new();
        };
        let mut entry =
            |(index, item)| Self::at(self.reading, path.index(index), Some(item)).read(|table| read(index, table));
        items.iter().enumerate().map(&mut entry).collect()
    }

    /// The strings in the table under a key, with their keys in the case of the file, sorted by key.
    pub(super) fn texts(&mut self, key: &str) -> Vec<(String, String)> {
        let (path, entries) = self.entries(key);
        let text = |(name, value): (&String, &Value)| Some((name.clone(), self.text(&path.key(name), value)?));
        entries.into_iter().filter_map(text).collect()
    }

    /// The entries of the table under a key, whose keys are free, sorted by key, and the path of that table.
    fn entries(&mut self, key: &str) -> (KeyPath, Vec<(&'a String, &'a Value)>) {
        let value = self.value(key);
        let section = Self::at(self.reading, self.path.key(key), value);
        let mut entries: Vec<_> = section.table.into_iter().flatten().collect();
        entries.sort_by_key(|(name, _)| *name);
        (section.path, entries)
    }

    /// Reads this table with `read`, then adds a problem for each key that was not asked for.
    fn read<T>(mut self, read: impl FnOnce(&mut Self) -> T) -> T {
        let value = read(&mut self);
        let is_known = |key: &str| self.known.iter().any(|known| known == key);
        for key in self.table.into_iter().flat_map(Map::keys).filter(|key| !is_known(key)) {
            let hint = suggest::nearest(key, self.known.iter().map(String::as_str));
            let all = if hint.is_empty() { format!(" (known here: {})", self.known.join(", ")) } else { String::new() };
            self.problem(key, format!("unknown key{hint}; correct or remove it{all}"));
        }
        #[cfg(test)]
        self.reading.known.borrow_mut().extend(self.known.iter().map(|key| self.path.key(key).to_string()));
        value
    }
}

/// The kind of a value, in words. Not the value, which may be a secret.
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
