//! Commands about the server as a whole.

use std::fmt::Write;

use serveloop::Transport;

use crate::error_reply::ErrorReply;
use crate::reply::Reply;
use crate::request::Arguments;
use crate::store::Store;
use crate::store::clients::Client;
use crate::store::commands::connection::REDIS_VERSION;
use crate::store::commands::{ADMIN, ANY, ANY_TIME, NO_KEY, Outcome, Row, folded};
use crate::store::connection::Connection;
use crate::store::glob;
use crate::store::keyspace::Keyspace;

pub(super) fn commands() -> Vec<Row> {
    let mut rows = rows! {
        Both "server"
        "info" (0..=ANY) ANY_TIME NO_KEY info "Returns figures of the server.";
        "config" (1..=ANY) ADMIN NO_KEY config "Returns options of the server.";
    };
    rows.extend(rows! {
        Client "server"
        "time" (0..=0) ANY_TIME NO_KEY time "Returns the time.";
    });
    rows
}

/// A section of `INFO`: its name, and what writes its lines.
type Section = (
    &'static str,
    fn(&Store, &Keyspace, &mut String) -> std::fmt::Result,
);

const SECTIONS: [Section; 6] = [
    ("Server", server),
    ("Clients", clients),
    ("Memory", memory),
    ("Stats", stats),
    ("Replication", replication),
    ("Keyspace", keys),
];

fn info(
    keyspace: &mut Keyspace,
    connection: &mut Connection,
    arguments: &mut Arguments<'_>,
    reply: &mut Reply,
    _: &mut Transport<'_>,
) -> Outcome {
    let asked: Vec<_> = arguments.map(folded).collect();
    let is_asked = |name: &str| {
        let mut asked_names = asked.iter().map(Vec::as_slice);
        asked.is_empty()
            || asked_names.any(|it| {
                matches!(it, b"all" | b"default" | b"everything")
                    || it.eq_ignore_ascii_case(name.as_bytes())
            })
    };

    let mut text = String::new();
    for (name, write) in SECTIONS.iter().filter(|(name, _)| is_asked(name)) {
        let separator = if text.is_empty() { "" } else { "\r\n" };
        // Writing to a string cannot fail.
        let _ = write!(text, "{separator}# {name}\r\n");
        let _ = write(&connection.store, keyspace, &mut text);
    }
    reply.verbatim(text.as_bytes());
    Ok(())
}

fn server(store: &Store, keyspace: &Keyspace, text: &mut String) -> std::fmt::Result {
    let seconds = (keyspace.now() - store.began_unix) / 1_000;
    write!(text, "redis_version:{REDIS_VERSION}\r\n")?;
    write!(text, "redis_mode:standalone\r\n")?;
    write!(text, "serveloop_version:{}\r\n", env!("CARGO_PKG_VERSION"))?;
    write!(text, "process_id:{}\r\n", std::process::id())?;
    write!(text, "uptime_in_seconds:{seconds}\r\n")?;
    write!(text, "uptime_in_days:{}\r\n", seconds / 86_400)
}

fn clients(store: &Store, keyspace: &Keyspace, text: &mut String) -> std::fmt::Result {
    let all = store.clients.all();
    let count = |is_counted: fn(&Client) -> bool| all.iter().filter(|it| is_counted(it)).count();
    for (name, count) in [
        ("connected_clients", all.len()),
        ("pubsub_clients", count(Client::is_subscriber)),
        ("pubsub_patterns", store.channels.pattern_count()),
        ("watching_clients", count(Client::is_watching)),
        ("total_watched_keys", keyspace.watched_count()),
    ] {
        write!(text, "{name}:{count}\r\n")?;
    }
    Ok(())
}

fn memory(_: &Store, keyspace: &Keyspace, text: &mut String) -> std::fmt::Result {
    write!(text, "used_memory:{}\r\n", keyspace.used_memory())?;
    write!(
        text,
        "maxmemory:{}\r\n",
        keyspace.settings().max_memory.unwrap_or(0)
    )?;
    write!(
        text,
        "maxmemory_policy:{}\r\n",
        keyspace.settings().eviction.name()
    )
}

fn stats(store: &Store, keyspace: &Keyspace, text: &mut String) -> std::fmt::Result {
    let counters = keyspace.counters;
    for (name, count) in [
        ("total_connections_received", store.clients.connections()),
        ("total_commands_processed", store.clients.requests()),
        ("expired_keys", counters.expired),
        ("evicted_keys", counters.evicted),
        ("keyspace_hits", counters.hits),
        ("keyspace_misses", counters.misses),
    ] {
        write!(text, "{name}:{count}\r\n")?;
    }
    Ok(())
}

fn replication(_: &Store, _: &Keyspace, text: &mut String) -> std::fmt::Result {
    write!(text, "role:master\r\nconnected_slaves:0\r\n")
}

fn keys(_: &Store, keyspace: &Keyspace, text: &mut String) -> std::fmt::Result {
    match keyspace.len() {
        0 => Ok(()),
        keys => write!(
            text,
            "db0:keys={keys},expires={},avg_ttl=0\r\n",
            keyspace.deadline_count()
        ),
    }
}

/// Takes the name of a subcommand, which has to have as many arguments as there are.
pub(super) fn config_subcommand(arguments: &mut Arguments<'_>) -> Result<&'static str, ErrorReply> {
    let subcommand: &[u8] = arguments.parse()?;
    let (name, counts) = match folded(subcommand).as_slice() {
        b"get" => ("get", 1..=ANY),
        b"set" => ("set", 2..=ANY),
        b"rewrite" => ("rewrite", 0..=0),
        b"resetstat" => ("resetstat", 0..=0),
        b"help" => ("help", 0..=0),
        _ => return Err(ErrorReply::unknown_subcommand("config", subcommand)),
    };
    if !counts.contains(&arguments.len()) {
        let name = format!("config|{name}");
        return Err(ErrorReply::wrong_number_of_arguments(&name));
    }
    Ok(name)
}

fn config(
    keyspace: &mut Keyspace,
    _: &mut Connection,
    arguments: &mut Arguments<'_>,
    reply: &mut Reply,
    transport: &mut Transport<'_>,
) -> Outcome {
    match config_subcommand(arguments)? {
        "get" => {
            let options = options(keyspace, transport);
            let patterns: Vec<_> = arguments.map(folded).collect();
            let is_asked =
                |name: &str| patterns.iter().any(|it| glob::matches(it, name.as_bytes()));
            let asked: Vec<_> = options.iter().filter(|(name, _)| is_asked(name)).collect();

            reply.map(asked.len());
            for (name, value) in asked {
                reply.bulk(name.as_bytes());
                reply.bulk(value.as_bytes());
            }
        }
        "resetstat" => {
            keyspace.counters = Default::default();
            reply.ok();
        }
        "set" | "rewrite" => {
            let message = "the options of this server are set when it starts";
            return Err(ErrorReply::constant("ERR", message));
        }
        _ => reply.lines(&[
            "CONFIG <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
            "GET <pattern> [<pattern> ...]",
            "    Return the options whose names match.",
            "RESETSTAT",
            "    Reset the figures of keys that INFO returns.",
            "HELP",
            "    Print this help.",
        ]),
    }
    Ok(())
}

/// Returns what Redis calls the options of the server, as far as it has them.
fn options(keyspace: &Keyspace, transport: &Transport<'_>) -> Vec<(&'static str, String)> {
    let limits = transport.limits();
    let settings = keyspace.settings();
    let seconds = limits.idle_timeout.map_or(0, |timeout| timeout.as_secs());
    vec![
        ("appendonly", "no".to_owned()),
        ("databases", "1".to_owned()),
        ("maxclients", transport.config().max_connections.to_string()),
        ("maxmemory", settings.max_memory.unwrap_or(0).to_string()),
        ("maxmemory-policy", settings.eviction.name().to_owned()),
        ("proto-max-bulk-len", settings.max_value.to_string()),
        ("save", String::new()),
        ("timeout", seconds.to_string()),
    ]
}

fn time(
    connection: &mut Connection,
    _: &mut Arguments<'_>,
    reply: &mut Reply,
    transport: &mut Transport<'_>,
) -> Outcome {
    let now = connection.now(transport);
    reply.array(2);
    reply.bulk((now / 1_000).to_string().as_bytes());
    reply.bulk((now % 1_000 * 1_000).to_string().as_bytes());
    Ok(())
}
