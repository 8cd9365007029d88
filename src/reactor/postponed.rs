//! Outbound connections that cannot begin yet: the names of their hosts are being looked up, or the
//! queue of a Unix socket is full, and no event announces room in it.

use std::time::Duration;
use std::{io, mem};

use crate::address::{Address, interleaved};
use crate::net::Net;
use crate::service::{Job, Offload};
use crate::session::{Connect, Tick};
use crate::waker::Waker;

/// How soon to try again.
const AGAIN: Duration = Duration::from_millis(10);

/// One connection to be opened, and how long it may be tried.
pub(super) struct Attempt<P> {
    pub(super) connect: Connect<P>,
    pub(super) until: Option<Tick>,
}

/// A connection whose host is looked up. The network is asked in each turn if there is no job.
struct Lookup<P> {
    attempt: Attempt<P>,
    job: Option<Job<io::Result<Vec<Address>>>>,
}

/// The connections that are waiting.
pub(super) struct Postponed<P> {
    attempts: Vec<Attempt<P>>,
    /// When to try again, if there are any.
    again: Tick,
    lookups: Vec<Lookup<P>>,
    /// The threads that look names up. They begin with the first name.
    pool: Option<Offload>,
}

impl<P> Postponed<P> {
    pub(super) fn new() -> Self {
        Self {
            attempts: Vec::new(),
            again: Tick::ZERO,
            lookups: Vec::new(),
            pool: None,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.attempts.is_empty() && self.lookups.is_empty()
    }

    pub(super) fn is_due(&self, now: Tick) -> bool {
        !self.lookups.is_empty() || self.again <= now
    }

    /// Returns when to try again.
    pub(super) fn deadline(&self) -> Option<Tick> {
        let again = (!self.attempts.is_empty()).then_some(self.again);
        let ends = self.lookups.iter().filter_map(|it| it.attempt.until);
        ends.chain(again).min()
    }

    pub(super) fn push(&mut self, attempt: Attempt<P>, now: Tick) {
        self.attempts.push(attempt);
        self.again = now.after(AGAIN);
    }

    /// Takes the connections that can be tried now, in the order in which they were requested.
    pub(super) fn take(&mut self) -> Vec<Attempt<P>> {
        mem::take(&mut self.attempts)
    }

    /// Begins to look up the name that `attempt` has instead of addresses. Returns the attempt with the
    /// outcome if there is one already.
    pub(super) fn look_up<N: Net>(
        &mut self,
        attempt: Attempt<P>,
        net: &mut N,
        waker: Waker,
    ) -> Option<Resolved<P>> {
        let name = attempt.connect.to.name().unwrap_or_default().to_owned();
        let job = match net.lookup(&name) {
            Some(outcome) if is_pending(&outcome) => None,
            Some(outcome) => return Some((attempt, outcome)),
            None => {
                let pool = self.pool.get_or_insert_default();
                match pool.submit(waker.clone(), move || Address::resolve(&name)) {
                    Ok(job) => Some(job),
                    Err(rejected) => {
                        let problem = format!("{}: {}", attempt.connect.to, rejected.reason());
                        return Some((attempt, Err(io::Error::other(problem))));
                    }
                }
            }
        };

        let ticket = attempt.connect.ticket.as_ref();
        ticket.inspect(|ticket| ticket.set_waker(waker));
        self.lookups.push(Lookup { attempt, job });
        None
    }

    /// Takes the connections whose lookup is over, or that need none any more because `is_over`.
    pub(super) fn take_resolved<N: Net>(
        &mut self,
        net: &mut N,
        is_over: impl Fn(&Attempt<P>) -> bool,
    ) -> Vec<Resolved<P>> {
        let mut resolved = Vec::new();
        for mut lookup in mem::take(&mut self.lookups) {
            match lookup.outcome(net) {
                Some(outcome) => resolved.push((lookup.attempt, outcome)),
                None if is_over(&lookup.attempt) => resolved.push((lookup.attempt, Ok(Vec::new()))),
                None => self.lookups.push(lookup),
            }
        }
        resolved
    }
}

/// A connection, and the addresses of its host.
pub(super) type Resolved<P> = (Attempt<P>, io::Result<Vec<Address>>);

impl<P> Lookup<P> {
    fn outcome<N: Net>(&mut self, net: &mut N) -> Option<io::Result<Vec<Address>>> {
        let Some(job) = &mut self.job else {
            let name = self.attempt.connect.to.name().unwrap_or_default();
            return net.lookup(name).filter(|outcome| !is_pending(outcome));
        };
        let found = job
            .take()?
            .unwrap_or_else(|error| Err(io::Error::other(error)));
        Some(found.map(interleaved))
    }
}

fn is_pending(outcome: &io::Result<Vec<Address>>) -> bool {
    let error = outcome.as_ref().err();
    error.is_some_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}
