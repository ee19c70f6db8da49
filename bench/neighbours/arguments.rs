//! The arguments of the command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::attacker::Hostile;
use crate::cgroups::Cgroups;

/// What is printed where an argument is wrong.
pub(crate) const USAGE: &str =
    "usage: neighbours [--small] [--hold CGROUP] [--rows NAME,…] [--without NAME,…] [--windows N] [--calls N] \
[--sluice PATH] [--fixture PATH] [--markdown FILE]
  --small     fewer calls, sessions, connections and files
  --hold      give the hostile tenant, and the attackers, half a processor each by cgroups below this one (a folder; no
              process may be in it), and fail above the aim too
  --rows      only the rows whose names contain one of these texts
  --without   all but the rows whose names contain one of these texts
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
    /// What keeps the attackers from the processors; then the aim is a limit. `None` where nothing does.
    pub(crate) cgroups: Option<Cgroups>,
    pub(crate) windows: usize,
    pub(crate) calls: usize,
    pub(crate) sluice: PathBuf,
    pub(crate) fixture: PathBuf,
    pub(crate) markdown: Option<PathBuf>,
    rows: Vec<String>,
    without: Vec<String>,
}

impl Command {
    /// Reads the arguments. The error says what is wrong with them.
    pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let own = std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;
        let folder = own.parent().ok_or("this program has no folder")?.to_owned();
        let mut arguments = Arguments {
            is_small: false,
            cgroups: None,
            windows: 0,
            calls: 0,
            sluice: folder.parent().unwrap_or(&folder).join("sluice"),
            fixture: folder.join("fixture"),
            markdown: None,
            rows: Vec::new(),
            without: Vec::new(),
        };
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
            match word.as_str() {
                "attack" => return attack(words).map(Self::Attack),
                "--small" => arguments.is_small = true,
                "--hold" => arguments.cgroups = Some(hold(&value()?)?),
                "--rows" => arguments.rows = list(&value()?),
                "--without" => arguments.without = list(&value()?),
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
        let is_in = |rows: &[String]| rows.iter().any(|row| name.contains(row.as_str()));
        (self.rows.is_empty() || is_in(&self.rows)) && !is_in(&self.without)
    }
}

fn list(text: &str) -> Vec<String> {
    text.split(',').map(str::to_owned).collect()
}

fn hold(folder: &str) -> Result<Cgroups, String> {
    Cgroups::below(folder.as_ref()).map_err(|error| format!("the cgroup {folder} cannot be divided: {error}"))
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
