//! The event streams that are open, so that their number is bounded.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::store::ProcessId;

/// The most event streams of one router at the same time.
const MOST_STREAMS: usize = 1_000;

/// The most event streams of one sign-in at the same time, such as one for each tab. Otherwise one browser could take
/// all of them.
const MOST_STREAMS_OF_SIGN_IN: usize = 10;

/// The open streams of one router.
#[derive(Clone, Default)]
pub(super) struct Streams(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    all: usize,
    by_sign_in: HashMap<ProcessId, usize>,
}

/// One open stream. It counts until it is dropped.
pub(super) struct OpenStream {
    streams: Streams,
    id: ProcessId,
}

impl Streams {
    /// Counts another stream of this sign-in, unless there are too many.
    pub(super) fn open(&self, id: ProcessId) -> Option<OpenStream> {
        let mut inner = self.lock();
        let of_sign_in = inner.by_sign_in.get(&id).copied().unwrap_or_default();
        if inner.all >= MOST_STREAMS || of_sign_in >= MOST_STREAMS_OF_SIGN_IN {
            return None;
        }
        inner.all = inner.all.saturating_add(1);
        inner.by_sign_in.insert(id, of_sign_in.saturating_add(1));
        Some(OpenStream { streams: self.clone(), id })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        let mut inner = self.streams.lock();
        inner.all = inner.all.saturating_sub(1);
        let left = inner.by_sign_in.get(&self.id).copied().unwrap_or_default().saturating_sub(1);
        match left {
            0 => inner.by_sign_in.remove(&self.id),
            left => inner.by_sign_in.insert(self.id, left),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> ProcessId {
        ProcessId::from_bytes((number as u128).to_be_bytes())
    }

    #[test]
    fn one_sign_in_has_ten_streams_and_leaves_room_for_others() {
        let streams = Streams::default();
        let mut open: Vec<_> = (0..10).map(|_| streams.open(id(1)).unwrap()).collect();
        assert!(streams.open(id(1)).is_none());
        let _other = streams.open(id(2)).unwrap();
        open.pop();
        let _again = streams.open(id(1)).unwrap();
        assert!(streams.open(id(1)).is_none());
    }

    #[test]
    fn one_router_has_a_thousand_streams_and_forgets_those_that_are_closed() {
        let streams = Streams::default();
        let mut open: Vec<_> = (0..1_000).map(|number| streams.open(id(number)).unwrap()).collect();
        assert!(streams.open(id(1_000)).is_none());
        open.pop();
        open.push(streams.open(id(1_000)).unwrap());
        assert!(streams.open(id(1_001)).is_none());
        drop(open);
        let inner = streams.lock();
        assert_eq!((inner.all, inner.by_sign_in.len()), (0, 0));
    }
}
