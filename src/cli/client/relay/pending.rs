//! The requests of the client without an answer. The code that takes a request out of the table answers it, so that
//! each request gets one answer.

use std::collections::HashMap;

use tokio::sync::oneshot;

use super::super::message::id_key;
use crate::jsonrpc::RawId;

/// Resolves when a request has been answered. Fails when the request has been taken out of the table without an answer.
pub(super) type Waiting = oneshot::Receiver<()>;

/// The requests, by the keys of their ids (see `id_key`).
#[derive(Debug, Default)]
pub(super) struct Pending {
    entries: HashMap<String, Entry>,
    /// The highest number of a lost stream.
    lost: Option<u64>,
}

#[derive(Debug)]
struct Entry {
    id: RawId,
    /// The number of the stream for its answer.
    generation: u64,
    /// Whether the gateway has accepted the request. Before that, the request is not lost with a stream, and may be
    /// sent again.
    accepted: bool,
    /// Whether the client has cancelled the request.
    cancelled: bool,
    answered: oneshot::Sender<()>,
}

impl Pending {
    /// Adds a request. `None` if the table has a request with the same id.
    pub(super) fn register(&mut self, id: &RawId, generation: u64) -> Option<Waiting> {
        let key = id_key(id);
        if self.entries.contains_key(&key) {
            return None;
        }
        let (answered, waiting) = oneshot::channel();
        self.entries.insert(key, Entry { id: id.clone(), generation, accepted: false, cancelled: false, answered });
        Some(waiting)
    }

    /// Notes the stream for the answer. Returns whether the request is still in the table.
    pub(super) fn stamp(&mut self, key: &str, generation: u64) -> bool {
        self.entries.get_mut(key).map(|entry| entry.generation = generation).is_some()
    }

    /// Notes that the client has cancelled the request. The request is sent all the same.
    pub(super) fn cancel(&mut self, key: &str) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.cancelled = true;
        }
    }

    /// Takes a request out. The caller has to answer it. `None` for a cancelled request.
    pub(super) fn remove(&mut self, key: &str) -> Option<oneshot::Sender<()>> {
        self.entries.remove(key).filter(|entry| !entry.cancelled).map(|entry| entry.answered)
    }

    /// Notes that the gateway has accepted the request with this key. Returns `false` if the stream for its answer has
    /// been lost meanwhile, so that no answer can come; `true` also for a request that is not in the table any more.
    pub(super) fn accept(&mut self, key: &str) -> bool {
        let lost = self.lost;
        self.entries.get_mut(key).is_none_or(|entry| {
            entry.accepted = true;
            lost.is_none_or(|lost| entry.generation > lost)
        })
    }

    /// Takes out all accepted requests whose stream has a number up to `generation`. Returns those that need an error.
    pub(super) fn lose(&mut self, generation: u64) -> Vec<RawId> {
        self.lost = self.lost.max(Some(generation));
        let lost = self.entries.extract_if(|_, entry| entry.accepted && entry.generation <= generation);
        lost.filter(|(_, entry)| !entry.cancelled).map(|(_, entry)| entry.id).collect()
    }

    /// Takes out all requests. Returns those that need an error.
    pub(super) fn drain(&mut self) -> Vec<RawId> {
        self.entries.drain().filter(|(_, entry)| !entry.cancelled).map(|(_, entry)| entry.id).collect()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn id(text: &str) -> RawId {
        RawId::new(text).unwrap()
    }

    #[test]
    fn a_request_is_taken_out_once() {
        let mut pending = Pending::default();
        let mut one = pending.register(&id("1"), 1).unwrap();
        assert!(pending.register(&id("1"), 1).is_none());
        let mut text = pending.register(&id("\"1\""), 1).unwrap();
        pending.remove("\"1\"").unwrap().send(()).unwrap();
        assert!(text.try_recv().is_ok());
        assert_eq!(pending.drain(), [id("1")]);
        assert!(one.try_recv().is_err() && pending.remove("1").is_none() && !pending.stamp("1", 2));
    }

    #[test]
    fn what_was_cancelled_is_answered_by_nobody() {
        let mut pending = Pending::default();
        let mut waiting: Vec<_> = ["1", "2", "3"].map(|text| pending.register(&id(text), 1)).into();
        for key in ["1", "2", "3"] {
            pending.cancel(key);
        }
        assert!(pending.stamp("1", 1) && pending.accept("1"), "it is sent all the same");
        assert_eq!(pending.lose(1), []);
        assert!(pending.remove("2").is_none());
        assert_eq!(pending.drain(), []);
        assert!(
            waiting
                .iter_mut()
                .all(|waiting| waiting.as_mut().unwrap().try_recv() == Err(oneshot::error::TryRecvError::Closed))
        );
    }

    #[test]
    fn only_what_was_accepted_is_lost_with_its_stream() {
        let mut pending = Pending::default();
        let _waiting: Vec<_> = ["1", "2", "3"].map(|text| pending.register(&id(text), 1)).into();
        assert!(pending.accept("1") && pending.stamp("3", 2) && pending.accept("3"));
        assert_eq!(pending.lose(1), [id("1")]);
        assert!(!pending.accept("2"), "its answer cannot come");
        assert!(pending.stamp("2", 2) && pending.accept("2"));
        assert!(pending.accept("1"), "it has been answered");
    }
}
