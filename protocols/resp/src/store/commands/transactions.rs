//! Commands of transactions.

use serveloop::Transport;

use crate::reply::Reply;
use crate::request::Arguments;
use crate::store::commands::keys::note_cost;
use crate::store::commands::{ALL, ANY, ANY_TIME, ANY_TIME_SLOW, NO_KEY, Outcome, Row};
use crate::store::connection::Connection;
use crate::store::keyspace::Keyspace;

/// What a client may do while it queues others.
pub(super) const NEVER_QUEUED: [&str; 6] = ["multi", "exec", "discard", "watch", "quit", "reset"];

pub(super) fn commands() -> Vec<Row> {
    let mut rows = rows! {
        Client "transactions"
        "multi" (0..=0) ANY_TIME NO_KEY multi "Begins a transaction.";
    };
    rows.extend(rows! {
        Both "transactions"
        "exec" (0..=0) ANY_TIME_SLOW NO_KEY exec "Executes all commands of a transaction, unless a watched key was changed.";
        "discard" (0..=0) ANY_TIME NO_KEY discard "Ends a transaction, and forgets its commands.";
        "watch" (1..=ANY) ANY_TIME ALL watch "Makes the next transaction fail if one of these keys changes before it.";
        "unwatch" (0..=0) ANY_TIME NO_KEY unwatch "Forgets all watched keys.";
    });
    rows
}

fn multi(
    connection: &mut Connection,
    _: &mut Arguments<'_>,
    reply: &mut Reply,
    _: &mut Transport<'_>,
) -> Outcome {
    connection.begin_transaction()?;
    reply.ok();
    Ok(())
}

/// The lock is held while all commands run, so that nothing of other connections happens in between.
fn exec(
    keyspace: &mut Keyspace,
    connection: &mut Connection,
    _: &mut Arguments<'_>,
    reply: &mut Reply,
    transport: &mut Transport<'_>,
) -> Outcome {
    note_cost(connection.queued_count(), reply);
    connection.execute_transaction(keyspace, reply, transport)
}

fn discard(
    keyspace: &mut Keyspace,
    connection: &mut Connection,
    _: &mut Arguments<'_>,
    reply: &mut Reply,
    _: &mut Transport<'_>,
) -> Outcome {
    connection.discard_transaction(keyspace)?;
    reply.ok();
    Ok(())
}

fn watch(
    keyspace: &mut Keyspace,
    connection: &mut Connection,
    arguments: &mut Arguments<'_>,
    reply: &mut Reply,
    _: &mut Transport<'_>,
) -> Outcome {
    note_cost(arguments.len(), reply);
    connection.watch(arguments, keyspace)?;
    reply.ok();
    Ok(())
}

fn unwatch(
    keyspace: &mut Keyspace,
    connection: &mut Connection,
    _: &mut Arguments<'_>,
    reply: &mut Reply,
    _: &mut Transport<'_>,
) -> Outcome {
    connection.unwatch(keyspace);
    reply.ok();
    Ok(())
}
