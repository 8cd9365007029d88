//! The protocol: finds the values in a stream and answers each.

use std::sync::Arc;

use serde::Serialize;
use serveloop::protocols::counted;
use serveloop::{Protocol, ProtocolError, Transport};

use crate::actions::Actions;
use crate::parse::{DEPTH_MOST, Rejection, parse};
use crate::problem::Problem;
use crate::scanner::{Misfit, Scanner, count_blanks};

/// The default limit on the levels of arrays and objects in a value.
const DEPTH_USUAL: usize = 32;

/// The most bytes of a UDP datagram over IPv4. IPv6 allows twenty more.
const UDP_MOST: usize = 65_507;

/// The protocol, which answers each JSON value with the result of the action that it names.
///
/// A value has at most `max_frame` bytes, and a reply must fit `max_output`. Both are fields of
/// [`Config`](serveloop::Config). The reply to a UDP datagram must also fit one datagram. An error
/// in the text itself, as listed in the crate's documentation, ends the connection after a reply,
/// as [`CloseReason::Protocol`](serveloop::CloseReason::Protocol).
#[derive(Debug)]
pub struct Dispatch {
    actions: Arc<Actions>,
    scanner: Scanner,
    /// How many bytes of the stream came before the unread ones.
    taken: u64,
}

#[derive(Serialize)]
struct Refusal<'a> {
    ok: bool,
    error: &'a Problem,
}

impl Dispatch {
    /// Creates a protocol that serves `actions` and accepts values of at most 32 levels.
    #[must_use]
    pub fn new(actions: Arc<Actions>) -> Self {
        Self {
            actions,
            scanner: Scanner::new(DEPTH_USUAL),
            taken: 0,
        }
    }

    /// Sets how many levels arrays and objects may be nested. More than 126 counts as 126.
    #[must_use]
    pub fn with_max_depth(mut self, levels: usize) -> Self {
        self.scanner = Scanner::new(levels.min(DEPTH_MOST));
        self
    }

    /// Returns the length of the value at the start of `data`, if it is complete.
    fn find(&mut self, data: &[u8], limit: usize) -> Result<Option<usize>, Problem> {
        // Bytes beyond the first excess one may not have arrived yet, so they must not matter.
        let data = &data[..data.len().min(limit.saturating_add(1))];
        let found = self.scanner.scan(data).map_err(|misfit| match misfit {
            Misfit::Unexpected(at) => self.problem("invalid_json", "expected a value", at),
            Misfit::TooDeep(at) => self.problem("too_deep", "too many nested levels", at),
        })?;

        if found.unwrap_or(data.len()) > limit {
            return Err(self.problem(
                "too_long",
                format_args!("a value of more than {}", counted(limit, "byte", "bytes")),
                limit,
            ));
        }
        Ok(found)
    }

    /// Answers one value. Returns an error if its text is invalid, which ends the connection.
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
            let found = self.find(data, transport.limits().max_frame);
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

/// Returns how many bytes of replies may be unsent in total.
fn reply_most(transport: &Transport<'_>) -> usize {
    let most = transport.limits().max_output;
    let peer = transport.peer();
    let is_udp = peer.is_datagram() && peer.address().socket_addr().is_some();
    if is_udp { most.min(UDP_MOST) } else { most }
}

/// Replies with what is wrong, and returns the error that ends the connection.
fn reject(problem: &Problem, transport: &mut Transport<'_>) -> ProtocolError {
    transport.write(&refusal(problem));
    ProtocolError::malformed(problem.message().to_owned())
}

/// Formats an error reply as a line.
fn refusal(problem: &Problem) -> Vec<u8> {
    let refusal = Refusal {
        ok: false,
        error: problem,
    };
    // Serializing strings and a number cannot fail.
    let mut line = serde_json::to_vec(&refusal).unwrap_or_default();
    line.push(b'\n');
    line
}
