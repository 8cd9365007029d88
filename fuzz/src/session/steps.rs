//! Limits and steps out of bytes.

use std::fmt;
use std::time::Duration;

use serveloop::{Config, Limits};

use super::model::{HEADER_ROOM, Model};
use crate::input::Input;

/// What a driver does, how much of it, and what the protocol answers: four bytes.
#[derive(Clone, Copy)]
pub(super) struct Step {
    pub(super) act: Act,
    pub(super) amount: usize,
    pub(super) answers: [Answer; 2],
}

impl Step {
    pub(super) fn of(act: Act, input: &mut Input<'_>) -> Self {
        Self {
            act,
            amount: input.below(256),
            answers: [Answer(input.byte()), Answer(input.byte())],
        }
    }
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            act,
            amount,
            answers,
        } = self;
        write!(f, "{act:?} {amount} {answers:?}")
    }
}

/// What a driver does.
#[derive(Clone, Copy, Debug)]
pub(super) enum Act {
    Open,
    Data,
    More,
    Eof,
    Sent,
    Wait,
    Timeout,
    Woken,
    Shutdown,
    Turn,
    Stalled,
    Deadline,
    Fail,
    Lost,
}

impl Act {
    pub(super) fn of(input: &mut Input<'_>) -> Self {
        match input.byte() {
            0..64 => Self::Data,
            64..96 => Self::More,
            96..100 => Self::Eof,
            100..132 => Self::Sent,
            132..148 => Self::Wait,
            148..164 => Self::Timeout,
            164..192 => Self::Woken,
            192..195 => Self::Shutdown,
            195..218 => Self::Turn,
            218..225 => Self::Stalled,
            225..254 => Self::Deadline,
            254 => Self::Fail,
            255 => Self::Lost,
        }
    }
}

/// What the protocol does when it is called, as one byte says: how much it takes, and one deed.
#[derive(Clone, Copy, Default)]
pub(super) struct Answer(u8);

impl Answer {
    pub(super) const TAKES_ALL: Self = Self(3);

    pub(super) fn take(self, available: usize) -> usize {
        match self.0 & 3 {
            0 => 0,
            1 => available.min(1),
            2 => available.div_ceil(2),
            _ => available,
        }
    }

    pub(super) fn deed(self) -> Deed {
        match self.0 >> 2 {
            size @ 16..24 => Deed::Write(Size::of(size - 16)),
            size @ 24..31 => Deed::WriteSome(Size::of(size - 24)),
            31..36 => Deed::Pause,
            36..42 => Deed::Resume,
            42..44 => Deed::Again,
            delay @ 44..52 => Deed::SetDeadline(u64::from(delay - 44) * 3),
            52..55 => Deed::ClearDeadline,
            55 => Deed::Finish,
            end @ 56..62 if self.0 & 3 == 3 => Deed::ENDS[usize::from(end - 56)],
            _ => Deed::Nothing,
        }
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = ["nothing", "a byte", "half", "all"][usize::from(self.0 & 3)];
        write!(f, "takes {share} and does {:?}", self.deed())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    Nothing,
    Write(Size),
    WriteSome(Size),
    Pause,
    Resume,
    Again,
    Close,
    Finish,
    Abort,
    /// The protocol's own deadline, this many milliseconds from now.
    SetDeadline(u64),
    ClearDeadline,
    Error,
    Panic,
    /// Panics when it is next asked for its deadline.
    PanicLater,
}

impl Deed {
    /// Rarer than all else, or few sessions would live for long.
    const ENDS: [Self; 6] = [
        Self::Close,
        Self::Abort,
        Self::Error,
        Self::Panic,
        Self::PanicLater,
        Self::Write(Size::NearReply(2)),
    ];
}

/// How much to write. What is near a limit is one byte less, the limit, or one byte more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    Bytes(usize),
    NearMark(usize),
    NearMost(usize),
    NearReply(usize),
}

impl Size {
    fn of(number: u8) -> Self {
        match number {
            0 => Self::Bytes(0),
            1 => Self::Bytes(1),
            2 => Self::Bytes(12),
            near @ 3..6 => Self::NearMark(usize::from(near - 3)),
            6 => Self::NearMost(2),
            _ => Self::NearReply(1),
        }
    }

    pub(super) fn bytes(self, model: &Model) -> usize {
        match self {
            Self::Bytes(count) => count,
            Self::NearMark(near) => {
                near_limit(model.waiting(), model.config.limits.high_water, near)
            }
            Self::NearMost(near) => {
                near_limit(model.waiting(), model.config.limits.max_output, near)
            }
            Self::NearReply(near) => near_limit(model.waiting(), model.most(), near),
        }
    }
}

/// What is missing to one less than a limit, to the limit, or to one more.
fn near_limit(now: usize, limit: usize, near: usize) -> usize {
    (limit.saturating_sub(now) + near).saturating_sub(1)
}

/// How much a peer sends: little, or about as much as may be unread.
pub(super) fn data(amount: usize, model: &Model) -> usize {
    let most = model.config.limits.max_frame + HEADER_ROOM;
    match amount.checked_sub(250) {
        None => 1 + amount / 4,
        Some(near) => near_limit(model.unread(), most, near / 2).max(1),
    }
}

/// Small limits, so that few steps reach all of them.
pub(super) fn config(input: &mut Input<'_>) -> Config {
    let high_water = 1 + input.below(64);
    let mut timeout = || match input.below(256) {
        0 => None,
        millis => Some(Duration::from_millis(millis as u64 / 2)),
    };
    let limits = Limits {
        first_message_timeout: timeout(),
        message_timeout: timeout(),
        idle_timeout: timeout(),
        write_timeout: timeout(),
        high_water,
        low_water: input.below(high_water),
        max_output: high_water + input.below(64),
        max_reply: high_water + input.below(128),
        max_frame: input.below(256),
        ..Limits::default()
    };
    Config {
        messages_per_turn: 1 + input.below(4),
        limits,
        ..Config::default()
    }
}
