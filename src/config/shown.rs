//! Keeps secrets out of messages about the configuration, because a secret may stand at a wrong place. The text of
//! every problem passes through [`guarded`].

use std::borrow::Cow;

use crate::text::{quoted, visible};

/// The largest number of characters of a value in a message.
const MOST: usize = 256;
/// The number of characters from which the start of a secret is removed too, because messages cut long values.
const CUT: usize = 24;
/// The number of letters and digits in a row, with at least one of each, from which a text counts as random.
const RUN: usize = 12;
/// The starts of keys and tokens of known kinds.
const BEGINNINGS: [&str; 14] = [
    "slk_",
    "sk-",
    "sk_",
    "pk_",
    "ghp_",
    "gho_",
    "ghs_",
    "github_pat_",
    "glpat-",
    "xox",
    "AKIA",
    "eyJ",
    "npm_",
    "-----BEGIN",
];
const NOT_SHOWN: &str = "(not shown: it may be a secret)";

/// The message `text` without those of `values` that may be secrets. Cuts the other values after 256 characters. Values
/// of less than 4 bytes stay.
pub(super) fn guarded<'a>(text: String, values: impl IntoIterator<Item = &'a str>) -> String {
    let mut text = text;
    for value in values {
        // A reference: what it leads to may have been written in the place of the name or the path.
        let bare = ["env:", "file:", "literal:"].iter().find_map(|start| value.strip_prefix(start)).unwrap_or(value);
        if bare.len() < 4 {
            continue;
        }
        // As a message has it: as it is, in quotes with the escapes of those, or with those of what misleads.
        let quoted = format!("{bare:?}");
        let forms = [bare, quoted.get(1..quoted.len() - 1).unwrap_or(bare), &visible(bare)];
        for form in forms {
            if may_be_secret(bare) {
                text = without(&text, form);
            } else if let Some((end, _)) = form.char_indices().nth(MOST) {
                text = text.replace(form, &format!("{}…", form.get(..end).unwrap_or_default()));
            }
        }
    }
    text
}

/// A text without a secret, also where the text contains only the first [`CUT`] or more characters of the secret.
fn without(text: &str, secret: &str) -> String {
    let beginning = secret.char_indices().nth(CUT).and_then(|(end, _)| secret.get(..end)).unwrap_or(secret);
    let end_of_it = secret.get(beginning.len()..).unwrap_or_default();
    let (mut out, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once(beginning) {
        let same = after.chars().zip(end_of_it.chars()).take_while(|(one, other)| one == other);
        let length = same.map(|(one, _)| one.len_utf8()).sum();
        out.extend([before, NOT_SHOWN]);
        rest = after.get(length..).unwrap_or_default();
    }
    out + rest
}

/// A value or a key as a message may show it: a fixed text if it may be a secret.
pub fn shown_value(text: &str) -> Cow<'_, str> {
    if may_be_secret(text) { NOT_SHOWN.into() } else { text.into() }
}

/// The name of a variable in quotes, or "that is named here" if the name is unusual or may be a secret.
pub(super) fn shown_name(name: &str) -> String {
    let is_usual =
        name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') && name.contains(|c: char| c.is_ascii_uppercase());
    if is_usual && !may_be_secret(name) { quoted(name, MOST) } else { "that is named here".to_owned() }
}

/// Whether a text looks like, or contains, a generated key, token or password, or has the form `NAME=VALUE`.
fn may_be_secret(text: &str) -> bool {
    let begins = |word: &str| BEGINNINGS.iter().any(|known| word.len() > known.len() + 4 && word.starts_with(known));
    let words =
        || text.split(|c: char| c.is_whitespace() || matches!(c, '=' | ':' | ',' | ';' | '"' | '\'' | '/' | '@' | '.'));
    // KEY=VALUE, where one name belongs.
    let is_pair = text.split_once('=').is_some_and(|(name, value)| {
        !value.is_empty()
            && !name.is_empty()
            && name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_' || b.is_ascii_digit())
    });
    let is_random = |run: &str| {
        run.len() >= RUN && run.bytes().any(|b| b.is_ascii_digit()) && run.bytes().any(|b| b.is_ascii_alphabetic())
    };
    is_pair
        || words().any(begins)
        || text.split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '+' | '='))).any(is_random)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_a_secret_is_not_repeated() {
        for secret in [
            "slk_abc_secretsecret",
            "sk-proj-abcdefgh",
            "ghp_abcdefghijkl",
            "npx --token=ghp_abcdefghijkl",
            "GITHUB_TOKEN=hunter2",
            "eyJhbGciOi",
            "3q2+7w0123456789abcdef==",
            "deadbeef0123deadbeef",
            "https://user:a1b2c3d4e5f6g7@host/",
        ] {
            for value in [secret.to_owned(), format!("env:{secret}"), format!("file:{secret}")] {
                let text = guarded(format!("the file /etc/sluice/{secret} is absent"), [value.as_str()]);
                assert!(!text.contains(secret) && text.contains("not shown"), "{text}");
            }
            assert!(!shown_value(secret).contains(secret));
        }
    }

    #[test]
    fn a_secret_is_not_repeated_in_quotes_with_escapes_or_cut() {
        for secret in ["ghp_abcde\"defgh\\i", "ghp_abc\u{202e}defgh\n", "ghp_table\tdefgh"] {
            let forms = [secret.to_owned(), format!("{secret:?}"), visible(secret).into_owned()];
            for form in forms {
                let text = guarded(format!("{form} is none of \"a\", \"b\""), [secret]);
                assert!(text.contains("not shown") && !text.contains("defgh") && text.contains("\"b\""), "{text}");
            }
        }
        let long = format!("eyJ{}", "ab\\c1".repeat(60));
        for cut in [CUT, 80, 256] {
            let part: String = long.chars().take(cut).collect();
            for form in [part.clone(), format!("{part:?}")] {
                let text = guarded(format!("{form} is not a name: use letters"), [long.as_str()]);
                assert!(!text.contains("ab") && text.ends_with("is not a name: use letters"), "{text}");
            }
        }
    }

    #[test]
    fn words_paths_and_names_are_repeated() {
        for value in
            ["localhost:8081", "session", "/usr/local/bin/my-server", "16 MB", "RS256", "acme", "https://id.example/k"]
        {
            let text = format!("{value:?} is wrong");
            assert_eq!(guarded(text.clone(), [value]), text);
        }
        assert_eq!(shown_name("GITHUB_TOKEN"), "\"GITHUB_TOKEN\"");
        for name in ["AKIAIOSFODNN7EXAMPLE", "ghp_abcdefgh", "hunter2"] {
            assert_eq!(shown_name(name), "that is named here");
        }
        assert!(guarded("x".repeat(5000), ["x".repeat(5000).as_str()]).len() < 300);
    }
}
