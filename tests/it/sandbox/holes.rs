//! Ways out of a sandbox that somebody has found: each was open once.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use sluice::config::{SandboxMode, Server};
use sluice::process::sandbox::Reach;
use sluice::process::{Folders, Launch, Owner};

use super::stage::{As, NOBODY, run};
use super::{Scene, asked, kernel};

const SANDBOXED: [SandboxMode; 2] = [SandboxMode::Standard, SandboxMode::Strict];

/// A probe that makes a system call, whose arguments are in Perl's notation.
fn call(number: i64, arguments: &str) -> String {
    format!("perl -e 'exit(syscall({number}, {arguments}) < 0)'")
}

fn names(name: &str) -> Server {
    Server::new(name.parse().unwrap(), "/bin/sh", Vec::new())
}

#[test]
fn who_is_started_anew_is_opened_nothing_that_it_has_prepared() {
    for user in As::all() {
        for mode in SandboxMode::ALL {
            let scene = Scene::new();
            let own = scene.folder.path().join("own");
            std::fs::write(own.join("data.db"), "").unwrap();
            // An other way to the same.
            symlink("own", scene.folder.path().join("alias")).unwrap();
            let probes = [("read", "cat data.db"), ("list", "ls folder/"), ("write", "echo x >folder/new")];
            let script: String = probes.iter().map(|(name, probe)| asked(name, probe)).collect();
            let links = "rm -f data.db folder; ln -s $OTHER/secret data.db; ln -s $OTHER folder";
            let mut server = scene.server(mode, &format!("{script}{links}"));
            let alias = scene.folder.path().join("alias/folder");
            server.args.extend(["sh", "--db=data.db", "folder", &alias.to_string_lossy()].map(str::to_owned));
            server.env.insert("DATA".to_owned(), own.join("folder").to_string_lossy().into_owned().into());
            assert_eq!(run(server.clone(), user).stdout, "read: yes\nlist: no\nwrite: no\n", "{user:?} {mode:?}");
            let answer = if mode == SandboxMode::None { "yes" } else { "no" };
            let answers: String = probes.iter().map(|(name, _)| format!("{name}: {answer}\n")).collect();
            assert_eq!(run(server, user).stdout, answers, "{user:?} {mode:?}");
        }
    }
}

#[test]
fn what_a_server_has_written_is_not_believed() {
    let scene = Scene::new();
    let (own, other) = (scene.folder.path().join("own"), scene.folder.path().join("other"));
    std::fs::copy("/bin/true", other.join("interpreter")).unwrap();
    for mode in SANDBOXED {
        let mut server = names("s");
        server.sandbox.write.push(own.clone());
        server.sandbox.mode = mode;
        server.command = own.join("tool").display().to_string();
        std::fs::write(own.join("tool"), format!("#!{}\n", other.join("interpreter").display())).unwrap();
        std::fs::set_permissions(own.join("tool"), std::fs::Permissions::from_mode(0o755)).unwrap();
        let opened = |server: &Server| {
            let launch = Launch::of(server, &Folders::new(None), &Reach::default(), &Owner::everybody()).unwrap();
            let enclosure = launch.policy.confinement.unwrap().enclosure;
            enclosure.read.iter().chain(&enclosure.write).any(|path| path.starts_with(&other))
        };
        assert!(!opened(&server), "{mode:?}");
        server.sandbox.write.clear();
        assert!(opened(&server), "{mode:?}: by whom it does not belong to, it is");
    }
}

#[test]
fn a_file_that_is_named_opens_itself_only() {
    for user in As::all() {
        for mode in SANDBOXED {
            let scene = Scene::new();
            let other = scene.folder.path().join("other");
            std::fs::write(other.join("jwt"), "hunter2").unwrap();
            let probes = [("itself", "cat $OTHER/secret"), ("beside it", "cat $OTHER/jwt"), ("around it", "ls $OTHER")];
            let script: String = probes.iter().map(|(name, probe)| asked(name, probe)).collect();
            let mut server = scene.server(mode, &script);
            server.args.extend(["sh".to_owned(), format!("--token-file={}", other.join("secret").display())]);
            let answers = "itself: yes\nbeside it: no\naround it: no\n";
            assert_eq!(run(server, user).stdout, answers, "{user:?} {mode:?}");
        }
    }
}

#[test]
fn the_home_of_everybody_is_crowded() {
    // The one that the environment names does not make a workspace of the one that the system knows.
    let home = sluice::config::home_of(rustix::process::geteuid().as_raw()).unwrap();
    for mode in SANDBOXED {
        let mut server = names("s");
        server.cwd = Some(home.clone());
        server.env.insert("HOME".to_owned(), "/tmp".into());
        server.sandbox.mode = mode;
        let launch = Launch::of(&server, &Folders::new(None), &Reach::default(), &Owner::everybody()).unwrap();
        let enclosure = launch.policy.confinement.unwrap().enclosure;
        assert!(!enclosure.read.iter().chain(&enclosure.write).any(|path| home.starts_with(path)), "{mode:?}");
    }
}

#[test]
fn a_strict_server_changes_no_properties_and_watches_nothing() {
    for user in As::all() {
        let scene = Scene::new();
        let secret = scene.folder.path().join("other/secret");
        if user != As::Tester {
            std::os::unix::fs::chown(&secret, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let watch = format!(
            "perl -e '$i = syscall({}, 0); exit(syscall({}, $i, $ARGV[0], 0x100) < 0)' $OTHER",
            libc::SYS_inotify_init1,
            libc::SYS_inotify_add_watch
        );
        let attribute = call(libc::SYS_setxattr, "$ARGV[0], \"user.x\", \"1\", 1, 0");
        let probes = [
            ("mode", "chmod 600 $OTHER/secret && chmod 666 $OTHER/secret".to_owned()),
            ("owner", "chown $(id -u) $OTHER/secret".to_owned()),
            ("times", "touch -d @0 $OTHER/secret".to_owned()),
            ("attribute", format!("{attribute} $OTHER/secret")),
            ("watch", watch),
        ];
        let script: String = probes.iter().map(|(name, probe)| asked(name, probe)).collect();
        let said = |mode| run(scene.server(mode, &script), user).stdout;
        let without = said(SandboxMode::None);
        for (name, _) in probes.iter().filter(|(name, _)| *name != "attribute") {
            assert!(without.contains(&format!("{name}: yes\n")), "{user:?} {without}");
        }
        let answers: String = probes.iter().map(|(name, _)| format!("{name}: no\n")).collect();
        assert_eq!(said(SandboxMode::Strict), answers, "{user:?}");
        // Of its own it changes them by the descriptor.
        let own = run(scene.server(SandboxMode::Strict, "touch -d @0 own && stat -c %Y own"), user);
        assert_eq!(own.stdout, "0\n", "{user:?} {own:?}");
    }
}

/// System calls that no sandbox lets pass.
fn refused_calls() -> Vec<(&'static str, String)> {
    let pair = |kind: i32| {
        let arguments = format!("{}, {kind}, 0, $p = pack(\"ii\", 0, 0)", libc::AF_UNIX);
        call(libc::SYS_socketpair, &arguments)
    };
    let prctl = |option: i32, value: i32| call(libc::SYS_prctl, &format!("{option}, {value}, 0, 0, 0"));
    let shared = |get: i64, arguments: &str, control: i64, remove: &str| {
        format!("perl -e '$i = syscall({get}, {arguments}); exit($i < 0 || syscall({control}, $i, {remove}) < 0)'")
    };
    let mut calls = vec![
        ("datagram pair", pair(libc::SOCK_DGRAM)),
        ("raw pair", pair(libc::SOCK_RAW)),
        ("ciphers", call(libc::SYS_socket, &format!("{}, {}, 0", libc::AF_ALG, libc::SOCK_SEQPACKET))),
        ("keys", call(libc::SYS_keyctl, "0, -3, 1")),
        ("tracing", call(libc::SYS_ptrace, "0, 0, 0, 0")),
        ("memory of others", call(libc::SYS_process_vm_readv, "$$, 0, 0, 0, 0, 0")),
        ("io_uring", call(libc::SYS_io_uring_setup, "1, $p = \"\\0\" x 120")),
        ("asynchronous input", call(libc::SYS_io_setup, "1, $p = pack(\"Q\", 0)")),
        ("clone3", format!("perl -e 'syscall({}, 0, 0); exit($! == {})'", libc::SYS_clone3, libc::ENOSYS)),
        ("user namespace", call(libc::SYS_unshare, &libc::CLONE_NEWUSER.to_string())),
        ("limits of others", call(libc::SYS_prlimit64, "getppid, 7, 0, $p = \"\\0\" x 16")),
        ("priority of others", call(libc::SYS_setpriority, "0, getppid, 19")),
        ("no signal at its end", prctl(libc::PR_SET_PDEATHSIG, 0)),
        ("another signal at its end", prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM)),
        ("no reaper", prctl(libc::PR_SET_CHILD_SUBREAPER, 0)),
        ("shared memory", shared(libc::SYS_shmget, "0, 4096, 0600", libc::SYS_shmctl, "0, 0")),
        ("message queue", shared(libc::SYS_msgget, "0, 0600", libc::SYS_msgctl, "0, 0")),
        ("semaphores", shared(libc::SYS_semget, "0, 1, 0600", libc::SYS_semctl, "0, 0, 0")),
        ("setuid", "touch mine && chmod 4755 mine".to_owned()),
    ];
    if kernel().landlock < 9 {
        calls.push(("socket in the file system", call(libc::SYS_socket, &format!("{}, 1, 0", libc::AF_UNIX))));
    }
    calls
}

/// What the kernel of this machine, or the container that this is in, may refuse to everybody.
const MAY_BE_IMPOSSIBLE: [&str; 6] = ["ciphers", "keys", "io_uring", "clone3", "user namespace", "memory of others"];

#[test]
fn system_calls_that_no_server_has_business_with_are_refused() {
    let calls = refused_calls();
    let script: String = calls.iter().map(|(name, probe)| asked(name, probe)).collect();
    let answers: String = calls.iter().map(|(name, _)| format!("{name}: no\n")).collect();
    for user in As::all() {
        let scene = Scene::new();
        let without = run(scene.server(SandboxMode::None, &script), user).stdout;
        for (name, _) in calls.iter().filter(|(name, _)| !MAY_BE_IMPOSSIBLE.contains(name)) {
            assert!(without.contains(&format!("{name}: yes\n")), "{user:?} {name} in {without}");
        }
        for mode in SANDBOXED {
            assert_eq!(run(scene.server(mode, &script), user).stdout, answers, "{user:?} {mode:?}");
        }
    }
}

#[test]
fn what_servers_do_every_day_passes() {
    let pair = format!("{}, {}, 0, $p = pack(\"ii\", 0, 0)", libc::AF_UNIX, libc::SOCK_STREAM);
    let calls = [
        call(libc::SYS_socketpair, &pair),
        call(libc::SYS_prctl, &format!("{}, {}, 0, 0, 0", libc::PR_SET_PDEATHSIG, libc::SIGKILL)),
        call(libc::SYS_prlimit64, "0, 7, 0, $p = \"\\0\" x 16"),
    ];
    let script: String = calls.iter().map(|probe| asked("done", probe)).collect();
    for user in As::all() {
        for mode in SANDBOXED {
            let scene = Scene::new();
            let more = if mode == SandboxMode::Standard {
                asked("done", "touch own && chmod 755 own")
            } else {
                script.clone()
            };
            let said = run(scene.server(mode, &format!("{script}{more}")), user);
            assert!(!said.stdout.contains("no") && said.stdout.contains("yes"), "{user:?} {mode:?} {said:?}");
        }
    }
}

#[test]
fn datagrams_stay_inside_where_the_network_is_off() {
    let script: String = [libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK]
        .iter()
        .flat_map(|family| [libc::SOCK_DGRAM, libc::SOCK_STREAM].map(|kind| (*family, kind)))
        .map(|(family, kind)| asked("made", &call(libc::SYS_socket, &format!("{family}, {kind}, 0"))))
        .collect();
    for user in As::all() {
        for (mode, network, word) in [
            (SandboxMode::None, None, "yes"),
            (SandboxMode::Standard, None, "yes"),
            (SandboxMode::Standard, Some(false), "no"),
            (SandboxMode::Strict, None, "no"),
            (SandboxMode::Strict, Some(true), "yes"),
        ] {
            let scene = Scene::new();
            let mut server = scene.server(mode, &script);
            server.sandbox.network = network;
            let said = run(server, user).stdout;
            let lines: Vec<_> = said.lines().collect();
            // Netlink has no streams, in no mode; a machine may have no IPv6.
            let sure = [lines.first(), lines.get(1), lines.get(4)];
            assert!(sure.iter().all(|line| *line == Some(&&*format!("made: {word}"))), "{user:?} {mode:?} {said}");
            assert!(word == "yes" || !said.contains("yes"), "{user:?} {mode:?} {said}");
        }
    }
}

#[test]
fn the_groups_of_others_are_not_listed() {
    if !Path::new("/sys/fs/cgroup/cgroup.procs").exists() {
        return;
    }
    for user in As::all() {
        Scene::new().refused(user, &[("groups", "ls /sys/fs/cgroup")]);
    }
}
