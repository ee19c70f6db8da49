//! The client's requests that have no answer yet. What is taken out of here is answered by whoever took it, and so once.

use std::collections::HashMap;

use tokio::sync::oneshot;

use super::super::message::id_key;
use crate::jsonrpc::RawId;

/// Resolves when a request was answered; fails when it is not waited for any more.
pub(super) type Waiting = oneshot::Receiver<()>;

/// The requests, by the key of their id.
#[derive(Debug, Default)]
pub(super) struct Pending(HashMap<String, Entry>);

#[derive(Debug)]
struct Entry {
    id: RawId,
    /// The stream that its answer comes on.
    generation: u64,
    answered: oneshot::Sender<()>,
}

impl Pending {
    /// Adds a request; `None` if there is one with the same id.
    pub(super) fn register(&mut self, id: &RawId, generation: u64) -> Option<Waiting> {
        let key = id_key(id);
        if self.0.contains_key(&key) {
            return None;
        }
        let (answered, waiting) = oneshot::channel();
        self.0.insert(key, Entry { id: id.clone(), generation, answered });
        Some(waiting)
    }

    /// Notes the stream that the answer will come on. `false`: the request is not waited for any more.
    pub(super) fn stamp(&mut self, key: &str, generation: u64) -> bool {
        self.0.get_mut(key).map(|entry| entry.generation = generation).is_some()
    }

    /// Takes a request out: who gets it has to answer it.
    pub(super) fn remove(&mut self, key: &str) -> Option<oneshot::Sender<()>> {
        self.0.remove(key).map(|entry| entry.answered)
    }

    /// Takes out every request whose answer was to come on a stream up to `generation`.
    pub(super) fn lose(&mut self, generation: u64) -> Vec<RawId> {
        self.0.extract_if(|_, entry| entry.generation <= generation).map(|(_, entry)| entry.id).collect()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_request_is_taken_out_once() {
        let id = |text| RawId::new(text).unwrap();
        let mut pending = Pending::default();
        let mut one = pending.register(&id("1"), 1).unwrap();
        assert!(pending.register(&id("1"), 1).is_none());
        let mut text = pending.register(&id("\"1\""), 1).unwrap();
        assert!(pending.stamp("\"1\"", 2));
        assert_eq!(pending.lose(1), [id("1")]);
        assert!(one.try_recv().is_err() && pending.remove("1").is_none() && !pending.stamp("1", 2));
        pending.remove("\"1\"").unwrap().send(()).unwrap();
        assert!(text.try_recv().is_ok());
    }
}
