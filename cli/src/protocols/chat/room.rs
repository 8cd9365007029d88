//! The room of a chat: who is in it, under which names, and whether it is open.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::{fmt, mem};

use serveloop::Waker;
use serveloop::service::{Group, Lagging, Outbox};

use crate::restart::{Moving, Restarts};
use crate::threads::lock;

/// The only topic of the group.
const ROOM: &str = "room";
/// The longest name, in characters.
const NAME_MOST: usize = 32;

/// All clients, and their names.
#[derive(Clone)]
pub(super) struct Room {
    group: Group,
    hall: Arc<Mutex<Hall>>,
}

/// What members change together. A member that says something holds the lock, so that either all members
/// are there when it is said, or nothing is said.
#[derive(Default)]
pub(super) struct Hall {
    /// Members are on their way to or from another process, so nothing is said.
    is_closed: bool,
    /// Who is to be woken when the room is open again.
    waiting: Vec<Waker>,
    /// What is to be told to everybody then.
    late: Vec<String>,
    /// How many clients have come.
    count: u64,
    /// The number of the client that has a name, which is in lower case here.
    taken: HashMap<String, u64>,
}

impl Room {
    pub(super) fn new(lagging: Lagging) -> Self {
        Self {
            group: Group::new(lagging),
            hall: Arc::default(),
        }
    }

    /// Closes the room whenever members move.
    pub(super) fn close_during(&self, restarts: &Restarts) {
        let room = self.clone();
        restarts.when_moving(move |moving| match moving {
            Moving::Begins => room.hall().is_closed = true,
            Moving::Over => room.open(),
        });
    }

    fn open(&self) {
        let mut hall = self.hall();
        hall.is_closed = false;
        for note in mem::take(&mut hall.late) {
            self.group.publish(ROOM, note.into_bytes());
        }
        hall.waiting.drain(..).for_each(|waker| waker.wake());
    }

    pub(super) fn hall(&self) -> MutexGuard<'_, Hall> {
        // No panic leaves it half changed, so a poisoned lock is still good.
        lock(&self.hall)
    }

    /// Returns the hall if the room is open. Otherwise the client is woken when it is.
    pub(super) fn hall_if_open(
        &self,
        waker: impl FnOnce() -> Waker,
    ) -> Option<MutexGuard<'_, Hall>> {
        let mut hall = self.hall();
        if hall.is_closed {
            hall.waiting.push(waker());
            return None;
        }
        Some(hall)
    }

    pub(super) fn join(&self, outbox: &Outbox) {
        self.group.join(ROOM, outbox);
    }

    pub(super) fn leave(&self, id: u64) {
        self.group.leave(ROOM, id);
    }

    /// Returns how many clients are here.
    pub(super) fn members(&self) -> usize {
        self.group.members(ROOM)
    }

    /// Tells all but the client with this connection a line. The room is open.
    pub(super) fn say(&self, _: &Hall, id: u64, line: impl Into<Arc<[u8]>>) {
        self.group.publish_to_others(ROOM, id, line);
    }

    /// Tells all but the client with this connection what has happened, now or when the room is open again.
    pub(super) fn note(&self, hall: &mut Hall, id: u64, what: fmt::Arguments<'_>) {
        let note = format!("* {what}");
        if hall.is_closed {
            hall.late.push(note);
        } else {
            self.say(hall, id, note.into_bytes());
        }
    }
}

impl Hall {
    /// Returns the number of one more client.
    pub(super) fn count_up(&mut self) -> u64 {
        self.count += 1;
        self.count
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Notes how many clients have come in another process.
    pub(super) fn note_count(&mut self, count: u64) {
        self.count = self.count.max(count);
    }

    /// Takes what is to be told when the room is open.
    pub(super) fn take_late(&mut self) -> Vec<String> {
        mem::take(&mut self.late)
    }

    pub(super) fn add_late(&mut self, late: Vec<String>) {
        self.late.extend(late);
    }

    /// Wakes a client when the room is open: now, or later.
    pub(super) fn wake_when_open(&mut self, waker: Waker) {
        match self.is_closed {
            true => self.waiting.push(waker),
            false => waker.wake(),
        }
    }

    /// Gives a name to client `number` in place of its earlier one, unless another has it.
    pub(super) fn rename(&mut self, number: u64, from: &str, to: &str) -> Result<(), String> {
        check_name(to)?;
        let holder = self.taken.get(&to.to_lowercase());
        if holder.is_some_and(|holder| *holder != number) {
            return Err(format!("{to} is taken"));
        }
        self.free(number, from);
        self.taken.insert(to.to_lowercase(), number);
        Ok(())
    }

    /// Gives back the name of client `number`.
    pub(super) fn free(&mut self, number: u64, name: &str) {
        let name = name.to_lowercase();
        if self.taken.get(&name) == Some(&number) {
            self.taken.remove(&name);
        }
    }
}

/// Returns what is wrong with a name, if anything is.
fn check_name(name: &str) -> Result<(), String> {
    let is_allowed = |letter: char| letter.is_alphanumeric() || "-_".contains(letter);
    if name.is_empty() || !name.chars().all(is_allowed) || name.chars().count() > NAME_MOST {
        return Err(format!(
            "a name has 1 to {NAME_MOST} letters, digits, - and _: /nick NAME"
        ));
    }
    match name.chars().all(char::is_numeric) {
        true => Err("a number is for those without a name".to_owned()),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_be_taken_for_another() {
        let mut hall = Hall::default();
        assert_eq!(hall.rename(1, "1", "Ann"), Ok(()));
        assert_eq!(hall.rename(2, "2", "ann"), Err("ann is taken".to_owned()));
        // One's own name may change its case, and the earlier one is free again.
        assert_eq!(hall.rename(1, "Ann", "ANN"), Ok(()));
        assert_eq!(hall.rename(1, "ANN", "bob"), Ok(()));
        assert_eq!(hall.rename(2, "2", "ann"), Ok(()));

        let longest = "x".repeat(NAME_MOST);
        let too_long = "\u{fc}".repeat(NAME_MOST + 1);
        for name in ["a", "\u{fc}ber-1_", &longest] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
        for name in [
            "",
            "a b",
            "a:",
            "*",
            "7",
            "a\u{202e}b",
            "\u{1b}[1m",
            &too_long,
        ] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }
}
