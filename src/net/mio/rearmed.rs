//! Registrations with a poller that reports readiness in every wait (poll). To avoid repetition,
//! mio forgets what it has reported, and has to be reminded when a call found nothing more. The
//! poller also keeps closed descriptors, so they have to be deregistered.
//!
//! Such a poller has no descriptor of its own, so another poller cannot watch the loop.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use ::mio::event::Event;
use ::mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

use crate::LOG_TARGET;

/// Whether a registration has to be renewed after an event.
pub(super) const REARMS: bool = true;

/// How long a wait may last while a descriptor stays readable and may have more to report.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

#[derive(Debug, Default)]
pub(super) struct Registrations(RefCell<State>);

#[derive(Debug, Default)]
struct State {
    entries: HashMap<RawFd, Entry>,
    descriptors: HashMap<usize, RawFd>,
    /// Descriptors to arm again before the next wait.
    due: Vec<RawFd>,
    /// Whether an event came for a descriptor that stays readable.
    looks_often: bool,
}

#[derive(Debug)]
struct Entry {
    token: usize,
    /// What mio has not reported since it was asked.
    armed: Option<Interest>,
    /// Everything that is watched.
    interest: Interest,
    keep_armed: bool,
    look_often: bool,
    /// Whether mio no longer knows the descriptor, as after the end of both sides.
    is_forgotten: bool,
}

impl Registrations {
    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn add(
        &self,
        registry: &Registry,
        descriptor: BorrowedFd<'_>,
        token: usize,
        interest: Interest,
    ) -> io::Result<()> {
        let descriptor = descriptor.as_raw_fd();
        // A descriptor with this number may have been closed without our knowledge.
        let _ = registry.deregister(&mut SourceFd(&descriptor));
        registry.register(&mut SourceFd(&descriptor), Token(token), interest)?;

        let state = &mut *self.0.borrow_mut();
        if let Some(former) = state.entries.remove(&descriptor) {
            state.descriptors.remove(&former.token);
        }
        state.descriptors.insert(token, descriptor);

        let entry = Entry {
            token,
            armed: Some(interest),
            interest,
            keep_armed: false,
            look_often: false,
            is_forgotten: false,
        };
        state.entries.insert(descriptor, entry);

        Ok(())
    }

    /// Watches a descriptor for other things than before.
    pub(super) fn change(
        &self,
        registry: &Registry,
        descriptor: BorrowedFd<'_>,
        token: usize,
        interest: Interest,
    ) -> io::Result<()> {
        self.remove(registry, descriptor);
        self.add(registry, descriptor, token, interest)
    }

    /// Arms a descriptor before every wait. Its input is always read to the end.
    pub(super) fn keep_armed(&self, descriptor: BorrowedFd<'_>) {
        if let Some(entry) = self.0.borrow_mut().entries.get_mut(&descriptor.as_raw_fd()) {
            entry.keep_armed = true;
        }
    }

    /// Makes waits short after the first event of a descriptor. Its input is never read, so further
    /// input causes no event.
    pub(super) fn look_often(&self, descriptor: BorrowedFd<'_>) {
        if let Some(entry) = self.0.borrow_mut().entries.get_mut(&descriptor.as_raw_fd()) {
            entry.look_often = true;
        }
    }

    /// Asks for the next event, after a call found nothing more.
    pub(super) fn rearm(&self, registry: &Registry, descriptor: BorrowedFd<'_>, what: Interest) {
        let descriptor = descriptor.as_raw_fd();
        if let Some(entry) = self.0.borrow_mut().entries.get_mut(&descriptor) {
            entry.rearm(registry, descriptor, what);
        }
    }

    /// Forgets a descriptor that is about to be closed.
    pub(super) fn remove(&self, registry: &Registry, descriptor: BorrowedFd<'_>) {
        let descriptor = descriptor.as_raw_fd();
        let state = &mut *self.0.borrow_mut();
        if let Some(entry) = state.entries.remove(&descriptor) {
            if state.descriptors.get(&entry.token) == Some(&descriptor) {
                state.descriptors.remove(&entry.token);
            }
            // Mio may have forgotten the descriptor by itself.
            let _ = registry.deregister(&mut SourceFd(&descriptor));
        }
    }

    /// Records an event, which mio will not report again.
    pub(super) fn note(&self, event: &Event) {
        let state = &mut *self.0.borrow_mut();
        let Some(descriptor) = state.descriptors.get(&event.token().0) else {
            return;
        };
        let Some(entry) = state.entries.get_mut(descriptor) else {
            return;
        };

        for (told, what) in [
            (event.is_readable(), Interest::READABLE),
            (event.is_writable(), Interest::WRITABLE),
        ] {
            if told {
                entry.armed = entry.armed.and_then(|armed| armed.remove(what));
            }
        }

        if event.is_error() || event.is_write_closed() {
            entry.is_forgotten = true;
            entry.armed = None;
        } else if entry.keep_armed {
            state.due.push(*descriptor);
        }

        state.looks_often |= entry.look_often;
    }

    /// Prepares for a wait, and returns how long it may last.
    pub(super) fn prepare(
        &self,
        registry: &Registry,
        timeout: Option<Duration>,
    ) -> Option<Duration> {
        let state = &mut *self.0.borrow_mut();
        for descriptor in state.due.drain(..) {
            if let Some(entry) = state.entries.get_mut(&descriptor) {
                entry.rearm(registry, descriptor, Interest::READABLE);
            }
        }

        if state.looks_often {
            return Some(timeout.map_or(LOOK_AGAIN, |timeout| timeout.min(LOOK_AGAIN)));
        }
        timeout
    }
}

impl Entry {
    fn rearm(&mut self, registry: &Registry, descriptor: RawFd, what: Interest) {
        let (readable, writable) = (what.is_readable(), what.is_writable());
        let is_armed = self.armed.is_some_and(|armed| {
            (!readable || armed.is_readable()) && (!writable || armed.is_writable())
        });
        if is_armed {
            return;
        }

        let mut armed = self.armed.map_or(what, |armed| armed.add(what));
        if readable && self.interest.is_priority() {
            armed = armed.add(Interest::PRIORITY);
        }

        let mut source = SourceFd(&descriptor);
        let outcome = if self.is_forgotten {
            registry.register(&mut source, Token(self.token), armed)
        } else {
            registry.reregister(&mut source, Token(self.token), armed)
        };

        match outcome {
            Ok(()) => (self.armed, self.is_forgotten) = (Some(armed), false),
            Err(error) => {
                log::error!(target: LOG_TARGET, "cannot watch descriptor {descriptor} again: {error}")
            }
        }
    }
}
