//! Where the source makes bytes that can be kept, and that no account is charged for.

use std::collections::BTreeMap;

use super::sources;

/// The calls that make `Bytes` of what a peer has sent, without an account. Bytes that an account made are charged:
/// `Account::hold`, `copy` and `freeze`. `into` is not found by its text.
const CALLS: [&str; 4] = ["Bytes::copy_from_slice(", ".freeze()", "Bytes::from(", "Bytes::from_owner("];
/// The accounts themselves; what runs in a process of its own, for one user.
const EXEMPT: [&str; 3] = ["memory", "cli", "demo"];

/// The calls that are right: their file, how many there are, and why nobody is charged for them.
const EXPECTED: [(&str, &str, usize, &str); 6] = [
    ("http/request_body.rs", ".freeze()", 1, "the charge is in the same struct"),
    (
        "jsonrpc/framing.rs",
        ".freeze()",
        1,
        "the framer of stderr, whose lines are short and gone at once; that of the cli",
    ),
    ("jsonrpc/framing.rs", "Bytes::copy_from_slice(", 1, "a line that is short, or of a framer without an account"),
    ("jsonrpc/splice.rs", ".freeze()", 1, "a short message of the gateway's own"),
    ("stream/body.rs", ".freeze()", 1, "one frame on its way to the socket, which the connection is charged for"),
    ("worker/calls/draft.rs", ".freeze()", 1, "a number is drawn twice hardly ever"),
];

#[test]
fn bytes_of_peers_are_kept_on_an_account() {
    let mut found = BTreeMap::new();
    for (file, layer, text) in sources() {
        let is_test =
            file.components().any(|part| ["tests", "tests.rs"].map(AsRef::as_ref).contains(&part.as_os_str()));
        if is_test || EXEMPT.contains(&layer.as_str()) {
            continue;
        }
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        for line in code.lines().map(|line| line.split("//").next().unwrap_or_default()) {
            for call in CALLS {
                *found.entry((file.display().to_string(), call)).or_default() += line.matches(call).count();
            }
        }
    }
    found.retain(|_, count| *count > 0);
    let expected = EXPECTED.map(|(file, call, count, _)| ((file.to_owned(), call), count));
    assert_eq!(found, BTreeMap::from(expected), "charge an account (crate::memory), or say here why nobody is");
}
