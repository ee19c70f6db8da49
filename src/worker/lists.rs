//! What a server's lists were like when they were last asked for: enough to tell whether they differ after a restart.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::time::Duration;

use super::lease::Lease;
use crate::jsonrpc::parse;

const LISTS: [&str; 3] = ["tools", "prompts", "resources"];

/// A fingerprint of each list's first page, as far as it has been asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lists([Option<u64>; 3]);

impl Lists {
    /// Notes the answer to a list request without a cursor.
    pub(super) fn note(&mut self, method: &str, result: &str) {
        let place = LISTS.iter().position(|list| method.strip_suffix("/list") == Some(list));
        if let Some(known) = place.and_then(|place| self.0.get_mut(place)) {
            *known = Some(fingerprint(result));
        }
    }

    /// Takes over what another knows.
    pub fn update(&mut self, other: &Self) {
        for (known, newer) in self.0.iter_mut().zip(other.0) {
            *known = newer.or(*known);
        }
    }

    /// The lists that are different on another child.
    pub async fn changed(&self, lease: &Lease, timeout: Duration) -> Vec<&'static str> {
        let mut changed = Vec::new();
        for (list, known) in LISTS.into_iter().zip(self.0) {
            let Some(known) = known else { continue };
            let request = format!(r#"{{"jsonrpc":"2.0","id":"{list}","method":"{list}/list"}}"#);
            let answer = lease.ask(request.as_bytes(), timeout).await.ok();
            let result = answer.as_deref().and_then(|answer| parse(answer).ok()).and_then(|envelope| envelope.result);
            if result.map(fingerprint) != Some(known) {
                changed.push(list);
            }
        }
        changed
    }
}

fn fingerprint(result: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    result.hash(&mut hasher);
    hasher.finish()
}
