//! The tasks and elicitations that an answer reports. Reading takes time in proportion to the answer, so that an answer
//! is read before the tables are locked.

use crate::jsonrpc::{Envelope, Kind};
use crate::mcp::{TaskState, created_task, each_elicitation, knows_no_task};

/// The tasks and elicitations that an answer reports. Empty for a request or notification.
#[derive(Debug, Default)]
pub(in crate::worker) struct Reported {
    /// The task that the result announces.
    pub(super) created: Option<TaskState>,
    /// The ids of the elicitations that the error asks for.
    pub(super) elicitations: Vec<String>,
    /// Whether the error has the code -32602 (invalid params). Only in an answer to `tasks/get` does this mean that
    /// there is no such task.
    pub(super) knows_no_task: bool,
}

impl Reported {
    /// Reads a message.
    pub(in crate::worker) fn by(envelope: &Envelope<'_>) -> Self {
        if envelope.kind != Kind::Response {
            return Self::default();
        }
        let mut elicitations = Vec::new();
        if envelope.is_error {
            each_elicitation(envelope, |id| elicitations.push(id.to_owned()));
        }
        let knows_no_task = envelope.is_error && knows_no_task(envelope);
        Self { created: created_task(envelope), elicitations, knows_no_task }
    }

    /// Whether the result announces a task that is not over.
    pub(in crate::worker) fn makes_task(&self) -> bool {
        self.created.as_ref().is_some_and(TaskState::is_working)
    }
}
