//! Sessions in ways that cost others their room.

use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::attacker::Hostile;
use crate::client::{Session, Wire};

/// The sessions of one attack.
const THREADS: usize = 4;

/// Sessions on a shared server, each of which asks for a child of its own by what no other says in `initialize`.
pub(super) fn varies(hostile: &Hostile) {
    let (next, open) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    hostile.on_threads(THREADS, |_| {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= hostile.size(24, 96) {
            hostile.hold(());
            return Ok(());
        }
        let name = format!("{}-{number}", std::process::id());
        let capabilities = [
            format!(r#""experimental":{{"{name}":{{}}}}"#),
            format!(r#""{name}":{{}}"#),
            format!(r#""roots":{{"{name}":true}}"#),
        ];
        let capability = capabilities.get(number % capabilities.len()).map_or("", String::as_str);
        open.lock().push(Session::open(&hostile.who("shared"), Wire::Sse, capability)?);
        Ok(())
    });
}

/// A session for each call, which nobody ends.
pub(super) fn never_ends(hostile: &Hostile) {
    let count = AtomicUsize::new(0);
    hostile.on_threads(THREADS, |_| {
        let opened = Session::open(&hostile.who("few"), Wire::Streamable, "").and_then(|mut session| session.echo());
        if count.fetch_add(1, Ordering::Relaxed) > hostile.size(16, 64) {
            hostile.ready();
        }
        opened
    });
}
