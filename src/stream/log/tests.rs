//! A log with any number of cursors, against a model that keeps every message for ever.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use bytes::Bytes;
use proptest::prelude::*;

use super::*;

const BUDGET: Budget = Budget { messages: 4, bytes: 40 };

/// A message whose text is its number in the log, filled up to `len` bytes.
fn message(sequence: u64, len: usize) -> Bytes {
    format!("{sequence:0len$}").into()
}

/// Appends `count` messages of one byte.
fn append(log: &mut Log, count: u64) {
    for _ in 0..count {
        let item = Item::notification(message(log.next, 1));
        log.append(item, false).unwrap().report();
    }
}

/// Reads what there is from `position` on; returns the sequence numbers.
fn read(log: &mut Log, position: &mut u64) -> Vec<u64> {
    std::iter::from_fn(|| {
        let (entry, removed) = log.read(*position)?;
        removed.report();
        assert_eq!(entry.message, message(entry.sequence, 1));
        *position += 1;
        Some(entry.sequence)
    })
    .collect()
}

#[test]
fn a_second_cursor_reads_the_same_messages_and_holds_them_until_it_has() {
    let mut log = Log::new(BUDGET, Budget::ZERO);
    let (mut first, mut second) = (1, 1);
    log.add_cursor(1).unwrap();
    append(&mut log, 3);
    assert_eq!(read(&mut log, &mut first), [1, 2, 3]);
    assert!(!log.has_room(40) && log.has_room(37), "the second cursor has read none");
    append(&mut log, 1);
    assert_eq!(log.append(Item::notification("5".into()), false).unwrap_err().0, PushError::Full);
    assert_eq!(read(&mut log, &mut second), [1, 2, 3, 4]);
    assert_eq!((log.slots.len(), log.first), (1, 4), "the first cursor has yet to read number 4");
    log.remove_cursor(first).report();
    assert_eq!((log.slots.len(), log.unread), (0, Usage::default()));
    assert!(!log.is_closed, "there is the second cursor");
    log.remove_cursor(second).report();
    assert!(log.is_closed);
}

#[test]
fn a_cursor_starts_where_the_log_still_has_all_messages_or_is_told_so() {
    let mut log = Log::new(BUDGET, Budget::ZERO);
    let mut first = 1;
    append(&mut log, 3);
    assert_eq!(log.read(1).unwrap().0.sequence, 1);
    first += 1;
    assert_eq!(log.add_cursor(1), Err(CursorError::Gone { oldest: 2 }));
    assert_eq!(log.add_cursor(5), Err(CursorError::NotYet { next: 4 }));
    let mut second = 3;
    log.add_cursor(second).unwrap();
    assert_eq!(read(&mut log, &mut first), [2, 3]);
    assert_eq!(read(&mut log, &mut second), [3]);
    log.add_cursor(4).unwrap();
    append(&mut log, 1);
    assert_eq!(read(&mut log, &mut 4), [4]);
}

#[test]
fn retention_keeps_the_newest_messages_for_a_later_cursor() {
    let mut log = Log::new(BUDGET, Budget { messages: 3, bytes: 10 });
    let mut first = 1;
    for _ in 0..5 {
        append(&mut log, 1);
        read(&mut log, &mut first);
    }
    assert_eq!(log.add_cursor(2), Err(CursorError::Gone { oldest: 3 }));
    log.remove_cursor(first).report();
    append(&mut log, 1);
    assert!(!log.is_closed, "a client may come back");
    let _ = log.finish();
    let mut second = 4;
    log.add_cursor(second).unwrap();
    assert_eq!(read(&mut log, &mut second), [4, 5, 6]);
    log.cut().report();
    assert_eq!(log.add_cursor(4), Err(CursorError::Gone { oldest: 7 }));
    assert_eq!(log.retained, Usage::default());
}

#[derive(Debug, Clone)]
enum Step {
    /// Appends a message of so many bytes, of the gateway's own or not.
    Append(usize, bool),
    /// Opens a cursor so many messages before the next one.
    Open(u64),
    /// The cursor at this place, modulo their number, reads once.
    Read(usize),
    /// The cursor at this place, modulo their number, is dropped.
    Close(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..20_usize, prop::bool::weighted(0.2)).prop_map(|(len, is_own)| Step::Append(len, is_own)),
        1 => (0..8_u64).prop_map(Step::Open),
        5 => (0..8_usize).prop_map(Step::Read),
        1 => (0..8_usize).prop_map(Step::Close),
    ]
}

/// What a log holds, counted anew.
fn usage(slots: &Slots<Slot>, is_unread: bool) -> Usage {
    let mut usage = Usage::default();
    slots.iter().filter(|slot| (slot.unread_by > 0) == is_unread).for_each(|slot| usage.add(slot.item.message.len()));
    usage
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn every_cursor_sees_every_message_from_its_start_once_and_in_order(
        steps in prop::collection::vec(step(), 0..200),
        kept in 0..4_usize,
    ) {
        let retention = Budget { messages: kept, bytes: kept * 10 };
        let mut log = Log::new(BUDGET, retention);
        let (mut sent, mut cursors): (Vec<Bytes>, Vec<u64>) = (Vec::new(), vec![1]);
        let mut is_closed = false;
        for step in steps {
            let next = sent.len() as u64 + 1;
            match step {
                Step::Append(len, is_own) => {
                    let text = message(next, len);
                    let has_room = log.has_room(text.len());
                    match log.append(Item::notification(text.clone()), is_own) {
                        Ok(removed) => {
                            prop_assert!(has_room || is_own);
                            removed.report();
                            sent.push(text);
                        }
                        Err((PushError::Full, _)) => prop_assert!(!has_room && !cursors.is_empty()),
                        Err((PushError::Closed, _)) => prop_assert!(is_closed),
                    }
                }
                Step::Open(back) => {
                    let from = next.saturating_sub(back).max(1);
                    match log.add_cursor(from) {
                        Ok(()) => cursors.push(from),
                        Err(error) => {
                            prop_assert!(from < log.first);
                            prop_assert_eq!(error, CursorError::Gone { oldest: log.first });
                        }
                    }
                }
                Step::Read(place) if !cursors.is_empty() => {
                    let place = place % cursors.len();
                    let position = &mut cursors[place];
                    let expected = sent.get(*position as usize - 1).cloned();
                    let got = log.read(*position).map(|(entry, removed)| {
                        removed.report();
                        (entry.sequence, entry.message)
                    });
                    prop_assert_eq!(&got, &expected.map(|message| (*position, message)));
                    *position += u64::from(got.is_some());
                }
                Step::Close(place) if !cursors.is_empty() => {
                    let position = cursors.swap_remove(place % cursors.len());
                    log.remove_cursor(position).report();
                    is_closed |= cursors.is_empty() && kept == 0;
                }
                Step::Read(_) | Step::Close(_) => {}
            }
            prop_assert_eq!(log.is_closed, is_closed);
            let slowest = cursors.iter().min().copied().unwrap_or(log.next);
            prop_assert!(log.first <= slowest, "no cursor has missed a message");
            prop_assert_eq!((log.unread, log.retained), (usage(&log.slots, true), usage(&log.slots, false)));
            prop_assert!(retention.covers(log.retained));
            if kept == 0 {
                prop_assert_eq!(log.first, slowest, "a message that all have read is gone");
            }
        }
        for position in cursors {
            log.remove_cursor(position).report();
        }
        prop_assert_eq!(log.unread, Usage::default());
        prop_assert!(kept > 0 || log.slots.len() == 0);
    }
}
