//! Who is told that connections move.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::threads::lock;

/// What is told of connections that move from one process to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moving {
    /// They may be on their way from now on.
    Begins,
    /// All have arrived, or have left, or none does.
    Over,
}

/// What a listener does when it is told.
type Tell = Box<dyn Fn(Moving) + Send + Sync>;

/// Whether connections move, and who is to know.
pub(super) struct Moves {
    is_going_on: AtomicBool,
    listeners: Mutex<Vec<Tell>>,
}

impl Moves {
    /// `begins` if connections may come before anything else happens.
    pub(super) fn new(begins: Moving) -> Self {
        Self {
            is_going_on: AtomicBool::new(begins == Moving::Begins),
            listeners: Mutex::default(),
        }
    }

    /// Returns whether connections may be on their way.
    pub(super) fn are_going_on(&self) -> bool {
        self.is_going_on.load(Ordering::SeqCst)
    }

    /// Calls `tell` whenever it begins and is over, and now if it has begun.
    pub(super) fn add(&self, tell: impl Fn(Moving) + Send + Sync + 'static) {
        let mut listeners = lock(&self.listeners);
        if self.are_going_on() {
            tell(Moving::Begins);
        }
        listeners.push(Box::new(tell));
    }

    /// Tells everybody who is to know, unless they know already.
    pub(super) fn tell(&self, moving: Moving) {
        let listeners = lock(&self.listeners);
        let begins = moving == Moving::Begins;
        if self.is_going_on.swap(begins, Ordering::SeqCst) != begins {
            listeners.iter().for_each(|tell| tell(moving));
        }
    }
}

impl fmt::Debug for Moves {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Moves")
            .field("is_going_on", &self.are_going_on())
            .finish_non_exhaustive()
    }
}
