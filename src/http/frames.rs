//! Slows down the reading of an HTTP/2 connection whose peer writes frames that carry little: PING, SETTINGS, resets, empty
//! DATA. Each costs the gateway as much work as a useful one. While the gateway does not read, the peer has to wait.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// The beginning of an HTTP/2 connection (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The length of the head of a frame, in bytes.
const HEAD: usize = 9;
/// The type of the frame that begins a request.
const HEADERS: u8 = 1;
/// The length of a payload from which on a frame of another type costs nothing, in bytes.
const LARGE: usize = 256;
/// The number of small frames a second that are read without delay, and at once after a quiet time. Clients that give
/// streams room send up to two of them (WINDOW_UPDATE) for each event that they read.
const RATE: u32 = 8192;
/// The shortest pause, which bounds how often a slowed connection wakes.
const STEP: Duration = Duration::from_millis(5);

/// Follows the frames of one connection, and counts the small ones.
#[derive(Debug)]
pub struct Frames {
    place: Place,
    /// The number of small frames that may still be read without delay. Below zero, they have to be waited for.
    credit: i64,
    /// The time up to which credit for elapsed time was added.
    filled: Instant,
    /// The timer of a pause. `None` until there has been one.
    pause: Option<Pin<Box<Sleep>>>,
}

/// The place in the bytes of a connection.
#[derive(Debug)]
enum Place {
    /// After so many bytes of the preface.
    Preface(usize),
    /// In a connection of HTTP/1, where nothing is counted.
    Http1,
    /// In the head of a frame, of which so many bytes are known.
    Head([u8; HEAD], usize),
    /// In a payload, of which so many bytes are still to come.
    Payload(usize),
}

impl Default for Frames {
    fn default() -> Self {
        Self { place: Place::Preface(0), credit: i64::from(RATE), filled: Instant::now(), pause: None }
    }
}

impl Frames {
    /// Ready when there is credit to read on.
    pub fn poll_credit(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while self.credit < 0 {
            let now = Instant::now();
            let earned = now.duration_since(self.filled).as_micros() * u128::from(RATE) / 1_000_000;
            if earned > 0 {
                // What is left of the time is for the next frame.
                let paid = earned.saturating_mul(1_000_000_000) / u128::from(RATE);
                self.filled += Duration::from_nanos(u64::try_from(paid).unwrap_or(u64::MAX));
                self.credit = self.credit.saturating_add(i64::try_from(earned).unwrap_or(i64::MAX)).min(RATE.into());
                continue;
            }
            let until = now + STEP;
            let pause = self.pause.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
            if pause.deadline() <= now {
                pause.as_mut().reset(until);
            }
            std::task::ready!(pause.as_mut().poll(context));
        }
        Poll::Ready(())
    }

    /// Counts the small frames in the next bytes of the connection.
    pub fn count(&mut self, mut bytes: &[u8]) {
        while let Some((first, rest)) = bytes.split_first() {
            match &mut self.place {
                Place::Http1 => return,
                Place::Preface(known) => {
                    self.place = match PREFACE.get(*known) {
                        Some(expected) if expected != first => Place::Http1,
                        Some(_) if *known + 1 < PREFACE.len() => Place::Preface(*known + 1),
                        _ => Place::Head([0; HEAD], 0),
                    };
                    bytes = rest;
                }
                Place::Head(head, known) => {
                    if let Some(byte) = head.get_mut(*known) {
                        *byte = *first;
                    }
                    *known += 1;
                    bytes = rest;
                    if *known == HEAD {
                        let head = *head;
                        self.begin(head);
                    }
                }
                Place::Payload(missing) => {
                    let skipped = bytes.len().min(*missing);
                    *missing -= skipped;
                    bytes = bytes.get(skipped..).unwrap_or_default();
                    if *missing == 0 {
                        self.place = Place::Head([0; HEAD], 0);
                    }
                }
            }
        }
    }

    /// Begins the payload of the frame with this head, and charges a small frame.
    fn begin(&mut self, head: [u8; HEAD]) {
        let [high, middle, low, kind, ..] = head;
        let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        self.place = if length == 0 { Place::Head([0; HEAD], 0) } else { Place::Payload(length) };
        if kind != HEADERS && length < LARGE {
            self.credit = self.credit.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    fn frame(kind: u8, length: u8) -> Vec<u8> {
        [vec![0, 0, length, kind, 0, 0, 0, 0, 1], vec![0; length.into()]].concat()
    }

    #[tokio::test(start_paused = true)]
    async fn small_frames_are_counted_however_they_are_cut_and_paid_for_by_time() {
        let large = [vec![0, 1, 0, 0, 0, 0, 0, 0, 1], vec![6; 256]].concat();
        let bytes = [PREFACE, &frame(6, 8), &frame(4, 0), &frame(HEADERS, 20), &large, &frame(0, 0)].concat();
        for size in 1..bytes.len() {
            let mut frames = Frames::default();
            bytes.chunks(size).for_each(|chunk| frames.count(chunk));
            assert_eq!(frames.credit, i64::from(RATE) - 3, "in pieces of {size}");
        }
        let mut frames = Frames::default();
        frames.count(PREFACE);
        frames.count(&frame(6, 8).repeat(usize::try_from(RATE).unwrap_or_default() * 3));
        let begin = Instant::now();
        poll_fn(|context| frames.poll_credit(context)).await;
        let waited = begin.elapsed();
        assert!((1900..2100).contains(&waited.as_millis()), "{waited:?}");
    }

    #[tokio::test]
    async fn nothing_of_http_1_is_counted() {
        let mut frames = Frames::default();
        frames.count(b"PRI * HTTP/1.1\r\n\r\n");
        frames.count(&frame(6, 8).repeat(1000));
        assert_eq!(frames.credit, i64::from(RATE));
    }
}
