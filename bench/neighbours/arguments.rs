//! The arguments of the command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::attacker::Hostile;

/// What is printed where an argument is wrong.
pub(crate) const USAGE: &str =
    "usage: neighbours [--small] [--hold] [--rows NAME,…] [--windows N] [--calls N] [--sluice PATH] \
[--fixture PATH] [--markdown FILE]
  --small     fewer calls, sessions, connections and files
  --hold      give the hostile tenant half a processor, and fail above 1.5 times too (needs a delegated cgroup)
  --rows      only the rows whose names contain one of these texts
  --windows   windows beside the attack; the windows alone are one more (default 7, small 3)
  --calls     calls of the victim on each of its two sessions in one window (default 300, small 60)
  --sluice    the gateway (default: beside this program's folder)
  --fixture   the server of both tenants (default: beside this program)
  --markdown  a file that the table is written to as well";

/// A command.
#[derive(Debug)]
pub(crate) enum Command {
    /// Measure the table.
    Measure(Arguments),
    /// Attack; started by the measurement.
    Attack(Hostile),
}

/// What is measured, and how.
#[derive(Debug)]
pub(crate) struct Arguments {
    pub(crate) is_small: bool,
    /// Whether the hostile tenant is kept from the processors, and the aim is a limit.
    pub(crate) holds: bool,
    pub(crate) windows: usize,
    pub(crate) calls: usize,
    pub(crate) sluice: PathBuf,
    pub(crate) fixture: PathBuf,
    pub(crate) markdown: Option<PathBuf>,
    rows: Vec<String>,
}

impl Command {
    /// Reads the arguments. The error says what is wrong with them.
    pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let own = std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;
        let folder = own.parent().ok_or("this program has no folder")?.to_owned();
        let mut arguments = Arguments {
            is_small: false,
            holds: false,
            windows: 0,
            calls: 0,
            sluice: folder.parent().unwrap_or(&folder).join("sluice"),
            fixture: folder.join("fixture"),
            markdown: None,
            rows: Vec::new(),
        };
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
            match word.as_str() {
                "attack" => return attack(words).map(Self::Attack),
                "--small" => arguments.is_small = true,
                "--hold" => arguments.holds = true,
                "--rows" => arguments.rows = value()?.split(',').map(str::to_owned).collect(),
                "--windows" => arguments.windows = number(&value()?)?,
                "--calls" => arguments.calls = number(&value()?)?,
                "--sluice" => arguments.sluice = value()?.into(),
                "--fixture" => arguments.fixture = value()?.into(),
                "--markdown" => arguments.markdown = Some(value()?.into()),
                _ => return Err(format!("there is no argument {word}")),
            }
        }
        let (windows, calls) = if arguments.is_small { (3, 60) } else { (7, 300) };
        arguments.windows = if arguments.windows == 0 { windows } else { arguments.windows };
        arguments.calls = if arguments.calls == 0 { calls } else { arguments.calls };
        for program in [&arguments.sluice, &arguments.fixture] {
            if !program.is_file() {
                return Err(format!("{} is not there: build it, or name another", program.display()));
            }
        }
        Ok(Self::Measure(arguments))
    }
}

impl Arguments {
    /// Whether the row of this name is to be measured.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.rows.is_empty() || self.rows.iter().any(|row| name.contains(row.as_str()))
    }
}

fn number(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| format!("{text} is not a number"))
}

fn attack(mut words: impl Iterator<Item = String>) -> Result<Hostile, String> {
    let mut next = |what: &str| words.next().ok_or_else(|| format!("attack needs {what}"));
    let name = next("a name")?;
    let address: SocketAddr = next("an address")?.parse().map_err(|_| "the address is wrong".to_owned())?;
    Ok(Hostile::new(name, address, next("a key")?, next("a size")? == "small"))
}
