//! The transactions of a connection.

use serveloop::Transport;

use crate::commands::Command;
use crate::error_reply::ErrorReply;
use crate::reply::Reply;
use crate::request::{Arguments, Request};
use crate::store::commands::{COMMANDS, Handler, is_never_queued, may_need_memory};
use crate::store::connection::Connection;
use crate::store::keyspace::Keyspace;
use crate::transaction::Queued;

impl Connection {
    /// Returns whether a command is queued.
    pub(super) fn queues(&self, command: &Command) -> bool {
        let is_open = self
            .ongoing
            .as_ref()
            .is_some_and(|it| it.transaction.is_open());
        is_open && !is_never_queued(command)
    }

    /// Returns how many requests are queued.
    pub(super) fn queued_count(&self) -> usize {
        self.ongoing.as_ref().map_or(0, |it| it.transaction.len())
    }

    /// Begins a transaction.
    pub(super) fn begin_transaction(&mut self) -> Result<(), ErrorReply> {
        self.ongoing_mut().transaction.begin()?;
        self.note_transaction();
        Ok(())
    }

    /// Queues a request.
    pub(super) fn queue(&mut self, request: Request<'_>) -> Result<(), ErrorReply> {
        let outcome = self.ongoing_mut().transaction.queue(request);
        self.note_transaction();
        outcome
    }

    /// Makes a transaction fail, if one has begun.
    pub(super) fn refuse_transaction(&mut self) {
        if let Some(ongoing) = &mut self.ongoing {
            ongoing.transaction.refuse();
        }
    }

    /// Ends a transaction without executing it.
    pub(super) fn discard_transaction(
        &mut self,
        keyspace: &mut Keyspace,
    ) -> Result<(), ErrorReply> {
        let outcome = self.ongoing_mut().transaction.discard();
        match outcome {
            Ok(()) => self.forget_transaction(keyspace),
            Err(_) => self.settle(),
        }
        outcome
    }

    /// Ends a transaction if one has begun, and stops watching.
    pub(super) fn forget_transaction(&mut self, keyspace: &mut Keyspace) {
        let Some(ongoing) = &mut self.ongoing else {
            return;
        };
        let _ = ongoing.transaction.discard();
        ongoing.unwatch(keyspace);
        self.note_transaction();
        self.settle();
    }

    /// Watches keys.
    pub(super) fn watch(
        &mut self,
        keys: &Arguments<'_>,
        keyspace: &mut Keyspace,
    ) -> Result<(), ErrorReply> {
        let ongoing = self.ongoing_mut();
        if ongoing.transaction.is_open() {
            return Err(WATCH_INSIDE);
        }
        let outcome = ongoing.watch(keys, keyspace);
        self.note_transaction();
        self.settle();
        outcome
    }

    /// Stops watching.
    pub(super) fn unwatch(&mut self, keyspace: &mut Keyspace) {
        if let Some(ongoing) = &mut self.ongoing {
            ongoing.unwatch(keyspace);
            self.note_transaction();
            self.settle();
        }
    }

    /// Executes everything that is queued, unless a watched key was changed.
    pub(super) fn execute_transaction(
        &mut self,
        keyspace: &mut Keyspace,
        reply: &mut Reply,
        transport: &mut Transport<'_>,
    ) -> Result<(), ErrorReply> {
        // A watched key that is evicted for the transaction has changed before it.
        let room = keyspace.make_room(0);
        let ongoing = self.ongoing_mut();
        let is_open = ongoing.transaction.is_open();
        let is_changed = is_open && ongoing.unwatch(keyspace);
        let queued = ongoing.transaction.take();

        // What is executed still sees the transaction among the clients.
        let outcome = queued.and_then(|queued| match room {
            Err(error) if queued.requests().any(may_be_denied) => Err(discarded_for(&error)),
            _ if is_changed => {
                reply.null_array();
                Ok(())
            }
            _ => {
                keyspace.together(|keyspace| self.execute_all(&queued, keyspace, reply, transport));
                Ok(())
            }
        });
        self.note_transaction();
        self.settle();
        outcome
    }

    fn execute_all(
        &mut self,
        queued: &Queued,
        keyspace: &mut Keyspace,
        reply: &mut Reply,
        transport: &mut Transport<'_>,
    ) {
        reply.array(queued.len());
        for request in queued.requests() {
            reply.element(|reply| self.execute_queued(request, keyspace, reply, transport));
        }
    }

    fn execute_queued(
        &mut self,
        request: Request<'_>,
        keyspace: &mut Keyspace,
        reply: &mut Reply,
        transport: &mut Transport<'_>,
    ) -> Result<(), ErrorReply> {
        let (_, entry) = COMMANDS.find(request)?;
        let arguments = &mut request.arguments();
        match entry.handler {
            Handler::Keys(run) => run(keyspace, arguments, reply),
            Handler::Client(run) => run(self, arguments, reply, transport),
            Handler::Both(run) => run(keyspace, self, arguments, reply, transport),
        }
    }

    /// Lets other clients see it.
    fn note_transaction(&self) {
        let (queued, watched) = match &self.ongoing {
            Some(ongoing) => {
                let transaction = &ongoing.transaction;
                let queued = transaction.is_open().then(|| transaction.len());
                (queued, ongoing.watches.len())
            }
            None => (None, 0),
        };
        self.client().note_transaction(queued, watched);
    }
}

/// Returns whether a request that was queued may need more memory for keys and values.
fn may_be_denied(request: Request<'_>) -> bool {
    COMMANDS
        .get(request.name())
        .is_some_and(|(command, _)| may_need_memory(command))
}

/// Returns what a client is told whose transaction is not executed because of what `EXEC` itself met.
pub(super) fn discarded_for(error: &ErrorReply) -> ErrorReply {
    let reason = [b"Transaction discarded because of: ", error.message()].concat();
    ErrorReply::of_bytes(reason).with_code("EXECABORT")
}

const WATCH_INSIDE: ErrorReply = ErrorReply::constant("ERR", "WATCH inside MULTI is not allowed");
