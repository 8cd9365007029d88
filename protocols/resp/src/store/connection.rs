//! What the store keeps for one client's connection.

use std::sync::Arc;

use serveloop::Transport;

use crate::store::Store;
use crate::store::channels::{Kind, Listening};
use crate::store::clients::{Client, Named};
use crate::store::ongoing::Ongoing;

/// The service for one client of a [`Store`].
#[derive(Debug)]
pub struct Connection {
    pub(super) store: Arc<Store>,
    /// What others see of it, from when it is connected.
    client: Option<Arc<Client>>,
    /// How many bytes its names take, which others only see.
    named: usize,
    /// What lasts longer than a request. Few connections have any of it.
    pub(super) ongoing: Option<Box<Ongoing>>,
    /// Whether it has listened before, so that messages for it may still be on their way.
    has_listened: bool,
}

impl Connection {
    /// Creates the connection of a client that has not come yet.
    pub(super) fn new(store: Arc<Store>) -> Self {
        Self {
            store,
            client: None,
            named: 0,
            ongoing: None,
            has_listened: false,
        }
    }

    /// Joins the clients that others see.
    pub(super) fn join(&mut self, transport: &Transport<'_>) {
        let now = self.now(transport);
        self.client = Some(self.store.clients.join(transport, now));
    }

    /// Returns the time in milliseconds since 1970, for what is not done with every request.
    #[cold]
    pub(super) fn now(&self, transport: &Transport<'_>) -> i64 {
        self.store.unix(transport.now())
    }

    /// Leaves everything when the connection has ended.
    pub(super) fn leave(&mut self) {
        if let Some(mut ongoing) = self.ongoing.take() {
            if let Some(listening) = &mut ongoing.listening {
                listening.leave_all(&self.store.channels);
            }
            if !ongoing.watches.is_empty() {
                ongoing.unwatch(&mut self.store.locked());
            }
        }
        if let Some(client) = self.client.take() {
            self.store.clients.leave(&client);
        }
    }

    /// Returns whether a request concerns more than itself: the client listens, watches, or has begun a
    /// transaction.
    #[inline]
    pub(super) fn is_ongoing(&self) -> bool {
        self.ongoing.is_some()
    }

    /// Returns how many bytes of memory there are for this connection alone.
    #[inline]
    pub(super) fn held(&self) -> usize {
        self.named + self.ongoing.as_ref().map_or(0, |it| it.held())
    }

    /// Returns the client, which has joined when the connection was made.
    pub(super) fn client(&self) -> &Arc<Client> {
        self.client.as_ref().expect("a client is connected")
    }

    /// Changes what the client says of itself.
    pub(super) fn name(&mut self, change: impl FnOnce(&mut Named)) {
        let mut named = self.client().named();
        change(&mut named);
        let held = named.held();
        drop(named);
        self.named = held;
    }

    /// Returns what lasts longer than a request, which may be nothing yet.
    pub(super) fn ongoing_mut(&mut self) -> &mut Ongoing {
        let most = || self.store.max_transaction;
        self.ongoing
            .get_or_insert_with(|| Box::new(Ongoing::new(most())))
    }

    /// Forgets what has ended.
    pub(super) fn settle(&mut self) {
        if self.ongoing.as_ref().is_some_and(|it| it.is_over()) {
            self.ongoing = None;
        }
    }
}

/// Channels and patterns.
impl Connection {
    /// Returns whether the client listens to channels or patterns.
    #[inline]
    pub(super) fn is_listening(&self) -> bool {
        self.listening().is_some()
    }

    /// Returns whether the client listens to the channel or the pattern that a message is for.
    pub(super) fn is_listening_for(&self, message: &[u8]) -> bool {
        self.listening().is_some_and(|it| it.is_for(message))
    }

    /// Returns how many channels and patterns the client listens to.
    pub(super) fn listening_count(&self) -> usize {
        self.listening().map_or(0, Listening::count)
    }

    /// Returns the channels or the patterns that the client listens to.
    pub(super) fn names(&self, kind: Kind) -> Vec<Vec<u8>> {
        self.listening().map_or(Vec::new(), |it| it.names(kind))
    }

    /// Listens to one more. Returns how many there are then.
    pub(super) fn listen(
        &mut self,
        kind: Kind,
        name: &[u8],
        transport: &mut Transport<'_>,
    ) -> usize {
        let client = Arc::clone(self.client());
        let (store, has_listened) = (Arc::clone(&self.store), self.has_listened);
        let begin = || Listening::begin(&client, transport);
        let listening = self.ongoing_mut().listening.get_or_insert_with(begin);
        if has_listened {
            listening.note_left();
        }
        listening.join(kind, name, &store.channels);
        listening.count()
    }

    /// Stops listening to one. Returns how many there are then.
    pub(super) fn unlisten(
        &mut self,
        kind: Kind,
        name: &[u8],
        transport: &mut Transport<'_>,
    ) -> usize {
        let channels = &self.store.channels;
        let listening = self.ongoing.as_mut().and_then(|it| it.listening.as_mut());
        let Some(listening) = listening else {
            return 0;
        };
        listening.leave(kind, name, channels);
        let count = listening.count();
        if count == 0 {
            self.leave_all(transport);
        }
        count
    }

    /// Stops listening to anything.
    pub(super) fn leave_all(&mut self, transport: &mut Transport<'_>) {
        let listening = self.ongoing.as_mut().and_then(|it| it.listening.take());
        if let Some(listening) = listening {
            self.has_listened = true;
            listening.end(&self.store.channels, transport);
        }
        self.settle();
    }

    fn listening(&self) -> Option<&Listening> {
        self.ongoing.as_ref()?.listening.as_ref()
    }
}
