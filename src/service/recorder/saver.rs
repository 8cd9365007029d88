//! A thread that writes the record after a handler has panicked, so that no loop waits for the disk.

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
    /// The server has ended, and has written the record itself.
    is_over: bool,
}

/// Has the record written soon: at once, or when the pause after the last time is over.
pub(super) fn save_soon(shared: &Arc<Shared>) {
    let mut state = lock(&shared.saver.state);
    state.is_asked = true;
    if state.is_running {
        return;
    }
    state.is_running = true;
    state.is_over = false;
    drop(state);

    let weak = Arc::downgrade(shared);
    let thread = thread::Builder::new().name("recorder".to_owned());
    if let Err(error) = thread.spawn(move || run(&weak)) {
        log::error!(target: LOG_TARGET, "cannot start a thread that writes the record: {error}");
        lock(&shared.saver.state).is_running = false;
    }
}

/// Ends the thread, if it runs: the record was written.
pub(super) fn end(shared: &Shared) {
    let mut state = lock(&shared.saver.state);
    state.is_asked = false;
    state.is_over = true;
    shared.saver.changed.notify_all();
}

fn run(shared: &Weak<Shared>) {
    while let Some(shared) = shared.upgrade() {
        let saver = &shared.saver;
        let mut state = lock(&saver.state);
        if !state.is_asked || state.is_over {
            state.is_running = false;
            return;
        }
        state.is_asked = false;
        drop(state);

        if let Err(error) = shared.save() {
            log::error!(target: LOG_TARGET, "{error}");
        }
        drop(wait_while(
            &saver.state,
            &saver.changed,
            Some(PAUSE),
            |state| !state.is_over,
        ));
    }
}
