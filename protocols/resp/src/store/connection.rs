//! One client's connection to the store.

use std::sync::Arc;

use serveloop::{Ended, Transport};

use crate::error_reply::ErrorReply;
use crate::reply::Reply;
use crate::request::Request;
use crate::resp::Service;
use crate::store::Store;
use crate::store::clients::Client;
use crate::store::commands::{COMMANDS, Handler};

/// The service for one client of a [`Store`].
#[derive(Debug)]
pub struct Connection {
    pub(super) store: Arc<Store>,
    /// What others see of it, from when it is connected.
    client: Option<Arc<Client>>,
}

impl Connection {
    pub(super) fn new(store: Arc<Store>) -> Self {
        Self {
            store,
            client: None,
        }
    }

    /// Returns whether the client listens to channels or patterns.
    pub(super) fn is_listening(&self) -> bool {
        self.client().is_subscriber()
    }

    /// Ends all subscriptions.
    pub(super) fn leave_all(&self, _: &mut Transport<'_>) {}

    /// Returns the client, which has joined when the connection was made.
    pub(super) fn client(&self) -> &Arc<Client> {
        self.client.as_ref().expect("a client is connected")
    }
}

impl Service for Connection {
    fn connection_made(&mut self, transport: &mut Transport<'_>) {
        let now = self.store.unix(transport.now());
        self.client = Some(self.store.clients.join(transport, now));
    }

    #[inline]
    fn answer(
        &mut self,
        request: Request<'_>,
        reply: &mut Reply,
        transport: &mut Transport<'_>,
    ) -> Result<(), ErrorReply> {
        let (_, entry) = COMMANDS.find(request)?;
        let now = self.store.unix(transport.now());
        self.client().note(entry.number, now);

        let arguments = &mut request.arguments();
        match entry.handler {
            Handler::Keys(run) => {
                let mut keyspace = self.store.keyspace_at(now);
                let outcome = run(&mut keyspace, arguments, reply);
                self.store.note_deadline(&keyspace);
                outcome
            }
            Handler::Client(run) => run(self, arguments, reply, transport),
        }
    }

    fn woken(&mut self, transport: &mut Transport<'_>) {
        if self.client().is_ended() {
            transport.abort();
        }
    }

    fn connection_lost(&mut self, _: &Ended<'_>) {
        if let Some(client) = self.client.take() {
            self.store.clients.leave(&client);
        }
    }
}
