//! Every way out of the workspace that a path can try.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::*;

/// A workspace `inside` of a temporary folder, with a file `secret` and a directory `outside` beside it.
fn fixture() -> (tempfile::TempDir, Workspace) {
    let around = tempfile::tempdir().unwrap();
    std::fs::write(around.path().join("secret"), "secret").unwrap();
    std::fs::create_dir(around.path().join("outside")).unwrap();
    let workspace = Workspace::open(&around.path().join("inside")).unwrap();
    (around, workspace)
}

fn refusal(outcome: Result<impl std::fmt::Debug, Error>) -> String {
    outcome.unwrap_err().to_string()
}

#[test]
fn what_is_written_is_read_and_listed() {
    let (_around, workspace) = fixture();
    workspace.write("a/b/c.txt", "hällo".as_bytes()).unwrap();
    workspace.write("./top", b"1").unwrap();
    workspace.write("top", b"22").unwrap();
    assert_eq!(workspace.read("a/b/c.txt").unwrap(), "hällo".as_bytes());
    assert_eq!(workspace.read("top").unwrap(), b"22");
    assert_eq!(workspace.list().unwrap(), "a/\na/b/\na/b/c.txt\t6\ntop\t2\n");
}

#[test]
fn the_mode_of_a_replaced_file_stays() {
    let (_around, workspace) = fixture();
    let script = workspace.root().join("script");
    std::fs::write(&script, "old").unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    workspace.write("script", b"new").unwrap();
    assert_eq!(script.metadata().unwrap().permissions().mode() & 0o777, 0o755);
}

#[test]
fn paths_that_name_the_outside_are_refused() {
    let (around, workspace) = fixture();
    let absolute = around.path().join("secret").display().to_string();
    for (path, why) in [
        ("../secret", "`..`"),
        ("a/../../secret", "`..`"),
        ("..", "`..`"),
        (absolute.as_str(), "absolute"),
        ("/etc/passwd", "absolute"),
        ("", "names no file"),
        (".", "names no file"),
        ("a\0b", "NUL"),
    ] {
        assert!(refusal(workspace.read(path)).contains(why), "read {path:?}");
        assert!(refusal(workspace.write(path, b"x")).contains(why), "write {path:?}");
    }
    assert_eq!(std::fs::read(around.path().join("secret")).unwrap(), b"secret");
}

#[test]
fn links_that_lead_outside_are_refused() {
    let (around, workspace) = fixture();
    let root = workspace.root().to_owned();
    symlink("../secret", root.join("relative")).unwrap();
    symlink(around.path().join("secret"), root.join("absolute")).unwrap();
    symlink("../outside", root.join("folder")).unwrap();
    symlink("/proc/self/root", root.join("magic")).unwrap();
    for path in ["relative", "absolute", "magic/etc/passwd"] {
        assert!(refusal(workspace.read(path)).contains("outside the workspace"), "{path}");
    }
    for path in ["relative", "absolute"] {
        assert!(refusal(workspace.write(path, b"x")).contains("is a link"), "{path}");
    }
    for path in ["folder/new", "folder/deep/new", "magic/new"] {
        assert!(refusal(workspace.write(path, b"x")).contains("outside the workspace"), "{path}");
    }
    assert_eq!(std::fs::read(around.path().join("secret")).unwrap(), b"secret");
    assert_eq!(std::fs::read_dir(around.path().join("outside")).unwrap().count(), 0);
    assert!(!workspace.list().unwrap().contains("secret"), "a listing follows no link");
}

#[test]
fn links_that_stay_inside_are_followed() {
    let (_around, workspace) = fixture();
    workspace.write("real/file", b"content").unwrap();
    symlink("../real", workspace.root().join("real/self")).unwrap();
    symlink("real", workspace.root().join("folder")).unwrap();
    assert_eq!(workspace.read("folder/self/file").unwrap(), b"content");
    workspace.write("folder/more/new", b"x").unwrap();
    assert_eq!(workspace.read("real/more/new").unwrap(), b"x");
}

#[test]
fn a_directory_that_becomes_a_link_while_files_are_written_leads_nowhere() {
    let (around, workspace) = fixture();
    let (root, outside) = (workspace.root().to_owned(), around.path().join("outside"));
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let _ = std::fs::remove_dir_all(root.join("d"));
                let _ = symlink(&outside, root.join("d"));
                let _ = std::fs::remove_file(root.join("d"));
            }
        });
        let (mut written, mut refused) = (0, 0);
        while written < 1000 || refused < 1000 {
            match workspace.write("d/e", b"x") {
                Ok(()) => written += 1,
                Err(_) => refused += 1,
            }
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
}

#[test]
fn special_files_and_directories_are_refused_without_waiting() {
    let (_around, workspace) = fixture();
    let fifo = workspace.root().join("fifo");
    rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    assert!(refusal(workspace.read("fifo")).contains("no regular file"));
    assert!(refusal(workspace.write("fifo", b"x")).contains("no regular file"));
    workspace.write("folder/file", b"x").unwrap();
    assert!(refusal(workspace.read("folder")).contains("is a directory"));
    assert!(refusal(workspace.write("folder", b"x")).contains("is a directory"));
    assert!(refusal(workspace.write("folder/file/below", b"x")).contains("a file stands"));
    assert!(refusal(workspace.read("missing")).contains("no such file"));
}

#[test]
fn sizes_are_bounded() {
    let (_around, workspace) = fixture();
    workspace.write("largest", &vec![b'x'; MAX_FILE]).unwrap();
    assert_eq!(workspace.read("largest").unwrap().len(), MAX_FILE);
    assert!(refusal(workspace.write("larger", &vec![b'x'; MAX_FILE + 1])).contains("1048576 bytes"));
    std::fs::write(workspace.root().join("larger"), vec![b'x'; MAX_FILE + 1]).unwrap();
    assert!(refusal(workspace.read("larger")).contains("1048576 bytes"));
    assert!(refusal(workspace.write(&"a/".repeat(MAX_PATH), b"x")).contains("1024 bytes"));
    for number in 0..=MAX_LISTED {
        std::fs::write(workspace.root().join(number.to_string()), "").unwrap();
    }
    assert!(workspace.list().unwrap().contains("more than 1000 entries"));
}

#[test]
fn a_private_workspace_is_for_its_user_and_goes_with_its_value() {
    let workspace = Workspace::private().unwrap();
    let root = workspace.root().to_owned();
    assert_eq!(root.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    workspace.write("a/b", b"x").unwrap();
    drop(workspace);
    assert!(!root.exists());
}
