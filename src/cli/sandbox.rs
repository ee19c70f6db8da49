//! The arguments about the sandbox of servers that no configuration file describes.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

use crate::config::{Allowance, Sandbox, SandboxMode, Server};

/// Arguments.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct SandboxArgs {
    /// What a server is kept from: none, standard or strict (docs/SECURITY.md) [default: standard]
    #[arg(long, value_name = "MODE", value_parser = mode)]
    sandbox: Option<SandboxMode>,
    /// One more file or folder that every server may read; can be given more than once
    #[arg(long, value_name = "PATH")]
    read: Vec<PathBuf>,
    /// One more file or folder that every server may change; can be given more than once
    #[arg(long, value_name = "PATH")]
    write: Vec<PathBuf>,
    /// Whether a server may use the network: on or off [default: on in standard, off in strict]
    #[arg(long, value_name = "on|off", value_parser = on_or_off)]
    network: Option<bool>,
    /// What else a server may do: namespaces, debug, io_uring, shared_memory, unix_sockets, listen, metadata; can be
    /// given more than once
    #[arg(long, value_name = "WHAT", value_parser = allowance)]
    allow: Vec<Allowance>,
}

fn mode(text: &str) -> Result<SandboxMode, String> {
    let mode = SandboxMode::ALL.into_iter().find(|mode| mode.as_str() == text);
    mode.ok_or_else(|| "use none, standard or strict".to_owned())
}

fn allowance(text: &str) -> Result<Allowance, String> {
    Allowance::by_word(text).ok_or_else(|| format!("use {}", Allowance::WORDS.map(|(word, _)| word).join(", ")))
}

fn on_or_off(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("use on or off".to_owned()),
    }
}

impl SandboxArgs {
    /// Whether any of the arguments was given.
    pub(super) fn is_given(&self) -> bool {
        self.sandbox.is_some() || self.says_more()
    }

    /// Whether an argument besides `--sandbox` was given.
    fn says_more(&self) -> bool {
        self.network.is_some() || !(self.read.is_empty() && self.write.is_empty() && self.allow.is_empty())
    }

    /// Sets the sandbox of a server to the one that the arguments describe.
    ///
    /// # Errors
    /// A path does not exist or is `/`, or arguments contradict each other.
    pub(super) fn apply(&self, server: &mut Server) -> anyhow::Result<()> {
        let mode = self.sandbox.unwrap_or_default();
        ensure!(
            mode != SandboxMode::None || !self.says_more(),
            "--sandbox none allows everything: leave --read, --write, --network and --allow out"
        );
        let found = |path: &PathBuf| {
            let path = path.canonicalize().with_context(|| format!("the path {} cannot be used", path.display()))?;
            ensure!(path != Path::new("/"), "/ is everything: name what the server needs, or use --sandbox none");
            Ok(path)
        };
        let found = |paths: &[PathBuf]| paths.iter().map(found).collect::<anyhow::Result<Vec<_>>>();
        let (read, write) = (found(&self.read)?, found(&self.write)?);
        server.sandbox =
            Sandbox { mode, network: self.network, read, write, allow: self.allow.clone(), ..Sandbox::default() };
        ensure!(
            !server.sandbox.opens_network_unseen(),
            "--allow io_uring makes sockets that nobody sees: leave it out, or use --network on"
        );
        ensure!(
            !server.sandbox.listens_without_network(),
            "--allow listen opens nothing with the network off: leave it out, or use --network on"
        );
        server.is_by_arguments = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::cli::parse;

    fn sandbox(line: &[&str]) -> anyhow::Result<Sandbox> {
        let mut server = Server::new("s".parse()?, "x", Vec::new());
        parse::<SandboxArgs>(line)?.apply(&mut server)?;
        assert!(server.is_by_arguments);
        Ok(server.sandbox)
    }

    #[test]
    fn every_key_has_an_argument() {
        assert_eq!(sandbox(&[]).unwrap(), Sandbox::default());
        assert_eq!(Sandbox::default().mode, SandboxMode::Standard);
        assert_eq!(sandbox(&["--sandbox", "none"]).unwrap().mode, SandboxMode::None);
        let line = ["--sandbox", "strict", "--read", "/usr", "--write", "/tmp", "--network", "on", "--allow", "debug"];
        let all = sandbox(&line).unwrap();
        assert_eq!((all.mode, all.network), (SandboxMode::Strict, Some(true)));
        assert_eq!((all.read, all.write), (vec!["/usr".into()], vec!["/tmp".into()]));
        assert_eq!(all.allow, [Allowance::Debug]);
    }

    #[test]
    fn mistakes_say_what_to_do() {
        let wrong = |line: &[&str]| sandbox(line).unwrap_err().to_string();
        assert!(wrong(&["--sandbox", "loose"]).contains("use none, standard or strict"));
        assert!(
            wrong(&["--allow", "all"])
                .contains("use namespaces, debug, io_uring, shared_memory, unix_sockets, listen, metadata")
        );
        assert!(wrong(&["--network", "no"]).contains("use on or off"));
        assert!(wrong(&["--read", "/nonexistent"]).contains("the path /nonexistent cannot be used"));
        assert!(wrong(&["--write", "/"]).contains("is everything"));
        assert!(wrong(&["--sandbox", "strict", "--allow", "io_uring"]).contains("--network on"));
        assert!(sandbox(&["--sandbox", "strict", "--allow", "io_uring", "--network", "on"]).is_ok());
        assert!(wrong(&["--network", "off", "--allow", "listen"]).contains("--network on"));
        assert!(wrong(&["--sandbox", "none", "--read", "/usr"]).contains("leave --read"));
    }
}
