//! A server changes the properties of no file by its path: neither the mode, nor the owner, the times or the
//! attributes. And it makes no file by which a program runs as somebody else.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use sluice::config::{Allowance, SandboxMode};

use crate::sandbox::stage::{As, NOBODY, run};
use crate::sandbox::{Scene, asked};

const SANDBOXED: [SandboxMode; 2] = [SandboxMode::Standard, SandboxMode::Strict];
/// The directory that stands for the working directory, as the third argument of the kernel's calls.
const HERE: &str = "-100";
/// Numbers of calls that the `libc` crate does not have.
const FCHMODAT2: i64 = 452;

/// A call of the kernel in Perl, on the path `$V`.
fn call(number: i64, arguments: &str) -> String {
    format!("perl -e '$v = $ARGV[0]; syscall({number}, {arguments})' $V")
}

/// The same on a descriptor `$f` that leads to the path, and opens nothing.
fn through(number: i64, arguments: &str) -> String {
    format!(
        "perl -e '$e = \"\"; sysopen($h, $ARGV[0], 0x200000); $f = fileno($h); $l = \"/proc/self/fd/$f\"; \
             syscall({number}, {arguments})' $V"
    )
}

/// Every way to change the properties of `$V`, by name.
fn attacks() -> Vec<(&'static str, String)> {
    let times = "$t = pack(\"q4\", 0, 0, 0, 0)";
    let mut attacks = vec![
        ("mode", "chmod 0 $V".to_owned()),
        ("mode to look harmless", "chmod 755 $V".to_owned()),
        ("mode relative", "cd $(dirname $V) && chmod 0 ./$(basename $V)".to_owned()),
        ("mode by a link", "ln -s $V by-a-link; chmod 0 by-a-link".to_owned()),
        ("fchmodat", call(libc::SYS_fchmodat, &format!("{HERE}, $v, 0"))),
        ("fchmodat2", call(FCHMODAT2, &format!("{HERE}, $v, 0, 0"))),
        ("fchmodat2 of a descriptor", through(FCHMODAT2, "$f, $e, 0, 0x1000")),
        ("mode of a descriptor's link", through(libc::SYS_fchmodat, &format!("{HERE}, $l, 0"))),
        ("times", call(libc::SYS_utimensat, &format!("{HERE}, $v, {times}, 0"))),
        ("times of a descriptor", through(libc::SYS_utimensat, &format!("$f, $e, {times}, 0x1000"))),
        ("times of a descriptor's link", through(libc::SYS_utimensat, &format!("{HERE}, $l, {times}, 0"))),
        ("attribute", call(libc::SYS_setxattr, "$v, $n = \"user.x\", $x = \"1\", 1, 0")),
        ("attribute of a descriptor's link", through(libc::SYS_setxattr, "$l, $n = \"user.x\", $x = \"1\", 1, 0")),
        (
            "attribute of a folder",
            format!("cd $(dirname $V) && {}", call(libc::SYS_lsetxattr, "$v, $n = \"user.x\", $x = \"1\", 1, 0")),
        ),
    ];
    if cfg!(target_arch = "x86_64") {
        attacks.extend([
            // chmod, utime, utimes and futimesat, as only this architecture has them.
            ("chmod", call(90, "$v, 0")),
            ("utime", call(132, "$v, $t = pack(\"q2\", 0, 0)")),
            ("utimes", call(235, &format!("$v, {times}"))),
            ("futimesat", call(261, &format!("{HERE}, $v, {times}"))),
            ("chmod of a descriptor's link", through(90, "$l, 0")),
        ]);
    }
    attacks
}

/// What of a file's properties somebody could change; its attributes by a program, where the file system has any.
fn properties(path: &Path) -> (u32, u32, u32, i64, usize) {
    let found = path.metadata().unwrap();
    let mut names = [0; 256];
    let attributes = rustix::fs::listxattr(path, &mut names).unwrap_or(0);
    (found.mode(), found.uid(), found.gid(), found.mtime(), attributes)
}

/// Files of the server's user in another's folder, one for each attack.
fn victims(scene: &Scene, user: As, count: usize) -> Vec<PathBuf> {
    let make = |index| {
        let path = scene.folder.path().join(format!("other/victim-{index}"));
        std::fs::write(&path, "hunter2").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        if user != As::Tester {
            std::os::unix::fs::chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        path
    };
    (0..count).map(make).collect()
}

/// The attacks after which something about their victims is changed.
fn succeeding(user: As, mode: SandboxMode, allow: &[Allowance]) -> Vec<&'static str> {
    let (scene, attacks) = (Scene::new(), attacks());
    let victims = victims(&scene, user, attacks.len());
    let before: Vec<_> = victims.iter().map(|path| properties(path)).collect();
    let each = attacks.iter().zip(&victims);
    let script: String = each.map(|((_, attack), path)| format!("V={}; ( {attack} )\n", path.display())).collect();
    let mut server = scene.server(mode, &script);
    if mode != SandboxMode::None {
        server.sandbox.allow = allow.to_vec();
    }
    run(server, user);
    let changed =
        attacks.iter().zip(victims.iter().zip(before)).filter(|(_, (path, before))| properties(path) != *before);
    changed.map(|((name, _), _)| *name).collect()
}

#[test]
fn a_server_changes_no_properties_of_files_by_their_paths() {
    for user in As::all() {
        let without = succeeding(user, SandboxMode::None, &[]);
        // A file system may have no attributes; and not every kernel takes each of these for a descriptor.
        let sure = ["mode", "mode to look harmless", "mode relative", "mode by a link", "fchmodat", "times"];
        assert!(sure.iter().all(|name| without.contains(name)), "{user:?} {without:?}");
        assert!(without.contains(&"mode of a descriptor's link"), "{user:?} {without:?}");
        for mode in SANDBOXED {
            assert_eq!(succeeding(user, mode, &[]), Vec::<&str>::new(), "{user:?} {mode:?}");
        }
        let allowed = succeeding(user, SandboxMode::Standard, &[Allowance::Metadata]);
        assert_eq!(allowed, without, "{user:?}");
    }
}

#[test]
fn a_launcher_has_the_one_thing_that_it_needs() {
    for user in As::all() {
        let changed = |command: &str| {
            let (scene, attacks) = (Scene::new(), ["chmod 755 $V", "chmod 0 $V", "chmod 4755 $V", "chmod 777 $V"]);
            let victims = victims(&scene, user, attacks.len() + 1);
            let times = call(libc::SYS_utimensat, &format!("{HERE}, $v, $t = pack(\"q4\", 0, 0, 0, 0), 0"));
            let each = attacks.into_iter().chain([&*times]).zip(&victims);
            let script: String = each.map(|(attack, path)| format!("V={}; ( {attack} )\n", path.display())).collect();
            let mut server = scene.server(SandboxMode::Standard, &script);
            // A shell by the name of a launcher.
            let launcher = scene.folder.path().join(command);
            std::fs::copy("/bin/sh", &launcher).unwrap();
            server.command = launcher.display().to_string();
            let before: Vec<_> = victims.iter().map(|path| properties(path)).collect();
            let ended = run(server, user);
            assert_eq!(ended.fault, "", "{user:?} {ended:?}");
            victims.iter().zip(before).map(|(path, before)| properties(path) != before).collect::<Vec<_>>()
        };
        assert_eq!(changed("npx"), [false, false, false, false, true], "{user:?}: times, for its locks");
        assert_eq!(changed("uvx"), [true, false, false, false, false], "{user:?}: programs, which it has written");
        assert_eq!(changed("node"), [false; 5], "{user:?}");
    }
}

#[test]
fn attributes_and_leases_of_code_that_can_be_read_are_out_of_reach() {
    let flags = "perl -e 'open($f, \"<\", $ARGV[0]); $n = pack(\"l!\", 0x40); \
                 exit(!defined(ioctl($f, 0x40086602, $n)))' $OTHER/secret";
    let attribute = format!(
        "perl -e 'open($f, \"<\", $ARGV[0]); exit(syscall({}, fileno($f), $n = \"user.x\", $x = \"1\", 1, 0) < 0)' $OTHER/secret",
        libc::SYS_fsetxattr
    );
    let lease = "perl -e 'open($f, \"<\", $ARGV[0]); exit(!defined(fcntl($f, 1024, 0)))' $OTHER/secret";
    let probes = [("flags", flags.to_owned()), ("attribute", attribute), ("lease", lease.to_owned())];
    let script: String = probes.iter().map(|(name, probe)| asked(name, probe)).collect();
    for user in As::all() {
        let scene = Scene::new();
        if user != As::Tester {
            std::os::unix::fs::chown(scene.folder.path().join("other/secret"), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let said = |mode| {
            let mut server = scene.server(mode, &script);
            if mode != SandboxMode::None {
                server.sandbox.read.push(scene.folder.path().join("other"));
            }
            run(server, user).stdout
        };
        // The file system may have neither flags nor attributes.
        assert!(said(SandboxMode::None).contains("lease: yes"), "{user:?}");
        for mode in SANDBOXED {
            assert_eq!(said(mode), "flags: no\nattribute: no\nlease: no\n", "{user:?} {mode:?}");
        }
    }
}

#[test]
fn no_file_is_made_that_runs_as_its_owner() {
    let file = |number: i64, arguments: &str| format!("perl -e 'umask(0); syscall({number}, {arguments})'");
    let open = libc::O_CREAT | libc::O_WRONLY;
    let mut attacks = vec![
        ("a", "perl -e 'umask(0); sysopen($f, \"a\", 0101, 04755)'".to_owned()),
        ("b", file(libc::SYS_openat, &format!("{HERE}, $n = \"b\", {open}, 02755"))),
        ("c", file(libc::SYS_mknodat, &format!("{HERE}, $n = \"c\", 0104755, 0"))),
        ("d", "umask 0; : > d; chmod 4755 d".to_owned()),
        ("e", "umask 0; : > e; perl -e 'open($f, \">\", \"e\"); chmod 02755, $f'".to_owned()),
        (
            "f",
            format!(
                "perl -e 'umask(0); $f = syscall({}, {HERE}, $n = \".\", 0{:o}, 04755); \
                 syscall({}, {HERE}, $l = \"/proc/self/fd/$f\", {HERE}, $n = \"f\", 0x400)'",
                libc::SYS_openat,
                libc::O_TMPFILE | libc::O_RDWR,
                libc::SYS_linkat
            ),
        ),
        ("g", file(libc::SYS_openat2, &format!("{HERE}, $n = \"g\", $h = pack(\"Q3\", {open}, 04755, 0), 24"))),
    ];
    if cfg!(target_arch = "x86_64") {
        attacks.push(("h", file(85, "$n = \"h\", 04755")));
        attacks.push(("i", file(133, "$n = \"i\", 0104755, 0")));
        attacks.push(("j", file(2, &format!("$n = \"j\", {open}, 04755"))));
    }
    let script: String = attacks.iter().map(|(_, attack)| format!("( {attack} )\n")).collect();
    for user in As::all() {
        let made = |mode| {
            let scene = Scene::new();
            run(scene.server(mode, &script), user);
            let is_made = |name: &str| {
                let found = scene.folder.path().join("own").join(name).metadata();
                found.is_ok_and(|found| found.mode() & 0o6000 != 0)
            };
            attacks.iter().filter(|(name, _)| is_made(name)).map(|(name, _)| *name).collect::<Vec<_>>()
        };
        let all: Vec<_> = attacks.iter().map(|(name, _)| *name).collect();
        assert_eq!(made(SandboxMode::None), all, "{user:?}");
        for mode in SANDBOXED {
            assert_eq!(made(mode), Vec::<&str>::new(), "{user:?} {mode:?}");
        }
    }
}

#[test]
fn what_programs_do_with_properties_every_day_goes_on() {
    // The programs succeed; of what they have opened the properties are changed, unless root has to be kept from it.
    let script = "set -e; mkdir -m 700 d; echo x > d/a; chmod 755 d/a; cp -p d/a b; cp -a d e; tar cf t d; mkdir u; \
                  tar xf t -C u; install -m 755 b c; touch -d @0 b; mv b f; test -f u/d/a; echo done; stat -c %Y f; \
                  perl -e 'open($f, \">\", \"g\"); chmod 0600, $f'; stat -c %a g";
    for user in As::all() {
        let scene = Scene::new();
        let ended = run(scene.server(SandboxMode::Standard, script), user);
        let mode = if user == As::Tester && crate::sandbox::stage::is_root() { "644" } else { "600" };
        assert_eq!(ended.stdout, format!("done\n0\n{mode}\n"), "{user:?} {ended:?}");
    }
}
