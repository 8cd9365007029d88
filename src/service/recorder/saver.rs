//! A thread that writes the record, so that no loop waits for the disk.

use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use crate::LOG_TARGET;
use crate::service::recorder::Shared;
use crate::waker::sync::{Condvar, Mutex, lock, wait_while};

/// How long the disk is left alone after the record was written, if panics come one after the other.
const PAUSE: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub(super) struct Saver {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    is_running: bool,
    is_asked: bool,
    /// A caller waits for the record, whenever it was written last.
    is_urgent: bool,
    is_writing: bool,
}

/// When a record is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    Now,
    /// Now, or when the pause after the last time is over.
    Soon,
}

/// Asks a thread to write the record, and starts one if there is none. What is asked for while it writes
/// is written once more after that.
pub(super) fn save(shared: &Arc<Shared>, when: When) {
    let mut state = lock(&shared.saver.state);
    state.is_asked = true;
    state.is_urgent |= when == When::Now;
    if state.is_running {
        shared.saver.changed.notify_all();
        return;
    }
    state.is_running = true;
    drop(state);

    let weak = Arc::downgrade(shared);
    let thread = thread::Builder::new().name("recorder".to_owned());
    if let Err(error) = thread.spawn(move || run(&weak)) {
        log::error!(target: LOG_TARGET, "cannot start a thread that writes the record: {error}");
        lock(&shared.saver.state).is_running = false;
    }
}

/// Takes back what was asked for, and waits while the thread writes: the caller writes the record itself,
/// and the process may end after that.
pub(super) fn end(shared: &Shared) {
    let saver = &shared.saver;
    lock(&saver.state).is_asked = false;
    drop(wait_while(&saver.state, &saver.changed, None, |state| {
        state.is_writing
    }));
}

fn run(shared: &Weak<Shared>) {
    while let Some(shared) = shared.upgrade() {
        let saver = &shared.saver;
        let mut state = lock(&saver.state);
        if !state.is_asked {
            state.is_running = false;
            return;
        }
        state.is_asked = false;
        state.is_urgent = false;
        state.is_writing = true;
        drop(state);

        if let Err(error) = shared.save() {
            log::error!(target: LOG_TARGET, "{error}");
        }
        lock(&saver.state).is_writing = false;
        saver.changed.notify_all();
        drop(wait_while(
            &saver.state,
            &saver.changed,
            Some(PAUSE),
            |state| !state.is_urgent,
        ));
    }
}
