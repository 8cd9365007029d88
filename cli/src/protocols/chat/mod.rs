//! `serve chat`: what a client types, all others read.

mod member;
mod room;

use std::io;

use clap::{Args, ValueEnum};
use serveloop::framing::{Framed, Lines};
use serveloop::layer::{Alarm, Observed, Screen};
use serveloop::service::Lagging;
use serveloop::{Address, Peer, Statistics};

use crate::failure::Failure;
use crate::protocols::chat::member::Member;
use crate::protocols::chat::room::Room;
use crate::protocols::streams::need_streams;
use crate::serving::{BoundServer, Execution, Messages};

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
/// when more than --max-posted (8MiB) wait for it, and --write-timeout ends the connection of one that reads
/// nothing. Clients may be silent, unless --first-message-timeout or --idle-timeout is given. With
/// --workers or --model threaded there is one chat for all; processes would have one each, so that
/// --model forking is refused.
///
/// With --handover, SIGUSR2 moves the room and its members to the new process: they keep their names, and
/// each line reaches everybody once. Clients of TLS listeners stay, and go on in a room of their own until
/// the old process ends.
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
        let why = "chat is for streams: a datagram does not stay to read what others say";
        need_streams(addresses, why)?;
        let problem = if execution.is_forking() {
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
        if let Some(restarts) = server.restarts() {
            room.close_during(restarts);
        }
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
