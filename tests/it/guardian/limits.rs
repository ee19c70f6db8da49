//! Limits hold, or it is said that they do not: for a gateway that has no descriptor left, and for root without the
//! privilege to limit others.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use super::program::{Program, Setup};
use crate::harness::{eventually, fixture_path, in_time};

/// Root as it is in most containers.
const UNPRIVILEGED: [&str; 3] = ["setpriv", "--bounding-set=-sys_resource", "--"];

/// A server that is the fixture, with these lines.
fn server(name: &str, lines: &str) -> String {
    format!("[servers.{name}]\ncommand = {:?}\nargs = [\"echo\"]\n{lines}\n", fixture_path())
}

#[tokio::test]
async fn a_watch_that_sees_nothing_is_counted() {
    let configuration = server("watched", "limits.memory = \"1GiB\"");
    let program = Program::start_as(Setup { configuration, ..Setup::default() });
    let gateway = Pid::from_raw(program.pid());
    let failures = async || program.metrics().await.sum("sluice_watch_failures_total", "");
    let session = program.open("watched").await;
    assert_eq!(failures().await, 0.0);
    let before = getrlimit(Resource::Nofile);
    eventually("it is counted", async || {
        // Without a descriptor it could not answer either.
        prlimit(gateway, Resource::Nofile, Rlimit { current: Some(3), ..before }).unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        prlimit(gateway, Resource::Nofile, before).unwrap();
        (failures().await > 0.0).then_some(())
    })
    .await;
    session.delete().await;
    program.finish().await;
}

#[tokio::test]
async fn a_tenants_limits_hold_where_root_may_not_limit_others() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let other = "sandbox = { mode = \"none\", user = \"4012345\", group = \"4012345\" }\npool.mode = \"dynamic\"";
    let configuration = server("spare", other) + "[tenants.t.limits]\nopen_files = 200\n";
    let program = Program::start_as(Setup { configuration, through: UNPRIVILEGED.to_vec(), ..Setup::default() });
    let has_spare = async || (program.metrics().await.sum("sluice_spare_children", "") > 0.0).then_some(());
    eventually("there is a spare", has_spare).await;
    let pid = program.open("spare").await.pid().await;
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let files: Vec<_> =
        limits.lines().find(|line| line.starts_with("Max open files")).unwrap().split_whitespace().collect();
    assert_eq!(files[3..5], ["200", "200"], "{limits}");
    program.finish().await;
}

#[tokio::test]
async fn a_limit_that_root_may_not_raise_is_a_problem() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("sluice.toml");
    std::fs::write(&config, "[auth]\nanonymous='a'\n[tenants.a]\n[servers.s]\ncommand='sh'\nlimits.open_files=1000\n")
        .unwrap();
    let [setpriv, rest @ ..] = UNPRIVILEGED;
    let script = "ulimit -n 500; exec \"$0\" check --config \"$1\"";
    let mut command = tokio::process::Command::new(setpriv);
    command.args(rest).args(["sh", "-c", script, env!("CARGO_BIN_EXE_sluice")]).arg(config);
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let output = in_time("it says what is wrong", child.wait_with_output()).await.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("servers.s.limits.open_files: the system allows the gateway no more than 500"), "{said}");
}
