//! One connection of the simulated network, as both ends see it.

use std::time::Duration;

use crate::net::Event;
use crate::simulation::faults::Faults;
use crate::simulation::random::Random;

/// One direction: bytes since the beginning, and the end of the stream behind them.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    pub(crate) sent: usize,
    pub(crate) arrived: usize,
    pub(crate) taken: usize,
    /// How many bytes fit between the two ends.
    pub(crate) capacity: usize,
    pub(crate) ended: bool,
    pub(crate) end_arrived: bool,
    /// When all that is under way will have arrived.
    pub(crate) horizon: Duration,
}

impl Flow {
    fn new(capacity: usize) -> Self {
        Self {
            capacity,
            ..Self::default()
        }
    }

    pub(crate) fn room(&self) -> usize {
        self.capacity - (self.sent - self.taken)
    }

    /// Bytes that have arrived and were not taken.
    pub(crate) fn waiting(&self) -> usize {
        self.arrived - self.taken
    }

    /// What has not arrived yet, the end included.
    pub(crate) fn under_way(&self) -> usize {
        self.sent - self.arrived + usize::from(self.ended && !self.end_arrived)
    }
}

/// What travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Parcel {
    /// All bytes up to this one.
    Bytes(usize),
    End,
    Reset,
}

/// How far an outbound connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Waits,
    Refused,
    Stands,
}

/// A reset or another failure that the server's end has, and whether a call has told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    No,
    Untold,
    Told,
}

#[derive(Debug)]
pub(crate) struct Wire {
    /// The client's account.
    pub(crate) number: usize,
    /// From the client to the server, and back.
    pub(crate) up: Flow,
    pub(crate) down: Flow,
    pub(crate) habits: Habits,
    pub(crate) token: Option<usize>,
    pub(crate) standing: Standing,
    pub(crate) broken: Broken,
    pub(crate) broken_since: Duration,
    /// For how long, in all, events and calls were held back.
    pub(crate) held_up: Duration,
    /// Its state has changed and no event has told so.
    pub(crate) is_changed: bool,
    /// A write found no room, so that an event tells when there is some.
    pub(crate) is_starved: bool,
    /// The client waits for room or for a reply before it sends on, or has planned to take.
    pub(crate) sender_waits: bool,
    pub(crate) taker_planned: bool,
    /// A read may end anywhere though more waits, without an event for the rest.
    pub(crate) has_gaps: bool,
    /// The client came to the server, not the other way round.
    pub(crate) is_inbound: bool,
    /// A reset is on its way to the client, and nothing else arrives there any more.
    pub(crate) is_cut: bool,
    /// The server has closed its end, and the client is through.
    pub(crate) is_closed: bool,
    pub(crate) is_done: bool,
}

impl Wire {
    pub(crate) fn new(number: usize, habits: Habits, standing: Standing) -> Self {
        Self {
            number,
            up: Flow::new(habits.up_capacity),
            down: Flow::new(habits.down_capacity),
            habits,
            token: None,
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
        }
    }

    /// What epoll(7) would say of the server's end now.
    pub(crate) fn event(&self, token: usize) -> Event {
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

    /// Whether a fresh registration is announced.
    pub(crate) fn has_news(&self) -> bool {
        let event = self.event(0);
        event.readable || event.writable
    }
}

/// How a client behaves, and how its connection is.
#[derive(Debug)]
pub(crate) struct Habits {
    /// The most that it sends and takes at a time, in bytes, and the longest time between.
    pub(crate) chunk: usize,
    pub(crate) bite: usize,
    pub(crate) send_gap: Duration,
    pub(crate) take_gap: Duration,
    pub(crate) latency: Duration,
    pub(crate) up_capacity: usize,
    pub(crate) down_capacity: usize,
    pub(crate) in_turns: bool,
    pub(crate) ends_first: bool,
    /// After how many bytes in both directions it resets, or vanishes.
    pub(crate) resets_at: Option<usize>,
    pub(crate) vanishes_at: Option<usize>,
    pub(crate) is_slow: bool,
}

/// The most pieces that a conversation is cut into, lest a run take too long.
const PIECES: usize = 64;

impl Habits {
    pub(crate) fn of(faults: &Faults, sends: usize, expects: usize, random: &mut Random) -> Self {
        let is_slow = random.chance(faults.slow_clients);
        let gap = if is_slow { 20_000_000 } else { 20_000 };
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
            latency: Duration::from_micros(random.below(50_000) as u64),
            up_capacity: capacity(sends, random),
            down_capacity: capacity(expects, random),
            in_turns: random.below(2) == 0,
            ends_first: random.below(2) == 0,
            resets_at: somewhere(faults.client_resets, random),
            vanishes_at: somewhere(faults.client_vanishes, random),
            is_slow,
        }
    }
}
