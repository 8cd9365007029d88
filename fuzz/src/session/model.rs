//! What a session has to do, said as simply as it can be.

mod told;

use std::time::Instant;

use serveloop::driver::Tick;
use serveloop::{CloseReason, Config, Deadline, ProtocolError};

/// Room in addition to `max_frame` for the header of an incomplete message.
pub(super) const HEADER_ROOM: usize = 1024;

/// Which call of a session is going on, and so what it may tell its protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Nothing,
    Open,
    Show,
    /// The call that the protocol asked for, and then a show.
    More,
    End,
    Datagram,
    Sent,
    Timeout,
    Woken,
    Shutdown,
    Lost,
}

/// A session as facts about two streams of which only the lengths are kept: byte `n` of each is
/// [`at(n)`](super::pattern::at), so that a byte lost, doubled or moved is seen by its value.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) config: Config,
    pub(super) now: Tick,
    pub(super) event: Event,
    /// How often the protocol was called for this event.
    pub(super) calls: usize,
    /// The first rule that was broken.
    pub(super) fault: Option<String>,

    pub(super) fed: usize,
    pub(super) taken: usize,
    pub(super) written: usize,
    pub(super) sent: usize,
    /// How much of what counts as sent was dropped instead, and what did not even begin to wait.
    dropped: usize,
    overflown: usize,

    pub(super) opened: bool,
    pub(super) paused: bool,
    /// The protocol is to be called in the next turn, before it is shown anything.
    pub(super) again: bool,
    /// How many calls of this kind a datagram had.
    asked: usize,
    pub(super) full: bool,
    /// The protocol waits for room after `write_some`.
    wanted: bool,
    pub(super) finished: bool,
    pub(super) replied: bool,
    pub(super) stalled: bool,
    pub(super) eof: bool,
    pub(super) eof_told: bool,
    pub(super) shutdown: bool,
    pub(super) closing: bool,
    pub(super) aborted: bool,
    pub(super) lost: bool,
    /// Unread bytes or the end are to be shown without new input.
    pub(super) pending: bool,
    /// Unread bytes are an unfinished message.
    pub(super) incomplete: bool,
    /// No message was complete yet, and the peer owes one: on an inbound connection only.
    pub(super) first: bool,
    /// What the protocol said that it took when it was last shown something.
    last_take: Option<usize>,
    took: bool,
    showing: bool,

    pub(super) reason: Option<CloseReason>,
    /// The protocol's own deadline.
    pub(super) own: Option<Instant>,
    activity: Tick,
    message: Tick,
    progress: Tick,
}

impl Model {
    pub(super) fn new(config: Config, outbound: bool) -> Self {
        Self {
            config,
            now: Tick::ZERO,
            event: Event::Nothing,
            calls: 0,
            fault: None,
            fed: 0,
            taken: 0,
            written: 0,
            sent: 0,
            dropped: 0,
            overflown: 0,
            opened: false,
            paused: false,
            again: false,
            asked: 0,
            full: false,
            wanted: false,
            finished: false,
            replied: false,
            stalled: false,
            eof: false,
            eof_told: false,
            shutdown: false,
            closing: false,
            aborted: false,
            lost: false,
            pending: false,
            incomplete: false,
            first: !outbound,
            last_take: None,
            took: false,
            showing: false,
            reason: None,
            own: None,
            activity: Tick::ZERO,
            message: Tick::ZERO,
            progress: Tick::ZERO,
        }
    }

    /// Notes that a rule is broken. A panic would not do, since sessions contain those of protocols.
    pub(super) fn demand(&mut self, holds: bool, rule: &str) {
        if !holds && self.fault.is_none() {
            self.fault = Some(rule.to_owned());
        }
    }

    pub(super) fn blocked(&self) -> bool {
        self.paused || self.full || self.closing || self.again
    }

    pub(super) fn unread(&self) -> usize {
        self.fed - self.taken
    }

    pub(super) fn waiting(&self) -> usize {
        self.written - self.sent
    }

    /// What is told of the bytes when the connection is lost: received, sent and unsent.
    pub(super) fn bytes(&self) -> [u64; 3] {
        let unsent = self.dropped + self.overflown + self.waiting();
        [self.fed, self.sent - self.dropped, unsent].map(|count| count as u64)
    }
}

/// What a driver does.
impl Model {
    pub(super) fn begin(&mut self, event: Event) {
        self.event = event;
        self.calls = 0;
    }

    pub(super) fn open(&mut self) {
        self.begin(Event::Open);
        self.activity = self.now;
        self.message = self.now;
    }

    pub(super) fn feed(&mut self, count: usize) {
        self.begin(Event::Show);
        self.fed += count;
        self.activity = self.now;
        self.show();
    }

    /// The call that the protocol asked for comes first, and unread bytes only after it. Returns
    /// whether it is to be called.
    pub(super) fn more(&mut self) -> bool {
        self.begin(Event::More);
        let was_asked = std::mem::take(&mut self.again);
        if !was_asked || self.closing {
            self.show_more();
        }
        was_asked && !self.closing
    }

    /// The protocol was called as it asked: now what is left is shown, if that was to be.
    pub(super) fn called_again(&mut self) {
        if self.event == Event::More && self.pending {
            self.show_more();
        }
    }

    fn show_more(&mut self) {
        self.begin(Event::Show);
        self.pending = false;
        self.show();
    }

    fn show(&mut self) {
        self.showing = self.unread() > 0 && !self.closing;
        self.took = false;
        self.last_take = None;
    }

    /// All that was to be shown was: what is left over was left for a reason.
    pub(super) fn end_show(&mut self) {
        if !std::mem::take(&mut self.showing) || self.closing {
            return;
        }
        if self.took || self.unread() == 0 {
            self.first = false;
            self.incomplete = false;
        }
        if self.unread() == 0 {
            return;
        }
        if self.blocked() || self.last_take != Some(0) {
            let spent = self.calls == self.config.messages_per_turn;
            self.demand(spent || self.blocked(), "not all was shown");
            self.incomplete = false;
            self.pending = true;
        } else if !self.incomplete {
            self.incomplete = true;
            if !self.first {
                self.message = self.now;
            }
        }
        let limit = self.config.limits.max_frame;
        if self.incomplete && self.unread() > limit + HEADER_ROOM {
            let length = self.unread() as u64;
            let error = ProtocolError::TooLong { length, limit };
            self.fail(CloseReason::Protocol(error));
        }
    }

    /// The end of the stream was to be told if nothing prevents that.
    pub(super) fn end_eof(&mut self) {
        if self.eof && !self.eof_told {
            let waits = self.blocked() || self.pending;
            self.demand(waits, "the end was not told");
            self.pending = true;
        }
    }

    /// Returns whether the protocol is to be told that it may write again.
    pub(super) fn send(&mut self, count: usize) -> bool {
        self.begin(Event::Sent);
        self.sent += count;
        self.activity = self.now;
        if !(self.full || self.stalled || self.wanted) {
            return false;
        }
        self.progress = self.now;
        if self.waiting() == 0 {
            self.stalled = false;
        }
        let resumes = self.waiting() <= self.config.limits.low_water && (self.full || self.wanted);
        if resumes {
            self.wanted = false;
            let was_full = std::mem::take(&mut self.full);
            self.unblock(was_full);
        }
        resumes && !self.closing
    }

    pub(super) fn stall(&mut self) {
        if !self.stalled {
            self.stalled = true;
            self.progress = self.now;
        }
    }

    pub(super) fn lose(&mut self) {
        self.lost = true;
        self.closing = true;
        self.drop_output();
    }

    fn drop_output(&mut self) {
        self.dropped += self.waiting();
        self.sent = self.written;
    }

    /// The nearest of the limits in force, and which it is.
    pub(super) fn limit(&self) -> Option<(Tick, Deadline)> {
        let owed = !(self.blocked() || self.pending || self.eof);
        let begun = owed && self.incomplete && !self.first;
        let config = &self.config;
        [
            (
                owed && self.first,
                self.message,
                config.limits.first_message_timeout,
                Deadline::FirstMessage,
            ),
            (
                begun,
                self.message,
                config.limits.message_timeout,
                Deadline::Message,
            ),
            (
                !self.paused || self.closing,
                self.activity,
                config.limits.idle_timeout,
                Deadline::Idle,
            ),
            (
                self.stalled,
                self.progress,
                config.limits.write_timeout,
                Deadline::Write,
            ),
        ]
        .into_iter()
        .filter(|(runs, ..)| *runs)
        .filter_map(|(_, since, timeout, deadline)| Some((since.after(timeout?), deadline)))
        .min_by_key(|(at, _)| *at)
    }
}

/// What a protocol does.
impl Model {
    pub(super) fn write(&mut self, count: usize) {
        if self.closing || self.finished {
            return;
        }
        self.replied = true;
        // The script writes once per call, so what waits now is what waited before the call.
        let was_over = self.waiting() > self.config.limits.max_output;
        let waiting = self.waiting() + count;
        if waiting >= self.config.limits.high_water && (was_over || waiting > self.most()) {
            self.overflown += count;
            return self.fail(CloseReason::Overflow);
        }
        self.written += count;
        self.full |= waiting >= self.config.limits.high_water;
    }

    /// The most output that may wait.
    pub(super) fn most(&self) -> usize {
        let limits = &self.config.limits;
        limits.max_reply.max(limits.max_output)
    }

    pub(super) fn write_some(&mut self, count: usize) -> usize {
        if self.closing || self.finished {
            return count;
        }
        self.replied = true;
        let room = self.config.limits.high_water.saturating_sub(self.waiting());
        self.wanted |= count > room;
        self.written += count.min(room);
        count.min(room)
    }

    pub(super) fn resume(&mut self) {
        let was_paused = std::mem::take(&mut self.paused);
        self.unblock(was_paused);
    }

    fn unblock(&mut self, was_blocked: bool) {
        if was_blocked {
            self.message = self.now;
            self.activity = self.now;
            self.pending |= self.incomplete || self.eof;
        }
    }

    pub(super) fn close(&mut self) {
        let reason = match self {
            Self { eof_told: true, .. } => CloseReason::PeerClosed,
            Self { shutdown: true, .. } => CloseReason::Shutdown,
            _ => CloseReason::Closed,
        };
        self.reason.get_or_insert(reason);
        self.closing = true;
    }

    /// A failure outweighs an orderly end, and nothing outweighs what dropped the output.
    pub(super) fn fail(&mut self, reason: CloseReason) {
        if self.aborted {
            return;
        }
        if !matches!(reason, CloseReason::Protocol(_)) {
            self.aborted = true;
            self.drop_output();
        }
        if !self.reason.as_ref().is_some_and(CloseReason::is_error) {
            self.reason = Some(reason);
        }
        self.closing = true;
    }
}
