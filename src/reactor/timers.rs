//! One deadline for each slot, the nearest first.

use crate::session::Tick;

/// The place of a slot that has no entry.
const NOWHERE: u32 = u32::MAX;

/// An indexed binary heap. It has at most one entry per slot, so it never grows beyond the number
/// of connections, however often their deadlines change.
#[derive(Debug, Default)]
pub(super) struct Timers {
    heap: Vec<Entry>,
    /// For each slot, the place of its entry in the heap.
    places: Vec<u32>,
}

/// Packed, because each idle connection has one.
#[derive(Clone, Copy, Debug)]
#[repr(C, packed(4))]
struct Entry {
    at: Tick,
    slot: u32,
}

impl Entry {
    /// Returns a copy, since a field that is not aligned cannot be borrowed.
    fn at(self) -> Tick {
        self.at
    }
}

/// What a connection with a deadline takes: an entry and its place.
#[cfg(test)]
pub(super) const TIMER_BYTES: usize = size_of::<Entry>() + size_of::<u32>();

impl Timers {
    pub(super) fn with_capacity(slots: usize) -> Self {
        Self {
            heap: Vec::with_capacity(slots),
            places: Vec::with_capacity(slots),
        }
    }

    /// Returns the nearest deadline.
    pub(super) fn next(&self) -> Option<Tick> {
        self.heap.first().map(|entry| entry.at())
    }

    /// Removes and returns a slot whose deadline has passed, the longest overdue first.
    pub(super) fn pop(&mut self, now: Tick) -> Option<usize> {
        let entry = *self.heap.first().filter(|entry| entry.at() <= now)?;
        self.remove(entry.slot as usize);
        Some(entry.slot as usize)
    }

    /// Sets the slot's deadline, unless it has an earlier one.
    pub(super) fn set_earlier(&mut self, slot: usize, at: Tick) {
        if self.places.len() <= slot {
            self.places.resize(slot + 1, NOWHERE);
        }

        let mut place = self.places[slot] as usize;
        match self.heap.get_mut(place) {
            Some(entry) if entry.at() <= at => return,
            Some(entry) => entry.at = at,
            None => {
                place = self.heap.len();
                self.heap.push(Entry {
                    at,
                    slot: narrow(slot),
                });
            }
        }

        self.rise(place);
    }

    /// Removes the slot's deadline, if it has one.
    pub(super) fn remove(&mut self, slot: usize) {
        let Some(place) = self.places.get(slot).map(|place| *place as usize) else {
            return;
        };

        if place >= self.heap.len() {
            return;
        }

        self.places[slot] = NOWHERE;
        self.heap.swap_remove(place);

        if place < self.heap.len() {
            let place = self.rise(place);
            self.sink(place);
        }
    }

    /// Gives back what is kept for slots from `end` on, which have no deadlines, and for deadlines that
    /// are gone.
    pub(super) fn shrink(&mut self, end: usize) {
        self.places.truncate(end);
        if self.places.len() < self.places.capacity() / 4 {
            self.places.shrink_to(2 * end);
        }
        if self.heap.len() < self.heap.capacity() / 4 {
            self.heap.shrink_to(2 * self.heap.len());
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.heap.len()
    }

    fn rise(&mut self, mut place: usize) -> usize {
        while place > 0 && self.heap[place].at() < self.heap[(place - 1) / 2].at() {
            self.heap.swap(place, (place - 1) / 2);
            self.note(place);
            place = (place - 1) / 2;
        }
        self.note(place);
        place
    }

    fn sink(&mut self, mut place: usize) {
        loop {
            let children = 2 * place + 1..self.heap.len().min(2 * place + 3);
            let Some(least) = children.min_by_key(|child| self.heap[*child].at()) else {
                break;
            };
            if self.heap[place].at() <= self.heap[least].at() {
                break;
            }

            self.heap.swap(place, least);
            self.note(place);
            place = least;
        }
        self.note(place);
    }

    fn note(&mut self, place: usize) {
        self.places[self.heap[place].slot as usize] = narrow(place);
    }
}

fn narrow(index: usize) -> u32 {
    u32::try_from(index).expect("fewer than 2^32 connections")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;
    use std::collections::BTreeMap;
    use std::time::Duration;

    #[derive(Clone, Copy, Debug)]
    enum Change {
        SetEarlier(usize, u64),
        Remove(usize),
        Pop(u64),
    }

    /// Uses few slots and few moments, so that deadlines replace each other and coincide.
    fn changes() -> impl Strategy<Value = Vec<Change>> {
        let change = prop_oneof![
            4 => (0..24_usize, 0..40_u64).prop_map(|(slot, at)| Change::SetEarlier(slot, at)),
            1 => (0..26_usize).prop_map(Change::Remove),
            2 => (0..40_u64).prop_map(Change::Pop),
        ];
        vec(change, 0..200)
    }

    fn tick(nanos: u64) -> Tick {
        Tick::ZERO.after(Duration::from_nanos(nanos))
    }

    fn check(timers: &Timers, model: &BTreeMap<usize, Tick>) {
        assert_eq!(timers.next(), model.values().min().copied());
        assert_eq!(timers.len(), model.len());
        for (slot, at) in model {
            let place = timers.places[*slot] as usize;
            assert_eq!(timers.heap[place].slot as usize, *slot);
            assert_eq!(timers.heap[place].at(), *at);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            rng_seed: RngSeed::Fixed(1),
            failure_persistence: None,
            ..ProptestConfig::with_cases(200)
        })]

        #[test]
        fn agrees_with_a_map_over_many_changes(changes in changes()) {
            let mut timers = Timers::default();
            let mut model = BTreeMap::new();

            for change in changes {
                match change {
                    Change::SetEarlier(slot, at) => {
                        timers.set_earlier(slot, tick(at));
                        let known = model.entry(slot).or_insert(tick(at));
                        *known = tick(at).min(*known);
                    }
                    Change::Remove(slot) => {
                        timers.remove(slot);
                        model.remove(&slot);
                    }
                    Change::Pop(now) => {
                        let expected = model.values().min().copied().filter(|at| *at <= tick(now));
                        let popped = timers.pop(tick(now));
                        prop_assert_eq!(popped.map(|slot| model[&slot]), expected);
                        popped.map(|slot| model.remove(&slot));
                    }
                }
                check(&timers, &model);
            }
        }
    }

    #[test]
    fn after_a_crowd_little_is_kept() {
        let mut timers = Timers::with_capacity(100);
        for slot in 0..10_000 {
            timers.set_earlier(slot, tick(slot as u64));
        }
        for slot in (0..10_000).filter(|slot| slot % 4_000 != 0) {
            timers.remove(slot);
        }
        timers.shrink(8_192);
        assert_eq!((timers.len(), timers.next()), (3, Some(tick(0))));
        assert!(timers.heap.capacity() <= 10, "{}", timers.heap.capacity());

        timers.remove(8_000);
        timers.remove(4_000);
        timers.shrink(256);
        assert!(
            timers.places.capacity() <= 512,
            "{}",
            timers.places.capacity()
        );
        timers.set_earlier(9_999, tick(5));
        assert_eq!(timers.pop(tick(0)), Some(0));
        assert_eq!(timers.pop(tick(5)), Some(9_999));
    }
}
