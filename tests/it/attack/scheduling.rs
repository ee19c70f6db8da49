//! A server changes nothing about the processes of others: not when and where they run, nor their memory, nor their
//! limits; and sends them no signals, by whatever way.

use sluice::config::SandboxMode;

use crate::sandbox::stage::{As, run};
use crate::sandbox::{Scene, Victim, asked, kernel};

const SANDBOXED: [SandboxMode; 2] = [SandboxMode::Standard, SandboxMode::Strict];

/// A probe that makes a system call, whose arguments are in Perl's notation.
fn call(number: i64, arguments: &str) -> String {
    format!("perl -e 'exit(syscall({number}, {arguments}) < 0)'")
}

/// What can be done to a process without a sandbox.
fn attacks(pid: &str) -> Vec<(&'static str, String)> {
    let process = |number, arguments: &str| call(number, &arguments.replace("PID", pid));
    vec![
        ("processors", process(libc::SYS_sched_setaffinity, "PID, 8, $m = pack(\"Q\", 1)")),
        ("turns", process(libc::SYS_sched_setscheduler, "PID, 3, $p = pack(\"i\", 0)")),
        ("parameters", process(libc::SYS_sched_setparam, "PID, $p = pack(\"i\", 0)")),
        ("attributes", process(libc::SYS_sched_setattr, "PID, $p = pack(\"LLQlLQ3\", 48, 3, 0, 0, 0, 0, 0, 0), 0")),
        ("priority", process(libc::SYS_setpriority, "0, PID, 19")),
        ("disk", process(libc::SYS_ioprio_set, "1, PID, 0x6000")),
        ("memory", process(libc::SYS_move_pages, "PID, 0, 0, 0, 0, 0")),
        ("limits", process(libc::SYS_prlimit64, "PID, 7, 0, $p = \"\\0\" x 16")),
        ("signal", process(libc::SYS_kill, "PID, 0")),
        ("signal to a thread", process(libc::SYS_tgkill, "PID, PID, 0")),
        (
            "signal by a descriptor",
            format!(
                "perl -e '$f = syscall({}, {pid}, 0); exit(syscall({}, $f, 0, 0, 0) < 0)'",
                libc::SYS_pidfd_open,
                libc::SYS_pidfd_send_signal
            ),
        ),
    ]
}

#[test]
fn a_server_schedules_nobody_but_itself() {
    for user in As::all() {
        let victim = Victim::new(user);
        let pid = victim.0.id().to_string();
        let attacks = attacks(&pid);
        let probes: Vec<_> = attacks.iter().map(|(name, probe)| (*name, probe.as_str())).collect();
        Scene::new().refused(user, &probes);
    }
}

#[test]
fn a_server_schedules_no_group_and_no_user() {
    // All processes of the user, the tests included: so each is asked for what is so already.
    let user = [("priority", call(libc::SYS_setpriority, "2, 0, 0")), ("disk", call(libc::SYS_ioprio_set, "3, 0, 0"))];
    let group =
        [("priority", call(libc::SYS_setpriority, "1, 0, 5")), ("disk", call(libc::SYS_ioprio_set, "2, 0, 0x4000"))];
    for probes in [user, group] {
        let script: String = probes.iter().map(|(name, probe)| asked(name, probe)).collect();
        for mode in SANDBOXED {
            assert_eq!(
                run(Scene::new().server(mode, &script), As::Tester).stdout,
                "priority: no\ndisk: no\n",
                "{mode:?}"
            );
        }
    }
}

#[test]
fn a_server_schedules_itself() {
    let script: String = attacks("0")
        .iter()
        .filter(|(name, _)| ["processors", "turns", "attributes", "disk", "memory", "limits"].contains(name))
        .map(|(name, probe)| asked(name, probe))
        .collect();
    for user in As::all() {
        for mode in SandboxMode::ALL {
            let said = run(Scene::new().server(mode, &script), user).stdout;
            assert!(said.lines().count() == 6 && !said.contains("no\n"), "{user:?} {mode:?} {said}");
        }
    }
}

#[test]
fn the_kernel_sends_nobody_a_signal_in_a_servers_name() {
    if kernel().landlock < 6 {
        return;
    }
    for user in As::all() {
        for mode in SandboxMode::ALL {
            let mut victim = Victim::new(user);
            // A socket whose owner gets SIGIO, which ends a program that does not expect it, as soon as there is
            // something.
            let script = format!(
                "perl -MSocket -e 'socketpair($a, $b, AF_UNIX, SOCK_STREAM, 0); fcntl($a, 8, {}); \
                 fcntl($a, 4, 020000); syswrite($b, \"x\"); sysread($a, $x, 1)'; echo over",
                victim.0.id()
            );
            assert_eq!(run(Scene::new().server(mode, &script), user).stdout, "over\n", "{user:?} {mode:?}");
            // A signal is there before the call by which it is caused returns.
            let ended = match mode {
                SandboxMode::None => Some(victim.0.wait().unwrap()),
                _ => victim.0.try_wait().unwrap(),
            };
            assert_eq!(ended.is_some(), mode == SandboxMode::None, "{user:?} {mode:?}");
        }
    }
}
