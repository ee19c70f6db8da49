//! What a server's lists were like when they were last asked for: enough to tell whether they differ after a restart.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::time::Duration;

use tokio::time::Instant;

use super::lease::Lease;
use super::terms::Terms;
use crate::jsonrpc::parse;

const LISTS: [&str; 3] = ["tools", "prompts", "resources"];
/// A child that does not tell a list in this time has not told it.
const PATIENCE: Duration = Duration::from_secs(10);

/// The first page of a list.
#[derive(Debug, Clone, Copy)]
struct Page {
    /// The result as it was written.
    text: u64,
    /// The list in it, however it was written: the order of an object's members, which some servers throw dice for,
    /// says nothing. Where it cannot be read, the whole result.
    list: u64,
}

/// What is known of each list, as far as it has been asked for.
#[derive(Debug, Clone, Default)]
pub(super) struct Lists(BTreeMap<&'static str, Page>);

impl Lists {
    /// Notes the answer to a list request without a cursor.
    pub(super) fn note(&mut self, method: &str, result: &str) {
        let Some(list) = LISTS.into_iter().find(|list| method.strip_suffix("/list") == Some(list)) else { return };
        // Most answers are the same as the one before: that is cheap to see.
        if self.0.get(list).is_none_or(|known| known.text != hash(result)) {
            self.0.insert(list, Page::of(list, result));
        }
    }

    /// Takes over what another knows.
    pub(super) fn update(&mut self, other: &Self) {
        self.0.extend(&other.0);
    }

    /// The lists that are different on another child. Of one that it does not tell in time, or refuses to tell, nothing
    /// is known: it is not among them.
    async fn changed(&self, lease: &Lease, end: Instant) -> Vec<&'static str> {
        let patience = PATIENCE.min(lease.worker().shared().server.limits.call_timeout);
        let mut changed = Vec::new();
        for (&list, &known) in &self.0 {
            // Where many sessions come to a shared child, one has asked for all.
            let told = || lease.worker().lists().0.get(list).copied();
            let now = match told() {
                Some(page) => Some(page),
                None => {
                    let request = format!(r#"{{"jsonrpc":"2.0","id":"{list}","method":"{list}/list"}}"#);
                    let answer = lease.insist(request.as_bytes(), patience, end).await.ok();
                    answer.as_deref().and_then(|answer| Page::of_answer(list, answer)).or_else(told)
                }
            };
            if now.is_some_and(|now| now.differs(known)) {
                changed.push(list);
            }
        }
        changed
    }
}

impl Lease {
    /// The lists that are different from those of the child before, as far as that is known at the `end`.
    pub async fn changed_lists(&self, before: &Terms, end: Instant) -> Vec<&'static str> {
        before.lists.changed(self, end).await
    }
}

impl Page {
    fn of(list: &str, result: &str) -> Self {
        let value: Option<serde_json::Value> = serde_json::from_str(result).ok();
        // serde_json keeps object keys sorted, so equal lists have equal texts.
        let list = value.and_then(|value| value.get(list).map(|list| hash(&list.to_string())));
        let text = hash(result);
        Self { text, list: list.unwrap_or(text) }
    }

    /// `None` for an error, which tells nothing of the list.
    fn of_answer(list: &str, answer: &[u8]) -> Option<Self> {
        Some(Self::of(list, parse(answer).ok()?.result?))
    }

    fn differs(self, other: Self) -> bool {
        self.list != other.list
    }
}

fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn differ(a: &str, b: &str) -> bool {
        Page::of("tools", a).differs(Page::of("tools", b))
    }

    #[test]
    fn only_the_list_itself_counts() {
        let page = r#"{"tools":[{"name":"a","inputSchema":{"type":"object","x":1e400}}]}"#;
        assert!(!differ(page, page), "numbers that nobody can hold are no difference");
        let page = r#"{"tools":[{"name":"a","title":"A"}],"nextCursor":"x7"}"#;
        assert!(!differ(page, r#"{"nextCursor":"k2","tools":[ {"title":"A","name":"a"} ]}"#));
        assert!(differ(page, r#"{"tools":[{"name":"b","title":"A"}],"nextCursor":"x7"}"#));
        assert!(differ(page, r#"{"tools":[]}"#));
        assert!(differ("{}", r#"{"tools":[]}"#));
    }

    #[test]
    fn an_error_tells_nothing_of_a_list() {
        let refused = br#"{"jsonrpc":"2.0","id":"tools","error":{"code":-32603,"message":"not now"}}"#;
        assert!(Page::of_answer("tools", refused).is_none());
        let answer = br#"{"jsonrpc":"2.0","id":"tools","result":{"tools":[]}}"#;
        assert!(!Page::of_answer("tools", answer).unwrap().differs(Page::of("tools", r#"{"tools":[]}"#)));
    }
}
