//! Beginning outbound connections: those that were requested, and those that had to wait.

use std::{io, mem};

use crate::address::Address;
use crate::error::{CloseReason, Deadline};
use crate::net::Net;
use crate::reactor::postponed::{Attempt, Resolved};
use crate::reactor::{Reactor, WAKER};
use crate::session::{Factory, Ticket};
use crate::waker::Wakers;

impl<F: Factory, N: Net> Reactor<F, N> {
    /// Begins the outbound connections that were requested or postponed.
    #[cold]
    pub(super) fn begin_connects(&mut self) {
        let now = self.env.clock.tick();
        let timeout = self.env.config.connect_timeout;
        let until = timeout.map(|timeout| now.after(timeout));

        let mut all = self.postponed.take();
        let mut resolved = self.take_resolved();
        for connect in mem::take(&mut self.requests.connects) {
            let attempt = Attempt { connect, until };
            if attempt.connect.to.name().is_none() {
                all.push(attempt);
            } else {
                resolved.extend(self.look_up(attempt));
            }
        }
        for (attempt, outcome) in resolved {
            all.extend(self.found(attempt, outcome));
        }

        let mut full = None;
        for Attempt { connect, until } in all {
            // A queue that is full for one connection is full for all others to the same address.
            let has_time = !self.shutdown.has_begun() && until.is_none_or(|until| now < until);
            if has_time && full.as_ref() == Some(&connect.to) {
                self.postponed.push(Attempt { connect, until }, now);
            } else if let Some(connect) = self.lend().0.connect(connect, until) {
                full = Some(connect.to.clone());
                self.postponed.push(Attempt { connect, until }, now);
            }
        }
    }

    /// Begins to look up the name of an outbound connection. Returns the outcome if there is one now.
    fn look_up(&mut self, attempt: Attempt<F::Protocol>) -> Option<Resolved<F::Protocol>> {
        if self.shutdown.has_begun() {
            return Some((attempt, Ok(Vec::new())));
        }
        if self.model.as_ref().is_some_and(|model| model.forks()) {
            let problem = "a server that forks cannot look names up, which takes a thread";
            let error = io::Error::new(io::ErrorKind::Unsupported, problem);
            return Some((attempt, Err(error)));
        }
        let waker = self.env.mailbox.waker(WAKER);
        self.postponed.look_up(attempt, &mut self.net, waker)
    }

    fn take_resolved(&mut self) -> Vec<Resolved<F::Protocol>> {
        let (now, ends) = (self.env.clock.tick(), self.shutdown.has_begun());
        self.postponed.take_resolved(&mut self.net, |attempt| {
            let ticket = attempt.connect.ticket.as_ref();
            let is_late = attempt.until.is_some_and(|until| until <= now);
            ends || is_late || ticket.is_some_and(Ticket::is_cancelled)
        })
    }

    /// Returns the connection with the addresses that were found, or tells its protocol why there are
    /// none.
    fn found(
        &mut self,
        mut attempt: Attempt<F::Protocol>,
        outcome: io::Result<Vec<Address>>,
    ) -> Option<Attempt<F::Protocol>> {
        let now = self.env.clock.tick();
        let reason = match outcome {
            _ if self.shutdown.has_begun() => CloseReason::Shutdown,
            Ok(_) if attempt.until.is_some_and(|until| until <= now) => {
                CloseReason::TimedOut(Deadline::Connect)
            }
            Ok(addresses) => {
                attempt.connect.to = addresses.into();
                return Some(attempt);
            }
            Err(error) => CloseReason::ConnectFailed(error),
        };
        self.lend().0.refuse_connect(attempt.connect, reason);
        None
    }
}
