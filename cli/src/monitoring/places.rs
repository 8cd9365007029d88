//! The places of the small server's clients: who has to leave when there are too many.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Instant;

use serveloop::Actions;

use crate::threads::lock;

/// How many clients of pages may be live pages, which stay.
pub(super) const LIVE_MOST: usize = 16;

/// By how many clients the most of one kind may be exceeded. At the end of a turn another client leaves for each of
/// them, unless that many connections have ended and wait for their peers to close.
pub(super) const SPARE: usize = 8;

/// The places of clients of one kind.
pub(super) struct Places {
    most: usize,
    /// The ids of the clients. A place that its client has left is gone.
    taken: Vec<(u64, Weak<Place>)>,
    staying: Arc<AtomicUsize>,
}

impl Places {
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            taken: Vec::new(),
            staying: Arc::default(),
        }
    }

    /// Gives a place to the client with this id, if there is one.
    pub(super) fn give(&mut self, id: u64) -> Option<Arc<Place>> {
        self.forget_left();
        if self.taken.len() >= self.most + SPARE {
            return None;
        }

        let place = Arc::new(Place {
            asked: Mutex::new(Some(Instant::now())),
            staying: Arc::clone(&self.staying),
        });
        self.taken.push((id, Arc::downgrade(&place)));
        Some(place)
    }

    /// Ends the clients that have been idle for the longest time, until there are not too many.
    pub(super) fn clear<P>(&mut self, actions: &mut Actions<'_, P>) {
        if self.taken.len() <= self.most {
            return;
        }
        self.forget_left();
        let surplus = self.taken.len().saturating_sub(self.most);

        // Who has left, but waits for the peer to close, can do nothing for others.
        let open: Vec<_> = actions.connections().map(|it| it.id()).collect();
        let there = self.taken.iter().filter(|(id, _)| open.contains(id));
        let mut idle: Vec<_> = there
            .filter_map(|(id, place)| Some((place.upgrade()?.asked()?, *id)))
            .collect();
        idle.sort_unstable();
        for (_, id) in idle.into_iter().take(surplus) {
            actions.abort(id);
        }
    }

    fn forget_left(&mut self) {
        self.taken.retain(|(_, place)| place.strong_count() > 0);
    }
}

/// The place of one client, which it has until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    /// When the client has asked last, or connected. There is no such time for a client that stays.
    asked: Mutex<Option<Instant>>,
    /// How many clients stay.
    staying: Arc<AtomicUsize>,
}

impl Place {
    /// Notes that the client has just asked, and was answered.
    pub(super) fn note_question(&self) {
        if let Some(asked) = &mut *lock(&self.asked) {
            *asked = Instant::now();
        }
    }

    /// Lets the client stay, however little it asks. Returns false if too many do already.
    pub(super) fn stay(&self) -> bool {
        let one_more = |count| (count < LIVE_MOST).then_some(count + 1);
        let counted = self
            .staying
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more);
        if counted.is_ok() {
            *lock(&self.asked) = None;
        }
        counted.is_ok()
    }

    fn asked(&self) -> Option<Instant> {
        *lock(&self.asked)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.asked().is_none() {
            self.staying.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
impl Place {
    /// A place for which no other client waits.
    pub(super) fn of_its_own() -> Arc<Self> {
        Arc::new(Self {
            asked: Mutex::new(Some(Instant::now())),
            staying: Arc::default(),
        })
    }
}
