use std::sync::Arc;

use serde::Serialize;
use serveloop::{Protocol, ProtocolError, Transport};

use crate::actions::Actions;
use crate::parse::{DEPTH_MOST, Rejection, parse};
use crate::problem::Problem;
use crate::scanner::{Misfit, Scanner, count_blanks};

/// How many levels of arrays and objects a value has at most, if nothing else is said.
const DEPTH_USUAL: usize = 32;

/// The most bytes of a UDP datagram by IPv4. By IPv6 there are twenty more.
const UDP_MOST: usize = 65_507;

/// The protocol: answers each JSON value with what the action that it names makes of it.
///
/// A value is at most `max_frame` bytes long, and a reply fits `max_output`, both fields of
/// [`Config`](serveloop::Config), and a UDP datagram if that was the question. What the crate's documentation calls wrong with the text ends the
/// connection, after a reply, as [`CloseReason::Protocol`](serveloop::CloseReason::Protocol).
#[derive(Debug)]
pub struct Dispatch {
    actions: Arc<Actions>,
    scanner: Scanner,
    /// Bytes before those that are unread.
    taken: u64,
}

#[derive(Serialize)]
struct Refusal<'a> {
    ok: bool,
    error: &'a Problem,
}

impl Dispatch {
    /// Serves `actions`, to values of at most 32 levels.
    #[must_use]
    pub fn new(actions: Arc<Actions>) -> Self {
        Self {
            actions,
            scanner: Scanner::new(DEPTH_USUAL),
            taken: 0,
        }
    }

    /// Takes arrays and objects of up to `levels` in each other; more than 126 are 126.
    #[must_use]
    pub fn with_max_depth(mut self, levels: usize) -> Self {
        self.scanner = Scanner::new(levels.min(DEPTH_MOST));
        self
    }

    /// The length of the value that `data` begins with, if it is complete.
    fn find(&mut self, data: &[u8], limit: usize) -> Result<Option<usize>, Problem> {
        // What is beyond the first byte too many may not have come, and so must not matter.
        let data = &data[..data.len().min(limit.saturating_add(1))];
        let found = self.scanner.scan(data).map_err(|misfit| match misfit {
            Misfit::Unexpected(at) => self.problem("invalid_json", "no value begins like this", at),
            Misfit::TooDeep(at) => self.problem("too_deep", "too many levels", at),
        })?;
        if found.unwrap_or(data.len()) > limit {
            return Err(self.problem(
                "too_long",
                format_args!("a value of more than {limit} bytes"),
                limit,
            ));
        }
        Ok(found)
    }

    /// Answers one value. The error is about its text, and the last reply.
    fn answer(&self, text: &[u8], transport: &mut Transport<'_>) -> Result<(), Problem> {
        let result = match parse(text) {
            Ok(request) => self.actions.call(request),
            Err(Rejection::Value(problem)) => Err(problem),
            Err(Rejection::Text(message, at)) => {
                return Err(self.problem("invalid_json", message, at));
            }
        };
        let reply = match result {
            Ok(result) => [b"{\"ok\":true,\"result\":", &*result, b"}\n"].concat(),
            Err(problem) => refusal(&problem),
        };
        let room = reply_most(transport).saturating_sub(transport.waiting());
        if reply.len() > room {
            let problem = Problem::of_value(
                "reply_too_long",
                format_args!("a reply of {} bytes", reply.len()),
                String::new(),
            );
            transport.write(&refusal(&problem));
        } else {
            transport.write(&reply);
        }
        Ok(())
    }

    fn problem(&self, code: &'static str, message: impl std::fmt::Display, at: usize) -> Problem {
        Problem::of_text(code, message, self.taken + at as u64)
    }
}

impl Protocol for Dispatch {
    fn data_received(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        let mut count = count_blanks(data);
        if count == 0 {
            let found = self.find(data, transport.config().max_frame);
            let Some(end) = found.map_err(|problem| reject(&problem, transport))? else {
                return Ok(0);
            };
            self.answer(&data[..end], transport)
                .map_err(|problem| reject(&problem, transport))?;
            count = end + count_blanks(&data[end..]);
        }
        self.taken += count as u64;
        Ok(count)
    }

    fn eof_received(
        &mut self,
        unread: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<(), ProtocolError> {
        if unread.is_empty() {
            transport.close();
            return Ok(());
        }
        if !self.scanner.ends_here() {
            let message = "the stream ended inside a value";
            let problem = self.problem("truncated", message, unread.len());
            transport.write(&refusal(&problem));
            let unread = unread.len();
            return Err(ProtocolError::Truncated { unread });
        }
        self.answer(unread, transport)
            .map_err(|problem| reject(&problem, transport))?;
        transport.close();
        Ok(())
    }
}

/// The most bytes that can be replied, in all that is not sent yet.
fn reply_most(transport: &Transport<'_>) -> usize {
    let most = transport.config().max_output;
    let peer = transport.peer();
    let is_udp = peer.is_datagram() && peer.address().socket_addr().is_some();
    if is_udp { most.min(UDP_MOST) } else { most }
}

/// Says what is wrong, and ends the connection.
fn reject(problem: &Problem, transport: &mut Transport<'_>) -> ProtocolError {
    transport.write(&refusal(problem));
    ProtocolError::malformed(problem.message().to_owned())
}

/// A reply that is no result, as a line.
fn refusal(problem: &Problem) -> Vec<u8> {
    let refusal = Refusal {
        ok: false,
        error: problem,
    };
    // Strings and a number can always be written.
    let mut line = serde_json::to_vec(&refusal).unwrap_or_default();
    line.push(b'\n');
    line
}
