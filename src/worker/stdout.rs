//! Reads a child's stdout, line by line, and delivers the messages. When the client of an exclusive child does not keep
//! up, this task waits, and so does the child; after a time-out the client is cut. The task of a shared child waits for
//! no client. A child that writes much that leads to nothing is read slowly.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::time::{Instant, timeout};

use super::calls::{Answer, Incoming, LeaseId, Reported, Unsolicited};
use super::delivery::{self, lost};
use super::{Failure, Route, Shared, learn};
use crate::heavy;
use crate::jsonrpc::{Envelope, Frame, Framer, Kind, Oversized, batch, own_frame, parse, under_id};
use crate::memory::Exhausted;
use crate::process::Brake;
use crate::stream::{Exchange, Item, Outbox, PushError, ServerRequest};
use crate::telemetry::{Cause, Direction, DropReason, MemoryUse};

/// The largest answer to `initialize`, in bytes: the answer is kept, and read several times.
const LARGEST_OPENING: usize = 256 * 1024;
/// The room for each read, in bytes.
const READ: usize = 64 * 1024;

/// Reads and delivers messages until stdout ends.
pub(super) async fn read_stdout(shared: Arc<Shared>, mut stdout: pipe::Receiver) {
    let mut framer = Framer::new(shared.server.limits.max_line);
    framer.charge_to(shared.payer.account());
    let mut brake = Brake::new(shared.signals.gone.clone());
    loop {
        shared.health.lock().listen(Instant::now());
        // Everything read so far is delivered.
        shared.something_is_over();
        framer.charge_to(shared.payer.account());
        let ended = match brake.wait_for(stdout.read_buf(framer.room(READ))).await {
            Ok(read) => read == 0,
            Err(error) => {
                tracing::warn!(server = %shared.server.name, %error, "stdout of a child could not be read");
                true
            }
        };
        shared.health.lock().heard(Instant::now());
        while let Some(frame) = framer.next_frame().or_else(|| if ended { framer.finish() } else { None }) {
            receive(&shared, frame, &mut brake).await;
            brake.pause().await;
        }
        if ended {
            return;
        }
        brake.waste(framer.take_waste());
        brake.pause().await;
    }
}

async fn receive(shared: &Arc<Shared>, frame: Frame, brake: &mut Brake) {
    let line = match frame {
        Frame::Line(line) => line,
        Frame::Oversized(line) => return leave_out(shared, line, brake).await,
    };
    let line = match without_carriage_returns(shared, &line) {
        None => line,
        Some(Ok(line)) => line,
        Some(Err(_)) => return leave_out_message(shared, &line, brake).await,
    };
    shared.metrics.carried(Direction::ToClient, line.len());
    match heavy::LINES.run(&shared.origin, line.len(), || parse(&line)).await {
        Ok(envelope) => pass(shared, &line, &envelope, brake).await,
        Err(_) => receive_batch(shared, &line, brake).await,
    }
}

/// Delivers a message, and tells the brake whether the message reached anybody.
async fn pass(shared: &Arc<Shared>, message: &Bytes, envelope: &Envelope<'_>, brake: &mut Brake) {
    match dispatch(shared, message, envelope).await {
        true => brake.earn(message.len()),
        false => brake.waste_message(message.len()),
    }
}

/// Leaves out a line over `limits.max_line`, or one that there is no room for. An error takes the place of each answer in
/// the line, and each request in the line is answered with an error.
async fn leave_out(shared: &Arc<Shared>, line: Oversized, brake: &mut Brake) {
    let Oversized { bytes, messages, lacks_memory } = line;
    let (event, failure) = match lacks_memory {
        false => {
            shared.metrics.dropped(DropReason::Oversized);
            let event = "a line on stdout is over limits.max_line, and was left out";
            (event, Failure::oversized(&shared.server, bytes))
        }
        true => {
            shared.metrics.had_no_room(MemoryUse::Line);
            let event = "there was no room for a line on stdout (limits.memory_budget), and it was left out";
            (event, Failure::no_memory(&shared.server.name, bytes))
        }
    };
    if Cause::new(event, shared.server.name.to_string()).is_news(5) {
        let limit = shared.server.limits.max_line;
        let (server, (tenant, session)) = (&shared.origin.server, shared.origin.names());
        tracing::warn!(%tenant, %server, %session, bytes, limit, "{event}");
    }
    brake.waste_message(0);
    for (kind, id) in messages {
        let error = failure.response(&id);
        match kind {
            Kind::Response => {
                if let Ok(envelope) = parse(&error) {
                    pass(shared, &error, &envelope, brake).await;
                }
            }
            Kind::Request => {
                brake.waste_message(error.len());
                shared.send(own_frame(&error));
            }
            Kind::Notification => {}
        }
        brake.pause().await;
    }
}

/// Leaves out a message that there is no room for.
async fn leave_out_message(shared: &Arc<Shared>, message: &[u8], brake: &mut Brake) {
    let read = || parse(message).ok().and_then(|envelope| Some((envelope.kind, envelope.raw_id()?)));
    let messages = heavy::LINES.run(&shared.origin, message.len(), read).await.into_iter().collect();
    leave_out(shared, Oversized { bytes: message.len(), messages, lacks_memory: true }, brake).await;
}

/// Delivers each message of a batch (2025-03-26). Any other line that is no message is counted as noise.
async fn receive_batch(shared: &Arc<Shared>, line: &Bytes, brake: &mut Brake) {
    // All of it has to be JSON, before any of it is passed on.
    let batch = || batch(line).and_then(Result::ok);
    let is_batch = || batch().is_some_and(|mut batch| batch.all(|message| message.is_ok()));
    if !heavy::LINES.run(&shared.origin, line.len(), is_batch).await {
        brake.waste_message(line.len());
        return count_noise(shared, line.len());
    }
    for message in batch().into_iter().flatten().map_while(Result::ok) {
        // A copy: what is kept of a small message must not keep the whole line.
        let Ok(message) = shared.payer.account().copy(message.as_bytes()) else {
            leave_out_message(shared, message.as_bytes(), brake).await;
            continue;
        };
        match heavy::LINES.run(&shared.origin, message.len(), || parse(&message)).await {
            Ok(envelope) => pass(shared, &message, &envelope, brake).await,
            Err(_) => {
                brake.waste_message(message.len());
                count_noise(shared, message.len());
            }
        }
        brake.pause().await;
    }
}

/// Counts a line that is no message.
fn count_noise(shared: &Shared, bytes: usize) {
    let lines = shared.life.noise.fetch_add(1, Ordering::Relaxed) + 1;
    shared.metrics.dropped(DropReason::NotJson);
    // One line for each power of two: a chatty server does not fill the log.
    if lines.is_power_of_two() {
        let (server, (tenant, session)) = (&shared.origin.server, shared.origin.names());
        tracing::warn!(%tenant, %server, %session, bytes, lines, "a line on stdout is no JSON-RPC message, and was left out (servers must log to stderr)");
    }
}

/// What becomes of a message, which was charged to whoever gets it, or for which there was no room.
type Heard = Incoming<Result<Bytes, Exhausted>>;

/// Delivers a message, or answers the child. Returns whether the message reached anybody.
async fn dispatch(shared: &Arc<Shared>, line: &Bytes, envelope: &Envelope<'_>) -> bool {
    if envelope.kind == Kind::Response {
        shared.health.lock().answered(envelope);
    }
    let turn = heavy::LINES.turn(&shared.origin, line.len()).await;
    let now = Instant::now();
    // From here to the delivery nothing waits: a call that is answered is in no table any more.
    let incoming = turn.run(|| {
        let incoming = receive_by(shared, line, envelope, now);
        learn(shared, envelope, &incoming);
        incoming
    });
    match incoming {
        Incoming::Answer(found, message) => {
            deliver_answer(shared, found, message, line.len(), now).await;
            true
        }
        Incoming::Inform(exchange, Ok(message)) => {
            let outbox = exchange.outbox();
            deliver(shared, outbox, message.len(), false, || exchange.inform(message.clone())).await
        }
        Incoming::Unsolicited(kind, Ok(message), number, peers) => {
            let requester: Weak<Shared> = Arc::downgrade(shared);
            let request = number.map(|number| ServerRequest { number, requester });
            let item = Item { message, answer: false, request };
            let mut delivered = false;
            for peer in peers {
                delivered |= pass_on(shared, peer, kind, &item).await;
            }
            number.filter(|_| !delivered).into_iter().for_each(|number| shared.refuse_undelivered(number));
            delivered
        }
        Incoming::Unsolicited(_, Err(_), number, _) => {
            shared.metrics.had_no_room(MemoryUse::Stream);
            number.into_iter().for_each(|number| shared.refuse_undelivered(number));
            false
        }
        Incoming::Inform(_, Err(_)) => {
            shared.metrics.had_no_room(MemoryUse::Stream);
            false
        }
        Incoming::Withdrawn(withdrawn, message) => {
            let has_room = message.is_ok();
            shared.withdraw(withdrawn, || message);
            has_room
        }
        Incoming::Reply(frame) => {
            shared.send(frame);
            false
        }
        Incoming::Drop(reason) => {
            shared.metrics.dropped(reason);
            false
        }
        Incoming::Ignore => false,
    }
}

/// Delivers the answer to a call, also to those who wait for the same answer. `len` is the length of the child's message,
/// in bytes. An error takes the place of a message that there is no room for.
async fn deliver_answer(
    shared: &Shared,
    Answer { call, waiting, .. }: Answer,
    message: Result<Bytes, Exhausted>,
    len: usize,
    now: Instant,
) {
    shared.metrics.answered(call.method, now.saturating_duration_since(call.started).as_secs_f64());
    let no_memory = || Failure::no_memory(&shared.server.name, len);
    let message = message.unwrap_or_else(|_| {
        shared.metrics.had_no_room(MemoryUse::Stream);
        no_memory().response(&call.original)
    });
    let message = match call.is_initialize() && message.len() > LARGEST_OPENING {
        true => Failure::large_opening(&shared.server.name, message.len(), LARGEST_OPENING).response(&call.original),
        false => message,
    };
    if call.is_initialize() {
        shared.note_opened(&message);
    }
    for waiting in waiting {
        let copy = waiting.exchange.account().freeze(under_id(&message, &waiting.id));
        answer(shared, &waiting.exchange, copy.unwrap_or_else(|_| no_memory().response(&waiting.id))).await;
    }
    answer(shared, &call.exchange, message).await;
}

/// Decides what becomes of a message, and copies the message after the lock of the tables is free. A frame that the
/// child has to get because of an answer is queued under the lock, before any other frame.
fn receive_by(shared: &Shared, message: &Bytes, envelope: &Envelope<'_>, now: Instant) -> Heard {
    let (reported, timeout) = (Reported::by(envelope), shared.server.limits.call_timeout);
    let mut multiplexer = shared.multiplexer.lock();
    let mut incoming = multiplexer.receive(envelope, reported, now, timeout);
    if multiplexer.timer.take_moved() {
        shared.signals.deadline_moved.notify_one();
    }
    if let Incoming::Answer(answer, _) = &mut incoming
        && let Some(frame) = answer.frame.take()
    {
        shared.send(frame);
    }
    drop(multiplexer);
    let owns = |peer, task: &str| shared.multiplexer.lock().owns_task(peer, task);
    incoming.written(message, envelope, shared.payer.account(), owns)
}

/// Delivers an answer. If nobody reads any more, the exchange counts the request as settled all the same.
async fn answer(shared: &Shared, exchange: &Exchange, message: Bytes) {
    let len = message.len();
    let mut in_hand = InHand { shared, exchange, message: Some(message) };
    if !deliver(shared, exchange.outbox(), len, true, || in_hand.push()).await {
        in_hand.message = None;
        exchange.settle();
    }
}

/// An answer that waits for room on its stream, and whose call is no longer in the table. If the reader is aborted
/// meanwhile, the answer is delivered within the gateway's own budget.
struct InHand<'a> {
    shared: &'a Shared,
    exchange: &'a Exchange,
    /// `None` once the stream has taken the answer.
    message: Option<Bytes>,
}

impl InHand<'_> {
    /// Gives the answer to the stream. The answer stays in hand if the stream does not take it.
    fn push(&mut self) -> Result<(), PushError> {
        let Some(message) = self.message.take() else { return Ok(()) };
        self.exchange.answer(message).map_err(|(error, message)| {
            self.message = Some(message);
            error
        })
    }
}

impl Drop for InHand<'_> {
    fn drop(&mut self) {
        self.message
            .take()
            .into_iter()
            .for_each(|message| delivery::deliver(&self.shared.metrics, self.exchange, message));
    }
}

/// Delivers a request or notification of the child to one session. Returns whether the session took the message.
async fn pass_on(shared: &Shared, peer: LeaseId, kind: Unsolicited, item: &Item) -> bool {
    let in_flight = shared.multiplexer.lock().in_flight(peer);
    let holder = shared.holders.get(peer);
    // What waits for one of several clients is charged to this client.
    let account = holder.as_ref().filter(|_| !shared.is_exclusive()).and_then(|holder| holder.account());
    let charged = account.map(|account| account.hold(item.message.clone(), item.message.len())).transpose();
    let Ok(charged) = charged else {
        shared.metrics.had_no_room(MemoryUse::Stream);
        return false;
    };
    let item = &charged.map_or_else(|| item.clone(), |message| Item { message, ..item.clone() });
    match holder.map(|holder| holder.route(item, kind, &in_flight)) {
        Some(Route::Stream(outbox)) => {
            let is_awaited = kind == Unsolicited::Request;
            deliver(shared, &outbox, item.message.len(), is_awaited, || outbox.push(item.clone())).await
        }
        Some(Route::Kept) => true,
        Some(Route::Nowhere) | None => {
            shared.metrics.dropped(DropReason::NoStream);
            false
        }
    }
}

/// Pushes a message of `len` bytes into a stream. Returns whether the stream took the message.
///
/// If the stream is full, the reader of an exclusive child waits for room, up to the slow-client time-out, and then
/// cuts the stream. The reader of a shared child does not wait: the message is dropped, and the stream is cut only if
/// the client waits for the message (`is_awaited`).
async fn deliver(
    shared: &Shared,
    outbox: &Outbox,
    len: usize,
    is_awaited: bool,
    mut push: impl FnMut() -> Result<(), PushError>,
) -> bool {
    loop {
        match push() {
            Ok(()) => return true,
            Err(PushError::Closed) => {
                shared.metrics.dropped(lost(PushError::Closed));
                return false;
            }
            Err(PushError::Full) => {}
        }
        if shared.is_exclusive() && timeout(shared.slow_client_timeout, outbox.room_for(len)).await.is_ok() {
            continue;
        }
        shared.metrics.dropped(DropReason::SlowClient);
        if shared.is_exclusive() || is_awaited {
            outbox.cut();
            if Cause::new("a client does not read its stream", shared.server.name.to_string()).is_news(20) {
                tracing::warn!(server = %shared.server.name, session = %shared.origin.names().1, "a client does not read its stream, and was cut");
            }
        }
        return false;
    }
}

/// Replaces raw CRs by spaces: inside a JSON text both are white space, but in an event stream a CR would end the line.
/// `None` if there is none. `Err` if there is no room for the copy that this needs.
fn without_carriage_returns(shared: &Shared, line: &[u8]) -> Option<Result<Bytes, Exhausted>> {
    memchr::memchr(b'\r', line)?;
    let mut copy = BytesMut::from(line);
    copy.iter_mut().filter(|byte| **byte == b'\r').for_each(|byte| *byte = b' ');
    Some(shared.payer.account().freeze(copy))
}
