//! The service of a connection: which command a request calls, and what it acts on.

use std::sync::Arc;

use serveloop::service::Post;
use serveloop::{Ended, Transport};

use crate::commands::Command;
use crate::error_reply::ErrorReply;
use crate::reply::{Reply, Version};
use crate::request::{Arguments, Request};
use crate::resp::Service;
use crate::store::commands::{
    BothHandler, COMMANDS, Entry, Handler, check_subcommand, may_need_memory,
};
use crate::store::connection::Connection;
use crate::store::transaction::discarded_for;

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
        match COMMANDS.callable(request) {
            Some((_, entry)) if !self.is_ongoing() => {
                self.execute(entry, request, reply, transport)
            }
            _ => self.answer_ongoing(request, reply, transport),
        }
    }

    /// A long value is kept where it was read.
    fn takes_value(&self, request: Request<'_>) -> bool {
        let is_set = request.name().eq_ignore_ascii_case(b"set");
        is_set && request.arguments().len() == 1 && !self.is_ongoing()
    }

    fn answer_with_value(
        &mut self,
        request: Request<'_>,
        value: Vec<u8>,
        reply: &mut Reply,
        transport: &mut Transport<'_>,
    ) -> Result<(), ErrorReply> {
        let now = self.now(transport);
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
        Connection::held(self)
    }

    fn connection_lost(&mut self, _: &Ended<'_>) {
        self.leave();
    }
}

impl Connection {
    /// Executes a request now.
    #[inline(never)]
    fn execute(
        &mut self,
        entry: &Entry,
        request: Request<'_>,
        reply: &mut Reply,
        transport: &mut Transport<'_>,
    ) -> Result<(), ErrorReply> {
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
            Handler::Both(run) => self.execute_both(run, arguments, reply, transport),
        }
    }

    #[cold]
    fn execute_both(
        &mut self,
        run: BothHandler,
        arguments: &mut Arguments<'_>,
        reply: &mut Reply,
        transport: &mut Transport<'_>,
    ) -> Result<(), ErrorReply> {
        let store = Arc::clone(&self.store);
        let mut keyspace = store.locked_at(self.now(transport));
        let outcome = run(&mut keyspace, self, arguments, reply, transport);
        store.note_deadline(&keyspace);
        outcome
    }

    /// Answers any request, also of a client that listens, watches or has begun a transaction.
    #[cold]
    fn answer_ongoing(
        &mut self,
        request: Request<'_>,
        reply: &mut Reply,
        transport: &mut Transport<'_>,
    ) -> Result<(), ErrorReply> {
        let (command, entry) = match self.admitted(request, reply.version()) {
            Ok(found) => found,
            Err(error) => return Err(self.refused(request, error)),
        };
        if !self.queues(command) {
            return self.execute(entry, request, reply, transport);
        }

        let now = self.now(transport);
        self.client().note(entry.number, now);
        self.queue(request)?;
        reply.simple("QUEUED");
        Ok(())
    }

    /// Finds the command that a request calls, if the client may call it at present.
    fn admitted(
        &self,
        request: Request<'_>,
        version: Version,
    ) -> Result<(&'static Command, &'static Entry), ErrorReply> {
        let (command, entry) = COMMANDS.find(request)?;
        if self.is_listening() && version == Version::Resp2 {
            check_while_listening(command.name())?;
        }
        if self.queues(command) {
            check_subcommand(command, &request.arguments())?;
            if may_need_memory(command) {
                self.store.locked().make_room(0)?;
            }
        }
        Ok((command, entry))
    }

    /// Returns what a client is told whose request was refused, which its transaction is not executed for.
    #[cold]
    fn refused(&mut self, request: Request<'_>, error: ErrorReply) -> ErrorReply {
        let is_exec = request.name().eq_ignore_ascii_case(b"exec");
        if !is_exec {
            self.refuse_transaction();
            return error;
        }
        let store = Arc::clone(&self.store);
        self.forget_transaction(&mut store.locked());
        discarded_for(&error)
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
