//! The table of server requests: sampling, elicitation and roots that clients have not answered yet.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::{LeaseId, Reported, for_server_request};
use crate::jsonrpc::{Code, Envelope, RawId, error_response, own_frame};
use crate::mcp::cancelled_by_server;

/// A server request that the client has not answered yet.
#[derive(Debug)]
pub(super) struct OpenRequest {
    /// The session that was asked.
    pub(super) peer: LeaseId,
    /// The id that the child gave the request.
    pub(super) original: RawId,
    /// The progress token that the child gave the request.
    pub(super) progress_token: Option<RawId>,
    pub(super) deadline: Instant,
    pub(super) timeout: Duration,
}

/// Server requests, by their id towards the client.
#[derive(Debug)]
pub(in crate::worker) struct ServerRequests {
    open: BTreeMap<u64, OpenRequest>,
    /// Requests that the client has answered with a task: id towards the client, session, and progress token of the
    /// child. At most `capacity`; the oldest is forgotten.
    answered_by_task: VecDeque<(u64, LeaseId, RawId)>,
    capacity: usize,
}

impl ServerRequests {
    pub(super) fn new(capacity: usize) -> Self {
        Self { open: BTreeMap::new(), answered_by_task: VecDeque::new(), capacity }
    }

    /// Adds a request. Returns its id towards the client.
    pub(super) fn insert(&mut self, request: OpenRequest) -> u64 {
        let is_used = |number| self.open.contains_key(&number) || self.answered_by_task.iter().any(|it| it.0 == number);
        let number = for_server_request(is_used);
        self.open.insert(number, request);
        number
    }

    /// How many more requests may be open.
    pub(super) fn left(&self) -> usize {
        self.capacity.saturating_sub(self.open.len())
    }

    /// Requests that a session has not answered.
    pub(super) fn of(&self, peer: LeaseId) -> usize {
        self.count(|other| other == peer)
    }

    /// Requests that the sessions which `is_counted` accepts have not answered.
    pub(super) fn count(&self, is_counted: impl Fn(LeaseId) -> bool) -> usize {
        self.open.values().filter(|request| is_counted(request.peer)).count()
    }

    /// Whether nothing is open.
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Whether nothing is remembered, open or answered by a task.
    #[cfg(test)]
    pub(super) fn is_clear(&self) -> bool {
        self.open.is_empty() && self.answered_by_task.is_empty()
    }

    /// The earliest deadline.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.open.values().map(|request| request.deadline).min()
    }

    /// The request that a client's answer is for: its id towards the client, and the id that the child gave it. `None`
    /// if this session was not asked. The request is open until [`Self::answered`].
    pub(in crate::worker) fn answered_with(&self, peer: LeaseId, envelope: &Envelope<'_>) -> Option<(u64, RawId)> {
        let number = envelope.id?.parse().ok()?;
        let request = self.open.get(&number).filter(|request| request.peer == peer)?;
        Some((number, request.original.clone()))
    }

    /// Whether a session has still to answer a request.
    pub(in crate::worker) fn is_open(&self, peer: LeaseId, number: u64) -> bool {
        self.open.get(&number).is_some_and(|request| request.peer == peer)
    }

    /// Removes a request whose answer is queued for the child. If the answer announces a task, its progress token is
    /// kept.
    pub(in crate::worker) fn answered(&mut self, number: u64, reported: &Reported) {
        let Some(OpenRequest { peer, progress_token: Some(token), .. }) = self.open.remove(&number) else { return };
        if reported.makes_task() {
            self.answered_by_task.push_back((number, peer, token));
            if self.answered_by_task.len() > self.capacity {
                self.answered_by_task.pop_front();
            }
        }
    }

    /// The child's progress token for the progress of a client; `None` if the session was not asked, or the child gave
    /// no token.
    pub(super) fn progress_token(&self, peer: LeaseId, envelope: &Envelope<'_>) -> Option<RawId> {
        let number = envelope.members.progress_token?.parse().ok()?;
        let (owner, token) = match self.open.get(&number) {
            Some(OpenRequest { peer, progress_token: Some(token), .. }) => (peer, token),
            _ => self.answered_by_task.iter().find(|(of, ..)| *of == number).map(|(_, peer, token)| (peer, token))?,
        };
        (*owner == peer).then(|| token.clone())
    }

    /// Removes a request that cannot reach its client. Returns the error for the child.
    pub(in crate::worker) fn undelivered(&mut self, number: u64) -> Option<Bytes> {
        let request = self.open.remove(&number)?;
        Some(refusal(&request.original, "the client has no open stream to be asked on, or does not read it"))
    }

    /// Removes the request that a cancellation of the child names.
    pub(super) fn cancelled(&mut self, envelope: &Envelope<'_>) -> Option<(u64, LeaseId)> {
        let named = cancelled_by_server(envelope)?;
        let found = self.open.iter().find(|(_, request)| request.original.as_str() == named);
        let (number, peer) = found.map(|(number, request)| (*number, request.peer))?;
        self.open.remove(&number);
        Some((number, peer))
    }

    /// Removes the requests of a session that has left. Returns the errors for the child.
    pub(in crate::worker) fn refuse(&mut self, peer: LeaseId) -> Vec<Bytes> {
        let refused = self.extract(|request| request.peer == peer);
        refused.values().map(|request| refusal(&request.original, "the client has gone")).collect()
    }

    /// Forgets the tasks that a session has answered with.
    pub(super) fn forget(&mut self, peer: LeaseId) {
        self.answered_by_task.retain(|(_, owner, _)| *owner != peer);
    }

    /// Removes the requests that have timed out. Returns the id, the session, and the error for the child of each.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<(u64, LeaseId, Bytes)> {
        let late = self.extract(|request| request.deadline <= now).into_iter();
        late.map(|(number, request)| {
            let text = format!("the client did not answer within {:?}", request.timeout);
            (number, request.peer, refusal(&request.original, &text))
        })
        .collect()
    }

    fn extract(&mut self, is_extracted: impl Fn(&OpenRequest) -> bool) -> BTreeMap<u64, OpenRequest> {
        let (extracted, open) = std::mem::take(&mut self.open).into_iter().partition(|(_, open)| is_extracted(open));
        self.open = open;
        extracted
    }

    /// Removes all requests. Returns the id and the session of each.
    pub(super) fn drain(&mut self) -> Vec<(u64, LeaseId)> {
        std::mem::take(&mut self.open).into_iter().map(|(number, request)| (number, request.peer)).collect()
    }
}

/// An error that answers a server request, as a frame for the child.
pub(super) fn refusal(id: &RawId, text: &str) -> Bytes {
    own_frame(&error_response(Some(id), Code::Internal, text))
}
