//! Waiting for events: advances the clock, announces events, and checks how the loop behaved.

use std::mem;
use std::time::Duration;

use crate::net::Event;
use crate::testing::simulation::ledger::Justification;
use crate::testing::simulation::network::Network;
use crate::testing::simulation::network::action::Action;

/// How often in a row a loop may poll without waiting, receiving events or doing anything.
const IDLE_TURNS_MOST: u32 = 10;

/// How long events may be delayed in total before that excuses a missed deadline.
const HELD_UP_MOST: Duration = Duration::from_secs(1);

/// How long protocols may compute in total before that excuses a missed deadline.
const COMPUTED_MOST: Duration = Duration::from_secs(5);

/// How late a protocol's deadline may be handled. A deadline that did not move repeats after this
/// time.
const LATE_MOST: Duration = Duration::from_millis(2);

/// The most bytes of a layer's end mark.
const END_MARK_MOST: usize = 64;

/// What the loop did since the last wait began.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// A call moved something or was made to fail, the wait took time, or events came.
    pub(super) has_moved: bool,
    pub(super) has_waited: bool,
    had_events: bool,
    pub(super) accepts: usize,
    /// Bytes read and written, by wire.
    read: Vec<(usize, usize)>,
    written: Vec<(usize, usize)>,
    idle_turns: u32,
}

impl Progress {
    pub(super) fn note_read(&mut self, wire: usize, count: usize) {
        self.has_moved = true;
        add(&mut self.read, wire, count);
    }

    pub(super) fn note_written(&mut self, wire: usize, count: usize) {
        self.has_moved = true;
        add(&mut self.written, wire, count);
    }

    fn begin(&mut self, waits: bool) {
        let idle = !(waits || self.has_moved || self.has_waited || self.had_events);
        self.idle_turns = if idle { self.idle_turns + 1 } else { 0 };
        self.has_moved = false;
        self.has_waited = false;
        self.had_events = false;
        self.accepts = 0;
        self.read.clear();
        self.written.clear();
    }

    /// Begins a call of the blocking driver, which is as a turn is to the loop.
    pub(super) fn begin_call(&mut self) {
        let accepts = self.accepts;
        self.begin(false);
        self.accepts = accepts;
    }
}

fn add(counts: &mut Vec<(usize, usize)>, wire: usize, count: usize) {
    match counts.iter_mut().find(|(other, _)| *other == wire) {
        Some((_, sum)) => *sum += count,
        None => counts.push((wire, count)),
    }
}

impl Network {
    /// Runs the simulated world until there is an event, for at most `timeout`.
    pub(super) fn wait(&mut self, timeout: Option<Duration>) {
        self.check_turn();
        self.progress.begin(timeout != Some(Duration::ZERO));

        if self.random.chance(self.faults.interrupted_waits) {
            self.progress.had_events = true;
            return;
        }
        if self.random.chance(self.faults.clock_jumps) {
            self.jump();
        }
        let end = timeout.map(|timeout| self.elapsed.saturating_add(timeout));
        self.happen();
        while !self.has_news() && end.is_none_or(|end| self.elapsed < end) {
            let Some(next) = self.timeline.next().into_iter().chain(end).min() else {
                // Once all clients are done, the simulation decides what to do next.
                self.is_stalled = !self.is_over() || mem::replace(&mut self.has_rested, true);
                return;
            };
            self.progress.has_waited = true;
            self.elapsed = self.elapsed.max(next);
            self.happen();
        }
    }

    /// Adds the time that protocols computed since the clock was last read.
    pub(super) fn absorb(&mut self) {
        let mut ledger = self.ledger.borrow_mut();
        let computed = mem::take(&mut ledger.computed);
        self.progress.has_moved |= mem::take(&mut ledger.has_told);
        self.elapsed += computed;
        ledger.now = self.elapsed;
        drop(ledger);

        self.progress.has_waited |= !computed.is_zero();
        self.computed += computed;
        if self.has_computed_long() && !computed.is_zero() {
            for wire in &self.wires {
                self.justification(wire.number, Justification::Slow);
            }
        }
    }

    /// Returns whether the protocols' own computing explains a delay.
    pub(super) fn has_computed_long(&self) -> bool {
        self.computed > COMPUTED_MOST
    }

    /// Objects if the loop is about to wait beyond a protocol's deadline.
    pub(super) fn check_wait(&self, timeout: Option<Duration>) {
        let mut ledger = self.ledger.borrow_mut();
        let Some(first) = ledger.deadlines.values().min() else {
            return;
        };

        let due = first.saturating_duration_since(self.origin);
        let latest = due.max(self.elapsed) + LATE_MOST;
        let end = timeout.map(|timeout| self.elapsed.saturating_add(timeout));

        if end.is_none_or(|end| end > latest) {
            let now = self.elapsed;
            let problem =
                format!("the loop waits for {timeout:?} at {now:?}, beyond a deadline at {due:?}");
            ledger.object(problem);
        }
    }

    pub(super) fn announce(&mut self, events: &mut Vec<Event>) {
        let most = if self.random.chance(self.faults.small_batches) {
            self.random.between(1, 2)
        } else {
            usize::MAX
        };

        self.shutdown_news = false;
        self.announce_wires(events, most);
        self.announce_others(events);
        self.invent(events);
        self.progress.had_events |= !events.is_empty();
    }

    /// Marks a wire as changed, which causes an edge-triggered event.
    pub(super) fn change(&mut self, wire: usize) {
        let it = &mut self.wires[wire];
        if it.token.is_some() && !it.is_closed && !mem::replace(&mut it.is_changed, true) {
            self.changed.push(wire);
        }
    }

    /// Delays an event. A client that is delayed for long in total may miss a deadline.
    pub(super) fn announce_later(&mut self, wire: usize, by: Duration) {
        self.timeline
            .plan(self.elapsed + by, Action::Announce(wire));
        self.hold_up(wire, by);
    }

    pub(super) fn hold_up(&mut self, wire: usize, by: Duration) {
        let it = &mut self.wires[wire];
        it.held_up += by;
        if it.held_up > HELD_UP_MOST {
            self.justification(self.wires[wire].number, Justification::Slow);
        }
    }

    fn has_news(&self) -> bool {
        !self.changed.is_empty()
            || self
                .listener
                .as_ref()
                .is_some_and(|listener| listener.is_changed)
            || self.datagram_queue.is_changed()
            || self.outbound.is_changed()
            || self.bell.is_set()
            || self.shutdown_news
            || self
                .watched
                .as_ref()
                .is_some_and(|(handle, _)| handle.requests() > 0)
    }

    /// Jumps the clock, as if the process had been stopped while the world went on.
    pub(super) fn jump(&mut self) {
        self.elapsed += Duration::from_millis(self.random.below(100_000) as u64);
        self.progress.has_waited = true;
        for wire in self.wires.iter().filter(|wire| !wire.is_closed) {
            self.justification(wire.number, Justification::Jump);
        }
        self.outbound.excuse();
    }

    fn announce_wires(&mut self, events: &mut Vec<Event>, most: usize) {
        let mut changed = mem::take(&mut self.changed);
        if self.random.chance(self.faults.shuffled_events) {
            for last in (1..changed.len()).rev() {
                changed.swap(last, self.random.below(last + 1));
            }
        }

        for wire in changed {
            if events.len() >= most {
                self.changed.push(wire);
                continue;
            }
            self.wires[wire].is_changed = false;
            if self.random.chance(self.faults.delayed_events) {
                let latency = self.latency(wire);
                self.announce_later(wire, latency);
                continue;
            }
            self.announce_wire(wire, events);
        }
    }

    fn announce_wire(&mut self, wire: usize, events: &mut Vec<Event>) {
        let it = &self.wires[wire];
        let Some(token) = it.token.filter(|_| !it.is_closed && it.has_news()) else {
            return;
        };
        events.push(it.event(token));
        if self.random.chance(self.faults.duplicate_events) {
            events.push(self.wires[wire].event(token));
        }
    }

    fn announce_others(&mut self, events: &mut Vec<Event>) {
        if self.bell.take() {
            events.push(readable(self.bell_token));
        }
        if let Some((_, token)) = self.watched.take_if(|(handle, _)| handle.requests() > 0) {
            events.push(readable(token));
        }

        let delayed = self.faults.delayed_events;
        let later = self.elapsed + Duration::from_micros(self.random.below(50_000) as u64);
        if let Some(listener) = self
            .listener
            .as_mut()
            .filter(|listener| listener.is_changed)
        {
            listener.is_changed = false;
            if self.random.chance(delayed) {
                self.timeline.plan(later, Action::AnnounceDoor);
            } else {
                events.push(readable(listener.token));
            }
        }

        self.announce_outbound(later, events);
        if let Some(token) = self.datagram_queue.take_change() {
            let error = self.datagram_queue.has_reports();
            events.push(Event {
                error,
                ..readable(token)
            });
        }
    }

    /// Adds events that have no cause.
    fn invent(&mut self, events: &mut Vec<Event>) {
        if self.random.chance(self.faults.spurious_events) && !self.wires.is_empty() {
            let it = &self.wires[self.random.below(self.wires.len())];
            if let Some(token) = it.token.filter(|_| !it.is_closed) {
                events.push(Event {
                    writable: self.random.below(2) == 0,
                    ..readable(token)
                });
            }
        }

        if self.random.chance(self.faults.stale_events) && !self.gone.is_empty() {
            let token = self.random.pick(&self.gone);
            events.push(Event {
                token,
                readable: true,
                writable: true,
                closed: true,
                error: true,
            });
        }
    }

    /// Objects if the loop exceeded its budgets or spins.
    pub(super) fn check_turn(&self) {
        // A connection that is ended has one attempt to send its layer's end mark, on top of its budget.
        let mark = self.far_ends.as_ref().map_or(0, |_| END_MARK_MOST);
        let mut ledger = self.ledger.borrow_mut();
        let problem = {
            let config = &ledger.config;
            let over = |counts: &[(usize, usize)], most| counts.iter().any(|(_, sum)| *sum > most);
            if self.progress.idle_turns > IDLE_TURNS_MOST {
                "the loop spins: it neither waits nor moves anything"
            } else if over(&self.progress.read, config.read_per_turn) {
                "more than read_per_turn was read in one turn"
            } else if over(&self.progress.written, config.write_per_turn + mark) {
                "more than write_per_turn was written in one turn"
            } else if self.progress.accepts > config.accepts_per_turn && !ledger.may_close {
                "more than accepts_per_turn were accepted in one turn"
            } else {
                return;
            }
        };

        ledger.object(problem.to_owned());
    }
}

fn readable(token: usize) -> Event {
    Event {
        token,
        readable: true,
        ..Event::default()
    }
}
