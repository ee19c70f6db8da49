//! The demand for spares: the openings (protocol version and capabilities) that clients have asked for lately. Spares
//! are opened for the latest.

use std::time::Duration;

use tokio::time::Instant;

use crate::worker::{CompatibilityKey, Opening};

/// The largest number of compatibility keys that a pool remembers.
const KINDS: usize = 16;

/// The compatibility keys of the latest clients.
#[derive(Default)]
pub(super) struct Demand {
    /// Each key with the moment of its latest request; the latest key is at the end.
    asked: Vec<(CompatibilityKey, Instant)>,
    /// The opening of a spare for the latest key; `None` before the first request.
    pub(super) latest: Option<Opening>,
}

impl Demand {
    /// Notes a client's request. With more than [`KINDS`] keys the oldest is forgotten.
    pub(super) fn note(&mut self, opening: Opening, now: Instant) {
        self.asked.retain(|(key, _)| *key != opening.key);
        self.asked.push((opening.key.clone(), now));
        if self.asked.len() > KINDS {
            self.asked.remove(0);
        }
        self.latest = Some(opening);
    }

    /// Whether the latest client would have taken a spare with this key. An unopened spare (`None`) fits every client.
    pub(super) fn is_for_latest(&self, opened_for: Option<&CompatibilityKey>) -> bool {
        opened_for.is_none_or(|opened_for| self.latest.as_ref().is_none_or(|latest| latest.key == *opened_for))
    }

    /// Whether a spare's key is out of demand: it is not the latest, and no client has asked for it for as long as
    /// `patience`.
    pub(super) fn is_stale(&self, opened_for: Option<&CompatibilityKey>, patience: Duration, now: Instant) -> bool {
        let Some(opened_for) = opened_for.filter(|_| !self.is_for_latest(opened_for)) else { return false };
        let asked = self.asked.iter().find(|(key, _)| key == opened_for);
        asked.is_none_or(|(_, asked)| now.duration_since(*asked) >= patience)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn opening(version: &str) -> Opening {
        let text = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"initialize","params":{{"protocolVersion":"{version}","capabilities":{{}}}}}}"#
        );
        Opening::of_client(&Bytes::from(text))
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_asks_for_any_more_becomes_stale_and_what_is_asked_for_last_never() {
        let (mut demand, patience) = (Demand::default(), Duration::from_secs(60));
        let (a, b) = (opening("a"), opening("b"));
        let stale = |demand: &Demand, it: &Opening| demand.is_stale(Some(&it.key), patience, Instant::now());
        assert!(demand.is_for_latest(None) && demand.is_for_latest(Some(&a.key)), "nobody has asked yet");
        demand.note(a.clone(), Instant::now());
        tokio::time::advance(2 * patience).await;
        assert!(!stale(&demand, &a));
        demand.note(b.clone(), Instant::now());
        assert!(stale(&demand, &a) && !stale(&demand, &b));
        demand.note(a.clone(), Instant::now());
        assert!(!stale(&demand, &b) && !demand.is_for_latest(Some(&b.key)));
        tokio::time::advance(patience).await;
        assert!(stale(&demand, &b) && !stale(&demand, &a));
        for number in 0..KINDS {
            demand.note(opening(&number.to_string()), Instant::now());
        }
        assert!(stale(&demand, &a), "it is forgotten");
        assert!(!demand.is_stale(None, patience, Instant::now()), "an unopened one is for everybody");
    }
}
