//! What children do to their gateway.

use std::io;

use crate::attacker::Hostile;
use crate::client::{Session, Wire, hello};

/// Sessions on servers, which end with their streams, and with this process at the latest.
fn flood(hostile: &Hostile, servers: &[&str]) {
    let open = |server: &&str| Session::open(&hostile.who(server), Wire::Sse, "");
    let mut sessions: Vec<Session> = servers.iter().map(open).filter_map(Result::ok).collect();
    hostile.ready();
    // What goes to the client is read, so that the child is not stopped by that.
    hostile.again(|| {
        let session = sessions.pop().ok_or_else(|| io::Error::other("all are open"))?;
        let mut stream = session.into_stream().ok_or_else(|| io::Error::other("there is no stream"))?;
        std::thread::spawn(move || while stream.event().is_ok() {});
        Ok(())
    });
}

/// Children that write to stdout what leads to nothing.
pub(super) fn floods_stdout(hostile: &Hostile) {
    flood(hostile, &["noise", "answers", "blank", "endless"]);
}

/// Children that write to stderr without end.
pub(super) fn floods_stderr(hostile: &Hostile) {
    flood(hostile, &["stderr", "long-stderr", "stderr", "long-stderr"]);
}

/// Children that send notifications without end to clients that read them.
pub(super) fn notifies(hostile: &Hostile) {
    flood(hostile, &["notifications", "notifications"]);
}

/// Children that fill their temporary folders, deep and wide, and end.
pub(super) fn litters(hostile: &Hostile) {
    let (files, depth) = (hostile.size(10_000, 1_000_000), hostile.size(2_000, 20_000));
    hostile.again(|| {
        let mut session = Session::open(&hostile.who("hostile"), Wire::Sse, "")?;
        hostile.ready();
        session.call("litter", &format!(r#"{{"files":{files},"depth":{depth},"length":100}}"#))?;
        Ok(())
    });
}

/// A child that takes all bytes and all files of the disk under TMPDIR, and keeps them for a while.
pub(super) fn fills_the_disk(hostile: &Hostile) {
    let bytes = "dd if=/dev/zero of=$TMPDIR/all bs=64k";
    let files = "i=0; while : >$TMPDIR/$i; do i=$((i+1)); done; sleep 60";
    hostile.on_threads(2, |_| {
        let mut session = Session::open(&hostile.who("hostile"), Wire::Sse, "")?;
        // Answered when the disk is full.
        session.call("shell", &format!(r#"{{"script":"{bytes}"}}"#))?;
        let (body, _) = session.call_body("shell", &format!(r#"{{"script":"{files}"}}"#));
        session.notify(&body)?;
        hostile.hold(session);
        Ok(())
    });
}

/// Children that crash in the middle of a call or at their start, again and again.
pub(super) fn crashes(hostile: &Hostile) {
    hostile.on_threads(4, |number| {
        if number % 2 == 0 {
            hostile.ready();
            Session::open(&hostile.who("exits"), Wire::Streamable, "").map(drop)
        } else {
            let mut session = Session::open(&hostile.who("hostile"), Wire::Sse, "")?;
            session.call("crash", r#"{"code":3}"#).map(drop)
        }
    });
}

/// Starts that never end.
pub(super) fn hangs(hostile: &Hostile) {
    let who = hostile.who("silent");
    let start = || {
        let mut connection = who.connect()?;
        connection.send(&who.post(&who.path("/mcp"), None, &hello("")))?;
        io::Result::Ok(connection)
    };
    let starts: Vec<_> = (0..hostile.size(30, 60)).filter_map(|_| start().ok()).collect();
    hostile.hold(starts);
}
