//! What a loop does for a monitor: it counts its turns, and answers at its desk.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::net::Net;
use crate::reactor::Reactor;
use crate::service::monitor::{Desk, Histogram, Pass, Snapshot, Stage};
use crate::session::Factory;

/// How often a loop publishes what it counts. It turns at least so often to measure its lag.
const HEARTBEAT: Duration = Duration::from_millis(250);

/// How many connections are listed between two turns: more if the turns are long, so that a list adds no more
/// than about as much again, and never lasts for very many turns. The fewest delay a message by some 40 us.
const SLICE: RangeInclusive<usize> = 25..=1_000;

/// More than it takes to list a connection, in nanoseconds, or a slice would make the next one longer.
const LISTED_IN: usize = 2_000;

/// The loop's side of a monitor.
pub(super) struct Monitored {
    desk: Arc<Desk>,
    loop_lag: Histogram,
    turn_time: Histogram,
    /// How long the last turn took.
    last_turn: Duration,
    /// When the next heartbeat is.
    due: Instant,
    pass: Option<Pass>,
}

impl Monitored {
    pub(super) fn new(desk: Arc<Desk>, now: Instant) -> Box<Self> {
        Box::new(Self {
            desk,
            loop_lag: Histogram::default(),
            turn_time: Histogram::default(),
            last_turn: Duration::ZERO,
            due: now,
            pass: None,
        })
    }

    /// Returns how many connections to list before the next turn.
    fn slice(&self) -> usize {
        let most = usize::try_from(self.last_turn.as_nanos()).unwrap_or(usize::MAX) / LISTED_IN;
        most.clamp(*SLICE.start(), *SLICE.end())
    }
}

impl<F: Factory, N: Net> Reactor<F, N> {
    /// Lets the loop answer at `desk`.
    pub(crate) fn set_desk(&mut self, desk: Arc<Desk>) {
        self.env.desk = Some(Arc::clone(&desk));
        self.monitored = Some(Monitored::new(desk, self.net.now()));
        // Every turn is looked at more closely.
        self.most = 0;
    }

    /// Publishes that the loop begins, and sets the first heartbeat.
    #[cold]
    pub(super) fn begin_monitored(&mut self) {
        let now = self.env.clock.now();
        if let Some(monitored) = &mut self.monitored {
            monitored.due = now + HEARTBEAT;
        }
        self.publish();
        self.await_heartbeat();
    }

    /// Counts a turn that took so long. After a heartbeat, publishes what the loop counts.
    pub(super) fn count_turn(&mut self, took: Duration) {
        let now = self.env.clock.now();
        let Some(monitored) = &mut self.monitored else {
            return;
        };
        monitored.turn_time.record(took);
        monitored.last_turn = took;
        let is_due = now >= monitored.due;
        if is_due {
            let late = now.saturating_duration_since(monitored.due);
            monitored.loop_lag.record(late);
            monitored.due = now + HEARTBEAT;
            self.publish();
        }
        self.await_heartbeat();
    }

    /// Asks for a turn at the next heartbeat, as a factory asks to be called again.
    fn await_heartbeat(&mut self) {
        let due = self.monitored.iter().map(|monitored| monitored.due);
        let again = &mut self.requests.again;
        *again = again.iter().copied().chain(due).min();
    }

    fn publish(&self) {
        let part = self.part();
        if let Some(monitored) = &self.monitored {
            monitored.desk.publish(part, self.env.clock.now());
        }
    }

    /// Answers what callers have asked for, at most one slice of a list at a time.
    #[cold]
    pub(super) fn answer_monitors(&mut self) {
        let Some(monitored) = &self.monitored else {
            return;
        };
        let (is_asked, pass) = monitored.desk.requests(monitored.pass.is_some());
        let most = monitored.slice();
        if is_asked {
            self.publish();
        }

        let running = self.monitored.as_mut().and_then(|it| it.pass.take());
        let Some(mut pass) = running.or(pass) else {
            return;
        };
        let is_over = self.list_slice(&mut pass, most);
        let now = self.env.clock.now();
        if let Some(monitored) = &mut self.monitored {
            if is_over {
                monitored.desk.finish(pass, now);
            } else {
                monitored.pass = Some(pass);
                monitored.desk.note_slice();
            }
        }
    }

    /// Lists the next connections, at most `most`. Returns whether those were the last.
    fn list_slice(&mut self, pass: &mut Pass, most: usize) -> bool {
        let (mut admission, _) = self.lend();
        let is_over = match pass.stage {
            Stage::Streams => admission.connections.visit(pass, most, &mut admission.hub),
            Stage::Datagrams => admission.sessions.visit(pass, most, &mut admission.hub),
            Stage::Model => {
                let now = self.env.clock.now();
                let model = self.model.as_mut();
                return model.is_none_or(|model| model.visit(pass, most, now));
            }
        };
        if is_over {
            pass.cursor = 0;
            pass.stage = match pass.stage {
                Stage::Streams if !self.sessions.is_empty() => Stage::Datagrams,
                _ => Stage::Model,
            };
        }
        is_over && pass.stage == Stage::Model && self.list_slice(pass, most)
    }

    /// Returns what the loop counts now, all at one moment.
    fn part(&self) -> Snapshot {
        let (loop_lag, turn_time) = match &self.monitored {
            Some(monitored) => (monitored.loop_lag, monitored.turn_time),
            None => Default::default(),
        };
        let mut part = Snapshot {
            statistics: self.effects.statistics,
            open: self.effects.live,
            buffered: self.buffered(),
            listeners: self.listeners.addresses().count(),
            loop_lag,
            turn_time,
            ..Snapshot::default()
        };
        if let Some(model) = &self.model {
            model.count(&mut part);
        }
        part
    }

    /// Publishes the last counts.
    pub(super) fn end_monitored(&mut self) {
        let part = self.part();
        if let Some(monitored) = self.monitored.take() {
            monitored.desk.close(part);
        }
    }
}
