//! What lasts longer than a request: what a client listens to, watches, and has queued.

use crate::error_reply::ErrorReply;
use crate::request::Arguments;
use crate::store::channels::Listening;
use crate::store::keyspace::Keyspace;
use crate::store::watched::Watches;
use crate::transaction::Transaction;

/// What a connection has that listens to channels, watches keys, or has begun a transaction.
#[derive(Debug)]
pub(super) struct Ongoing {
    pub(super) listening: Option<Listening>,
    pub(super) transaction: Transaction,
    pub(super) watches: Watches,
    /// The most memory for a transaction, and for the watched keys.
    most: usize,
}

impl Ongoing {
    /// Creates what has nothing yet.
    pub(super) fn new(most: usize) -> Self {
        Self {
            listening: None,
            transaction: Transaction::new(most),
            watches: Watches::default(),
            most,
        }
    }

    /// Returns whether there is nothing any more.
    pub(super) fn is_over(&self) -> bool {
        self.listening.is_none() && !self.transaction.is_open() && self.watches.is_empty()
    }

    /// Returns how many bytes of memory it takes.
    pub(super) fn held(&self) -> usize {
        let listening = self.listening.as_ref().map_or(0, Listening::held);
        listening + self.transaction.held() + self.watches.held()
    }

    /// Watches keys, each once.
    ///
    /// # Errors
    /// Returns what the client is told, and watches none of them, if there is no room for all.
    pub(super) fn watch(
        &mut self,
        keys: &Arguments<'_>,
        keyspace: &mut Keyspace,
    ) -> Result<(), ErrorReply> {
        let new = keys.clone().filter(|key| !self.watches.contain(key));
        let more: usize = new.map(Watches::size_of).sum();
        if self.watches.held() + more > self.most {
            return Err(TOO_MANY);
        }

        for key in keys.clone() {
            if !self.watches.contain(key) {
                self.watches.add(key, keyspace.watch(key));
            }
        }
        Ok(())
    }

    /// Stops watching. Returns whether one of the keys was changed meanwhile.
    pub(super) fn unwatch(&mut self, keyspace: &mut Keyspace) -> bool {
        let watches = std::mem::take(&mut self.watches).into_iter();
        watches.fold(false, |is_changed, (key, changes)| {
            keyspace.unwatch(&key, changes) || is_changed
        })
    }
}

const TOO_MANY: ErrorReply = ErrorReply::constant(
    "ERR",
    "the watched keys take more memory than the server's max_transaction allows",
);
