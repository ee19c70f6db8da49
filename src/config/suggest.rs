//! Suggests a known word for an unknown one ("did you mean").

use std::collections::BTreeMap;

use super::names::ServerName;

/// ` (did you mean "…"?)` with the nearest candidate. Empty if no candidate differs by at most a third of the
/// characters.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    let near = |candidate: &&str| distance(word, candidate);
    let allowed = (word.chars().count() / 3).max(1);
    match candidates.into_iter().min_by_key(near).filter(|best| near(best) <= allowed) {
        Some(best) => format!(" (did you mean \"{best}\"?)"),
        None => String::new(),
    }
}

/// The text of the problem that `text` is not the name of a configured server.
pub(super) fn no_server<T>(text: &str, servers: &BTreeMap<ServerName, T>) -> String {
    let hint = nearest(text, servers.keys().map(ServerName::as_str));
    format!("there is no server {text:?}{hint}; add [servers.{text}] or correct the name")
}

/// The number of characters to insert, remove or replace (Levenshtein distance). Ignores case.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.to_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (line, from) in from.to_lowercase().chars().enumerate() {
        let mut next = vec![line + 1];
        for ((to, above), above_left) in to.iter().zip(row.iter().skip(1)).zip(&row) {
            let left = next.last().copied().unwrap_or_default();
            next.push((above_left + usize::from(from != *to)).min(above + 1).min(left + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}
