//! The names of the methods of MCP that the gateway, its client or the built-in server know.
#![expect(missing_docs, reason = "each constant is the method that it names")]

pub const INITIALIZE: &str = "initialize";
pub const PING: &str = "ping";
pub const TOOLS_LIST: &str = "tools/list";
pub const TOOLS_CALL: &str = "tools/call";
pub const RESOURCES_LIST: &str = "resources/list";
pub const RESOURCES_READ: &str = "resources/read";
pub const RESOURCES_TEMPLATES_LIST: &str = "resources/templates/list";
pub const RESOURCES_SUBSCRIBE: &str = "resources/subscribe";
pub const RESOURCES_UNSUBSCRIBE: &str = "resources/unsubscribe";
pub const PROMPTS_LIST: &str = "prompts/list";
pub const PROMPTS_GET: &str = "prompts/get";
pub const COMPLETION_COMPLETE: &str = "completion/complete";
pub const LOGGING_SET_LEVEL: &str = "logging/setLevel";
pub const TASKS_GET: &str = "tasks/get";
pub const TASKS_RESULT: &str = "tasks/result";
pub const TASKS_CANCEL: &str = "tasks/cancel";
pub const TASKS_LIST: &str = "tasks/list";
pub const TASKS_UPDATE: &str = "tasks/update";
pub const SERVER_DISCOVER: &str = "server/discover";
pub const SUBSCRIPTIONS_LISTEN: &str = "subscriptions/listen";
pub const ROOTS_LIST: &str = "roots/list";
pub const INITIALIZED: &str = "notifications/initialized";
pub const CANCELLED: &str = "notifications/cancelled";
pub const PROGRESS: &str = "notifications/progress";
pub const MESSAGE: &str = "notifications/message";
pub const TOOLS_LIST_CHANGED: &str = "notifications/tools/list_changed";
pub const PROMPTS_LIST_CHANGED: &str = "notifications/prompts/list_changed";
pub const RESOURCES_LIST_CHANGED: &str = "notifications/resources/list_changed";
pub const RESOURCES_UPDATED: &str = "notifications/resources/updated";
pub const ROOTS_LIST_CHANGED: &str = "notifications/roots/list_changed";
pub const TASKS_STATUS: &str = "notifications/tasks/status";
pub const ELICITATION_COMPLETE: &str = "notifications/elicitation/complete";

/// The prefix of the methods of all notifications, and of no request.
pub const NOTIFICATION_PREFIX: &str = "notifications/";
/// The prefix of the methods of all requests about tasks.
pub const TASKS_PREFIX: &str = "tasks/";

/// Methods of requests that the gateway acts upon, or that make a server act for a session. The most frequent is first.
pub(super) const REQUESTS: [&str; 19] = [
    TOOLS_CALL,
    INITIALIZE,
    PING,
    TOOLS_LIST,
    RESOURCES_LIST,
    RESOURCES_READ,
    RESOURCES_TEMPLATES_LIST,
    RESOURCES_SUBSCRIBE,
    RESOURCES_UNSUBSCRIBE,
    PROMPTS_LIST,
    PROMPTS_GET,
    COMPLETION_COMPLETE,
    LOGGING_SET_LEVEL,
    TASKS_GET,
    TASKS_RESULT,
    TASKS_CANCEL,
    TASKS_LIST,
    TASKS_UPDATE,
    SERVER_DISCOVER,
];
/// Methods of notifications of clients that the gateway acts upon.
pub(super) const NOTIFICATIONS: [&str; 5] = [INITIALIZED, CANCELLED, PROGRESS, ROOTS_LIST_CHANGED, TASKS_STATUS];

/// The label of a method in metrics: its name if the MCP specification defines a request of that name, otherwise
/// `other`.
pub fn metric_label(method: &str) -> &'static str {
    let known = REQUESTS.iter().filter(|known| **known != TASKS_UPDATE).chain([&SUBSCRIPTIONS_LISTEN]);
    known.copied().find(|known| *known == method).unwrap_or("other")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_that_a_client_made_up_makes_no_label() {
        for method in [TOOLS_CALL, PING, SUBSCRIPTIONS_LISTEN] {
            assert_eq!(metric_label(method), method);
        }
        for method in ["made/up/by-a-client", TASKS_UPDATE, ""] {
            assert_eq!(metric_label(method), "other");
        }
    }
}
