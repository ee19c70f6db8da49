//! Reads the body of a request within a bound of bytes and of time, and as far as the account of the caller's tenant
//! has room for it.

use std::ops::Deref;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body::Body as HttpBody;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tokio::time::timeout;

use super::caller::Caller;
use super::problem::Refusal;
use crate::memory::{Account, Charge, Exhausted};
use crate::telemetry::{MemoryUse, Metrics};

/// The largest body, in bytes, that the charge of its request covers.
const COVERED: usize = 8 << 10;
/// The largest buffer, in bytes, of which a body in one piece may be a slice: hyper reads into it.
const PINNED: usize = 64 << 10;
/// The size in bytes up to which the memory for a whole body is taken at once. For a larger body it doubles as the body
/// arrives: nobody has memory because of a length that was only announced.
const AT_ONCE: usize = 1 << 20;

/// The body of a request: a stream of frames from the peer.
pub trait RequestBody: HttpBody<Data = Bytes, Error: std::error::Error + Send + Sync> + Send + Unpin + 'static {}

impl<B: HttpBody<Data = Bytes, Error: std::error::Error + Send + Sync> + Send + Unpin + 'static> RequestBody for B {}

/// The bytes of a body, charged to the account of the caller's tenant until they are dropped.
pub struct ReceivedBody {
    bytes: Bytes,
    /// `None`: the charge of the request covers the body.
    _charge: Option<Charge>,
}

impl Deref for ReceivedBody {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Why a body was not read.
enum Unread {
    TooLarge,
    BrokenOff,
    NoMemory(Exhausted),
}

/// Reads the whole body within `http.max_body` and `http.body_timeout`, or refuses the request: status 413 for too many
/// bytes, 503 while the tenant holds as much memory as it may, 408 for too much time, 400 for a body that breaks off.
pub async fn read<B: RequestBody>(
    body: &mut B,
    caller: &Caller<'_>,
    metrics: &Metrics,
) -> Result<ReceivedBody, Refusal> {
    let http = &caller.snapshot.http;
    let announced = body.size_hint().lower();
    let received = if announced > http.max_body as u64 {
        Ok(Err(Unread::TooLarge))
    } else if announced > caller.account.most() as u64 {
        Ok(Err(Unread::NoMemory(Exhausted::TooLarge)))
    } else {
        timeout(http.body_timeout, collect(Limited::new(body, http.max_body), caller.account)).await
    };
    match received {
        Ok(Ok(received)) => Ok(received),
        Ok(Err(Unread::TooLarge)) => {
            let text = format!("the body is larger than {} bytes (http.max_body)", http.max_body);
            Err(Refusal::problem(StatusCode::PAYLOAD_TOO_LARGE, &text))
        }
        Ok(Err(Unread::NoMemory(why))) => {
            metrics.memory_refused(MemoryUse::Body);
            Err(Refusal::no_memory("the body", why))
        }
        Ok(Err(Unread::BrokenOff)) => {
            Err(Refusal::problem(StatusCode::BAD_REQUEST, "the body broke off before its end"))
        }
        Err(_) => {
            let text = format!("the body did not arrive within {:?} (http.body_timeout)", http.body_timeout);
            Err(Refusal::problem(StatusCode::REQUEST_TIMEOUT, &text))
        }
    }
}

/// Copies the data of all frames into one buffer, so that a body of many small frames takes no more memory than a body
/// of few. The data of the only frame is returned without a copy.
async fn collect<B: RequestBody>(mut body: Limited<&mut B>, account: &Account) -> Result<ReceivedBody, Unread> {
    let mut first = Bytes::new();
    let mut all: Option<Buffer<'_>> = None;
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|error| if error.is::<LengthLimitError>() { Unread::TooLarge } else { Unread::BrokenOff })?;
        let Ok(data) = frame.into_data() else { continue };
        if first.is_empty() && all.is_none() {
            first = data;
            continue;
        }
        let rest = usize::try_from(body.size_hint().lower()).unwrap_or_default();
        let buffer = all.get_or_insert_with(|| Buffer { account, bytes: BytesMut::new(), charge: account.open() });
        buffer.add(&std::mem::take(&mut first), data.len() + rest)?;
        buffer.add(&data, rest)?;
    }
    if let Some(Buffer { bytes, charge, .. }) = all {
        return Ok(ReceivedBody { bytes: bytes.freeze(), _charge: Some(charge) });
    }
    let charge = match first.len() > COVERED {
        true => Some(account.charge(first.len().max(PINNED)).map_err(Unread::NoMemory)?),
        false => None,
    };
    Ok(ReceivedBody { bytes: first, _charge: charge })
}

/// A buffer whose capacity is charged.
struct Buffer<'a> {
    account: &'a Account,
    bytes: BytesMut,
    charge: Charge,
}

impl Buffer<'_> {
    /// Copies `data` behind what there is. At least `rest` more bytes are announced. While the bytes move to a larger
    /// buffer, both buffers are charged.
    fn add(&mut self, data: &[u8], rest: usize) -> Result<(), Unread> {
        let (length, capacity) = (self.bytes.len() + data.len(), self.bytes.capacity());
        if length > capacity {
            let whole = length.saturating_add(rest);
            let step = whole.min(AT_ONCE).max(capacity.saturating_mul(2));
            let larger = if rest > 0 { step.min(whole) } else { step }.max(length);
            if larger.saturating_add(capacity) > self.account.most() {
                return Err(Unread::NoMemory(Exhausted::TooLarge));
            }
            self.charge.grow(larger).map_err(Unread::NoMemory)?;
            let mut bytes = BytesMut::with_capacity(larger);
            bytes.extend_from_slice(&self.bytes);
            self.bytes = bytes;
            self.charge.shrink(capacity);
        }
        self.bytes.extend_from_slice(data);
        Ok(())
    }
}
