//! Requests that are whole, and too many or too large.

use crate::attacker::Hostile;
use crate::client::{Session, Who, Wire, hello};

/// Within `http.max_body`.
const LARGE: usize = 15 << 20;

/// Notifications, and cancels of what was never asked, by the batch and one by one, as fast as they are taken.
pub(super) fn notifies(hostile: &Hostile) {
    let cancel = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"none"}}"#;
    let other = r#"{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}"#;
    let bodies = [format!("[{}]", [cancel; 64].join(",")), other.to_owned()];
    hostile.on_threads(8, |number| {
        let mut session = Session::open(&hostile.who("hostile"), Wire::Sse, "")?;
        hostile.ready();
        let body = bodies.get(number % bodies.len()).map_or("", String::as_str);
        while !hostile.is_over() {
            session.notify(body)?;
        }
        Ok(())
    });
}

/// Large messages that wait for a child which starts slowly, and cancels while they wait.
pub(super) fn parks(hostile: &Hostile) {
    let text = "x".repeat(LARGE / 2);
    let cancel = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"none"}}"#;
    let batch = format!("[{}]", [cancel; 64].join(","));
    hostile.on_threads(2, |_| {
        let mut session = Session::connect(&hostile.who("slow"), Wire::Sse)?;
        session.notify(&hello(""))?;
        for _ in 0..2 {
            let (body, _) = session.call_body("echo", &format!(r#"{{"text":"{text}"}}"#));
            session.notify(&body)?;
        }
        hostile.ready();
        for _ in 0..20 {
            session.notify(&batch)?;
        }
        Ok(())
    });
}

/// Bodies as large as they may be, of the smallest members there can be.
pub(super) fn sends_big_bodies(hostile: &Hostile) {
    let members = format!("[{}{{}}]", r#"{"":0},"#.repeat(LARGE / 7));
    let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"x/echo","params":{{"x":{members}}}}}"#);
    hostile.on_threads(4, |number| {
        let who = hostile.who("hostile");
        if number % 2 == 0 {
            // Outside of any session.
            let mut connection = who.connect()?;
            hostile.ready();
            connection.send(&who.post(&who.path("/mcp"), None, &body))?;
            let head = connection.head()?;
            connection.body(&head).map(drop)
        } else {
            let mut session = Session::open(&who, Wire::Sse, "")?;
            session.post(&body).map(drop)
        }
    });
}

/// Headers as large as they may be.
pub(super) fn sends_big_headers(hostile: &Hostile) {
    let more: String = (0..90).map(|number| format!("X-{number}: {}\r\n", "y".repeat(4000))).collect();
    request_again(hostile, &hostile.who("echo"), &more);
}

/// Requests with a key that is unknown: each could be a line of the log.
pub(super) fn has_no_credential(hostile: &Hostile) {
    let who = Who { key: "slk_unknown_not-a-key".to_owned(), ..hostile.who("echo") };
    request_again(hostile, &who, "");
}

fn request_again(hostile: &Hostile, who: &Who, more: &str) {
    let request = who.head("GET", &who.path("/nothing"), 0, more);
    hostile.on_threads(8, |_| {
        let mut connection = who.connect()?;
        hostile.ready();
        while !hostile.is_over() {
            connection.send(request.as_bytes())?;
            let head = connection.head()?;
            connection.body(&head)?;
        }
        Ok(())
    });
}
