//! The table of a loop's connections: by token, by pending work, and by deadline.

mod direct;
mod leaving;
mod listed;
mod properties;
mod relief;
mod slots;
mod visited;

pub(super) use self::listed::Listed;

use std::mem;

use crate::address::{Peer, Talk};
use crate::net::{Event, Net};
use crate::reactor::connection::{Attempts, Connection, Delivery};
use crate::reactor::connections::relief::shed;
use crate::reactor::connections::slots::Slots;
use crate::reactor::hub::Hub;
use crate::reactor::readiness::{ENDED, Next};
use crate::reactor::timers::Timers;
use crate::reactor::token::{FIRST_OF_SESSIONS, FIRST_TOKEN, SLOT_BITS, SLOT_MASK};
use crate::session::{Context, Protocol, Session, Tick};
use crate::waker::{Wakers, Woken};

/// The most connections that can have a slot each. It matters only on 32-bit systems.
pub(crate) const CONNECTIONS_MOST: usize = FIRST_TOKEN - 1;

/// For how many connections to reserve places of deadlines at the start. Growing later would leave
/// smaller blocks behind.
const RESERVED: usize = 8 * 1024;

pub(super) struct Connections<S, P> {
    slots: Slots<Connection<S, P>>,
    /// How many bytes were freed that the allocator may still keep.
    freed: usize,
    timers: Timers,
    /// Tokens of connections that have work, and of those served in this turn.
    ready: Vec<usize>,
    running: Vec<usize>,
    /// Tokens of connections that something was posted to before this turn.
    posted: Vec<usize>,
    /// Tokens of connections that arrived in this turn.
    fresh: Vec<usize>,
    /// Slots to be freed at the end of the turn.
    ended: Vec<usize>,
    generation: usize,
    /// The number of the turn in which events had connections served at once, as far as it matters.
    turn: u16,
}

impl<S, P: Protocol> Connections<S, P> {
    /// Creates an empty table for up to `most` connections.
    pub(super) fn new(most: usize) -> Self {
        let reserved = most.min(RESERVED);

        Self {
            slots: Slots::new(),
            freed: 0,
            timers: Timers::with_capacity(reserved),
            ready: Vec::new(),
            running: Vec::new(),
            posted: Vec::new(),
            fresh: Vec::new(),
            ended: Vec::new(),
            generation: 0,
            turn: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Returns whether a connection has work that no event will announce.
    pub(super) fn is_busy(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Returns the nearest deadline of all connections.
    pub(super) fn deadline(&self) -> Option<Tick> {
        self.timers.next()
    }

    /// Returns the token of the next connection.
    pub(super) fn next_token(&mut self) -> usize {
        self.generation = (self.generation + 1) % FIRST_OF_SESSIONS;
        self.generation = self.generation.max(1);
        self.generation << SLOT_BITS | self.slots.vacant_key()
    }

    /// Adds an established connection, and opens its session, or goes on with what another process has
    /// handed over.
    pub(super) fn accept<N: Net<Stream = S>>(
        &mut self,
        stream: S,
        session: Session<P>,
        talk: Option<&Talk>,
        token: usize,
        hub: &mut Hub<'_, N>,
    ) {
        let number = hub.net.number(&stream);
        hub.env.sockets.note(token & SLOT_MASK, number);
        let mut connection = Connection::accepted(stream, session, generation(token));
        hub.effects.live += 1;

        let context = hub.context(token);
        let next = connection.open(talk, hub, &context);
        self.insert(connection, next, token, hub);
    }

    /// Adds a connection that is still being established.
    pub(super) fn connect<N: Net<Stream = S>>(
        &mut self,
        stream: S,
        session: Session<P>,
        attempts: Attempts<S>,
        token: usize,
        hub: &mut Hub<'_, N>,
    ) {
        let number = hub.net.number(&stream);
        hub.env.sockets.note(token & SLOT_MASK, number);
        hub.effects.live += 1;
        let timeout = hub.env.config.connect_timeout;
        let usual = timeout.map(|timeout| session.began().after(timeout));
        hub.effects.outbound += 1;
        let mut connection = Connection::connecting(stream, session, generation(token));

        let ticket = attempts.ticket();
        ticket.inspect(|ticket| ticket.set_waker(hub.env.mailbox.waker(token)));
        if !attempts.is_simple(usual) {
            connection.set_attempts(attempts);
        }
        self.insert(connection, Next::Wait, token, hub);
    }

    /// Records an event. Returns false if it was meant for a connection that is gone.
    #[inline]
    pub(super) fn note(&mut self, event: &Event) -> bool {
        let Some(connection) = find(&mut self.slots, event.token) else {
            return false;
        };
        if connection.readiness.note(event) {
            self.ready.push(event.token);
        }
        true
    }

    /// Forgets what was posted in the turn before.
    #[inline]
    pub(super) fn begin_turn(&mut self) {
        self.posted.clear();
    }

    /// Records why connections are woken, of which some may not exist any more.
    pub(super) fn note_woken(&mut self, woken: Woken) {
        match woken {
            Woken::Waker(target) => {
                let connection = find(&mut self.slots, target.id);
                if connection.is_some_and(|connection| connection.readiness.note_woken()) {
                    self.ready.push(target.id);
                }
            }
            Woken::Posted(token) => self.posted.push(token),
            Woken::PostedAll(tokens) => self.posted.extend(tokens),
        }
    }

    /// Queues every connection to be told of the shutdown. One that was asked to finish before has other
    /// deadlines now, such as for the peer's close.
    pub(super) fn note_shutdown(&mut self) {
        for (slot, connection) in self.slots.iter_mut() {
            let is_news = if connection.session().was_asked_to_finish() {
                connection.readiness.note_retime()
            } else {
                connection.readiness.note_shutdown()
            };
            if is_news {
                self.ready.push(token(slot, connection));
            }
        }
    }

    /// Queues up to `most` connections whose deadline has passed.
    pub(super) fn expire(&mut self, now: Tick, most: usize) {
        for _ in 0..most {
            let Some(slot) = self.timers.pop(now) else {
                return;
            };
            let connection = &mut self.slots[slot];
            if connection.readiness.note_due() {
                self.ready.push(token(slot, connection));
            }
        }
    }

    /// Returns whether every connection that has work is one of those that events announce.
    #[inline]
    pub(super) fn is_idle(&self, now: Tick) -> bool {
        self.ready.is_empty() && self.timers.next().is_none_or(|at| now < at)
    }

    /// Serves every connection that has work: one round each, or several for one that sends a lot.
    pub(super) fn drive<N: Net<Stream = S>>(&mut self, hub: &mut Hub<'_, N>) {
        self.running.clear();
        mem::swap(&mut self.ready, &mut self.running);
        hub.effects.handshakes = hub.env.config.handshakes_per_turn;
        if !self.posted.is_empty() {
            self.deliver(hub);
        }

        let Self {
            slots,
            timers,
            ready,
            running,
            ended,
            ..
        } = self;
        let mut context = hub.context(0);

        for &token in running.iter() {
            let Some(connection) = find(slots, token) else {
                continue;
            };
            context.id = token;
            let next = connection.drive_again(hub, &context);
            let lists = (&mut *timers, &mut *ready, &mut *ended);
            if connection.conclude(next, lists, hub, &context) {
                shed(slots, ended, hub);
            }
        }
    }

    /// Sends what was posted to connections that have nothing else to do. The others are served with
    /// those that have work.
    fn deliver<N: Net<Stream = S>>(&mut self, hub: &mut Hub<'_, N>) {
        let Self {
            slots,
            timers,
            ready,
            running,
            posted,
            ended,
            ..
        } = self;
        let mut context = hub.context(0);

        for &token in posted.iter() {
            let Some(connection) = find(slots, token) else {
                continue;
            };
            context.id = token;
            let next = match connection.deliver(hub, &context) {
                Delivery::Done(next) => next,
                Delivery::Busy if connection.readiness.note_woken() => {
                    running.push(token);
                    continue;
                }
                // It may have had its share of this turn.
                Delivery::Nothing if connection.readiness.note_woken() => {
                    ready.push(token);
                    continue;
                }
                Delivery::Busy | Delivery::Nothing => continue,
            };
            let lists = (&mut *timers, &mut *ready, &mut *ended);
            if connection.conclude(next, lists, hub, &context) {
                shed(slots, ended, hub);
            }
        }
    }

    /// Returns how many connections were served in this turn, and the peer if there was only one.
    pub(super) fn served(&self) -> (usize, Option<&Peer>) {
        let mut tokens = [&self.running[..], &self.posted[..]].concat();
        tokens.sort_unstable();
        tokens.dedup();

        let sole = match tokens[..] {
            [token] => self.slots.get(token & SLOT_MASK),
            _ => None,
        };
        let peer = sole.map(|connection| connection.session().peer());
        (tokens.len(), peer)
    }

    /// Ends every connection now, by `end`.
    pub(super) fn end_all<N: Net<Stream = S>>(
        &mut self,
        hub: &mut Hub<'_, N>,
        end: impl Fn(&mut Connection<S, P>, &mut Hub<'_, N>),
    ) {
        for (slot, connection) in self.slots.iter_mut() {
            if !connection.readiness.any(ENDED) {
                end(connection, hub);
                self.ended.push(slot);
            }
        }
    }

    /// Frees the connections that have ended, and returns their sockets to the network.
    pub(super) fn reap<N: Net<Stream = S>>(&mut self, hub: &mut Hub<'_, N>) {
        for slot in self.ended.drain(..) {
            self.timers.remove(slot);
            self.slots.remove(slot).dismantle(hub);
        }

        self.fresh.clear();
        let freed = self.slots.take_freed();
        if freed > 0 {
            self.shrink(freed, hub);
        }
        debug_assert!(
            hub.effects.held == 0 || !self.slots.is_empty(),
            "{}",
            hub.effects.held
        );
    }

    /// Returns whether [`reap`](Self::reap) has something to do.
    pub(super) fn has_changed(&self) -> bool {
        !(self.ended.is_empty() && self.fresh.is_empty())
    }

    /// Moves times that were noted at `from`, the start of a long turn, to its end `to`: no
    /// deadline may hold the turn's length against the connections that were served in it.
    #[cold]
    pub(super) fn catch_up(&mut self, from: Tick, to: Tick) {
        let served = self.running.iter().chain(&self.posted);
        for token in served.chain(&self.fresh) {
            if let Some(connection) = find(&mut self.slots, *token) {
                connection.catch_up(from, to);
            }
        }
    }

    /// Returns what all connections hold, as it was added up and as counted anew.
    #[cfg(feature = "testing")]
    pub(super) fn held(&self) -> (usize, usize) {
        let connections = self.slots.iter().map(|(_, connection)| connection);
        connections.fold((0, 0), |(shares, held), connection| {
            (
                shares + connection.share(),
                held + connection.session().held(),
            )
        })
    }

    /// Closes all sockets in a forked child process, which exits without using this table.
    pub(super) fn abandon<N: Net<Stream = S>>(&mut self, net: &mut N) {
        self.slots
            .drain()
            .for_each(|connection| connection.abandon(net));
    }

    fn insert<N: Net<Stream = S>>(
        &mut self,
        mut connection: Connection<S, P>,
        next: Next,
        token: usize,
        hub: &mut Hub<'_, N>,
    ) {
        let context = hub.context(token);
        if let Some(at) = connection.earlier_deadline(hub, &context) {
            self.timers.set_earlier(token & SLOT_MASK, at);
        }

        self.fresh.push(token);
        if !matches!(next, Next::Wait | Next::Rest) && connection.readiness.queue() {
            self.ready.push(token);
        }

        let slot = self.slots.insert(connection);
        assert_eq!(
            slot,
            token & SLOT_MASK,
            "a connection is where its token says"
        );

        if next == Next::Crowded {
            shed(&mut self.slots, &mut self.ended, hub);
        }
    }
}

impl<S, P: Protocol> Connection<S, P> {
    /// Puts a connection that was served where its further needs are met. Returns whether others are to
    /// be ended first.
    #[inline(always)]
    fn conclude<N: Net<Stream = S>>(
        &mut self,
        next: Next,
        (timers, ready, ended): (&mut Timers, &mut Vec<usize>, &mut Vec<usize>),
        hub: &mut Hub<'_, N>,
        context: &Context<'_>,
    ) -> bool {
        match next {
            Next::Rest => {
                if let Some(at) = self.own_deadline(hub, context) {
                    timers.set_earlier(context.id & SLOT_MASK, at);
                }
                return false;
            }
            Next::Wait => {}
            Next::Reap => {
                ended.push(context.id & SLOT_MASK);
                return false;
            }
            next => {
                if self.readiness.queue() {
                    ready.push(context.id);
                }
                if next == Next::Crowded {
                    return true;
                }
            }
        }

        if let Some(at) = self.earlier_deadline(hub, context) {
            timers.set_earlier(context.id & SLOT_MASK, at);
        }
        false
    }
}

#[inline]
fn find<S, P: Protocol>(
    slots: &mut Slots<Connection<S, P>>,
    token: usize,
) -> Option<&mut Connection<S, P>> {
    slots
        .get_mut(token & SLOT_MASK)
        .filter(|connection| connection.generation() == generation(token))
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "half of a usize has at most 32 bits"
)]
fn generation(token: usize) -> u32 {
    (token >> SLOT_BITS) as u32
}

fn token<S, P: Protocol>(slot: usize, connection: &Connection<S, P>) -> usize {
    (connection.generation() as usize) << SLOT_BITS | slot
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocols::Echo;
    use crate::reactor::numbers::NUMBER_BYTES;
    use crate::reactor::timers::TIMER_BYTES;

    type Slot = Connection<socket2::Socket, Echo>;

    /// The most that an idle connection of a protocol without fields may cost, in bytes.
    const IDLE_MOST: usize = 176;

    #[test]
    fn an_idle_connection_costs_no_more_than_its_ledger_says() {
        let fields = Slot::ledger();
        let sum: usize = fields.iter().map(|(_, bytes)| bytes).sum();
        let padding = size_of::<Slot>().wrapping_sub(sum);
        assert!(padding < 8, "a field is missing or too much: {fields:?}");

        let entry = slots::place_bytes::<Slot>();
        assert_eq!(entry, size_of::<Slot>(), "a slot costs nothing by itself");
        let all = entry + TIMER_BYTES + NUMBER_BYTES;
        assert!(
            all <= IDLE_MOST,
            "{all} bytes, of which {TIMER_BYTES} are the timer's: {fields:#?}"
        );
    }

    /// The table in ARCHITECTURE.md has a row for each field, and the sum.
    #[cfg(target_pointer_width = "64")]
    #[test]
    fn the_table_of_the_ledger_is_right() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/ARCHITECTURE.md");
        let text = std::fs::read_to_string(path).expect("a readable file");
        let padding =
            size_of::<Slot>() - Slot::ledger().iter().map(|(_, bytes)| bytes).sum::<usize>();
        let rows = Slot::ledger().into_iter().chain([
            ("padding", padding),
            ("timer", TIMER_BYTES),
            ("number", NUMBER_BYTES),
            ("together", size_of::<Slot>() + TIMER_BYTES + NUMBER_BYTES),
        ]);

        for (name, bytes) in rows {
            let row = format!("| `{name}` | {bytes} |");
            assert!(text.contains(&row), "no row {row}");
        }
    }
}
