//! Looks users and groups up in `/etc/passwd` and `/etc/group`. Users of a directory behind NSS, which takes a C
//! library, can only be given by number.

use std::path::{Path, PathBuf};

/// A user of the machine, as whom children run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The name, or the number of a user without an entry in `/etc/passwd`.
    pub name: String,
    /// The number of the user.
    pub uid: u32,
    /// The number of the group.
    pub gid: u32,
    /// The numbers of the supplementary groups.
    pub groups: Vec<u32>,
    /// The home folder. `None` if there is no entry, or an empty one.
    pub home: Option<PathBuf>,
}

/// The lines of `/etc/passwd` or `/etc/group`, each split at the colons. Empty if the file cannot be read.
fn entries(file: &str) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().map(|line| line.split(':').map(str::to_owned).collect()).collect()
}

/// The entry with this name, or with this number if `wanted` is a number.
fn entry<'a>(entries: &'a [Vec<String>], wanted: &str) -> Option<&'a [String]> {
    let number = wanted.parse::<u32>().is_ok();
    let field = if number { 2 } else { 0 };
    entries.iter().find(|entry| entry.get(field).is_some_and(|text| text == wanted)).map(Vec::as_slice)
}

/// The number in a field. `None` for other text.
fn number(entry: &[String], field: usize) -> Option<u32> {
    entry.get(field)?.parse().ok()
}

/// The account of a user, given by name or number. With `group` the account has that group and no supplementary groups;
/// without it, those of the system. A number needs an entry in `/etc/passwd` only without `group`.
///
/// # Errors
/// There is no such user or group, or the number is `u32::MAX`. The key, `user` or `group`, and the text of the problem
/// with it.
pub(super) fn find(user: &str, group: Option<&str>) -> Result<Account, (&'static str, String)> {
    let (users, groups) = (entries("/etc/passwd"), entries("/etc/group"));
    let known = entry(&users, user);
    let found = |group: &str| {
        entry(&groups, group).and_then(|entry| number(entry, 2)).or(group.parse().ok()).ok_or_else(|| {
            ("group", format!("there is no group {group:?}; make it (groupadd), or give another, or a number"))
        })
    };
    let gid = group.map(found).transpose()?;
    let uid = known.and_then(|entry| number(entry, 2)).or(user.parse().ok()).ok_or_else(|| {
        ("user", format!("there is no user {user:?}; make it (useradd --system {user}), or give another, or a number"))
    })?;
    let gid = gid.or_else(|| known.and_then(|entry| number(entry, 3))).ok_or_else(|| {
        ("user", format!("the user {user} has no entry in /etc/passwd; give the group too: group = \"{user}\""))
    })?;
    // To the system this number means "leave it as it is": the child would stay root.
    for (key, number) in [("user", uid), ("group", gid)] {
        if number == u32::MAX {
            return Err((key, format!("{number} is no {key} to the system; give another, or a name")));
        }
    }
    let name = known.and_then(|entry| entry.first()).cloned().unwrap_or_else(|| user.to_owned());
    let member = |entry: &&Vec<String>| entry.get(3).is_some_and(|members| members.split(',').any(|m| m == name));
    // A group that was given is given in place of all others.
    let further = groups.iter().filter(member).filter_map(|entry| number(entry, 2)).filter(|other| *other != gid);
    let further = if group.is_some() { Vec::new() } else { further.collect() };
    let home = known.and_then(|entry| entry.get(5)).map(PathBuf::from).filter(|home| home != Path::new(""));
    Ok(Account { name, uid, gid, groups: further, home })
}

/// The home folder of the user with this number, according to `/etc/passwd`.
pub fn home_of(uid: u32) -> Option<PathBuf> {
    let users = entries("/etc/passwd");
    entry(&users, &uid.to_string()).and_then(|entry| entry.get(5)).map(PathBuf::from)
}

/// The home folders of all users in `/etc/passwd`.
pub fn homes() -> Vec<PathBuf> {
    let users = entries("/etc/passwd");
    users.iter().filter_map(|entry| entry.get(5)).filter(|home| !home.is_empty()).map(PathBuf::from).collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn users_are_found_by_name_and_by_number() {
        let root = find("root", None).unwrap();
        assert_eq!((root.uid, root.gid, root.name.as_str()), (0, 0, "root"));
        assert_eq!(find("0", None).unwrap().name, "root");
        assert_eq!(home_of(0), root.home);
        let nobody = find("4012345", Some("4012346")).unwrap();
        assert_eq!((nobody.uid, nobody.gid, nobody.groups, nobody.home), (4_012_345, 4_012_346, Vec::new(), None));
    }

    #[test]
    fn a_number_that_changes_nothing_is_nobodys() {
        for (user, group, key) in [("4294967295", Some("1"), "user"), ("root", Some("4294967295"), "group")] {
            let (found, text) = find(user, group).unwrap_err();
            assert_eq!(found, key);
            assert!(text.contains("4294967295"), "{text}");
        }
        assert!(find("4294967294", Some("4294967294")).is_ok());
    }

    #[test]
    fn who_does_not_exist_is_said_with_the_key() {
        assert_eq!(find("no such user", None).unwrap_err().0, "user");
        assert_eq!(find("4012345", None).unwrap_err().0, "user");
        assert_eq!(find("root", Some("no such group")).unwrap_err().0, "group");
    }
}
