//! Commands of a client about its own connection.

use serveloop::Transport;

use crate::error_reply::ErrorReply;
use crate::number;
use crate::reply::{Reply, Version};
use crate::request::Arguments;
use crate::store::commands::clients::check_name;
use crate::store::commands::{ANY, ANY_TIME, COMMANDS, NO_KEY, Outcome, Row, folded};
use crate::store::connection::Connection;
use crate::store::keyspace::Keyspace;

/// The version of Redis whose commands these are.
pub(super) const REDIS_VERSION: &str = "7.0.0";

pub(super) fn commands() -> Vec<Row> {
    let mut rows = rows! {
        Client "connection"
        "ping" (0..=1) ANY_TIME NO_KEY ping "Returns PONG, or its argument.";
        "echo" (1..=1) ANY_TIME NO_KEY echo "Returns its argument.";
        "hello" (0..=ANY) ANY_TIME NO_KEY hello "Chooses the version of the protocol.";
        "auth" (1..=ANY) ANY_TIME NO_KEY auth "Accepts the user default, which has no password.";
        "select" (1..=1) ANY_TIME NO_KEY select "Chooses database 0, the only one.";
        "quit" (0..=ANY) ANY_TIME NO_KEY quit "Ends the connection.";
        "command" (0..=ANY) ANY_TIME NO_KEY command "Describes commands.";
    };
    rows.extend(rows! {
        Both "connection"
        "reset" (0..=0) ANY_TIME NO_KEY reset "Makes the connection as it was when it began.";
    });
    rows
}

fn ping(
    connection: &mut Connection,
    arguments: &mut Arguments<'_>,
    reply: &mut Reply,
    _: &mut Transport<'_>,
) -> Outcome {
    let text = arguments.next();
    if connection.is_listening() && reply.version() == Version::Resp2 {
        // Such a client expects arrays and nothing else.
        reply.array(2);
        reply.bulk(b"pong");
        reply.bulk(text.unwrap_or_default());
        return Ok(());
    }
    match text {
        Some(text) => reply.bulk(text),
        None => reply.simple("PONG"),
    }
    Ok(())
}

fn echo(
    _: &mut Connection,
    arguments: &mut Arguments<'_>,
    reply: &mut Reply,
    _: &mut Transport<'_>,
) -> Outcome {
    reply.bulk(arguments.parse()?);
    Ok(())
}

fn hello(
    connection: &mut Connection,
    arguments: &mut Arguments<'_>,
    reply: &mut Reply,
    _: &mut Transport<'_>,
) -> Outcome {
    let mut version = reply.version();
    if let Some(number) = arguments.next() {
        let number = number::integer(number).ok_or(ErrorReply::constant(
            "ERR",
            "Protocol version is not an integer or out of range",
        ))?;
        version = match number {
            2 => Version::Resp2,
            3 => Version::Resp3,
            _ => {
                return Err(ErrorReply::constant(
                    "NOPROTO",
                    "unsupported protocol version",
                ));
            }
        };
    }

    let mut name = None;
    while let Some(option) = arguments.next() {
        match folded(option).as_slice() {
            b"auth" if arguments.len() >= 2 => check_user(arguments)?,
            b"setname" if arguments.len() >= 1 => name = Some(check_name(arguments.parse()?)?),
            _ => {
                let shown = String::from_utf8_lossy(option).into_owned();
                return Err(ErrorReply::new(format!(
                    "Syntax error in HELLO option '{shown}'"
                )));
            }
        }
    }

    reply.set_version(version);
    connection.name(|named| {
        named.version = version;
        if let Some(name) = name {
            named.name = name.to_vec();
        }
    });

    reply.map(7);
    for (key, value) in [("server", "redis"), ("version", REDIS_VERSION)] {
        reply.bulk(key.as_bytes());
        reply.bulk(value.as_bytes());
    }
    reply.bulk(b"proto");
    reply.integer(version.number());
    reply.bulk(b"id");
    reply.integer(connection.client().id as i64);
    for (key, value) in [("mode", "standalone"), ("role", "master")] {
        reply.bulk(key.as_bytes());
        reply.bulk(value.as_bytes());
    }
    reply.bulk(b"modules");
    reply.array(0);
    Ok(())
}

fn auth(
    _: &mut Connection,
    arguments: &mut Arguments<'_>,
    reply: &mut Reply,
    _: &mut Transport<'_>,
) -> Outcome {
    match arguments.len() {
        1 => return Err(NO_PASSWORDS),
        2 => check_user(arguments)?,
        _ => return Err(ErrorReply::SYNTAX),
    }
    reply.ok();
    Ok(())
}

/// Takes a user's name and password. The only user is `default`, and any password is that of a user
/// without one, as in Redis.
fn check_user(arguments: &mut Arguments<'_>) -> Outcome {
    let (user, _): (&[u8], &[u8]) = arguments.parse()?;
    match user {
        b"default" => Ok(()),
        _ => Err(WRONG_PASSWORD),
    }
}

fn select(
    _: &mut Connection,
    arguments: &mut Arguments<'_>,
    reply: &mut Reply,
    _: &mut Transport<'_>,
) -> Outcome {
    match arguments.parse()? {
        0_i64 => reply.ok(),
        number if i32::try_from(number).is_err() => return Err(NO_DATABASE),
        _ => return Err(ErrorReply::constant("ERR", "DB index is out of range")),
    }
    Ok(())
}

fn reset(
    keyspace: &mut Keyspace,
    connection: &mut Connection,
    _: &mut Arguments<'_>,
    reply: &mut Reply,
    transport: &mut Transport<'_>,
) -> Outcome {
    connection.leave_all(transport);
    connection.forget_transaction(keyspace);
    reply.set_version(Version::Resp2);
    connection.name(|named| {
        named.version = Version::Resp2;
        named.name = Vec::new();
    });
    reply.simple("RESET");
    Ok(())
}

fn quit(
    _: &mut Connection,
    _: &mut Arguments<'_>,
    reply: &mut Reply,
    _: &mut Transport<'_>,
) -> Outcome {
    reply.ok();
    reply.close();
    Ok(())
}

fn command(
    _: &mut Connection,
    arguments: &mut Arguments<'_>,
    reply: &mut Reply,
    _: &mut Transport<'_>,
) -> Outcome {
    COMMANDS.describe(arguments, reply)
}

/// Checks the subcommand of `COMMAND`, if there is one.
pub(super) fn check_subcommand(arguments: &mut Arguments<'_>) -> Outcome {
    let Some(subcommand) = arguments.next() else {
        return Ok(());
    };
    match folded(subcommand).as_slice() {
        b"count" if arguments.len() > 0 => {
            Err(ErrorReply::wrong_number_of_arguments("command|count"))
        }
        b"count" | b"docs" | b"help" | b"info" | b"list" => Ok(()),
        _ => Err(ErrorReply::unknown_subcommand("command", subcommand)),
    }
}

const NO_DATABASE: ErrorReply = ErrorReply::constant(
    "ERR",
    "value is out of range, value must between -2147483648 and 2147483647",
);

const WRONG_PASSWORD: ErrorReply = ErrorReply::constant(
    "WRONGPASS",
    "invalid username-password pair or user is disabled.",
);

const NO_PASSWORDS: ErrorReply = ErrorReply::constant(
    "ERR",
    "AUTH <password> called without any password configured for the default user. \
     Are you sure your configuration is correct?",
);
