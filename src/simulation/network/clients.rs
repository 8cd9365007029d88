//! What the clients do, and what travels between them and the server.

use std::rc::Rc;
use std::time::Duration;

use crate::address::Address;
use crate::simulation::exchange::Exchange;
use crate::simulation::ledger::{Account, Excuse};
use crate::simulation::network::Network;
use crate::simulation::wire::{Broken, Habits, Parcel, Standing, Wire};

/// What happens in the world. The numbers are wires, or datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Deed {
    /// A client connects, sends some bytes, takes some.
    Begin(usize),
    Send(usize),
    Take(usize),
    ToServer(usize, Parcel),
    ToClient(usize, Parcel),
    /// An outbound connection stands, or is refused.
    Stand(usize),
    Refuse(usize),
    /// An event that was held back.
    Announce(usize),
    AnnounceDoor,
    AnnouncePost,
    Letter(usize),
}

/// How soon a loop notices that a connection was reset, though it may have to take a thousand bytes
/// one by one before.
const NOTICED_WITHIN: Duration = Duration::from_secs(10);

impl Network {
    /// A client that connects at some moment soon.
    pub(crate) fn add_client(&mut self, address: Address, exchange: &Rc<Exchange>) {
        let is_unix = matches!(address, Address::Unix(_));
        let account = Account::new(address, Rc::clone(exchange));
        let wire = self.add_wire(account, Standing::Stands);
        self.wires[wire].is_inbound = true;
        self.wires[wire].has_gaps = is_unix;
        let at = Duration::from_micros(self.random.below(200_000) as u64);
        self.timeline.plan(at, Deed::Begin(wire));
    }

    /// Somebody whom the server can connect to, any number of times.
    pub(crate) fn add_remote(&mut self, address: Address, exchange: &Rc<Exchange>) {
        self.remotes.push((address, Rc::clone(exchange)));
    }

    pub(crate) fn limit_descriptors(&mut self, most: usize) {
        self.descriptors = most;
    }

    /// Whether every client is through with the server.
    pub(crate) fn is_over(&self) -> bool {
        self.wires.iter().all(|wire| wire.is_done) && self.post.is_over()
    }

    pub(super) fn add_wire(&mut self, account: Account, standing: Standing) -> usize {
        let exchange = Rc::clone(&account.exchange);
        let (sends, expects) = (exchange.sends.len(), exchange.expects.len());
        let mut habits = Habits::of(&self.faults, sends, expects, &mut self.random);
        habits.in_turns |= exchange.in_turns;
        habits.ends_first = (habits.ends_first || exchange.ends_first) && !exchange.stays;
        habits.in_turns &= !exchange.ends_first;
        let is_slow = habits.is_slow;
        let number = self.ledger.borrow_mut().open(account);
        if is_slow {
            self.excuse(number, Excuse::Slow);
        }
        self.wires.push(Wire::new(number, habits, standing));
        self.wires.len() - 1
    }

    /// Lets everything happen whose moment has come.
    pub(super) fn happen(&mut self) {
        while let Some(deed) = self.timeline.pop(self.elapsed) {
            self.act(deed);
        }
    }

    fn act(&mut self, deed: Deed) {
        match deed {
            Deed::Begin(wire) => self.begin(wire),
            Deed::Send(wire) => self.client_sends(wire),
            Deed::Take(wire) => self.client_takes(wire),
            Deed::ToServer(wire, parcel) => self.reach_server(wire, parcel),
            Deed::ToClient(wire, parcel) => self.reach_client(wire, parcel),
            Deed::Stand(wire) => self.settle(wire, Standing::Stands),
            Deed::Refuse(wire) => self.settle(wire, Standing::Refused),
            Deed::Announce(wire) => self.change(wire),
            Deed::AnnounceDoor => {
                if let Some(door) = &mut self.door {
                    door.is_changed = true;
                }
            }
            Deed::AnnouncePost => self.post.announce(),
            Deed::Letter(number) => {
                let lost = self.random.chance(self.faults.lost_datagrams);
                self.post.deliver(number, lost);
            }
        }
    }

    fn begin(&mut self, wire: usize) {
        let Some(door) = &mut self.door else {
            self.excuse(self.wires[wire].number, Excuse::Shutdown);
            self.wires[wire].is_done = true;
            return;
        };
        door.backlog.push_back(wire);
        door.is_changed = true;
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
        let it = &mut self.wires[wire];
        let book = self.ledger.borrow();
        let account = &book.accounts[it.number];
        let may = account
            .exchange
            .may_send(account.received, it.habits.in_turns);
        let most = (may - it.up.sent).min(it.up.room()).min(it.habits.chunk);
        let is_all = it.up.sent == account.exchange.sends.len();
        drop(book);
        it.sender_waits = most == 0;
        if most > 0 {
            it.up.sent += self.random.between(1, most);
            let (sent, gap) = (it.up.sent, it.habits.send_gap);
            self.send_up(wire, Parcel::Bytes(sent));
            let at = self.elapsed + self.part_of(gap);
            self.timeline.plan(at, Deed::Send(wire));
        } else if is_all {
            self.client_ends(wire);
        }
    }

    /// The client ends its side once it has sent all, and has got all if it waits for that.
    fn client_ends(&mut self, wire: usize) {
        let it = &mut self.wires[wire];
        let book = self.ledger.borrow();
        let exchange = &book.accounts[it.number].exchange;
        let is_all = it.up.sent == exchange.sends.len();
        let has_all = it.down.taken >= exchange.expects.len();
        drop(book);
        if is_all && !it.up.ended && (it.habits.ends_first || has_all) {
            it.up.ended = true;
            self.send_up(wire, Parcel::End);
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
            self.ledger.borrow_mut().accounts[it.number].received += count;
            if std::mem::take(&mut it.is_starved) {
                self.change(wire);
            }
        }
        let it = &mut self.wires[wire];
        if it.down.waiting() > 0 {
            self.plan_take(wire);
        } else if it.down.end_arrived {
            it.is_done = true;
            self.excuse_late(wire);
        }
        self.client_ends(wire);
        self.encourage_sender(wire);
    }

    /// A client that has seen the end sends no more; a polite one ends its side too.
    fn excuse_late(&mut self, wire: usize) {
        if !self.wires[wire].up.ended {
            self.wires[wire].up.ended = true;
            self.send_up(wire, Parcel::End);
        }
    }

    /// Whether the client has reset its connection now, or vanished.
    fn misbehaves(&mut self, wire: usize) -> bool {
        let it = &mut self.wires[wire];
        let moved = it.up.sent + it.down.taken;
        let number = it.number;
        if it.habits.resets_at.is_some_and(|at| moved >= at) {
            it.is_done = true;
            self.excuse(number, Excuse::Reset);
            let at = self.elapsed + self.latency(wire);
            self.timeline.plan(at, Deed::ToServer(wire, Parcel::Reset));
            return true;
        }
        if it.habits.vanishes_at.is_some_and(|at| moved >= at) {
            it.is_done = true;
            self.excuse(number, Excuse::Vanished);
            return true;
        }
        false
    }

    /// Room or a reply has come for a client that waits for it.
    pub(super) fn encourage_sender(&mut self, wire: usize) {
        let it = &mut self.wires[wire];
        if std::mem::take(&mut it.sender_waits) {
            let gap = it.habits.send_gap;
            let at = self.elapsed + self.part_of(gap);
            self.timeline.plan(at, Deed::Send(wire));
        }
    }

    fn plan_take(&mut self, wire: usize) {
        let it = &mut self.wires[wire];
        if !std::mem::replace(&mut it.taker_planned, true) {
            let gap = it.habits.take_gap;
            let at = self.elapsed + self.part_of(gap);
            self.timeline.plan(at, Deed::Take(wire));
        }
    }

    fn part_of(&mut self, most: Duration) -> Duration {
        let most = usize::try_from(most.as_micros()).unwrap_or(usize::MAX - 1);
        Duration::from_micros(self.random.below(most + 1) as u64)
    }

    fn send_up(&mut self, wire: usize, parcel: Parcel) {
        let at = self.elapsed + self.latency(wire);
        let flow = &mut self.wires[wire].up;
        flow.horizon = flow.horizon.max(at);
        self.timeline
            .plan(flow.horizon, Deed::ToServer(wire, parcel));
    }

    fn reach_server(&mut self, wire: usize, parcel: Parcel) {
        let it = &mut self.wires[wire];
        match parcel {
            Parcel::Bytes(count) => it.up.arrived = it.up.arrived.max(count),
            Parcel::End => it.up.end_arrived = true,
            Parcel::Reset => {
                it.broken = Broken::Untold;
                it.broken_since = self.elapsed;
                if self.random.below(2) == 0 {
                    it.up.arrived = it.up.taken;
                }
            }
        }
        let it = &mut self.wires[wire];
        if it.is_closed && matches!(parcel, Parcel::Bytes(_)) && it.broken == Broken::No {
            self.cut(wire);
        }
        self.change(wire);
    }

    fn reach_client(&mut self, wire: usize, parcel: Parcel) {
        let it = &mut self.wires[wire];
        match parcel {
            Parcel::Reset => it.is_done = true,
            _ if it.is_cut => {}
            Parcel::Bytes(count) => {
                it.down.arrived = count;
                self.plan_take(wire);
            }
            Parcel::End => {
                it.down.end_arrived = true;
                self.plan_take(wire);
            }
        }
    }

    /// Resets the connection: what is under way to the client is lost, and what it has not taken when
    /// the reset arrives.
    pub(super) fn cut(&mut self, wire: usize) {
        if !std::mem::replace(&mut self.wires[wire].is_cut, true) {
            let at = self.elapsed + self.latency(wire);
            self.timeline.plan(at, Deed::ToClient(wire, Parcel::Reset));
        }
    }

    /// Ends the server's side, behind what was written.
    pub(super) fn end_down(&mut self, wire: usize) {
        if !std::mem::replace(&mut self.wires[wire].down.ended, true) {
            self.pulse.has_moved = true;
            self.send_down(wire, Parcel::End);
        }
    }

    pub(super) fn close_wire(&mut self, wire: usize, abort: bool) {
        self.open -= 1;
        self.pulse.has_moved = true;
        self.note(8, wire);
        self.check_prompt(wire);
        let it = &mut self.wires[wire];
        it.is_closed = true;
        match it.token {
            Some(token) => self.gone.push(token),
            None => {
                self.refused += u64::from(it.is_inbound);
                let number = it.number;
                self.excuse(number, Excuse::Refused);
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

    /// A connection that was reset does not stay.
    fn check_prompt(&self, wire: usize) {
        let it = &self.wires[wire];
        let took = self.elapsed - it.broken_since;
        let is_prompt = took < NOTICED_WITHIN || self.has_computed_long();
        if it.broken == Broken::No || it.token.is_none() || is_prompt {
            return;
        }
        let mut book = self.ledger.borrow_mut();
        if !book.accounts[it.number].excuses.contains(&Excuse::Jump) {
            book.object_to(
                it.number,
                "its reset was noticed after more than ten seconds",
            );
        }
    }

    /// Stops listening. Who waits to be accepted is reset.
    pub(super) fn close_door(&mut self) {
        let Some(door) = self.door.take() else {
            return;
        };
        for wire in door.backlog {
            self.wires[wire].is_closed = true;
            self.cut(wire);
        }
        let mut book = self.ledger.borrow_mut();
        if !book.may_close {
            book.object("the listener was closed though nothing was wrong with it".to_owned());
        }
        for wire in self.wires.iter().filter(|wire| !wire.is_done) {
            book.accounts[wire.number].excuse(Excuse::Shutdown);
        }
    }
}
