//! One client's connection to the store.

use std::sync::Arc;

use serveloop::{Ended, Transport};

use crate::error_reply::ErrorReply;
use crate::reply::{Reply, Version};
use crate::request::Request;
use crate::resp::Service;
use crate::store::Store;
use crate::store::channels::{Kind, Listening};
use crate::store::clients::Client;
use crate::store::commands::{COMMANDS, Handler};

/// The service for one client of a [`Store`].
#[derive(Debug)]
pub struct Connection {
    pub(super) store: Arc<Store>,
    /// What others see of it, from when it is connected.
    client: Option<Arc<Client>>,
    /// The channels and patterns that it listens to. Few do.
    listening: Option<Box<Listening>>,
}

impl Connection {
    pub(super) fn new(store: Arc<Store>) -> Self {
        Self {
            store,
            client: None,
            listening: None,
        }
    }

    /// Returns whether the client listens to channels or patterns.
    #[inline]
    pub(super) fn is_listening(&self) -> bool {
        self.listening.is_some()
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
            listening.end(&self.store.channels, transport);
        }
    }

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
        let (command, entry) = COMMANDS.find(request)?;
        if self.is_listening() && reply.version() == Version::Resp2 {
            check_while_listening(command.name())?;
        }
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

    #[inline]
    fn held(&self) -> usize {
        self.listening.as_ref().map_or(0, |it| it.held())
    }

    fn connection_lost(&mut self, _: &Ended<'_>) {
        if let Some(mut listening) = self.listening.take() {
            listening.leave_all(&self.store.channels);
        }
        if let Some(client) = self.client.take() {
            self.store.clients.leave(&client);
        }
    }
}

/// Refuses what a client of RESP2 could not tell from messages while it listens.
fn check_while_listening(command: &str) -> Result<(), ErrorReply> {
    const ALLOWED: [&str; 7] = [
        "ping",
        "psubscribe",
        "punsubscribe",
        "quit",
        "reset",
        "subscribe",
        "unsubscribe",
    ];
    if ALLOWED.contains(&command) {
        return Ok(());
    }
    Err(ErrorReply::new(format!(
        "Can't execute '{command}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are \
         allowed in this context"
    )))
}
