//! `sluice run -- COMMAND ARG…`: runs a gateway for one server without a configuration file.

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::{Context as _, bail};

use super::sandbox::SandboxArgs;
use super::{gateway, single};
use crate::config::{Environment, Isolation, Server};

/// Arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where to listen
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8081", value_parser = gateway::address)]
    listen: SocketAddr,
    /// Who shares a child: session (nobody), principal, tenant or shared (everybody)
    #[arg(long, value_name = "MODE", default_value = "session", value_parser = isolation)]
    isolation: Isolation,
    /// A variable for the child, whose environment is empty otherwise (PATH is always there)
    #[arg(long = "env", value_name = "KEY=VALUE")]
    env: Vec<String>,
    /// A variable of this environment that the child gets too
    #[arg(long, value_name = "KEY")]
    pass_env: Vec<String>,
    #[command(flatten)]
    sandbox: SandboxArgs,
    #[command(flatten)]
    key: single::KeyArgs,
    /// Let anybody on this machine call, without a key
    #[arg(long, conflicts_with = "key_file")]
    no_auth: bool,
    /// The stdio MCP server to wrap, and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

fn isolation(text: &str) -> Result<Isolation, String> {
    let found = Isolation::WORDS.into_iter().find(|(word, _)| *word == text);
    found.map(|(_, isolation)| isolation).ok_or_else(|| "use session, principal, tenant or shared".to_owned())
}

/// Runs the command.
pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let server = server(&args, &Environment::of_process())?;
    if server.program().is_none() {
        let why = match server.file().is_some_and(|file| file.exists()) {
            true => "is not an executable file; make it one (chmod +x), or give the program that runs it first",
            false => "was not found; give the full path of the program, or install it first",
        };
        bail!("the command \"{}\" {why}", server.command);
    }
    single::run(server, args.listen, args.no_auth, &args.key, "{sluice} call {base}/sse TOOL name=value{key}")
}

/// The server that the arguments describe. The child gets the `PATH` of `environment`.
fn server(args: &Args, environment: &Environment) -> anyhow::Result<Server> {
    let (command, arguments) = args.command.split_first().context("no command was given")?;
    // The child starts in this directory, but a later change of it must not matter.
    let command = match command.contains('/') {
        true => std::path::absolute(command)?.to_string_lossy().into_owned(),
        false => command.clone(),
    };
    let mut server = Server::new("server".parse()?, command, arguments.to_vec());
    server.isolation = args.isolation;
    args.sandbox.apply(&mut server)?;
    // Whoever starts it by hand means the files that are here, and is the only one whose they are.
    server.cwd = std::env::current_dir().ok();
    server.changes_cwd = true;
    if let Some(path) = environment.get("PATH") {
        server.env.insert("PATH".to_owned(), path.into());
    }
    for key in &args.pass_env {
        let value = environment.get(key).with_context(|| format!("--pass-env {key}: the variable is not set"))?;
        server.env.insert(key.clone(), value.into());
    }
    for pair in &args.env {
        let (key, value) = pair
            .split_once('=')
            .filter(|(key, _)| !key.is_empty())
            // The text may be a secret that was meant for a value: it is not repeated.
            .context("--env takes KEY=VALUE; to pass a variable of this environment on, use --pass-env KEY")?;
        server.env.insert(key.to_owned(), value.into());
    }
    Ok(server)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use secrecy::ExposeSecret as _;

    use super::*;
    use crate::cli;

    fn parse(line: &[&str]) -> anyhow::Result<Server> {
        server(&cli::parse(line)?, &[("PATH", "/bin"), ("TOKEN", "t"), ("HOME", "/h")].into_iter().collect())
    }

    #[test]
    fn the_child_gets_what_is_listed_and_the_path() {
        let server = parse(&["--env", "A=b=c", "--pass-env", "TOKEN", "--", "npx", "-y", "--env"]).unwrap();
        let env: Vec<_> = server.env.iter().map(|(k, v)| (k.as_str(), v.expose_secret())).collect();
        assert_eq!(env, [("A", "b=c"), ("PATH", "/bin"), ("TOKEN", "t")]);
        assert_eq!((server.command.as_str(), server.args), ("npx", vec!["-y".to_owned(), "--env".to_owned()]));
    }

    #[test]
    fn mistakes_say_what_to_do_and_no_secret() {
        let wrong = |line: &[&str]| parse(line).unwrap_err().to_string();
        assert!(wrong(&["--env", "hunter2", "--", "x"]).contains("KEY=VALUE"));
        assert!(!wrong(&["--env", "hunter2", "--", "x"]).contains("hunter2"));
        assert!(wrong(&["--pass-env", "NOPE", "--", "x"]).contains("NOPE: the variable is not set"));
        assert!(wrong(&["--isolation", "all", "--", "x"]).contains("use session, principal, tenant or shared"));
        assert!(wrong(&["--listen", "8081", "--", "x"]).contains("an IP address and a port; write one"));
        assert!(wrong(&[]).contains("<COMMAND>"));
    }
}
