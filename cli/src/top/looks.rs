//! The looks of `top` at its server, on a thread of their own: keys and signals are heard while the server
//! does not answer.

use std::io;
use std::sync::mpsc::{self, Receiver, Sender};

use serde_json::Value;

use crate::ctl::Client;
use crate::monitoring::{By, Question, Selection};
use crate::threads;
use crate::top::bell::Bell;

/// What the server said of itself and of its connections.
pub(super) struct Look {
    pub(super) stats: Value,
    pub(super) list: Value,
}

/// What a look shows: connections in this order, and at most this many.
#[derive(Clone, Copy)]
pub(super) struct Wish {
    pub(super) by: By,
    pub(super) first: usize,
}

/// Looks one after the other.
pub(super) struct Looks {
    wishes: Sender<Wish>,
    looks: Receiver<io::Result<Look>>,
    is_waiting: bool,
}

impl Looks {
    /// Starts the thread, which rings the bell after each look.
    ///
    /// # Errors
    /// Fails if the system has no thread left.
    pub(super) fn start(mut client: Client, bell: Bell) -> io::Result<Self> {
        let (wishes, wished) = mpsc::channel();
        let (looked, looks) = mpsc::channel();
        let ask = move || {
            for wish in wished {
                if looked.send(look(&mut client, wish)).is_err() {
                    return;
                }
                bell.ring();
            }
        };
        threads::spawn("looks", ask)?;

        Ok(Self {
            wishes,
            looks,
            is_waiting: false,
        })
    }

    /// Begins to look.
    pub(super) fn begin(&mut self, wish: Wish) {
        // The thread ends after this.
        let _ = self.wishes.send(wish);
        self.is_waiting = true;
    }

    /// Returns whether a look has begun that the server has not answered.
    pub(super) fn is_waiting(&self) -> bool {
        self.is_waiting
    }

    /// Returns what the server has answered, if it has.
    ///
    /// # Errors
    /// Returns what the server said, or why it said nothing.
    pub(super) fn take(&mut self) -> io::Result<Option<Look>> {
        let looked = self.looks.try_recv().ok();
        self.is_waiting &= looked.is_none();
        looked.transpose()
    }
}

/// Looks once, and waits for the answers.
///
/// # Errors
/// Returns what the server said, or why it said nothing.
pub(super) fn look(client: &mut Client, wish: Wish) -> io::Result<Look> {
    let stats = client.ask(&Question::Stats)?;
    let selection = Selection {
        by: wish.by,
        first: Some(wish.first),
        ..Selection::default()
    };
    let list = client.ask(&Question::Ls(selection))?;
    Ok(Look { stats, list })
}
