//! Limits and steps out of bytes.

use std::fmt;
use std::time::Duration;

use serveloop::Config;

use super::scripted::Answer;
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
        match input.below(64) {
            0..16 => Self::Data,
            16..24 => Self::More,
            24..26 => Self::Eof,
            26..34 => Self::Sent,
            34..38 => Self::Wait,
            38..42 => Self::Timeout,
            42..48 => Self::Woken,
            48 => Self::Shutdown,
            49..55 => Self::Turn,
            55..57 => Self::Stalled,
            57..62 => Self::Deadline,
            62 => Self::Fail,
            _ => Self::Lost,
        }
    }
}

/// Small limits, so that few steps reach all of them.
pub(super) fn config(input: &mut Input<'_>) -> Config {
    let high_water = 1 + input.below(64);
    let mut timeout = || match input.below(32) {
        0 => None,
        millis => Some(Duration::from_millis(millis as u64)),
    };
    Config {
        first_message_timeout: timeout(),
        message_timeout: timeout(),
        idle_timeout: timeout(),
        write_timeout: timeout(),
        high_water,
        low_water: input.below(high_water),
        max_output: high_water + input.below(64),
        max_frame: input.below(256),
        messages_per_turn: 1 + input.below(4),
        ..Config::default()
    }
}
