//! One run of a simulation: drives the event loop from start to end and checks every turn.

use std::mem;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use crate::address::Address;
use crate::config::Config;
use crate::net::Net;
use crate::reactor::Reactor;
use crate::session::Factory;
use crate::testing::simulation::blocking::OneByOne;
use crate::testing::simulation::ledger::{ConnectionRecord, SharedLedger};
use crate::testing::simulation::network::Question;
use crate::testing::simulation::witnessed::Witnessed;
use crate::testing::simulation::{Network, Report};

/// Limits that no run comes near unless it never ends.
const TURNS_MOST: u64 = 5_000_000;
const TIME_MOST: Duration = Duration::from_secs(48 * 3_600);

/// A server under simulation.
pub(super) struct Run<F: Factory, N: Net> {
    reactor: Reactor<Witnessed<F>, N>,
    ledger: SharedLedger,
    turns: u64,
    most: usize,
    buffered_most: usize,
    is_ending: bool,
    /// A second request has ended everything at once.
    is_cut: bool,
}

impl<F: Factory, N: Net + AsMut<Network>> Run<F, N> {
    pub(super) fn begin(
        net: N,
        factory: Witnessed<F>,
        config: Config,
        ledger: SharedLedger,
        datagrams: &[Rc<Question>],
    ) -> Result<Self, String> {
        let most = config.max_connections;
        // The loop notices an excess only after one connection has caused it in one turn, so allow
        // that much more.
        let reply = config.limits.max_reply.min(config.max_buffered);
        let reply = reply.max(config.limits.max_output);
        let buffered_most = config.max_buffered + reply + config.limits.max_frame;

        let reactor = Reactor::with_net(net, factory, config);
        let mut reactor = reactor.map_err(|error| error.to_string())?;

        let at = SocketAddr::from((Ipv4Addr::new(10, 0, 0, 1), 9999));
        let mut addresses = vec![Address::Tcp(at)];
        addresses.extend((!datagrams.is_empty()).then_some(Address::Udp(at)));
        for address in addresses {
            reactor
                .listen(&address)
                .map_err(|error| error.to_string())?;
        }
        Ok(Self {
            reactor,
            ledger,
            turns: 0,
            most,
            buffered_most,
            is_ending: false,
            is_cut: false,
        })
    }

    /// Lets the blocking driver serve the connections.
    pub(super) fn blocking(mut self) -> Self {
        self.reactor.set_model(Box::new(OneByOne));
        self
    }

    /// Runs the server to its end and checks the outcome.
    pub(super) fn finish(mut self, shutdown_at: Option<u64>) -> Result<Report, String> {
        while !self.reactor.is_finished() {
            let network = self.reactor.net().as_mut();
            let (over, requests) = (network.is_over(), network.requests());
            let asked = requests > 0;
            // A server without clients begins by itself, in its first turn.
            let over = over && self.reactor.connections() == 0 && self.turns > 0;
            if !self.is_ending && (over || asked || shutdown_at.is_some_and(|at| at <= self.turns))
            {
                self.shutdown();
            }
            if requests > 1 && !mem::replace(&mut self.is_cut, true) {
                self.reactor.shutdown();
            }
            self.turn()?;
        }

        self.check_counters()?;
        self.ledger.borrow().judge()?;
        let dropped = self.reactor.statistics().datagrams_dropped;
        let network = self.reactor.net().as_mut();
        network.judge_datagrams(dropped)?;

        if network.open() > 0 {
            return Err(format!("{} sockets were not given back", network.open()));
        }

        let statistics = *self.reactor.statistics();
        let network = self.reactor.net().as_mut();
        Ok(Report {
            sessions: self.ledger.borrow().sessions,
            statistics,
            time: network.elapsed(),
            calls: network.calls().to_vec(),
            trace: network.trace(),
        })
    }

    fn shutdown(&mut self) {
        self.is_ending = true;
        let network = self.reactor.net().as_mut();
        if !network.is_shutdown() {
            network.request_shutdown();
        }
        self.reactor.shutdown();
    }

    fn turn(&mut self) -> Result<(), String> {
        self.reactor
            .turn(None)
            .map_err(|error| format!("the loop ended: {error}"))?;

        self.turns += 1;
        if let Some(problem) = &self.ledger.borrow().violation {
            return Err(problem.clone());
        }
        if self.reactor.connections() > self.most {
            return Err("more than max_connections are open".to_owned());
        }
        if self.reactor.buffered() > self.buffered_most {
            return Err("more than max_buffered is kept".to_owned());
        }

        self.check_account()?;

        let network = self.reactor.net().as_mut();
        let problem = if network.is_stalled() {
            "a stall: nothing is waited for"
        } else if self.turns > TURNS_MOST || network.elapsed() > TIME_MOST {
            "there is no end"
        } else {
            return Ok(());
        };
        Err(format!("{problem}{}", self.ledger.borrow().open_ones()))
    }

    /// Checks that the memory account of all connections equals what each has added and what each
    /// holds.
    fn check_account(&self) -> Result<(), String> {
        let (sum, added, held) = self.reactor.recount();
        let sum = sum + self.ledger.borrow().slipped;
        if sum != added || added != held {
            return Err(format!(
                "all connections are said to keep {sum} bytes: {added} were added for those that are open, which keep {held}"
            ));
        }
        Ok(())
    }

    fn check_counters(&mut self) -> Result<(), String> {
        let statistics = *self.reactor.statistics();
        let refused = self.reactor.net().as_mut().refused();
        let ledger = self.ledger.borrow();
        let sum = |count: fn(&ConnectionRecord) -> usize| {
            ledger.accounts.iter().map(count).sum::<usize>() as u64
        };

        let counted = statistics.refused_by_factory
            + statistics.refused_max_connections
            + statistics.refused_max_per_peer
            + statistics.refused_by_panic
            + statistics.refused_by_system
            + statistics.register_errors;
        for (what, counted, happened) in [
            ("bytes read", statistics.bytes_read, sum(|it| it.read)),
            (
                "bytes written",
                statistics.bytes_written,
                sum(|it| it.written),
            ),
            (
                "ends",
                statistics.closed(),
                statistics.accepted + statistics.connected,
            ),
            ("refusals", counted, refused),
            ("sessions", ledger.lost, ledger.sessions),
            (
                "sessions inside layers",
                ledger.lost_inside,
                ledger.sessions_inside,
            ),
        ] {
            if counted != happened {
                return Err(format!(
                    "{what}: {counted} were counted, {happened} happened"
                ));
            }
        }
        Ok(())
    }
}
