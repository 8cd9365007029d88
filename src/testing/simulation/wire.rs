//! One connection of the simulated network, as seen from both ends.

use std::time::Duration;

use crate::net::Event;
use crate::testing::simulation::far::Far;
use crate::testing::simulation::faults::Faults;
use crate::testing::simulation::ledger::{ConnectionRecord, Ledger};
use crate::testing::simulation::random::Random;

/// One direction of a connection: byte positions since its start, and the end of the stream.
#[derive(Debug, Default)]
pub(super) struct Flow {
    pub(super) sent: usize,
    pub(super) arrived: usize,
    pub(super) taken: usize,
    /// How many bytes fit between the two ends.
    pub(super) capacity: usize,
    pub(super) ended: bool,
    pub(super) end_arrived: bool,
    /// When everything in flight will have arrived.
    pub(super) horizon: Duration,
}

impl Flow {
    fn new(capacity: usize) -> Self {
        Self {
            capacity,
            ..Self::default()
        }
    }

    pub(super) fn room(&self) -> usize {
        self.capacity - (self.sent - self.taken)
    }

    /// Returns how many bytes have arrived and were not taken.
    pub(super) fn waiting(&self) -> usize {
        self.arrived - self.taken
    }

    /// Returns how many bytes are in flight, plus one for the end of the stream.
    pub(super) fn under_way(&self) -> usize {
        self.sent - self.arrived + usize::from(self.ended && !self.end_arrived)
    }
}

/// A segment in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Segment {
    /// All bytes up to this position.
    Bytes(usize),
    End,
    Reset,
}

/// The state of an outbound connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Waits,
    Refused,
    Stands,
}

/// Whether the server's end has failed, and whether a call has reported it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    No,
    Untold,
    Told,
}

#[derive(Debug)]
pub(super) struct Wire {
    /// The number of the client's account.
    pub(super) number: usize,
    /// The direction from the client to the server, and back.
    pub(super) up: Flow,
    pub(super) down: Flow,
    pub(super) habits: Habits,
    pub(super) token: Option<usize>,
    /// The blocking driver serves it, so that no events are due.
    pub(super) is_blocking: bool,
    /// Until when a blocked thread is not told that it could read or write.
    pub(super) denied_until: Duration,
    pub(super) standing: Standing,
    pub(super) broken: Broken,
    pub(super) broken_since: Duration,
    /// How long events and calls were delayed in total.
    pub(super) held_up: Duration,
    /// Its state has changed, and no event has announced that.
    pub(super) is_changed: bool,
    /// A write found no room, so an event is due when there is some.
    pub(super) is_starved: bool,
    /// Whether the client waits for room or a reply before it sends on, and whether its next take
    /// is planned.
    pub(super) sender_waits: bool,
    pub(super) taker_planned: bool,
    /// A read may stop anywhere although more bytes wait, and no event announces the rest.
    pub(super) has_gaps: bool,
    /// The client connected to the server, not the reverse.
    pub(super) is_inbound: bool,
    /// A reset is on its way to the client, and nothing else will arrive.
    pub(super) is_cut: bool,
    /// Whether the server has closed its end, and whether the client is done.
    pub(super) is_closed: bool,
    pub(super) is_done: bool,
    /// The client has seen the end of the server's stream, and goes on sending.
    pub(super) is_half_closed: bool,
    /// The client's end of the layer, if the connection goes through one.
    pub(super) far: Option<Far>,
}

impl Wire {
    pub(super) fn new(number: usize, habits: Habits, standing: Standing) -> Self {
        Self {
            number,
            up: Flow::new(habits.up_capacity),
            down: Flow::new(habits.down_capacity),
            habits,
            token: None,
            is_blocking: false,
            denied_until: Duration::ZERO,
            standing,
            broken: Broken::No,
            broken_since: Duration::ZERO,
            held_up: Duration::ZERO,
            is_changed: false,
            is_starved: false,
            sender_waits: false,
            taker_planned: false,
            has_gaps: false,
            is_inbound: false,
            is_cut: false,
            is_closed: false,
            is_done: false,
            is_half_closed: false,
            far: None,
        }
    }

    /// Returns whether the client has taken all that it expects, and no layer has more to say to it.
    pub(super) fn has_all(&self, ledger: &Ledger) -> bool {
        let account = &ledger.accounts[self.number];
        account.layered.is_none() && self.down.taken >= account.exchange.expects.len()
    }

    /// Returns whether the client has nothing left to send, except for the end of its stream.
    pub(super) fn has_sent_all(&self, account: &ConnectionRecord) -> bool {
        let said = account.layered.as_ref().map(|layered| layered.said);
        let has_said_all = said.is_none_or(|said| said == account.exchange.sends.len());
        has_said_all && self.up.sent == account.sends().len()
    }

    /// Returns whether the client has more to send that waits for no reply.
    pub(super) fn may_say_more(&self, account: &ConnectionRecord) -> bool {
        let exchange = &account.exchange;
        let may = exchange.may_send(account.received, self.habits.in_turns);
        match &account.layered {
            Some(layered) => layered.said < may || self.up.sent < layered.sends.len(),
            None => self.up.sent < may,
        }
    }

    /// Returns the event that epoll(7) would report for the server's end now.
    pub(super) fn event(&self, token: usize) -> Event {
        let broken = self.broken != Broken::No || self.standing == Standing::Refused;
        let stands = self.standing == Standing::Stands;
        Event {
            token,
            readable: self.up.waiting() > 0 || self.up.end_arrived || broken,
            writable: (stands && self.down.room() > 0) || broken,
            closed: self.up.end_arrived || broken,
            error: self.broken == Broken::Untold || self.standing == Standing::Refused,
        }
    }

    /// Returns whether a new registration would be announced.
    pub(super) fn has_news(&self) -> bool {
        let event = self.event(0);
        event.readable || event.writable
    }
}

/// How a client behaves, and the properties of its connection.
#[derive(Debug)]
pub(super) struct Habits {
    /// The most bytes the client sends and takes at a time, and the longest time between.
    pub(super) chunk: usize,
    pub(super) bite: usize,
    pub(super) send_gap: Duration,
    pub(super) take_gap: Duration,
    pub(super) latency: Duration,
    pub(super) up_capacity: usize,
    pub(super) down_capacity: usize,
    pub(super) in_turns: bool,
    pub(super) ends_first: bool,
    /// After how many bytes in both directions the client resets or vanishes.
    pub(super) resets_at: Option<usize>,
    pub(super) vanishes_at: Option<usize>,
    /// After how many the client ends its stream without the end mark of its layer.
    pub(super) truncates_at: Option<usize>,
    /// The client keeps its side of the connection open after the end mark, until the server has
    /// closed.
    pub(super) lingers: bool,
    pub(super) is_slow: bool,
}

/// The most pieces to cut a conversation into, so that a run does not take too long.
const PIECES: usize = 64;

/// About how many bytes a client sends and takes for a handshake.
const HANDSHAKE_SENDS: usize = 500;
const HANDSHAKE_EXPECTS: usize = 1_000;

impl Habits {
    /// Draws the habits of a client. Unless it is slow, it misses no deadline, of which `shortest` is the
    /// shortest.
    pub(super) fn of(
        faults: &Faults,
        (sends, expects): (usize, usize),
        shortest: Duration,
        random: &mut Random,
    ) -> Self {
        let is_slow = random.chance(faults.slow_clients);
        let most = shortest.as_micros() / 2 / (sends.max(expects) as u128 + 1);
        let usual = usize::try_from(most).unwrap_or(usize::MAX).clamp(1, 20_000);
        let gap = if is_slow { 20_000_000 } else { usual };
        let longest = |random: &mut Random| Duration::from_micros(random.below(gap) as u64);
        let size = |most: usize, random: &mut Random| {
            let least = most / PIECES + 1;
            match random.below(3) {
                0 => least,
                1 => random.between(least, most + 1),
                _ => most + 1,
            }
        };

        let tiny = random.chance(faults.tiny_buffers);
        let capacity = |most: usize, random: &mut Random| {
            if tiny {
                size(most, random)
            } else {
                most.max(1 << 16)
            }
        };

        // With a small buffer each piece waits until the one before it has arrived.
        let trips = if tiny { 3 * PIECES } else { 8 };
        let latency = shortest.as_micros() / trips as u128;
        let latency = usize::try_from(latency).unwrap_or(usize::MAX);
        let latency = latency.clamp(1, 50_000);

        let somewhere = |rate: u16, random: &mut Random| {
            random
                .chance(rate)
                .then(|| random.below(sends + expects + 1))
        };
        Self {
            chunk: size(sends, random),
            bite: size(expects, random),
            send_gap: longest(random),
            take_gap: longest(random),
            latency: Duration::from_micros(random.below(latency) as u64),
            up_capacity: capacity(sends, random),
            down_capacity: capacity(expects, random),
            in_turns: random.below(2) == 0,
            ends_first: random.below(2) == 0,
            resets_at: somewhere(faults.client_resets, random),
            vanishes_at: somewhere(faults.client_vanishes, random),
            truncates_at: None,
            lingers: false,
            is_slow,
        }
    }

    /// Returns the habits of a client inside a layer, whose bytes are more by those of a handshake.
    pub(super) fn in_layer(
        faults: &Faults,
        (sends, expects): (usize, usize),
        shortest: Duration,
        random: &mut Random,
    ) -> Self {
        let (sends, expects) = (sends + HANDSHAKE_SENDS, expects + HANDSHAKE_EXPECTS);
        let mut habits = Self::of(faults, (sends, expects), shortest, random);
        habits.truncates_at = random
            .chance(faults.truncations)
            .then(|| random.below(sends + expects + 1));
        habits.lingers = random.below(4) == 0;
        habits
    }
}
