//! The methods that decide where a message goes (MCP), and a check for methods that a server may take for one of them.

use super::envelope::Kind;
use super::members::{LETTERS, fold};

/// Methods of requests that the gateway acts upon, or that make a server act for a session.
const REQUESTS: [&str; 19] = [
    "initialize",
    "ping",
    "tools/list",
    "tools/call",
    "resources/list",
    "resources/read",
    "resources/templates/list",
    "resources/subscribe",
    "resources/unsubscribe",
    "prompts/list",
    "prompts/get",
    "completion/complete",
    "logging/setLevel",
    "tasks/get",
    "tasks/result",
    "tasks/cancel",
    "tasks/list",
    "tasks/update",
    "server/discover",
];
/// Methods of notifications that the gateway acts upon.
const NOTIFICATIONS: [&str; 5] = [
    "notifications/initialized",
    "notifications/cancelled",
    "notifications/progress",
    "notifications/roots/list_changed",
    "notifications/tasks/status",
];
/// The prefix of the methods of all notifications, and of no request.
const NOTIFICATION: &str = "notifications/";

/// The reason why a server may take a method for another one, or a notification for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MethodFault {
    /// The method differs from this known method only in characters that some readers ignore.
    #[error("the method is none, but some servers take it for \"{0}\": write \"{0}\" if that is meant")]
    Alike(&'static str),
    /// A request has the method of a notification.
    #[error(
        "methods that begin with \"notifications/\" are those of notifications, which have no id: send it without one"
    )]
    Notification,
    /// A notification has this method of a request.
    #[error("\"{0}\" is the method of a request, and needs an id")]
    Request(&'static str),
}

/// The reason why servers may read the method of a message differently. `None` if there is no such reason.
pub(super) fn fault(kind: Kind, method: &str) -> Option<MethodFault> {
    let known = |names: &[&'static str]| names.iter().find(|name| **name == method).copied();
    match kind {
        Kind::Response => return None,
        Kind::Request if method.starts_with(NOTIFICATION) => return Some(MethodFault::Notification),
        Kind::Request if known(&REQUESTS).is_some() => return None,
        Kind::Notification if known(&NOTIFICATIONS).is_some() => return None,
        Kind::Request => {}
        Kind::Notification => {
            if let Some(request) = known(&REQUESTS) {
                return Some(MethodFault::Request(request));
            }
        }
    }
    // A reader in C ends a text at its first NUL.
    let seen = method.split('\0').next().unwrap_or_default();
    alike(method).or_else(|| alike(seen))
}

fn alike(method: &str) -> Option<MethodFault> {
    let (mut letters, mut others) = ([0; LETTERS], [0; LETTERS]);
    let letters = fold(method, &mut letters)?;
    let mut known = REQUESTS.iter().chain(&NOTIFICATIONS);
    known.find(|name| fold(name, &mut others) == Some(letters)).map(|name| MethodFault::Alike(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_is_the_same_to_every_server_or_it_is_refused() {
        for method in [
            "Tasks/Result",
            "TASKS/CANCEL",
            "tasks/cancel ",
            " tasks/cancel",
            "tasks/cancel\0",
            "tasks/cancel\0x",
            "ta\u{17f}ks/get",
            "tasks\u{200b}/get",
            "logging/setlevel",
            "logging/set_level",
            "Notifications/Cancelled",
            "notifications/cancelled",
            "notifications/cancelled\0",
            "notifications/x",
        ] {
            assert!(fault(Kind::Request, method).is_some(), "{method:?}");
        }
        for method in [
            "tasks/cancel",
            "resources/unsubscribe",
            "logging/setLevel",
            "Notifications/Cancelled",
            "notifications/CANCELLED",
        ] {
            assert!(fault(Kind::Notification, method).is_some(), "{method:?}");
        }
        for method in ["tools/call", "x/y", "X/Y", "sampling/createMessage", "logging/setLevel", "tasks/get/x", "", "/"]
        {
            assert_eq!(fault(Kind::Request, method), None, "{method:?}");
        }
        for method in ["notifications/cancelled", "notifications/x", "x", "$/x"] {
            assert_eq!(fault(Kind::Notification, method), None, "{method:?}");
        }
    }
}
