//! The room that a child takes up under the ceilings of its pool and of its tenant. The room of a child that is replaced, or that
//! has served and crashed, is for its successor: whoever holds it keeps it from the queue.

use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::slots::Slot;
use crate::process::Place;

/// The room of one child. It is free for others when the last hold on it is dropped.
#[derive(Debug)]
pub struct Room {
    slot: Mutex<Option<Slot>>,
    place: Mutex<Option<Place>>,
    /// Cancelled when the child is gone.
    vacant: CancellationToken,
}

impl Room {
    pub(super) fn new(slot: Slot) -> Arc<Self> {
        Arc::new(Self { slot: Mutex::new(Some(slot)), place: Mutex::default(), vacant: CancellationToken::new() })
    }

    /// The child counts for a tenant from now on.
    pub(super) fn add(&self, place: Place) {
        *self.place.lock() = Some(place);
    }

    /// The child is gone. What is still in the room is for whoever takes the child's place.
    pub(super) fn vacate(&self) {
        self.vacant.cancel();
    }

    /// The child is gone, and nobody in particular takes its place.
    pub(super) fn clear(&self) {
        self.take_slot();
        self.take_place();
        self.vacate();
    }

    pub(super) fn take_slot(&self) -> Option<Slot> {
        self.slot.lock().take()
    }

    pub(super) fn take_place(&self) -> Option<Place> {
        self.place.lock().take()
    }

    /// Waits until a child has left one of the rooms, and takes from it what nobody has taken yet; for ever, if there is
    /// none.
    pub(super) async fn inherit<T>(rooms: &[Arc<Self>], take: impl Fn(&Self) -> Option<T>) -> T {
        let vacated = |room: &Arc<Self>| {
            let room = Arc::clone(room);
            async move {
                room.vacant.cancelled().await;
                room
            }
        };
        let mut rooms: FuturesUnordered<_> = rooms.iter().map(vacated).collect();
        while let Some(room) = rooms.next().await {
            if let Some(left) = take(&room) {
                return left;
            }
        }
        std::future::pending().await
    }
}
