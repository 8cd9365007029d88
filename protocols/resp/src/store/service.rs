//! The service of a connection: which command a request calls, and what it acts on.

use serveloop::service::Post;
use serveloop::{Ended, Transport};

use crate::error_reply::ErrorReply;
use crate::reply::{Reply, Version};
use crate::request::Request;
use crate::resp::Service;
use crate::store::commands::{COMMANDS, Handler};
use crate::store::connection::Connection;

impl Service for Connection {
    fn connection_made(&mut self, transport: &mut Transport<'_>) {
        self.join(transport);
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

    /// A long value is kept where it was read.
    fn takes_value(&self, request: Request<'_>) -> bool {
        let is_set = request.name().eq_ignore_ascii_case(b"set");
        is_set && request.arguments().len() == 1 && !self.is_listening()
    }

    fn answer_with_value(
        &mut self,
        request: Request<'_>,
        value: Vec<u8>,
        reply: &mut Reply,
        transport: &mut Transport<'_>,
    ) -> Result<(), ErrorReply> {
        let now = self.store.unix(transport.now());
        if let Some((_, entry)) = COMMANDS.get(request.name()) {
            self.client().note(entry.number, now);
        }

        let key = request.arguments().parse()?;
        let mut keyspace = self.store.keyspace_at(now);
        let outcome = keyspace.set_owned(key, value);
        self.store.note_deadline(&keyspace);
        outcome?;
        reply.ok();
        Ok(())
    }

    fn woken(&mut self, transport: &mut Transport<'_>) {
        if self.client().is_ended() {
            transport.abort();
        }
    }

    /// What was published before the client left may arrive after the confirmation that it did.
    fn awaits(&mut self, post: &Post) -> bool {
        self.is_listening_for(post)
    }

    #[inline]
    fn held(&self) -> usize {
        self.held_by_subscriptions()
    }

    fn connection_lost(&mut self, _: &Ended<'_>) {
        self.leave();
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
