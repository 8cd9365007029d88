//! `serve chat`: what a client types, all others read.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use clap::{Args, ValueEnum};
use serveloop::framing::{FrameProtocol, FrameTransport, Framed, Lines};
use serveloop::layer::{Alarm, Observed, Screen};
use serveloop::service::{Group, Lagging};
use serveloop::{Address, Ended, Peer, ProtocolError, Statistics};

use crate::escaped::for_terminal;
use crate::failure::Failure;
use crate::serving::{BoundServer, Execution, Messages};
use crate::threads::lock;

/// The only topic of the group.
const ROOM: &str = "room";
/// The longest name, in characters.
const NAME_MOST: usize = 32;
/// The only command.
const COMMAND: &str = "/nick";

/// A chat: each line that a client sends goes to all others, with the name of its sender.
///
///   $ serveloop serve chat
///   listening on tcp://127.0.0.1:9999
///
/// In two other terminals, of which this is the second; lines of the server begin with a star:
///
///   $ nc 127.0.0.1 9999
///   you are 2, 2 here
///   1: good morning
///   good morning to you
///   1: see you tomorrow
///   * 1 leaves
///
/// /nick NAME gives a client another name, with at most 32 letters, digits, - and _, of which one is no
/// digit. No two clients have the same name. A line has at most --max-line bytes; a longer one ends its connection. What could control a
/// terminal is shown as \u{1b} or \xff.
///
/// A client that reads slowly holds up no other: it loses lines, or its connection, as --lagging says,
/// when more than --max-posted wait for it, and --write-timeout ends the connection of one that reads
/// nothing. Clients may be silent, unless --first-message-timeout or --idle-timeout is given. With
/// --workers or --model threaded there is one chat for all; processes would have one each, so that
/// --model forking is refused.
///
/// A page of any site can make its visitors' browsers connect to a server on their own machine: what
/// begins as HTTP, TLS or STUN ends its connection.
#[derive(Args, Debug)]
#[command(verbatim_doc_comment, next_help_heading = "Chat")]
pub(crate) struct ChatOptions {
    /// What happens to a client that does not keep up
    #[arg(long, value_enum, value_name = "WHAT", default_value_t = Laggard::DropOldest)]
    lagging: Laggard,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Laggard {
    /// It loses the oldest lines that wait for it
    DropOldest,
    /// It does not get new lines
    DropNewest,
    /// Its connection is ended
    Close,
}

impl From<Laggard> for Lagging {
    fn from(laggard: Laggard) -> Self {
        match laggard {
            Laggard::DropOldest => Self::DropOldest,
            Laggard::DropNewest => Self::DropNewest,
            Laggard::Close => Self::Close,
        }
    }
}

impl ChatOptions {
    /// Returns an error for what cannot be served.
    pub(super) fn check(addresses: &[Address], execution: Execution) -> Result<(), Failure> {
        let problem = if addresses.iter().any(Address::is_datagram) {
            "chat is for streams: a datagram does not stay to read what others say"
        } else if execution.is_forking() {
            "chat cannot be served with --model forking: a process for each connection would be a chat \
             for each"
        } else {
            return Ok(());
        };
        Err(Failure::Usage(problem.to_owned()))
    }

    pub(super) fn serve(self, server: BoundServer, execution: Execution) -> io::Result<Statistics> {
        let max_line = server.max_line();
        let (room, alarm) = (Room::new(self.lagging.into()), Alarm::default());
        execution.serve(server, move |peer: &Peer| {
            // What is sent may be longer, since a name comes before it.
            let lines = Lines::new(max_line.of(peer)).accept_unterminated();
            let lines = Messages::Lines(lines);
            let member = Framed::new(lines, Member::new(room.clone()));
            let screen = Screen::new(peer, &alarm);
            Some(Observed::new(member, screen))
        })
    }
}

/// All clients, and their names.
#[derive(Clone)]
struct Room {
    group: Group,
    names: Arc<Mutex<Names>>,
}

#[derive(Default)]
struct Names {
    /// How many clients have come.
    count: u64,
    /// The number of the client that has a name, which is in lower case here.
    taken: HashMap<String, u64>,
}

impl Room {
    fn new(lagging: Lagging) -> Self {
        Self {
            group: Group::new(lagging),
            names: Arc::default(),
        }
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        // No panic leaves the names half changed, so a poisoned lock is still good.
        lock(&self.names)
    }

    /// Gives a name to client `number` in place of its earlier one, unless another has it.
    fn rename(&self, number: u64, from: &str, to: &str) -> Result<(), String> {
        check_name(to)?;
        let mut names = self.names();
        let holder = names.taken.get(&to.to_lowercase());
        if holder.is_some_and(|holder| *holder != number) {
            return Err(format!("{to} is taken"));
        }
        names.taken.remove(&from.to_lowercase());
        names.taken.insert(to.to_lowercase(), number);
        Ok(())
    }
}

/// Returns what is wrong with a name, if anything is.
fn check_name(name: &str) -> Result<(), String> {
    let is_allowed = |letter: char| letter.is_alphanumeric() || "-_".contains(letter);
    if name.is_empty() || !name.chars().all(is_allowed) || name.chars().count() > NAME_MOST {
        return Err(format!(
            "a name has 1 to {NAME_MOST} letters, digits, - and _: /nick NAME"
        ));
    }
    match name.chars().all(char::is_numeric) {
        true => Err("a number is for those without a name".to_owned()),
        false => Ok(()),
    }
}

/// A client in the room.
struct Member {
    room: Room,
    number: u64,
    name: String,
    /// Its number as a connection, from when it is in the room.
    id: Option<u64>,
    /// Whether the server ends, so that no client is told that all others leave.
    is_over: bool,
}

impl Member {
    fn new(room: Room) -> Self {
        Self {
            room,
            number: 0,
            name: String::new(),
            id: None,
            is_over: false,
        }
    }

    fn tell_others(&self, line: impl Into<Arc<[u8]>>) {
        if let Some(id) = self.id {
            self.room.group.publish_to_others(ROOM, id, line);
        }
    }

    fn note(&self, what: &str) {
        self.tell_others(format!("* {what}").into_bytes());
    }

    /// Does what a line that begins with a slash asks for. Returns what the client is told.
    fn command(&mut self, line: &str) -> String {
        let (command, name) = line.split_once(' ').unwrap_or((line, ""));
        if command != COMMAND {
            return "there is only one command: /nick NAME".to_owned();
        }

        let name = name.trim();
        if name == self.name {
            return format!("you are {name}");
        }
        match self.room.rename(self.number, &self.name, name) {
            Ok(()) => {
                self.note(&format!("{} is now {name}", self.name));
                name.clone_into(&mut self.name);
                format!("you are {name}")
            }
            Err(problem) => problem,
        }
    }
}

impl FrameProtocol for Member {
    type Framing = Messages;

    fn connection_made(
        &mut self,
        frames: &mut FrameTransport<'_, Messages>,
    ) -> Result<(), ProtocolError> {
        let outbox = frames.transport().outbox();
        self.id = Some(outbox.id());
        self.room.group.join(ROOM, &outbox);

        let mut names = self.room.names();
        names.count += 1;
        self.number = names.count;
        self.name = self.number.to_string();
        drop(names);

        let here = self.room.group.members(ROOM);
        self.note(&format!("{} joins", self.name));
        frames.send(format!("you are {}, {here} here", self.name).as_bytes())
    }

    fn frame_received(
        &mut self,
        line: &[u8],
        frames: &mut FrameTransport<'_, Messages>,
    ) -> Result<(), ProtocolError> {
        if line.first() == Some(&b'/') {
            let told = self.command(&String::from_utf8_lossy(line));
            return frames.send(format!("* {told}").as_bytes());
        }
        let name = format!("{}: ", self.name).into_bytes();
        self.tell_others([name, for_terminal(line)].concat());
        Ok(())
    }

    fn shutdown_requested(&mut self, frames: &mut FrameTransport<'_, Messages>) {
        self.is_over = true;
        frames.transport().close();
    }

    fn connection_lost(&mut self, _: &Ended<'_>) {
        let Some(id) = self.id else {
            return;
        };
        self.room.group.leave(ROOM, id);
        let mut names = self.room.names();
        let name = self.name.to_lowercase();
        if names.taken.get(&name) == Some(&self.number) {
            names.taken.remove(&name);
        }
        drop(names);
        if !self.is_over {
            self.note(&format!("{} leaves", self.name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_be_taken_for_another() {
        let room = Room::new(Lagging::DropOldest);
        assert_eq!(room.rename(1, "1", "Ann"), Ok(()));
        assert_eq!(room.rename(2, "2", "ann"), Err("ann is taken".to_owned()));
        // One's own name may change its case, and the earlier one is free again.
        assert_eq!(room.rename(1, "Ann", "ANN"), Ok(()));
        assert_eq!(room.rename(1, "ANN", "bob"), Ok(()));
        assert_eq!(room.rename(2, "2", "ann"), Ok(()));

        let longest = "x".repeat(NAME_MOST);
        let too_long = "\u{fc}".repeat(NAME_MOST + 1);
        for name in ["a", "\u{fc}ber-1_", &longest] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
        for name in [
            "",
            "a b",
            "a:",
            "*",
            "7",
            "a\u{202e}b",
            "\u{1b}[1m",
            &too_long,
        ] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }
}
