//! What the store keeps for one client's connection.

use std::sync::Arc;

use serveloop::Transport;

use crate::store::Store;
use crate::store::channels::{Kind, Listening};
use crate::store::clients::Client;

/// The service for one client of a [`Store`].
#[derive(Debug)]
pub struct Connection {
    pub(super) store: Arc<Store>,
    /// What others see of it, from when it is connected.
    client: Option<Arc<Client>>,
    /// The channels and patterns that it listens to. Few do.
    listening: Option<Box<Listening>>,
    /// Whether it has listened before, so that messages for it may still be on their way.
    has_listened: bool,
}

impl Connection {
    /// Creates the connection of a client that has not come yet.
    pub(super) fn new(store: Arc<Store>) -> Self {
        Self {
            store,
            client: None,
            listening: None,
            has_listened: false,
        }
    }

    /// Joins the clients that others see.
    pub(super) fn join(&mut self, transport: &Transport<'_>) {
        let now = self.store.unix(transport.now());
        self.client = Some(self.store.clients.join(transport, now));
    }

    /// Leaves everything when the connection has ended.
    pub(super) fn leave(&mut self) {
        if let Some(mut listening) = self.listening.take() {
            listening.leave_all(&self.store.channels);
        }
        if let Some(client) = self.client.take() {
            self.store.clients.leave(&client);
        }
    }

    /// Returns whether the client listens to channels or patterns.
    #[inline]
    pub(super) fn is_listening(&self) -> bool {
        self.listening.is_some()
    }

    /// Returns whether the client listens to the channel or the pattern that a message is for.
    pub(super) fn is_listening_for(&self, message: &[u8]) -> bool {
        self.listening.as_ref().is_some_and(|it| it.is_for(message))
    }

    /// Returns how many bytes of memory the subscriptions take.
    #[inline]
    pub(super) fn held_by_subscriptions(&self) -> usize {
        self.listening.as_ref().map_or(0, |it| it.held())
    }

    /// Returns how many channels and patterns the client listens to.
    pub(super) fn listening_count(&self) -> usize {
        self.listening.as_ref().map_or(0, |it| it.count())
    }

    /// Returns the channels or the patterns that the client listens to.
    pub(super) fn names(&self, kind: Kind) -> Vec<Vec<u8>> {
        self.listening
            .as_ref()
            .map_or(Vec::new(), |it| it.names(kind))
    }

    /// Listens to one more. Returns how many there are then.
    pub(super) fn listen(
        &mut self,
        kind: Kind,
        name: &[u8],
        transport: &mut Transport<'_>,
    ) -> usize {
        let client = Arc::clone(self.client());
        let begin = || Box::new(Listening::begin(&client, transport));
        let listening = self.listening.get_or_insert_with(begin);
        if self.has_listened {
            listening.note_left();
        }
        listening.join(kind, name, &self.store.channels);
        listening.count()
    }

    /// Stops listening to one. Returns how many there are then.
    pub(super) fn unlisten(
        &mut self,
        kind: Kind,
        name: &[u8],
        transport: &mut Transport<'_>,
    ) -> usize {
        let Some(listening) = &mut self.listening else {
            return 0;
        };
        listening.leave(kind, name, &self.store.channels);
        let count = listening.count();
        if count == 0 {
            self.leave_all(transport);
        }
        count
    }

    /// Stops listening to anything.
    pub(super) fn leave_all(&mut self, transport: &mut Transport<'_>) {
        if let Some(listening) = self.listening.take() {
            self.has_listened = true;
            listening.end(&self.store.channels, transport);
        }
    }

    /// Returns the client, which has joined when the connection was made.
    pub(super) fn client(&self) -> &Arc<Client> {
        self.client.as_ref().expect("a client is connected")
    }
}
