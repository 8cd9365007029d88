//! Commands of channels.

use serveloop::Transport;

use crate::error_reply::ErrorReply;
use crate::reply::Reply;
use crate::request::Arguments;
use crate::store::channels::Kind;
use crate::store::commands::{ANY, ANY_TIME, ClientHandler, NO_KEY, Outcome, Row, folded};
use crate::store::connection::Connection;
use crate::store::glob;

pub(super) fn commands() -> Vec<Row> {
    rows! {
        Client "pubsub"
        "subscribe" (1..=ANY) ANY_TIME NO_KEY SUBSCRIBE "Listens to channels.";
        "psubscribe" (1..=ANY) ANY_TIME NO_KEY PSUBSCRIBE "Listens to channels that match patterns.";
        "unsubscribe" (0..=ANY) ANY_TIME NO_KEY UNSUBSCRIBE "Stops listening to channels.";
        "punsubscribe" (0..=ANY) ANY_TIME NO_KEY PUNSUBSCRIBE "Stops listening to patterns.";
        "publish" (2..=2) ANY_TIME NO_KEY publish "Sends a message to all that listen to a channel.";
        "pubsub" (1..=ANY) ANY_TIME NO_KEY pubsub "Tells who listens.";
    }
}

const SUBSCRIBE: ClientHandler = |on, names, reply, to| join(Kind::Channel, on, names, reply, to);
const PSUBSCRIBE: ClientHandler = |on, names, reply, to| join(Kind::Pattern, on, names, reply, to);
const UNSUBSCRIBE: ClientHandler =
    |on, names, reply, to| leave(Kind::Channel, on, names, reply, to);
const PUNSUBSCRIBE: ClientHandler =
    |on, names, reply, to| leave(Kind::Pattern, on, names, reply, to);

/// Listens to what is named.
fn join(
    kind: Kind,
    connection: &mut Connection,
    arguments: &mut Arguments<'_>,
    reply: &mut Reply,
    transport: &mut Transport<'_>,
) -> Outcome {
    let command = match kind {
        Kind::Channel => "subscribe",
        Kind::Pattern => "psubscribe",
    };
    for name in arguments {
        if kind == Kind::Pattern {
            glob::checked(name)?;
        }
        let count = connection.listen(kind, name, transport);
        confirm(command, Some(name), count, reply);
    }
    Ok(())
}

/// Leaves what is named, or all of that kind.
fn leave(
    kind: Kind,
    connection: &mut Connection,
    arguments: &mut Arguments<'_>,
    reply: &mut Reply,
    transport: &mut Transport<'_>,
) -> Outcome {
    let command = match kind {
        Kind::Channel => "unsubscribe",
        Kind::Pattern => "punsubscribe",
    };
    let names: Vec<_> = match arguments.len() {
        0 => connection.names(kind),
        _ => arguments.map(<[u8]>::to_vec).collect(),
    };
    for name in &names {
        let count = connection.unlisten(kind, name, transport);
        confirm(command, Some(name), count, reply);
    }
    if names.is_empty() {
        confirm(command, None, connection.listening_count(), reply);
    }
    Ok(())
}

fn confirm(command: &str, name: Option<&[u8]>, count: usize, reply: &mut Reply) {
    reply.push(3);
    reply.bulk(command.as_bytes());
    reply.bulk_or_null(name);
    reply.count(count);
}

fn publish(
    connection: &mut Connection,
    arguments: &mut Arguments<'_>,
    reply: &mut Reply,
    _: &mut Transport<'_>,
) -> Outcome {
    let (channel, message) = arguments.parse()?;
    reply.count(connection.store.channels.publish(channel, message));
    Ok(())
}

/// Takes the name of a subcommand.
pub(super) fn subcommand(arguments: &mut Arguments<'_>) -> Result<&'static str, ErrorReply> {
    let subcommand: &[u8] = arguments.parse()?;
    let name = match folded(subcommand).as_slice() {
        b"channels" => "channels",
        b"numsub" => "numsub",
        b"numpat" => "numpat",
        b"help" => "help",
        _ => return Err(ErrorReply::unknown_subcommand("pubsub", subcommand)),
    };
    if matches!(name, "numpat" | "help") && arguments.len() > 0 {
        let name = format!("pubsub|{name}");
        return Err(ErrorReply::wrong_number_of_arguments(&name));
    }
    Ok(name)
}

fn pubsub(
    connection: &mut Connection,
    arguments: &mut Arguments<'_>,
    reply: &mut Reply,
    _: &mut Transport<'_>,
) -> Outcome {
    let channels = &connection.store.channels;
    match subcommand(arguments)? {
        "channels" if arguments.len() <= 1 => {
            let mut names = channels.names();
            if let Some(pattern) = arguments.next() {
                let pattern = glob::checked(pattern)?;
                names.retain(|name| glob::matches(pattern, name));
            }
            reply.array(names.len());
            names.iter().for_each(|name| reply.bulk(name));
        }
        "channels" => {
            let problem = "unknown subcommand or wrong number of arguments for 'channels'";
            return Err(ErrorReply::new(format!("{problem}. Try PUBSUB HELP.")));
        }
        "numsub" => {
            reply.array(arguments.len() * 2);
            for name in arguments {
                reply.bulk(name);
                reply.count(channels.members_of(name));
            }
        }
        "numpat" => reply.count(channels.pattern_count()),
        _ => reply.lines(&[
            "PUBSUB <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
            "CHANNELS [<pattern>]",
            "    Return the channels that somebody listens to.",
            "NUMPAT",
            "    Return the number of patterns that somebody listens to.",
            "NUMSUB [<channel> ...]",
            "    Return the number of listeners of each channel.",
            "HELP",
            "    Print this help.",
        ]),
    }
    Ok(())
}
