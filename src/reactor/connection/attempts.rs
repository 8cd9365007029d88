//! Establishing an outbound connection: to one address, or to the first of several that answers
//! (RFC 8305, "happy eyeballs").

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::mem;
use std::time::Duration;

use crate::address::Address;
use crate::config::Config;
use crate::net::Net;
use crate::session::{Tick, Ticket};

/// How long one address is tried before the next one is tried as well.
const HEAD_START: Duration = Duration::from_millis(250);

/// The sockets on which one connection is attempted, except the one that is the connection's own for
/// now, and what else the attempt needs. A connection to a single address that cannot be cancelled has
/// no need of it.
#[derive(Debug)]
pub(in crate::reactor) struct Attempts<S> {
    /// What the connection's own socket is connected to.
    address: Address,
    others: Vec<(S, Address)>,
    waiting: VecDeque<Address>,
    /// When the next address is tried.
    due: Tick,
    /// When all of this must be over.
    until: Option<Tick>,
    failures: Failures,
    ticket: Option<Ticket>,
}

/// What has come of the attempts.
#[derive(Debug)]
pub(super) enum Progress {
    Established,
    /// Wait for an event or the deadline.
    Waits,
    Cancelled,
    Failed(io::Error),
}

impl Progress {
    /// Returns what a connection's only attempt has come to.
    pub(super) fn of(connected: io::Result<()>) -> Self {
        match connected {
            Ok(()) => Self::Established,
            Err(error) if error.kind() == ErrorKind::WouldBlock => Self::Waits,
            Err(error) => Self::Failed(error),
        }
    }
}

impl<S> Attempts<S> {
    /// Begins a connection to the first of `addresses` for which that is possible.
    ///
    /// # Errors
    /// It is possible for none. `WouldBlock` means that nothing is wrong with the only address.
    pub(in crate::reactor) fn begin<N: Net<Stream = S>>(
        addresses: impl Into<VecDeque<Address>>,
        until: Option<Tick>,
        ticket: Option<Ticket>,
        (net, config, now, token): (&mut N, &Config, Tick, usize),
    ) -> io::Result<(S, Self)> {
        let mut waiting = addresses.into();
        let mut failures = Failures::default();
        loop {
            let Some((begun, address)) = begin_next(&mut waiting, net, config, token) else {
                return Err(failures.into_error());
            };
            match begun {
                Ok(stream) => {
                    let this = Self {
                        due: next_due(now, until, waiting.len()),
                        address,
                        others: Vec::new(),
                        waiting,
                        until,
                        failures,
                        ticket,
                    };
                    return Ok((stream, this));
                }
                Err(error) => failures.add(address, error),
            }
        }
    }

    /// Returns the address of the connection's own socket.
    pub(in crate::reactor) fn address(&self) -> &Address {
        &self.address
    }

    pub(in crate::reactor) fn ticket(&self) -> Option<&Ticket> {
        self.ticket.as_ref()
    }

    /// Returns whether there is nothing but a socket and one deadline, which a connection has anyway.
    pub(in crate::reactor) fn is_simple(&self, usual: Option<Tick>) -> bool {
        self.waiting.is_empty()
            && self.ticket.is_none()
            && self.until == usual
            && self.failures.is_empty()
    }

    /// Returns when to look at the attempts if no event comes before.
    pub(super) fn deadline(&self) -> Option<Tick> {
        let due = (!self.waiting.is_empty()).then_some(self.due);
        self.until.into_iter().chain(due).min()
    }

    /// Returns when the time for all attempts is over.
    pub(super) fn until(&self) -> Option<Tick> {
        self.until
    }

    /// Looks at all sockets, and tries the next address if it is its turn. What is established, or is
    /// still tried, is in `stream`.
    pub(super) fn check<N: Net<Stream = S>>(
        &mut self,
        stream: &mut S,
        (net, config, now, token): (&mut N, &Config, Tick, usize),
    ) -> Progress {
        if self.ticket.as_ref().is_some_and(Ticket::is_cancelled) {
            return Progress::Cancelled;
        }

        let failure = match net.connected(stream) {
            Ok(()) => return Progress::Established,
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => Some(error),
        };
        if self.check_others(stream, net) {
            return Progress::Established;
        }

        if failure.is_none() && now < self.due {
            return Progress::Waits;
        }
        while let Some((begun, address)) = begin_next(&mut self.waiting, net, config, token) {
            match begun {
                Ok(next) => {
                    self.due = next_due(now, self.until, self.waiting.len());
                    self.others.push((next, address));
                    break;
                }
                Err(error) => self.failures.add(address, error),
            }
        }

        match failure {
            None => Progress::Waits,
            Some(error) => self.replace(stream, error, net),
        }
    }

    /// Looks at the sockets that are not the connection's own. Puts one that is established in its
    /// place, and drops those that have failed, after which the next address is tried at once. Returns
    /// whether one is established.
    fn check_others<N: Net<Stream = S>>(&mut self, stream: &mut S, net: &mut N) -> bool {
        let mut number = 0;
        while let Some((other, _)) = self.others.get_mut(number) {
            let outcome = net.connected(other);
            if matches!(&outcome, Err(error) if error.kind() == ErrorKind::WouldBlock) {
                number += 1;
                continue;
            }

            let (other, address) = self.others.remove(number);
            match outcome {
                Ok(()) => {
                    net.close(mem::replace(stream, other), false);
                    self.address = address;
                    return true;
                }
                Err(error) => {
                    self.failures.add(address, error);
                    net.close(other, false);
                    self.due = Tick::ZERO;
                }
            }
        }
        false
    }

    /// Puts another socket in the place of the connection's own, which has failed.
    fn replace<N: Net<Stream = S>>(
        &mut self,
        stream: &mut S,
        error: io::Error,
        net: &mut N,
    ) -> Progress {
        let Some((next, address)) = self.others.pop() else {
            let before = self.address.clone();
            self.failures.add(before, error);
            return Progress::Failed(mem::take(&mut self.failures).into_error());
        };
        net.close(mem::replace(stream, next), false);
        self.failures
            .add(mem::replace(&mut self.address, address), error);
        Progress::Waits
    }

    /// Closes the sockets that the connection does not use.
    pub(super) fn close<N: Net<Stream = S>>(self, net: &mut N) {
        for (other, _) in self.others {
            net.close(other, false);
        }
        self.ticket.inspect(Ticket::end);
    }
}

/// Begins to connect to the next address.
fn begin_next<N: Net>(
    waiting: &mut VecDeque<Address>,
    net: &mut N,
    config: &Config,
    token: usize,
) -> Option<(io::Result<N::Stream>, Address)> {
    let address = waiting.pop_front()?;
    let begun = net.connect(&address, config).and_then(|mut stream| {
        match net.register(&mut stream, token) {
            Ok(()) => Ok(stream),
            Err(error) => {
                net.close(stream, false);
                Err(error)
            }
        }
    });
    Some((begun, address))
}

/// Returns when the next of `waiting` addresses is tried. If time is short, each still gets its turn.
fn next_due(now: Tick, until: Option<Tick>, waiting: usize) -> Tick {
    let turns = u32::try_from(waiting + 1).unwrap_or(u32::MAX);
    let share = until.map(|until| until.since(now) / turns);
    now.after(share.map_or(HEAD_START, |share| share.min(HEAD_START)))
}

/// Why the attempts so far have failed.
#[derive(Debug, Default)]
struct Failures(Vec<(Address, io::Error)>);

impl Failures {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn add(&mut self, address: Address, error: io::Error) {
        self.0.push((address, error));
    }

    /// Returns the only error, or one that names each address.
    fn into_error(mut self) -> io::Error {
        if self.0.len() < 2 {
            let only = self.0.pop().map(|(_, error)| error);
            return only.unwrap_or_else(|| {
                io::Error::new(ErrorKind::InvalidInput, "there is no address to connect to")
            });
        }

        let kind = self
            .0
            .last()
            .map_or(ErrorKind::Other, |(_, error)| error.kind());
        let problems = self
            .0
            .iter()
            .map(|(address, error)| format!("{address}: {error}"));
        io::Error::new(kind, problems.collect::<Vec<_>>().join("; "))
    }
}
