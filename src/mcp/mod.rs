//! What the project knows of the messages of MCP: revisions, method names, and one reader for each message that the
//! gateway or its client acts upon. Independent of HTTP, sessions and child processes.

mod ambiguity;
mod cancelled;
mod capabilities;
mod elicitation;
mod initialize;
mod label;
mod level;
pub mod method;
pub mod revision;
mod task;
mod tool;

pub use ambiguity::{Ambiguity, MethodFault, ambiguity};
pub use cancelled::{Cancels, cancelled_by_server, cancelled_notification};
pub use capabilities::{common_capabilities, specified_capabilities};
pub use elicitation::each_elicitation;
pub use initialize::{INITIALIZED, Initialize, protocol_version};
pub use label::{LONGEST_LABEL, label};
pub use level::{LEVELS, Level};
pub use task::{
    TaskState, TaskStatus, created_task, each_task, is_about_task, knows_no_task, related_task, task_asked_about,
    task_state,
};
pub use tool::called_tool;
