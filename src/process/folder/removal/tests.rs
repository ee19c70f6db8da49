//! Removes trees of folders: deep ones, wide ones, and such as change meanwhile.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]
use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::mount::{MsFlags, mount, umount};
use nix::sched::{CloneFlags, unshare};
use rustix::fs::{CWD, FileType as Kind};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::CapabilitySet;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

use super::*;

/// A long time.
fn later() -> Instant {
    Instant::now() + Duration::from_secs(600)
}

/// Removes all, however many calls it takes.
fn remove_all(parent: &OwnedFd) -> io::Result<()> {
    loop {
        match remove(parent, c"folder", later()) {
            Outcome::Done => return Ok(()),
            Outcome::Unfinished => {}
            Outcome::Failed(error) => return Err(error),
        }
    }
}

/// A place with a folder in it that is to be removed, and something that is not.
fn scene() -> (tempfile::TempDir, OwnedFd) {
    let place = tempfile::tempdir().unwrap();
    std::fs::create_dir(place.path().join("folder")).unwrap();
    std::fs::create_dir_all(place.path().join("outside/kept")).unwrap();
    std::fs::write(place.path().join("outside/file"), "kept").unwrap();
    let parent = rustix::fs::open(place.path(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    (place, parent)
}

fn is_untouched(place: &Path) -> bool {
    std::fs::read_to_string(place.join("outside/file")).unwrap() == "kept" && place.join("outside/kept").is_dir()
}

/// Makes folders in folders, each with a file.
fn nest(parent: &OwnedFd, depth: usize, name: &str) {
    let mut folder = enter(parent, c"folder").unwrap();
    for _ in 0..depth {
        rustix::fs::mkdirat(&folder, name, Mode::RWXU).unwrap();
        let file = OFlags::CREATE | OFlags::WRONLY;
        rustix::fs::openat(&folder, "file", file, Mode::RUSR).unwrap();
        folder = rustix::fs::openat(&folder, name, PATH_ONLY, Mode::empty()).unwrap();
    }
}

#[test]
fn depth_takes_neither_stack_nor_descriptors() {
    let (place, parent) = scene();
    nest(&parent, 20_000, &"n".repeat(255));
    let open = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
    let limit = Rlimit { current: Some(open + 6), maximum: getrlimit(Resource::Nofile).maximum };
    let small = std::thread::Builder::new().stack_size(64 << 10);
    let removed = small.spawn(move || {
        setrlimit(Resource::Nofile, limit).unwrap();
        remove_all(&parent)
    });
    removed.unwrap().join().unwrap().unwrap();
    assert!(!place.path().join("folder").exists() && is_untouched(place.path()));
}

#[test]
fn what_cannot_be_moved_up_is_removed_from_below() {
    let (place, parent) = scene();
    nest(&parent, 300, "n");
    let top = enter(&parent, c"folder").unwrap();
    let mut emptying = Emptying::begin(top, later()).unwrap();
    let top = Rc::clone(&emptying.top);
    while place.path().join("folder/n").exists() {
        emptying.has_removed = false;
        emptying.remove_deepest(&top, c"n").unwrap();
        assert!(emptying.has_removed);
    }
    assert!(is_untouched(place.path()));
}

#[test]
fn all_kinds_of_entries_are_removed_and_what_they_lead_to_is_not() {
    let (place, parent) = scene();
    let folder = place.path().join("folder");
    for at in [folder.clone(), folder.join("a"), folder.join("a/b")] {
        std::fs::create_dir_all(&at).unwrap();
        symlink(place.path().join("outside"), at.join("link")).unwrap();
        symlink("/nonexistent", at.join("dangling")).unwrap();
        std::fs::hard_link(place.path().join("outside/file"), at.join("hard")).unwrap();
        rustix::fs::mknodat(CWD, at.join("fifo"), Kind::Fifo, Mode::RUSR, 0).unwrap();
        rustix::fs::mknodat(CWD, at.join("socket"), Kind::Socket, Mode::RUSR, 0).unwrap();
        for number in 0..3000 {
            std::fs::write(at.join(format!("{number}\n\u{fe}")), "").unwrap();
        }
    }
    remove_all(&parent).unwrap();
    assert!(!folder.exists() && is_untouched(place.path()));
    assert_eq!(place.path().join("outside/file").metadata().unwrap().nlink(), 1);
}

#[test]
fn folders_that_their_owner_has_closed_are_opened() {
    let (place, parent) = scene();
    let folder = place.path().join("folder");
    std::fs::create_dir_all(folder.join("a/b/c")).unwrap();
    std::fs::write(folder.join("a/b/file"), "").unwrap();
    for at in ["a/b/c", "a/b", "a", ""] {
        std::fs::set_permissions(folder.join(at), Permissions::from_mode(0o0)).unwrap();
    }
    // What root may do beside is not what this is about.
    let mut sets = rustix::thread::capabilities(None).unwrap();
    sets.effective -= CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH | CapabilitySet::FOWNER;
    rustix::thread::set_capabilities(None, sets).unwrap();
    assert!(std::fs::read_dir(&folder).is_err());
    remove_all(&parent).unwrap();
    assert!(!folder.exists());
}

#[test]
fn attributes_do_not_keep_what_root_removes() {
    let (place, parent) = scene();
    let folder = place.path().join("folder/a");
    std::fs::create_dir_all(folder.join("b")).unwrap();
    std::fs::write(folder.join("file"), "").unwrap();
    std::fs::write(folder.join("b/file"), "").unwrap();
    for at in [folder.join("b/file"), folder.join("b"), folder.clone()] {
        let file = File::open(at).unwrap();
        let flags = rustix::fs::ioctl_getflags(&file).unwrap_or(IFlags::empty());
        if rustix::fs::ioctl_setflags(&file, flags | IFlags::IMMUTABLE).is_err() {
            // Not root, or not this file system: then nobody can make such an entry either.
            return;
        }
    }
    remove_all(&parent).unwrap();
    assert!(!folder.exists());
}

#[test]
fn what_moves_meanwhile_leads_nowhere() {
    let (place, parent) = scene();
    let folder = place.path().join("folder");
    let outside = place.path().join("outside");
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for at in 0..2 {
            let (folder, outside, is_over) = (&folder, &outside, &is_over);
            // One that survives: it swaps folders for links, and moves folders out and in.
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    let (one, two) = (folder.join(format!("{at}")), outside.join(format!("moved-{at}")));
                    let _ = std::fs::create_dir_all(one.join("a/b"));
                    let _ = std::fs::write(one.join("a/file"), "");
                    let _ = std::fs::rename(one.join("a"), &two);
                    let _ = symlink(outside, one.join("a"));
                    let _ = std::fs::remove_file(one.join("a"));
                    let _ = std::fs::rename(&two, one.join("a"));
                    let _ = std::fs::rename(&one, &two);
                    let _ = symlink(outside, &one);
                    let _ = std::fs::remove_file(&one);
                    let _ = std::fs::rename(&two, &one);
                }
            });
        }
        let until = Instant::now() + Duration::from_secs(2);
        while Instant::now() < until {
            let _ = remove(&parent, c"folder", Instant::now() + Duration::from_millis(50));
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert!(is_untouched(place.path()));
    remove_all(&parent).unwrap();
    assert!(!folder.exists() && is_untouched(place.path()));
}

#[test]
fn a_time_that_is_over_ends_it_and_the_next_call_goes_on() {
    let (place, parent) = scene();
    for number in 0..2000 {
        std::fs::create_dir_all(place.path().join(format!("folder/{number}/a/b"))).unwrap();
    }
    let mut calls = 0;
    loop {
        calls += 1;
        match remove(&parent, c"folder", Instant::now() + Duration::from_millis(1)) {
            Outcome::Done => break,
            Outcome::Unfinished => {}
            Outcome::Failed(error) => panic!("{error}"),
        }
    }
    assert!(calls > 1 && !place.path().join("folder").exists());
}

/// Refuses a system call to this thread, as a kernel without it or an engine that does not know it.
fn without(call: i64, errno: i32) {
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let (rest, refused) = (SeccompAction::Allow, SeccompAction::Errno(errno.cast_unsigned()));
    let filter = SeccompFilter::new([(call, Vec::new())].into(), rest, refused, arch).unwrap();
    seccompiler::apply_filter(&BpfProgram::try_from(filter).unwrap()).unwrap();
}

/// Does something without openat2, in the two ways in which it can be missing.
fn without_openat2(work: fn()) {
    for errno in [libc::ENOSYS, libc::EPERM] {
        let thread = std::thread::spawn(move || {
            without(libc::SYS_openat2, errno);
            let found = rustix::fs::openat2(CWD, c".", PATH_ONLY, Mode::empty(), ResolveFlags::BENEATH);
            assert_eq!(found.unwrap_err().raw_os_error(), errno);
            work();
        });
        thread.join().unwrap();
    }
}

#[test]
fn without_openat2_folders_are_removed_and_no_link_is_followed() {
    without_openat2(|| {
        let (place, parent) = scene();
        nest(&parent, 300, &"n".repeat(255));
        let folder = place.path().join("folder");
        symlink(place.path().join("outside"), folder.join("link")).unwrap();
        assert_eq!(enter(&parent, c"folder/link").unwrap_err(), Errno::NOTDIR);
        remove_all(&parent).unwrap();
        assert!(!folder.exists() && is_untouched(place.path()));
    });
}

#[test]
fn without_openat2_no_mount_is_entered() {
    if !crate::process::temp_mount::can_mount() {
        return;
    }
    without_openat2(|| {
        // Nobody else sees these mounts, and they end with this thread.
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        let (place, parent) = scene();
        let (bound, other) = (place.path().join("folder/bound"), place.path().join("folder/other"));
        std::fs::create_dir(&bound).unwrap();
        std::fs::create_dir(&other).unwrap();
        mount(Some(&place.path().join("outside")), &bound, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        mount(Some("none"), &other, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        std::fs::write(other.join("file"), "").unwrap();
        assert!(remove_all(&parent).is_err());
        assert!(other.join("file").exists() && is_untouched(place.path()));
        umount(&bound).unwrap();
        umount(&other).unwrap();
        remove_all(&parent).unwrap();
        assert!(!place.path().join("folder").exists() && is_untouched(place.path()));
    });
}
