//! What happens on a recorded connection, and how each event is written.

use std::fmt;
use std::time::Duration;

use crate::error::{CloseReason, Deadline, counted};
use crate::service::recorder::failure::RecordedFailure;
use crate::service::recorder::format::{Fields, RecordingError, push_bytes, push_number};
use crate::session::nanos;

/// An event on a recorded connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedEvent<'a> {
    /// When it happened, after the connection was opened. What a protocol wrote has the time of the
    /// event before.
    pub at: Duration,
    /// Its place among the events of all connections.
    pub order: u64,
    /// How many bytes of output waited for the peer before the event.
    pub waiting: u64,
    /// What happened.
    pub what: Happening<'a>,
}

/// What happened on a recorded connection: a call of its protocol, or something that the protocol did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Happening<'a> {
    /// [`connection_made`](crate::Protocol::connection_made): always the first event.
    ConnectionMade,
    /// [`data_received`](crate::Protocol::data_received) with these bytes, behind those that it was
    /// shown before and has not taken.
    DataReceived(Chunk<'a>),
    /// `data_received` with bytes that it was shown before.
    ShownAgain,
    /// [`eof_received`](crate::Protocol::eof_received), with bytes that it was not shown before.
    EofReceived(Chunk<'a>),
    /// [`datagram_undelivered`](crate::Protocol::datagram_undelivered) with this error.
    DatagramUndelivered(RecordedFailure),
    /// [`resume_writing`](crate::Protocol::resume_writing).
    ResumeWriting,
    /// [`handle_timeout`](crate::Protocol::handle_timeout).
    HandleTimeout,
    /// [`woken`](crate::Protocol::woken).
    Woken {
        /// The protocol has asked for it by [`call_again`](crate::Transport::call_again).
        asked: bool,
    },
    /// [`posted`](crate::Protocol::posted) with this post.
    Posted(Chunk<'a>),
    /// [`shutdown_requested`](crate::Protocol::shutdown_requested).
    ShutdownRequested,
    /// [`deadline_passed`](crate::Protocol::deadline_passed).
    DeadlinePassed(Deadline),
    /// [`input_rejected`](crate::Protocol::input_rejected) with an error that has this text.
    InputRejected(&'a str),
    /// [`connection_lost`](crate::Protocol::connection_lost): the last event.
    ConnectionLost(RecordedEnd<'a>),
    /// The protocol has written these bytes in the last call, or what it
    /// [sends](crate::Transport::send) was read.
    Wrote(Chunk<'a>),
    /// The protocol has taken this many bytes, less than it was shown.
    Took(u64),
    /// The last call has changed what the protocol wants of its connection.
    Changed {
        /// It has closed or aborted the connection.
        closing: bool,
        /// It has ended its side of the stream.
        finished: bool,
        /// It has paused its input.
        paused: bool,
    },
    /// The protocol's own deadline is another one after the last call: this long after the connection
    /// was opened, or none.
    Due(Option<Duration>),
    /// The connection's record has become too long. What came after this, up to the end, is not in it.
    Cut,
}

/// Bytes of a recorded connection: how many, and which, unless only sizes were recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk<'a> {
    /// How many bytes these are.
    pub length: u64,
    /// The bytes, if they were recorded.
    pub bytes: Option<&'a [u8]>,
}

/// How a recorded connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordedEnd<'a> {
    pub(crate) code: u8,
    /// The text of the [reason](CloseReason).
    pub reason: &'a str,
    /// How many bytes were read from the peer.
    pub received: u64,
    /// How many bytes the system took for the peer.
    pub sent: u64,
    /// How many bytes of output were dropped.
    pub unsent: u64,
}

impl RecordedEnd<'_> {
    /// Returns whether the protocol panicked.
    #[must_use]
    pub fn is_panic(&self) -> bool {
        self.code == code_of(&CloseReason::Panicked)
    }
}

impl fmt::Display for RecordedEnd<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason)
    }
}

impl fmt::Display for Happening<'_> {
    /// Writes a few words, without the bytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ConnectionMade => f.write_str("connection made"),
            Self::DataReceived(data) => write!(f, "{} received", Bytes(data.length)),
            Self::ShownAgain => f.write_str("unread bytes shown again"),
            Self::EofReceived(_) => f.write_str("end of the peer's stream"),
            Self::DatagramUndelivered(failure) => {
                write!(f, "a datagram did not arrive: {}", failure.error())
            }
            Self::ResumeWriting => f.write_str("room for output again"),
            Self::HandleTimeout => f.write_str("the protocol's own deadline"),
            Self::Woken { asked: true } => f.write_str("called again as it asked"),
            Self::Woken { asked: false } => f.write_str("woken"),
            Self::Posted(data) => write!(f, "a post of {}", Bytes(data.length)),
            Self::ShutdownRequested => f.write_str("asked to finish"),
            Self::DeadlinePassed(deadline) => write!(f, "deadline passed: {deadline}"),
            Self::InputRejected(error) => write!(f, "input rejected: {error}"),
            Self::ConnectionLost(end) => write!(f, "ended: {end}"),
            Self::Wrote(data) => write!(f, "{} written", Bytes(data.length)),
            Self::Took(count) => write!(f, "{} taken", Bytes(*count)),
            Self::Changed {
                closing,
                finished,
                paused,
            } => {
                let wishes = [
                    (*closing, "closing"),
                    (*finished, "our side finished"),
                    (*paused, "input paused"),
                ];
                let wishes = wishes.iter().filter(|(wishes, _)| *wishes);
                let words: Vec<_> = wishes.map(|(_, word)| *word).collect();
                match words.is_empty() {
                    true => f.write_str("input resumed"),
                    false => f.write_str(&words.join(", ")),
                }
            }
            Self::Due(Some(due)) => write!(f, "waits until {:.6} s", due.as_secs_f64()),
            Self::Due(None) => f.write_str("waits for nothing"),
            Self::Cut => f.write_str("the record of this connection is full"),
        }
    }
}

/// A number of bytes in words.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        counted(self.0, "byte", "bytes").fmt(f)
    }
}

/// The kinds of events in a file.
mod kind {
    pub(super) const MADE: u8 = 1;
    pub(super) const DATA: u8 = 2;
    pub(super) const AGAIN: u8 = 3;
    pub(super) const EOF: u8 = 4;
    pub(super) const RESUME: u8 = 5;
    pub(super) const TIMEOUT: u8 = 6;
    pub(super) const WOKEN: u8 = 7;
    pub(super) const POSTED: u8 = 8;
    pub(super) const SHUTDOWN: u8 = 9;
    pub(super) const DEADLINE: u8 = 10;
    pub(super) const REJECTED: u8 = 11;
    pub(super) const LOST: u8 = 12;
    /// Kinds from here on have no time of their own.
    pub(super) const WROTE: u8 = 13;
    pub(super) const TOOK: u8 = 14;
    pub(super) const CHANGED: u8 = 15;
    pub(super) const CUT: u8 = 16;
    pub(super) const DUE: u8 = 17;
    /// This one has a time again.
    pub(super) const UNDELIVERED: u8 = 18;

    /// Returns whether events of this kind have a time of their own.
    pub(super) fn is_timed(kind: u8) -> bool {
        kind < WROTE || kind == UNDELIVERED
    }
}

const CLOSING: u8 = 1;
const FINISHED: u8 = 2;
const PAUSED: u8 = 4;

/// The deadlines by their numbers in a file.
const DEADLINES: [Deadline; 7] = [
    Deadline::Connect,
    Deadline::Handshake,
    Deadline::FirstMessage,
    Deadline::Message,
    Deadline::Idle,
    Deadline::Write,
    Deadline::Drain,
];

/// The number of [`CloseReason::Protocol`] in a file.
pub(crate) const PROTOCOL: u8 = 9;

/// Returns the number of a reason in a file.
pub(crate) fn code_of(reason: &CloseReason) -> u8 {
    match reason {
        CloseReason::Closed => 1,
        CloseReason::PeerClosed => 2,
        CloseReason::Aborted => 3,
        CloseReason::Truncated => 4,
        CloseReason::Refused => 5,
        CloseReason::Shutdown => 6,
        CloseReason::TimedOut(deadline) => 0x40 | code_of_deadline(*deadline),
        CloseReason::Overflow => 7,
        CloseReason::Shed => 8,
        CloseReason::Protocol(_) => PROTOCOL,
        CloseReason::Io(_) => 10,
        CloseReason::ConnectFailed(_) => 11,
        CloseReason::SourceFailed(_) => 12,
        CloseReason::Panicked => 13,
        CloseReason::Process(_) => 14,
        CloseReason::Lagging => 15,
    }
}

fn code_of_deadline(deadline: Deadline) -> u8 {
    let place = DEADLINES.iter().position(|other| *other == deadline);
    place.map_or(0, |place| place as u8)
}

/// Returns the deadline of which a code says that it has passed.
#[cfg(feature = "testing")]
pub(crate) fn deadline_of_code(code: u8) -> Option<Deadline> {
    let place = code.checked_sub(0x40)?;
    DEADLINES.get(usize::from(place)).copied()
}

/// The times of an event, as differences to the event before.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Moment {
    pub(super) nanos: u64,
    pub(super) order: u64,
    pub(super) waiting: u64,
}

/// Appends an event to the record of a connection. Without `content` only sizes are written.
pub(super) fn push(bytes: &mut Vec<u8>, what: &Happening<'_>, moment: Moment, content: bool) {
    let number = kind_of(what);
    bytes.push(number);
    if kind::is_timed(number) {
        push_number(bytes, moment.nanos);
        push_number(bytes, moment.order);
        push_number(bytes, moment.waiting);
    }

    let chunk = |bytes: &mut Vec<u8>, chunk: &Chunk<'_>| match chunk.bytes.filter(|_| content) {
        Some(data) => push_bytes(bytes, data),
        None => push_number(bytes, chunk.length),
    };
    match what {
        Happening::ConnectionMade
        | Happening::ShownAgain
        | Happening::ResumeWriting
        | Happening::HandleTimeout
        | Happening::ShutdownRequested
        | Happening::Cut => {}
        Happening::DataReceived(data)
        | Happening::EofReceived(data)
        | Happening::Posted(data)
        | Happening::Wrote(data) => chunk(bytes, data),
        Happening::DatagramUndelivered(failure) => {
            bytes.push(failure.code);
            push_number(bytes, failure.number.into());
        }
        Happening::Woken { asked } => bytes.push(u8::from(*asked)),
        Happening::DeadlinePassed(deadline) => bytes.push(code_of_deadline(*deadline)),
        Happening::InputRejected(text) => push_bytes(bytes, text.as_bytes()),
        Happening::Took(count) => push_number(bytes, *count),
        Happening::Due(due) => {
            let due = due.map_or(0, |due| nanos(due).saturating_add(1));
            push_number(bytes, due);
        }
        Happening::Changed {
            closing,
            finished,
            paused,
        } => {
            let flags = [(closing, CLOSING), (finished, FINISHED), (paused, PAUSED)];
            let set = flags.into_iter().filter(|(is_set, _)| **is_set);
            bytes.push(set.map(|(_, flag)| flag).sum());
        }
        Happening::ConnectionLost(end) => {
            bytes.push(end.code);
            push_bytes(bytes, end.reason.as_bytes());
            for number in [end.received, end.sent, end.unsent] {
                push_number(bytes, number);
            }
        }
    }
}

fn kind_of(what: &Happening<'_>) -> u8 {
    match what {
        Happening::ConnectionMade => kind::MADE,
        Happening::DataReceived(_) => kind::DATA,
        Happening::ShownAgain => kind::AGAIN,
        Happening::EofReceived(_) => kind::EOF,
        Happening::DatagramUndelivered(_) => kind::UNDELIVERED,
        Happening::ResumeWriting => kind::RESUME,
        Happening::HandleTimeout => kind::TIMEOUT,
        Happening::Woken { .. } => kind::WOKEN,
        Happening::Posted(_) => kind::POSTED,
        Happening::ShutdownRequested => kind::SHUTDOWN,
        Happening::DeadlinePassed(_) => kind::DEADLINE,
        Happening::InputRejected(_) => kind::REJECTED,
        Happening::ConnectionLost(_) => kind::LOST,
        Happening::Wrote(_) => kind::WROTE,
        Happening::Took(_) => kind::TOOK,
        Happening::Changed { .. } => kind::CHANGED,
        Happening::Cut => kind::CUT,
        Happening::Due(_) => kind::DUE,
    }
}

/// The events of a connection, in order.
#[derive(Clone, Debug)]
pub struct Events<'a> {
    fields: Fields<'a>,
    content: bool,
    nanos: u64,
    order: u64,
}

impl<'a> Events<'a> {
    pub(super) fn new(fields: Fields<'a>, content: bool) -> Self {
        Self {
            fields,
            content,
            nanos: 0,
            order: 0,
        }
    }

    /// Reads the next event, if there is one.
    pub(super) fn read(&mut self) -> Result<Option<RecordedEvent<'a>>, RecordingError> {
        if self.fields.is_empty() {
            return Ok(None);
        }
        let start = self.fields.clone();
        let number = self.fields.byte()?;
        let mut waiting = 0;
        if kind::is_timed(number) {
            self.nanos = self.nanos.saturating_add(self.fields.number()?);
            self.order = self.order.saturating_add(self.fields.number()?);
            waiting = self.fields.number()?;
        }
        let what = self.what(number, &start)?;
        Ok(Some(RecordedEvent {
            at: Duration::from_nanos(self.nanos),
            order: self.order,
            waiting,
            what,
        }))
    }

    fn what(&mut self, number: u8, start: &Fields<'a>) -> Result<Happening<'a>, RecordingError> {
        let fields = &mut self.fields;
        Ok(match number {
            kind::MADE => Happening::ConnectionMade,
            kind::DATA => Happening::DataReceived(self.chunk()?),
            kind::AGAIN => Happening::ShownAgain,
            kind::EOF => Happening::EofReceived(self.chunk()?),
            kind::UNDELIVERED => {
                let (code, number) = (fields.byte()?, fields.number()?);
                let failure = u32::try_from(number).ok();
                let failure = failure.and_then(|number| RecordedFailure::read(code, number));
                Happening::DatagramUndelivered(
                    failure.ok_or_else(|| start.wrong("an unknown failure of a datagram"))?,
                )
            }
            kind::RESUME => Happening::ResumeWriting,
            kind::TIMEOUT => Happening::HandleTimeout,
            kind::WOKEN => Happening::Woken {
                asked: fields.byte()? != 0,
            },
            kind::POSTED => Happening::Posted(self.chunk()?),
            kind::SHUTDOWN => Happening::ShutdownRequested,
            kind::DEADLINE => {
                let place = usize::from(fields.byte()?);
                let deadline = DEADLINES.get(place).copied();
                Happening::DeadlinePassed(
                    deadline.ok_or_else(|| start.wrong("an unknown deadline"))?,
                )
            }
            kind::REJECTED => Happening::InputRejected(fields.text()?),
            kind::LOST => Happening::ConnectionLost(RecordedEnd {
                code: fields.byte()?,
                reason: fields.text()?,
                received: fields.number()?,
                sent: fields.number()?,
                unsent: fields.number()?,
            }),
            kind::WROTE => Happening::Wrote(self.chunk()?),
            kind::TOOK => Happening::Took(fields.number()?),
            kind::CHANGED => {
                let flags = fields.byte()?;
                Happening::Changed {
                    closing: flags & CLOSING != 0,
                    finished: flags & FINISHED != 0,
                    paused: flags & PAUSED != 0,
                }
            }
            kind::CUT => Happening::Cut,
            kind::DUE => {
                let due = fields.number()?.checked_sub(1);
                Happening::Due(due.map(Duration::from_nanos))
            }
            _ => return Err(start.wrong(format!("an unknown kind of event, {number}"))),
        })
    }

    fn chunk(&mut self) -> Result<Chunk<'a>, RecordingError> {
        if !self.content {
            return Ok(Chunk {
                length: self.fields.number()?,
                bytes: None,
            });
        }
        let bytes = self.fields.bytes()?;
        Ok(Chunk::of(bytes))
    }

    /// Checks all events that are left: the first is the making of the connection, and nothing comes after its
    /// end.
    pub(super) fn check(mut self) -> Result<(), RecordingError> {
        let (mut is_first, mut is_over) = (true, false);
        loop {
            let start = self.fields.clone();
            let Some(event) = self.read()? else {
                return Ok(());
            };
            if is_first != (event.what == Happening::ConnectionMade) {
                return Err(start.wrong("a connection is made once, and first"));
            }
            if is_over {
                return Err(start.wrong("an event after the end of its connection"));
            }
            is_first = false;
            is_over = matches!(event.what, Happening::ConnectionLost(_));
        }
    }
}

impl<'a> Iterator for Events<'a> {
    type Item = RecordedEvent<'a>;

    fn next(&mut self) -> Option<RecordedEvent<'a>> {
        // All were checked when the record was read.
        self.read().ok().flatten()
    }
}

impl<'a> Chunk<'a> {
    pub(super) fn of(bytes: &'a [u8]) -> Self {
        Self {
            length: bytes.len() as u64,
            bytes: Some(bytes),
        }
    }
}
