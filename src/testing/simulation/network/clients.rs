//! The simulated clients, and the segments that travel between them and the server.

use std::rc::Rc;
use std::time::Duration;

use crate::address::Address;
use crate::testing::simulation::exchange::Exchange;
use crate::testing::simulation::ledger::{ConnectionRecord, Justification};
use crate::testing::simulation::network::Network;
use crate::testing::simulation::network::action::Action;
use crate::testing::simulation::wire::{Broken, Habits, Segment, Standing, Wire};
use crate::testing::simulation::within::Side;

/// How soon a loop must notice a reset. It may first have to read a thousand bytes one by one.
const NOTICED_WITHIN: Duration = Duration::from_secs(10);

impl Network {
    /// Adds a client that connects soon after the start.
    pub(in crate::testing::simulation) fn add_client(
        &mut self,
        address: Address,
        exchange: &Rc<Exchange>,
    ) {
        let is_unix = matches!(address, Address::Unix(_));
        let account = ConnectionRecord::new(address, Rc::clone(exchange));
        let wire = self.add_wire(account, Standing::Stands, Side::Client);
        self.wires[wire].is_inbound = true;
        self.wires[wire].has_gaps = is_unix;

        let at = Duration::from_micros(self.random.below(200_000) as u64);
        self.timeline.plan(at, Action::Begin(wire));
    }

    /// Adds a remote peer that the server can connect to any number of times.
    pub(in crate::testing::simulation) fn add_remote(
        &mut self,
        address: Address,
        exchange: &Rc<Exchange>,
    ) {
        self.remotes.push((address, Rc::clone(exchange)));
    }

    pub(in crate::testing::simulation) fn limit_descriptors(&mut self, most: usize) {
        self.descriptors = most;
    }

    /// Returns whether every client is done with the server.
    pub(in crate::testing::simulation) fn is_over(&self) -> bool {
        let timed_out = &self.ledger.borrow().timed_out;
        let has_deadline = self.ledger.borrow().config.limits.idle_timeout.is_some();
        self.wires.iter().all(|wire| wire.is_done)
            && self.datagram_queue.is_over(timed_out)
            && self.outbound.is_over(has_deadline)
    }

    pub(super) fn add_wire(
        &mut self,
        mut account: ConnectionRecord,
        standing: Standing,
        side: Side,
    ) -> usize {
        let exchange = Rc::clone(&account.exchange);
        let far = self.make_far(&mut account, side);
        let expects = exchange.expects.len();
        let shortest = self.ledger.borrow().shortest_deadline();
        let mut habits = match &far {
            None => {
                let sizes = (account.sends().len(), expects);
                Habits::of(&self.faults, sizes, shortest, &mut self.random)
            }
            Some(_) => {
                let sizes = (exchange.sends.len(), expects);
                Habits::in_layer(&self.faults, sizes, shortest, &mut self.random)
            }
        };
        habits.in_turns |= exchange.in_turns;
        habits.ends_first = (habits.ends_first || exchange.ends_first) && !exchange.stays;
        habits.in_turns &= !exchange.ends_first;

        let is_slow = habits.is_slow;
        let number = self.ledger.borrow_mut().open(account);
        if is_slow {
            self.justification(number, Justification::Slow);
        }
        self.wires.push(Wire {
            far,
            ..Wire::new(number, habits, standing)
        });
        self.wires.len() - 1
    }

    /// Runs all actions that are due.
    pub(super) fn happen(&mut self) {
        while let Some(action) = self.timeline.pop(self.elapsed) {
            self.act(action);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Begin(wire) => self.begin(wire),
            Action::Send(wire) => self.client_sends(wire),
            Action::Take(wire) => self.client_takes(wire),
            Action::ToServer(wire, segment) => self.reach_server(wire, segment),
            Action::ToClient(wire, segment) => self.reach_client(wire, segment),
            Action::Stand(wire) => self.settle(wire, Standing::Stands),
            Action::Refuse(wire) => self.settle(wire, Standing::Refused),
            Action::Announce(wire) => self.change(wire),
            Action::AnnounceDoor => {
                if let Some(listener) = &mut self.listener {
                    listener.is_changed = true;
                }
            }
            Action::AnnouncePost => self.datagram_queue.announce(),
            Action::Packet(number) => {
                let lost = self.random.chance(self.faults.lost_datagrams);
                self.datagram_queue.deliver(number, lost);
                // Once before the server can have answered, and once after.
                self.perhaps_report(number);
                self.perhaps_report(number);
            }
            Action::Unreachable(number, reason) => self.datagram_queue.report(number, reason),
            Action::OutboundUnreachable(number, reason) => self.outbound.report(number, reason),
            Action::AnnounceOutbound(number) => self.outbound.announce(number),
            Action::OutboundRoom(number) => self.outbound.announce_room(number),
            Action::Flight(number) => self.land(number),
            Action::Shutdown => self.request_shutdown(),
        }
    }

    fn begin(&mut self, wire: usize) {
        let Some(listener) = &mut self.listener else {
            self.justification(self.wires[wire].number, Justification::Shutdown);
            self.wires[wire].is_done = true;
            return;
        };
        listener.backlog.push_back(wire);
        listener.is_changed = true;
        self.client_sends(wire);
    }

    fn settle(&mut self, wire: usize, standing: Standing) {
        self.wires[wire].standing = standing;
        self.change(wire);
        if standing == Standing::Stands {
            self.client_sends(wire);
        } else {
            self.wires[wire].is_done = true;
        }
    }

    fn client_sends(&mut self, wire: usize) {
        if self.wires[wire].is_done || self.misbehaves(wire) {
            return;
        }

        if self.wires[wire].far.is_some() && self.wires[wire].up.ended {
            return;
        }
        self.client_says(wire);
        let it = &mut self.wires[wire];
        let ledger = self.ledger.borrow();
        let account = &ledger.accounts[it.number];
        let may = match &account.layered {
            Some(layered) => layered.sends.len(),
            None => {
                let exchange = &account.exchange;
                exchange.may_send(account.received, it.habits.in_turns)
            }
        };
        let most = (may - it.up.sent).min(it.up.room()).min(it.habits.chunk);
        let is_all = it.has_sent_all(account);
        // The reply that it waits for will not come.
        let is_stuck = it.is_half_closed && it.up.sent == may && !is_all;
        drop(ledger);

        it.sender_waits = most == 0;
        if most > 0 {
            it.up.sent += self.random.between(1, most);
            let (sent, gap) = (it.up.sent, it.habits.send_gap);
            self.send_up(wire, Segment::Bytes(sent));
            let at = self.elapsed + self.part_of(gap);
            self.timeline.plan(at, Action::Send(wire));
        } else if is_all {
            self.client_ends(wire);
        } else if is_stuck {
            self.leave(wire);
        }
    }

    /// Closes the client's side once everything is sent, and everything received if the client
    /// waits for that.
    fn client_ends(&mut self, wire: usize) {
        let it = &mut self.wires[wire];
        let ledger = self.ledger.borrow();
        let account = &ledger.accounts[it.number];
        let is_all = it.has_sent_all(account);
        let has_all = account.received >= account.exchange.expects.len();
        let has_all = has_all && !account.exchange.ends_last;
        drop(ledger);

        let may_end = it.habits.ends_first || has_all || it.is_half_closed;
        let ends = is_all && !it.up.ended && may_end;
        if ends && self.has_finished(wire) {
            self.end_up(wire);
        }
    }

    fn client_takes(&mut self, wire: usize) {
        let it = &mut self.wires[wire];
        it.taker_planned = false;
        if it.is_done || self.misbehaves(wire) {
            return;
        }

        let it = &mut self.wires[wire];
        let most = it.down.waiting().min(it.habits.bite);
        if most > 0 {
            let count = self.random.between(1, most);
            it.down.taken += count;
            self.client_hears(wire, count);
            let it = &mut self.wires[wire];
            if std::mem::take(&mut it.is_starved) {
                self.change(wire);
            }
        }

        let it = &mut self.wires[wire];
        if it.down.waiting() > 0 {
            self.plan_take(wire);
        } else if it.down.end_arrived && !it.is_half_closed {
            self.client_hears(wire, 0);
            self.hear_end(wire);
        }

        self.client_ends(wire);
        self.encourage_sender(wire);
    }

    /// Ends the connection of a client that has seen the end of the stream, unless it goes on sending.
    fn hear_end(&mut self, wire: usize) {
        let it = &mut self.wires[wire];
        let ledger = self.ledger.borrow();
        let account = &ledger.accounts[it.number];
        let goes_on = account.exchange.is_relayed && !it.up.ended && it.may_say_more(account);
        drop(ledger);

        if goes_on {
            it.is_half_closed = true;
        } else {
            self.leave(wire);
        }
    }

    /// Closes the side of a client that sends no more.
    fn leave(&mut self, wire: usize) {
        self.wires[wire].is_done = true;
        if !self.wires[wire].up.ended {
            self.excuse_truncation(wire);
            self.end_up(wire);
        }
    }

    /// Ends the client's side of the stream.
    pub(super) fn end_up(&mut self, wire: usize) {
        let it = &mut self.wires[wire];
        it.up.ended = true;
        it.is_done |= it.is_half_closed;
        self.send_up(wire, Segment::End);
    }

    /// Returns whether the client resets its connection or vanishes now. It may also end its stream
    /// in the middle, and then only takes what the server sends.
    fn misbehaves(&mut self, wire: usize) -> bool {
        let it = &mut self.wires[wire];
        let moved = it.up.sent + it.down.taken;
        let number = it.number;

        if it.habits.resets_at.is_some_and(|at| moved >= at) {
            it.is_done = true;
            self.justification(number, Justification::Reset);
            let at = self.elapsed + self.latency(wire);
            self.timeline
                .plan(at, Action::ToServer(wire, Segment::Reset));
            return true;
        }

        if it.habits.vanishes_at.is_some_and(|at| moved >= at) {
            it.is_done = true;
            self.justification(number, Justification::Vanished);
            return true;
        }
        self.truncates(wire);
        false
    }

    /// Schedules the next send of a client that was waiting for room or a reply.
    pub(super) fn encourage_sender(&mut self, wire: usize) {
        let it = &mut self.wires[wire];
        if std::mem::take(&mut it.sender_waits) {
            let gap = it.habits.send_gap;
            let at = self.elapsed + self.part_of(gap);
            self.timeline.plan(at, Action::Send(wire));
        }
    }

    fn plan_take(&mut self, wire: usize) {
        let it = &mut self.wires[wire];
        if !std::mem::replace(&mut it.taker_planned, true) {
            let gap = it.habits.take_gap;
            let at = self.elapsed + self.part_of(gap);
            self.timeline.plan(at, Action::Take(wire));
        }
    }

    fn part_of(&mut self, most: Duration) -> Duration {
        let most = usize::try_from(most.as_micros()).unwrap_or(usize::MAX - 1);
        Duration::from_micros(self.random.below(most + 1) as u64)
    }

    fn send_up(&mut self, wire: usize, segment: Segment) {
        let at = self.elapsed + self.latency(wire);
        let flow = &mut self.wires[wire].up;
        flow.horizon = flow.horizon.max(at);
        self.timeline
            .plan(flow.horizon, Action::ToServer(wire, segment));
    }

    fn reach_server(&mut self, wire: usize, segment: Segment) {
        let it = &mut self.wires[wire];

        match segment {
            Segment::Bytes(count) => it.up.arrived = it.up.arrived.max(count),
            Segment::End => it.up.end_arrived = true,
            Segment::Reset => {
                it.broken = Broken::Untold;
                it.broken_since = self.elapsed;
                if self.random.below(2) == 0 {
                    it.up.arrived = it.up.taken;
                }
            }
        }

        let it = &mut self.wires[wire];
        if it.is_closed && matches!(segment, Segment::Bytes(_)) && it.broken == Broken::No {
            self.cut(wire);
        }

        self.change(wire);
    }

    fn reach_client(&mut self, wire: usize, segment: Segment) {
        let it = &mut self.wires[wire];

        match segment {
            Segment::Reset => it.is_done = true,
            _ if it.is_cut => {}
            Segment::Bytes(count) => {
                it.down.arrived = count;
                self.plan_take(wire);
            }
            Segment::End => {
                it.down.end_arrived = true;
                self.plan_take(wire);
            }
        }
    }

    /// Resets the connection. The client loses what is in flight, and what it has not taken when
    /// the reset arrives.
    pub(super) fn cut(&mut self, wire: usize) {
        if !std::mem::replace(&mut self.wires[wire].is_cut, true) {
            let at = self.elapsed + self.latency(wire);
            self.timeline
                .plan(at, Action::ToClient(wire, Segment::Reset));
        }
    }

    /// Closes the server's side, after everything that was written.
    pub(super) fn end_down(&mut self, wire: usize) {
        if !std::mem::replace(&mut self.wires[wire].down.ended, true) {
            self.progress.has_moved = true;
            self.send_down(wire, Segment::End);
        }
    }

    pub(super) fn close_wire(&mut self, wire: usize, abort: bool) {
        self.open -= 1;
        self.progress.has_moved = true;
        self.note(8, wire);
        self.check_prompt(wire);
        let it = &mut self.wires[wire];

        it.is_closed = true;
        match it.token {
            Some(token) => self.gone.push(token),
            None if it.is_blocking => {}
            None => {
                self.refused += u64::from(it.is_inbound);
                let number = it.number;
                self.justification(number, Justification::Refused);
            }
        }

        let it = &self.wires[wire];
        match it.standing {
            Standing::Stands if it.broken != Broken::No => {}
            Standing::Stands if abort || it.up.waiting() > 0 => self.cut(wire),
            Standing::Stands => self.end_down(wire),
            Standing::Waits | Standing::Refused => self.wires[wire].is_done = true,
        }
    }

    /// Objects if the loop took too long to notice a reset.
    fn check_prompt(&self, wire: usize) {
        let it = &self.wires[wire];
        let took = self.elapsed - it.broken_since;
        let is_prompt = took < NOTICED_WITHIN || self.has_computed_long();
        let is_served = it.token.is_some() || it.is_blocking;
        if it.broken == Broken::No || !is_served || is_prompt {
            return;
        }

        let mut ledger = self.ledger.borrow_mut();
        if !ledger.accounts[it.number]
            .justifications
            .contains(&Justification::Jump)
        {
            ledger.object_to(
                it.number,
                "its reset was noticed after more than ten seconds",
            );
        }
    }

    /// Stops listening. Clients that wait to be accepted are reset.
    pub(super) fn close_door(&mut self) {
        let Some(listener) = self.listener.take() else {
            return;
        };

        for wire in listener.backlog {
            self.wires[wire].is_closed = true;
            self.cut(wire);
        }

        let mut ledger = self.ledger.borrow_mut();
        if !ledger.may_close {
            ledger.object("the listener was closed though nothing was wrong with it".to_owned());
        }

        for wire in self.wires.iter().filter(|wire| !wire.is_done) {
            ledger.accounts[wire.number].justification(Justification::Shutdown);
        }
    }
}
