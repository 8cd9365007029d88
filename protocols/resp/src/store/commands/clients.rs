//! `CLIENT`: what a client says of itself, and what it does with others.

use std::sync::Arc;

use serveloop::Transport;

use crate::error_reply::ErrorReply;
use crate::number;
use crate::reply::Reply;
use crate::request::Arguments;
use crate::store::clients::Client;
use crate::store::commands::keys::note_cost;
use crate::store::commands::{ADMIN, ANY, NO_KEY, Outcome, Row, folded, name_of};
use crate::store::connection::Connection;

pub(super) fn commands() -> Vec<Row> {
    rows! {
        Client "connection"
        "client" (1..=ANY) ADMIN NO_KEY client "Lists, names and ends connections.";
    }
}

const HELP: &[&str] = &[
    "CLIENT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "GETNAME",
    "    Return the name of the current connection.",
    "ID",
    "    Return the ID of the current connection.",
    "INFO",
    "    Return information about the current client connection.",
    "KILL <ip:port>",
    "    Kill connection made from <ip:port>.",
    "KILL <option> <value> [<option> <value> [...]]",
    "    Kill connections. Options are: ADDR, LADDR, TYPE, USER, SKIPME, ID.",
    "LIST [TYPE <type>] [ID <id> ...]",
    "    Return information about client connections.",
    "NO-EVICT (ON|OFF)",
    "    Accepted, without an effect: no connection is ended to make room for keys.",
    "SETINFO <option> <value>",
    "    Set the library of the current connection. Options are: LIB-NAME, LIB-VER.",
    "SETNAME <name>",
    "    Assign the name <name> to the current connection.",
    "HELP",
    "    Print this help.",
];

/// Takes the name of a subcommand, which has to have as many arguments as there are.
pub(super) fn subcommand(arguments: &mut Arguments<'_>) -> Result<&'static str, ErrorReply> {
    let subcommand: &[u8] = arguments.parse()?;
    let (name, counts) = match folded(subcommand).as_slice() {
        b"id" => ("id", 0..=0),
        b"getname" => ("getname", 0..=0),
        b"info" => ("info", 0..=0),
        b"help" => ("help", 0..=0),
        b"setname" => ("setname", 1..=1),
        b"no-evict" => ("no-evict", 1..=1),
        b"no-touch" => ("no-touch", 1..=1),
        b"setinfo" => ("setinfo", 2..=2),
        b"list" => ("list", 0..=ANY),
        b"kill" => ("kill", 1..=ANY),
        _ => return Err(ErrorReply::unknown_subcommand("client", subcommand)),
    };
    if !counts.contains(&arguments.len()) {
        return Err(ErrorReply::wrong_number_of_arguments(&format!(
            "client|{name}"
        )));
    }
    Ok(name)
}

fn client(
    connection: &mut Connection,
    arguments: &mut Arguments<'_>,
    reply: &mut Reply,
    transport: &mut Transport<'_>,
) -> Outcome {
    let name = subcommand(arguments)?;
    let now = connection.now(transport);
    match name {
        "id" => reply.integer(connection.client().id as i64),
        "getname" => match connection.client().named().name.as_slice() {
            b"" => reply.null(),
            name => reply.bulk(name),
        },
        "info" => list_of([connection.client()], now, reply),
        "list" => list(connection, arguments, now, reply)?,
        "kill" => return kill(connection, arguments, reply),
        "help" => reply.lines(HELP),
        "setname" => {
            let name = check_name(arguments.parse()?)?.to_vec();
            connection.name(|named| named.name = name);
            reply.ok();
        }
        "setinfo" => {
            set_info(connection, arguments)?;
            reply.ok();
        }
        _ => match folded(arguments.parse()?).as_slice() {
            b"on" | b"off" => reply.ok(),
            _ => return Err(ErrorReply::SYNTAX),
        },
    }
    Ok(())
}

/// Returns a name that fits a list of clients.
pub(super) fn check_name(name: &[u8]) -> Result<&[u8], ErrorReply> {
    if name.iter().all(|byte| matches!(byte, b'!'..=b'~')) {
        return Ok(name);
    }
    let message = "Client names cannot contain spaces, newlines or special characters.";
    Err(ErrorReply::constant("ERR", message))
}

fn set_info(connection: &mut Connection, arguments: &mut Arguments<'_>) -> Outcome {
    let (option, value): (&[u8], &[u8]) = arguments.parse()?;
    let option = folded(option);
    if !value.iter().all(|byte| matches!(byte, b'!'..=b'~')) {
        let option = String::from_utf8_lossy(&option).into_owned();
        let message = format!("{option} cannot contain spaces, newlines or special characters.");
        return Err(ErrorReply::new(message));
    }

    match option.as_slice() {
        b"lib-name" => connection.name(|named| named.library = value.to_vec()),
        b"lib-ver" => connection.name(|named| named.library_version = value.to_vec()),
        _ => {
            let option = String::from_utf8_lossy(&option).into_owned();
            return Err(ErrorReply::new(format!("Unrecognized option '{option}'")));
        }
    }
    Ok(())
}

/// Writes a line for each client. No more are added than there is room for, since the whole is not sent then.
fn list_of<'a>(clients: impl IntoIterator<Item = &'a Arc<Client>>, now: i64, reply: &mut Reply) {
    let (mut text, room) = (Vec::new(), reply.room());
    for client in clients {
        client.describe(now, name_of, &mut text);
        text.push(b'\n');
        if text.len() > room {
            break;
        }
    }
    reply.verbatim(&text);
}

fn list(
    connection: &Connection,
    arguments: &mut Arguments<'_>,
    now: i64,
    reply: &mut Reply,
) -> Outcome {
    let mut clients = connection.store.clients.all();
    match arguments.next().map(folded).as_deref() {
        None => {}
        Some(b"type") if arguments.len() == 1 => {
            let kind = kind_of(arguments.parse()?)?;
            clients.retain(|client| client.kind() == kind);
        }
        Some(b"id") if arguments.len() > 0 => {
            let ids = arguments.map(client_id).collect::<Result<Vec<_>, _>>()?;
            clients.retain(|client| ids.contains(&client.id));
        }
        Some(_) => return Err(ErrorReply::SYNTAX),
    }
    note_cost(clients.len(), reply);
    list_of(&clients, now, reply);
    Ok(())
}

fn client_id(text: &[u8]) -> Result<u64, ErrorReply> {
    let id = number::integer(text).and_then(|id| u64::try_from(id).ok());
    id.filter(|id| *id > 0)
        .ok_or(ErrorReply::constant("ERR", "Invalid client ID"))
}

/// Returns one of the types that Redis knows. No client here is a replica or its master.
fn kind_of(text: &[u8]) -> Result<&'static str, ErrorReply> {
    match folded(text).as_slice() {
        b"normal" => Ok("normal"),
        b"pubsub" => Ok("pubsub"),
        b"master" => Ok("master"),
        b"replica" | b"slave" => Ok("replica"),
        _ => {
            let shown = String::from_utf8_lossy(text).into_owned();
            Err(ErrorReply::new(format!("Unknown client type '{shown}'")))
        }
    }
}

/// Which clients `CLIENT KILL` ends: those for which all of it holds.
struct Victims<'a> {
    id: Option<u64>,
    address: Option<&'a [u8]>,
    local_address: Option<&'a [u8]>,
    kind: Option<&'static str>,
    spares_caller: bool,
}

impl<'a> Victims<'a> {
    fn parse(arguments: &mut Arguments<'a>) -> Result<Self, ErrorReply> {
        let mut victims = Self {
            id: None,
            address: None,
            local_address: None,
            kind: None,
            spares_caller: true,
        };

        while arguments.len() > 0 {
            let (option, value): (&[u8], &[u8]) = arguments.parse()?;
            match folded(option).as_slice() {
                b"id" => {
                    let id = number::integer(value).and_then(|id| u64::try_from(id).ok());
                    let message = "client-id should be greater than 0";
                    let id = id
                        .filter(|id| *id > 0)
                        .ok_or(ErrorReply::constant("ERR", message));
                    victims.id = Some(id?);
                }
                b"addr" => victims.address = Some(value),
                b"laddr" => victims.local_address = Some(value),
                b"type" => victims.kind = Some(kind_of(value)?),
                b"user" if value == b"default" => {}
                b"user" => {
                    let shown = String::from_utf8_lossy(value).into_owned();
                    return Err(ErrorReply::new(format!("No such user '{shown}'")));
                }
                b"skipme" => {
                    victims.spares_caller = match folded(value).as_slice() {
                        b"yes" => true,
                        b"no" => false,
                        _ => return Err(ErrorReply::SYNTAX),
                    };
                }
                _ => return Err(ErrorReply::SYNTAX),
            }
        }
        Ok(victims)
    }

    fn contain(&self, client: &Client) -> bool {
        let Self {
            id,
            address,
            local_address,
            kind,
            ..
        } = self;
        id.is_none_or(|id| id == client.id)
            && address.is_none_or(|address| address == client.address.as_bytes())
            && local_address.is_none_or(|address| address == client.local_address.as_bytes())
            && kind.is_none_or(|kind| kind == client.kind())
    }
}

fn kill(connection: &Connection, arguments: &mut Arguments<'_>, reply: &mut Reply) -> Outcome {
    // The form of old: an address, and an error if nobody has it.
    let is_old = arguments.len() == 1;
    let victims = if is_old {
        let address = arguments.next();
        Victims {
            address,
            spares_caller: false,
            ..Victims::parse(arguments)?
        }
    } else {
        Victims::parse(arguments)?
    };

    let caller = connection.client();
    let mut count = 0;
    for client in connection.store.clients.all() {
        let is_caller = client.id == caller.id;
        if !victims.contain(&client) || is_caller && victims.spares_caller {
            continue;
        }
        count += 1;
        // The caller gets its reply.
        if is_caller {
            reply.close()
        } else {
            client.end()
        }
    }

    match (is_old, count) {
        (true, 0) => return Err(ErrorReply::constant("ERR", "No such client")),
        (true, _) => reply.ok(),
        (false, count) => reply.count(count),
    }
    Ok(())
}
