//! The bounds, the ends and the cursors of a stream.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};

use bytes::Bytes;
use parking_lot::Mutex;

use super::*;
use crate::stream::{Entry, Requester, ServerRequest};

impl Outbox {
    /// Whether both write to the same stream.
    pub(crate) fn same_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

const LIMITS: Budget = Budget { messages: 2, bytes: 10 };

fn item(text: &'static str) -> Item {
    Item::notification(Bytes::from_static(text.as_bytes()))
}

async fn next(cursor: &mut Cursor) -> Option<Bytes> {
    cursor.next().await.map(|item| item.message)
}

#[derive(Default)]
struct Lost(Mutex<Vec<u64>>);

impl Requester for Lost {
    fn undelivered(&self, number: u64) {
        self.0.lock().push(number);
    }
}

#[tokio::test]
async fn bounds_hold_and_one_large_message_passes() {
    let (outbox, mut cursor) = Outbox::new(LIMITS);
    assert_eq!(outbox.push(item("a message larger than the limit")), Ok(()));
    assert_eq!(outbox.push(item("x")), Err(PushError::Full));
    assert!(cursor.next().await.is_some());
    assert_eq!(outbox.push(item("a")), Ok(()));
    assert_eq!(outbox.push(item("b")), Ok(()));
    assert_eq!(outbox.push(item("c")), Err(PushError::Full));
    outbox.finish();
    assert_eq!(outbox.push(item("d")), Err(PushError::Closed));
    assert_eq!(next(&mut cursor).await, Some("a".into()));
    assert_eq!(next(&mut cursor).await, Some("b".into()));
    assert_eq!(next(&mut cursor).await, None);
}

#[tokio::test]
async fn a_writer_waits_for_room() {
    let (outbox, mut cursor) = Outbox::new(LIMITS);
    assert_eq!(outbox.push(item("0123456789")), Ok(()));
    let waiting = tokio::spawn({
        let outbox = outbox.clone();
        async move {
            outbox.room_for(5).await;
            outbox.push(item("12345"))
        }
    });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    assert_eq!(next(&mut cursor).await, Some("0123456789".into()));
    assert_eq!(waiting.await.ok(), Some(Ok(())));
    drop(cursor);
    assert_eq!(outbox.push(item("x")), Err(PushError::Closed));
    outbox.room_for(1000).await;
}

#[tokio::test]
async fn a_cut_drops_what_waits() {
    let (outbox, mut cursor) = Outbox::new(LIMITS);
    assert_eq!(outbox.push(item("a")), Ok(()));
    outbox.cut();
    assert_eq!(next(&mut cursor).await, None);
    assert!(!outbox.is_open());
}

#[tokio::test]
async fn a_requester_is_told_of_the_requests_that_no_cursor_has_read() {
    let lost = Arc::new(Lost::default());
    let requester: Arc<dyn Requester> = lost.clone();
    let ask = |outbox: &Outbox, number| {
        let request = Some(ServerRequest { number, requester: Arc::downgrade(&requester) });
        assert_eq!(outbox.push(Item { request, ..item("?") }), Ok(()));
    };
    for (number, is_cut) in [(1, true), (3, false)] {
        let (outbox, mut cursor) = Outbox::new(LIMITS);
        ask(&outbox, number);
        assert!(cursor.next().await.is_some());
        ask(&outbox, number + 1);
        if is_cut {
            outbox.cut();
        } else {
            outbox.finish();
            assert_eq!(lost.0.lock().len(), 1, "it may still be read");
        }
        drop(cursor);
    }
    assert_eq!(*lost.0.lock(), [2, 4]);
}

#[tokio::test]
async fn a_second_cursor_gets_what_the_first_gets_and_wakes_as_the_first_does() {
    let (outbox, mut first) = Outbox::new(LIMITS);
    let mut second = outbox.cursor_from(1).unwrap();
    let waiting = [
        tokio::spawn(async move { (first.next().await, first) }),
        tokio::spawn(async move { (second.next().await, second) }),
    ];
    tokio::task::yield_now().await;
    assert_eq!(outbox.push(item("a")), Ok(()));
    let mut cursors = Vec::new();
    for reader in waiting {
        let (entry, cursor) = reader.await.unwrap();
        assert_eq!(entry, Some(Entry { sequence: 1, message: "a".into(), answer: false, request: None }));
        cursors.push(cursor);
    }
    assert_eq!(outbox.cursor_from(1).unwrap_err(), CursorError::Gone { oldest: 2 });
    assert_eq!(outbox.push(item("b")), Ok(()));
    for mut cursor in cursors {
        assert!(outbox.is_open());
        assert_eq!(next(&mut cursor).await, Some("b".into()));
    }
    assert_eq!(outbox.push(item("c")), Err(PushError::Closed), "both cursors are gone");
}

/// A message that counts how many of its kind are held.
fn counted(of: &Arc<[u8; 2]>) -> Item {
    struct Counted(Arc<[u8; 2]>);
    impl AsRef<[u8]> for Counted {
        fn as_ref(&self) -> &[u8] {
            &*self.0
        }
    }
    Item::notification(Bytes::from_owner(Counted(Arc::clone(of))))
}

#[tokio::test]
async fn a_message_is_freed_when_the_last_cursor_has_read_it() {
    let held = Arc::new(*b"{}");
    let (outbox, mut first) = Outbox::new(LIMITS);
    let mut second = outbox.cursor_from(1).unwrap();
    for _ in 0..2 {
        assert_eq!(outbox.push(counted(&held)), Ok(()));
    }
    for left in [1, 0] {
        assert!(first.next().await.is_some());
        assert_eq!(Arc::strong_count(&held), 1 + left + 1, "the second has not read it");
        assert!(second.next().await.is_some());
        assert_eq!(Arc::strong_count(&held), 1 + left);
    }
    assert_eq!(outbox.push(counted(&held)), Ok(()));
    drop((first, second));
    assert_eq!(Arc::strong_count(&held), 1);
}

#[tokio::test]
async fn retained_requests_that_no_cursor_has_read_are_reported_at_the_end() {
    let lost = Arc::new(Lost::default());
    let requester: Arc<dyn Requester> = lost.clone();
    let (outbox, mut cursor) = Outbox::with_retention(LIMITS, LIMITS);
    let ask = |number| {
        let request = Some(ServerRequest { number, requester: Arc::downgrade(&requester) });
        assert_eq!(outbox.push(Item { request, ..item("?") }), Ok(()));
    };
    ask(1);
    assert!(cursor.next().await.is_some());
    drop(cursor);
    (2..=4).for_each(ask);
    assert_eq!(*lost.0.lock(), [2], "retention has room for two");
    let mut later = outbox.cursor_from(3).unwrap();
    assert_eq!(later.next().await.and_then(|entry| entry.request), Some(3));
    drop((later, outbox));
    assert_eq!(*lost.0.lock(), [2, 4]);
}

#[test]
fn a_cursor_that_is_polled_by_many_tasks_keeps_one_waker() {
    let (outbox, mut cursor) = Outbox::new(LIMITS);
    let woken = [Arc::new(Woken::default()), Arc::new(Woken::default())];
    for task in &woken {
        let waker = Waker::from(Arc::clone(task));
        assert!(cursor.poll_next(&mut Context::from_waker(&waker)).is_pending());
    }
    assert_eq!(outbox.push(item("a")), Ok(()));
    assert_eq!(woken.map(|task| task.0.load(Ordering::Relaxed)), [0, 1]);
}

/// A task that counts how often it is woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}
