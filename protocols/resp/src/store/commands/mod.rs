//! The commands of the store.

/// Makes rows of the table, each with a name, how many arguments it has, flags, which of them are keys,
/// the handler, and what it does. The first line has what they act on, and their group.
macro_rules! rows {
    ($on:ident $group:literal
     $($name:literal ($arguments:expr) $flags:ident $places:ident $run:ident $summary:literal;)*) => {
        vec![$({
            let (first, last, step) = $places;
            let command = $crate::Command::new($name, $arguments)
                .flags($flags)
                .keys(first, last, step)
                .group($group)
                .summary($summary);
            (command, $crate::store::commands::Handler::$on($run))
        }),*]
    };
}

mod channels;
mod clients;
mod connection;
mod expiry;
mod keys;
mod server;
mod strings;
mod transactions;

use std::sync::LazyLock;

use serveloop::Transport;

use crate::commands::{Command, Commands};
use crate::error_reply::ErrorReply;
use crate::reply::Reply;
use crate::request::Arguments;
use crate::store::connection::Connection;
use crate::store::keyspace::Keyspace;

pub(super) type Outcome = Result<(), ErrorReply>;

type KeysHandler = fn(&mut Keyspace, &mut Arguments<'_>, &mut Reply) -> Outcome;
type ClientHandler =
    fn(&mut Connection, &mut Arguments<'_>, &mut Reply, &mut Transport<'_>) -> Outcome;
pub(super) type BothHandler = fn(
    &mut Keyspace,
    &mut Connection,
    &mut Arguments<'_>,
    &mut Reply,
    &mut Transport<'_>,
) -> Outcome;

/// What a command acts on.
#[derive(Clone, Copy, Debug)]
pub(super) enum Handler {
    /// Keys and values, behind the lock.
    Keys(KeysHandler),
    /// The connection, and what all connections share besides keys. It does not take the lock, which is
    /// taken while a transaction is executed.
    Client(ClientHandler),
    /// The connection, and keys behind the lock.
    Both(BothHandler),
}

/// A handler, and its number in the table.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) number: usize,
    pub(super) handler: Handler,
}

/// All commands.
pub(super) static COMMANDS: LazyLock<Commands<Entry>> = LazyLock::new(|| {
    let tables = [
        strings::commands(),
        expiry::commands(),
        keys::commands(),
        connection::commands(),
        clients::commands(),
        channels::commands(),
        server::commands(),
        transactions::commands(),
    ];
    let all = tables.into_iter().flatten().zip(0..);
    all.fold(Commands::new(), |table, ((command, handler), number)| {
        table.with(command, Entry { number, handler })
    })
});

/// Returns the name of the command with that number in the table.
pub(super) fn name_of(number: usize) -> &'static str {
    COMMANDS.iter().nth(number).map_or("NULL", Command::name)
}

/// Returns whether a client executes a command at once although it has begun a transaction.
pub(super) fn is_never_queued(command: &Command) -> bool {
    transactions::NEVER_QUEUED.contains(&command.name())
}

/// Returns whether a command may need more memory for keys and values, so that it is refused when there is
/// none left.
pub(super) fn may_need_memory(command: &Command) -> bool {
    command.has_flag(DENIED_WITHOUT_MEMORY)
}

/// Checks the subcommand of a command that has some, so that a transaction is refused for it as for
/// an unknown command.
pub(super) fn check_subcommand(command: &Command, arguments: &Arguments<'_>) -> Outcome {
    let arguments = &mut arguments.clone();
    match command.name() {
        "client" => clients::subcommand(arguments).map(drop),
        "command" => connection::check_subcommand(arguments),
        "config" => server::config_subcommand(arguments).map(drop),
        "pubsub" => channels::subcommand(arguments).map(drop),
        _ => Ok(()),
    }
}

type Row = (Command, Handler);

const READ: &[&str] = &["readonly", "fast"];
const SLOW_READ: &[&str] = &["readonly"];
const WRITE: &[&str] = &["write", DENIED_WITHOUT_MEMORY, "fast"];
/// Writes that free memory, or take none.
const SHRINK: &[&str] = &["write", "fast"];
const ADMIN: &[&str] = &["admin", "noscript", "loading", "stale"];
const ANY_TIME_SLOW: &[&str] = &["noscript", "loading", "stale"];
const ANY_TIME: &[&str] = &["noscript", "loading", "stale", "fast"];

/// Which arguments are keys: the first, the last, and the step between them.
type Places = (i64, i64, i64);

const NO_KEY: Places = (0, 0, 0);
const FIRST: Places = (1, 1, 1);
const ALL: Places = (1, -1, 1);
const PAIRS: Places = (1, -1, 2);

const ANY: usize = usize::MAX;

const DENIED_WITHOUT_MEMORY: &str = "denyoom";

/// Returns an option in small letters, so that it can be compared in any case. Longer ones than any
/// option are cut.
fn folded(option: &[u8]) -> Vec<u8> {
    option[..option.len().min(32)].to_ascii_lowercase()
}
