//! What a recorded connection says to do, step by step, and what must come of it.

use std::time::Duration;

use crate::layer::Event;
use crate::service::recorder::{Happening, RecordedConnection, RecordedEnd, RecordedEvent};

/// A call of a protocol, as far as a change of it means that the protocol works differently inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Call {
    kind: Kind,
    /// How many bytes it took, if not all that it was shown.
    took: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Made,
    Data,
    Eof,
    Undelivered,
    Resume,
    Timeout,
    Woken,
    Posted,
    Shutdown,
    Deadline,
    Rejected,
}

impl Call {
    fn of(kind: Kind) -> Self {
        Self { kind, took: None }
    }
}

/// The calls that were made, each with how many bytes it was shown.
#[derive(Debug, Default)]
pub(super) struct Calls {
    pub(super) made: Vec<Call>,
    shown: usize,
}

impl Calls {
    pub(super) fn observe(&mut self, event: &Event<'_>) {
        let kind = match event {
            Event::ConnectionMade => Kind::Made,
            Event::DataReceived(data) => {
                self.shown = data.len();
                Kind::Data
            }
            Event::Taken(data) => {
                let is_part = data.len() != self.shown;
                if let Some(last) = self.made.last_mut() {
                    last.took = is_part.then_some(data.len());
                }
                return;
            }
            Event::EofReceived(_) => Kind::Eof,
            Event::DatagramUndelivered(_) => Kind::Undelivered,
            Event::ResumeWriting => Kind::Resume,
            Event::HandleTimeout { .. } => Kind::Timeout,
            Event::Woken => Kind::Woken,
            Event::Posted(_) => Kind::Posted,
            Event::ShutdownRequested => Kind::Shutdown,
            Event::DeadlinePassed(_) => Kind::Deadline,
            Event::InputRejected(_) => Kind::Rejected,
            Event::ConnectionLost(_) => return,
        };
        self.made.push(Call::of(kind));
    }
}

/// A call that a session makes because of what happened before, with its time and how much
/// output waited.
#[derive(Clone, Copy, Debug)]
pub(super) struct Consequence {
    pub(super) at: Duration,
    pub(super) waiting: u64,
}

/// Something that happens to a connection from outside, with all that comes of it.
#[derive(Clone, Debug)]
pub(super) struct Step<'a> {
    /// Counted from 1.
    pub(super) number: usize,
    pub(super) cause: RecordedEvent<'a>,
    /// All calls, that of the cause first.
    pub(super) calls: Vec<Call>,
    /// The times of these calls.
    pub(super) times: Vec<Consequence>,
    pub(super) wrote: Vec<&'a [u8]>,
    /// Whether the connection is to be closed after it, and our side of the stream.
    pub(super) closing: bool,
    pub(super) finished: bool,
    /// The protocol's own deadline after it.
    pub(super) due: Option<Duration>,
    /// How the connection fails in this step, if it does.
    pub(super) failure: Option<RecordedEnd<'a>>,
    /// Whether the record is incomplete from here on.
    pub(super) is_cut: bool,
}

/// Returns the steps of a connection.
pub(super) fn steps(connection: &RecordedConnection) -> Vec<Step<'_>> {
    let mut steps: Vec<Step<'_>> = Vec::new();
    for event in connection.events() {
        match steps.last_mut() {
            Some(step) if is_consequence(&event.what) => step.add(event),
            last => {
                let last = last.map(|step| &*step);
                let next = Step::new(event, last);
                if let (Happening::ConnectionLost(end), Some(before)) =
                    (&next.cause.what, steps.last_mut())
                {
                    before.failure = Some(*end).filter(is_failure);
                }
                steps.push(next);
            }
        }
    }
    steps
}

fn is_consequence(what: &Happening<'_>) -> bool {
    matches!(
        what,
        Happening::ShownAgain
            | Happening::Woken { asked: true }
            | Happening::InputRejected(_)
            | Happening::Wrote(_)
            | Happening::Took(_)
            | Happening::Changed { .. }
            | Happening::Due(_)
            | Happening::Cut
    )
}

/// Returns whether an end comes of the protocol alone, without a call that asks for it.
fn is_failure(end: &RecordedEnd<'_>) -> bool {
    use crate::error::CloseReason;
    use crate::service::recorder::code_of;
    let is = |reason: &CloseReason| end.code == code_of(reason);
    end.is_panic() || is(&CloseReason::Overflow)
}

impl<'a> Step<'a> {
    fn new(cause: RecordedEvent<'a>, before: Option<&Self>) -> Self {
        let ends = matches!(cause.what, Happening::DeadlinePassed(_));
        let mut step = Self {
            number: before.map_or(1, |step| step.number + 1),
            cause: cause.clone(),
            calls: Vec::new(),
            times: Vec::new(),
            wrote: Vec::new(),
            closing: ends || before.is_some_and(|step| step.closing),
            finished: before.is_some_and(|step| step.finished),
            due: before.and_then(|step| step.due),
            failure: None,
            is_cut: false,
        };
        step.add_call(&cause);
        step
    }

    fn add(&mut self, event: RecordedEvent<'a>) {
        match event.what {
            Happening::Wrote(chunk) => self.wrote.extend(chunk.bytes),
            Happening::Took(count) => {
                if let Some(last) = self.calls.last_mut() {
                    last.took = usize::try_from(count).ok();
                }
            }
            Happening::Changed {
                closing, finished, ..
            } => {
                self.closing |= closing;
                self.finished |= finished;
            }
            Happening::Due(due) => self.due = due,
            Happening::Cut => self.is_cut = true,
            Happening::InputRejected(_) => {
                self.closing = true;
                self.add_call(&event);
            }
            _ => self.add_call(&event),
        }
    }

    fn add_call(&mut self, event: &RecordedEvent<'_>) {
        let kind = match event.what {
            Happening::ConnectionMade => Kind::Made,
            Happening::DataReceived(_) | Happening::ShownAgain => Kind::Data,
            Happening::EofReceived(_) => Kind::Eof,
            Happening::DatagramUndelivered(_) => Kind::Undelivered,
            Happening::ResumeWriting => Kind::Resume,
            Happening::HandleTimeout => Kind::Timeout,
            Happening::Woken { .. } => Kind::Woken,
            Happening::Posted(_) => Kind::Posted,
            Happening::ShutdownRequested => Kind::Shutdown,
            Happening::DeadlinePassed(_) => Kind::Deadline,
            Happening::InputRejected(_) => Kind::Rejected,
            _ => return,
        };
        self.calls.push(Call::of(kind));
        self.times.push(Consequence {
            at: event.at,
            waiting: event.waiting,
        });
    }
}
