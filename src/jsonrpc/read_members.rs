//! The members of an object that routing reads, where there are any.

use std::ops::Deref;

use super::members::{Members, Seen};
use super::scan::{Malformed, Scanner};

/// The [`Members`] of an object that was read. Without any, as in most results, no memory is allocated.
#[derive(Debug, Default)]
pub struct ReadMembers<'a>(Option<Box<Members<'a>>>);

impl<'a> ReadMembers<'a> {
    /// Reads an object and stores its members. Returns the raw text of the object.
    pub(super) fn read(&mut self, scanner: &mut Scanner<'a>) -> Result<&'a str, Malformed> {
        let mut seen = Seen::default();
        scanner.object(|scanner, key| match key {
            // The most frequent of the members that are not read.
            "arguments" | "content" | "structuredContent" | "isError" => scanner.value().map(drop),
            _ => self.0.get_or_insert_default().member(scanner, key, &mut seen),
        })
    }
}

impl<'a> Deref for ReadMembers<'a> {
    type Target = Members<'a>;

    fn deref(&self) -> &Members<'a> {
        self.0.as_deref().unwrap_or(&Members::NONE)
    }
}
