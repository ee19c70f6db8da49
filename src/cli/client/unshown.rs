//! Parses arguments that may be secrets, or hold one, for clap.

use std::ffi::OsStr;

use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use clap::{Arg, Command};

/// A parser of arguments whose errors, unlike those of clap's own parsers, do not repeat the argument.
#[derive(Clone)]
pub struct Unshown<T>(pub fn(&str) -> Result<T, String>);

impl<T: Clone + Send + Sync + 'static> TypedValueParser for Unshown<T> {
    type Value = T;

    fn parse_ref(&self, command: &Command, arg: Option<&Arg>, value: &OsStr) -> clap::error::Result<T> {
        let parsed = value.to_str().ok_or_else(|| "it is not a text in UTF-8".to_owned()).and_then(self.0);
        parsed.map_err(|why| {
            let arg = arg.map(Arg::to_string).unwrap_or_default();
            command.clone().error(ErrorKind::ValueValidation, format!("invalid value for '{arg}': {why}"))
        })
    }
}
