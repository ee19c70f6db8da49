//! Finds client messages that a server may read differently than the gateway does.

use crate::jsonrpc::{Code, Envelope, Fault, Kind, find_like};

use super::method::{NOTIFICATION_PREFIX, NOTIFICATIONS, REQUESTS};

/// The part of a message that a server may read differently than the gateway does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Ambiguity {
    /// The method.
    #[error("{0}")]
    Method(MethodFault),
    /// The params.
    #[error("params, or params._meta, {0}")]
    Params(Fault),
}

impl Ambiguity {
    /// The JSON-RPC code of the error that refuses the message.
    pub fn code(self) -> Code {
        match self {
            Self::Method(MethodFault::Alike(_)) => Code::MethodNotFound,
            Self::Method(MethodFault::Notification | MethodFault::Request(_)) => Code::InvalidRequest,
            Self::Params(_) => Code::InvalidParams,
        }
    }
}

/// A reason why a server may read a client's message differently than the gateway does. A message with such a reason
/// must not reach a server.
pub fn ambiguity(envelope: &Envelope<'_>) -> Option<Ambiguity> {
    if envelope.kind == Kind::Response {
        return None;
    }
    if let Some(fault) = method_fault(envelope.kind, envelope.method.as_deref().unwrap_or_default()) {
        return Some(Ambiguity::Method(fault));
    }
    let is_array = envelope.params.is_some_and(|params| params.starts_with('['));
    // The token of a notification is not rewritten, and could be equal to a number of the gateway's own.
    let has_token = envelope.kind == Kind::Notification && envelope.members.meta.progress_token.is_some();
    let misplaced = is_array.then_some(Fault::Array).or(has_token.then_some(Fault::Token));
    envelope.members.fault.or(misplaced).map(Ambiguity::Params)
}

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

/// The reason why servers may read the method of a request or notification differently. `None` if there is no such
/// reason.
fn method_fault(kind: Kind, method: &str) -> Option<MethodFault> {
    let is_request = kind == Kind::Request;
    if is_request && method.starts_with(NOTIFICATION_PREFIX) {
        return Some(MethodFault::Notification);
    }
    let of_request = REQUESTS.iter().find(|name| **name == method);
    if of_request.is_some() || (!is_request && NOTIFICATIONS.contains(&method)) {
        return of_request.filter(|_| !is_request).map(|name| MethodFault::Request(name));
    }
    // A reader in C ends a text at its first NUL.
    let seen = method.split('\0').next().unwrap_or_default();
    let alike = |method| find_like(method, REQUESTS.iter().chain(&NOTIFICATIONS).copied());
    alike(method).or_else(|| alike(seen)).map(MethodFault::Alike)
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
            assert!(method_fault(Kind::Request, method).is_some(), "{method:?}");
        }
        for method in [
            "tasks/cancel",
            "resources/unsubscribe",
            "logging/setLevel",
            "Notifications/Cancelled",
            "notifications/CANCELLED",
        ] {
            assert!(method_fault(Kind::Notification, method).is_some(), "{method:?}");
        }
        for method in ["tools/call", "x/y", "X/Y", "sampling/createMessage", "logging/setLevel", "tasks/get/x", "", "/"]
        {
            assert_eq!(method_fault(Kind::Request, method), None, "{method:?}");
        }
        for method in ["notifications/cancelled", "notifications/x", "x", "$/x"] {
            assert_eq!(method_fault(Kind::Notification, method), None, "{method:?}");
        }
    }
}
