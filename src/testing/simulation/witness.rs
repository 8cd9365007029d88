//! A wrapper around the protocol under test that checks every call the loop makes.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Instant;

use crate::error::{CloseReason, Deadline, DeliveryError, ProtocolError};
use crate::session::{Ended, Post, Protocol, Tick, Transport};
use crate::testing::simulation::ledger::{Number, Place, SharedLedger, Slip};

/// The stage of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    New,
    Open,
    Ended,
    Lost,
}

/// A protocol whose calls are checked: the one that the loop calls or, inside a layer, the one that
/// the layer calls. Only the former knows its factory.
#[derive(Debug)]
pub struct Witness<P, S = ()> {
    protocol: P,
    shared: S,
    place: Place,
    ledger: SharedLedger,
    /// The number of the client's account. Datagrams have none.
    number: Number,
    stage: Stage,
    /// The number of an outbound session of datagrams.
    outbound: Cell<Option<usize>>,
    /// The session's id, which datagrams have too.
    id: u64,
    /// The connection is closing, so only `connection_lost` may follow.
    is_closing: Cell<bool>,
    /// The protocol was asked to finish.
    is_told: bool,
}

impl<P, S> Witness<P, S> {
    pub(super) fn new(
        protocol: P,
        number: Option<usize>,
        (ledger, shared): (&SharedLedger, S),
        place: Place,
    ) -> Self {
        let id = ledger.borrow_mut().note_session(place);
        Self {
            protocol,
            shared,
            place,
            id,
            is_closing: Cell::new(false),
            is_told: false,
            ledger: Rc::clone(ledger),
            number: Rc::new(number.into()),
            outbound: Cell::new(None),
            stage: Stage::New,
        }
    }

    /// Returns what will know the number of the account.
    pub(super) fn number(&self) -> Number {
        Rc::clone(&self.number)
    }

    /// Returns the factory that it comes from.
    pub(super) fn shared(&self) -> &S {
        &self.shared
    }

    /// Objects if a call comes outside the stages from `first` to `last`.
    fn check(&self, call: &str, first: Stage, last: Stage) {
        let mut ledger = self.ledger.borrow_mut();
        if self.place == Place::Wire {
            ledger.compute();
            ledger.calling = self.number.get();
        } else if self.number.get().is_none() {
            self.number.set(ledger.calling);
        }
        if let Some(number) = self.number.get() {
            let now = ledger.now;
            ledger.accounts[number].called = now;
        }

        let is_over = self.is_closing.get() && last != Stage::Lost;
        if self.stage < first || self.stage > last || is_over {
            let Self { stage, place, .. } = self;
            ledger.object(format!(
                "{call} was called of a session that is {stage:?}, at the place {place:?}"
            ));
        }
    }

    /// Records whether the connection is closing after a call.
    fn settle<T>(
        &self,
        outcome: Result<T, ProtocolError>,
        transport: &Transport<'_>,
    ) -> Result<T, ProtocolError> {
        if outcome.is_err() || transport.is_closing() {
            self.is_closing.set(true);
            self.note_deadline(None);
        }
        outcome
    }

    /// Notes the deadline of a session that the loop has to wait for. It does not know those inside
    /// layers.
    fn note_deadline(&self, at: Option<Instant>) {
        if self.place != Place::Wire {
            return;
        }
        let mut ledger = self.ledger.borrow_mut();
        match at {
            Some(at) => ledger.deadlines.insert(self.id, at),
            None => ledger.deadlines.remove(&self.id),
        };
    }

    /// Begins to record what an outbound session of datagrams writes.
    fn note_begun(&self, transport: &mut Transport<'_>) {
        let peer = transport.peer();
        if self.place != Place::Wire || !peer.is_datagram() || peer.listener().is_some() {
            return;
        }
        let mut ledger = self.ledger.borrow_mut();
        if let Some(outbound) = ledger.opened.take() {
            transport.set_tap(ledger.outbound[outbound].tap());
            self.outbound.set(Some(outbound));
        }
    }

    /// Checks that the protocol sees exactly what the client sent, starting where it last stopped.
    fn check_shown(&self, data: &[u8]) {
        if let Some(outbound) = self.outbound.get() {
            let mut ledger = self.ledger.borrow_mut();
            let shown = ledger.outbound[outbound].note_shown(data);
            return shown.unwrap_or_else(|problem| ledger.object(problem));
        }
        let Some(number) = self.number.get() else {
            return;
        };

        let mut ledger = self.ledger.borrow_mut();
        let (sends, arrived, from) = ledger.accounts[number].stream(self.place);
        let sent = sends.get(from..from + data.len());

        if sent != Some(data) {
            let problem = format!("byte {from} on: the protocol was shown what was not sent");
            ledger.object_to(number, &problem);
        } else if from + data.len() > arrived {
            ledger.object_to(number, "the protocol was shown more than was read");
        }
    }

    fn note_taken(&self, count: usize) {
        if let Some(outbound) = self.outbound.get() {
            self.ledger.borrow_mut().outbound[outbound].note_taken(count);
        }
        if let Some(number) = self.number.get() {
            let place = self.place;
            let mut ledger = self.ledger.borrow_mut();
            ledger.has_told |= count > 0;
            ledger.accounts[number].note_told(place, count);
        }
    }

    fn check_end(&self, unread: &[u8]) {
        self.check_shown(unread);
        let Some(number) = self.number.get() else {
            return;
        };
        let mut ledger = self.ledger.borrow_mut();
        let account = &ledger.accounts[number];
        let (_, arrived, told) = account.stream(self.place);
        let has_mark = account.layered.as_ref().is_none_or(|it| it.is_finished);

        if told + unread.len() != arrived {
            ledger.object_to(number, "the end came before bytes that were read");
        } else if self.place == Place::Inside && !has_mark {
            ledger.object_to(number, "an end was told without the client's end mark");
        }
    }
}

impl<P, S> Drop for Witness<P, S> {
    /// Takes it out of the account if the system has no room to serve it: it hears of nothing then.
    fn drop(&mut self) {
        let mut ledger = self.ledger.borrow_mut();
        if ledger.is_refusing && self.stage == Stage::New {
            *ledger.sessions_at(self.place) -= 1;
        }
    }
}

impl<P: Protocol, S> Protocol for Witness<P, S> {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result<(), ProtocolError> {
        self.check("connection_made", Stage::New, Stage::New);
        self.stage = Stage::Open;
        self.note_begun(transport);
        let outcome = self.protocol.connection_made(transport);
        self.settle(outcome, transport)
    }

    fn data_received(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        self.check("data_received", Stage::Open, Stage::Open);
        self.check_shown(data);

        let taken = self.protocol.data_received(data, transport);
        let taken = self.settle(taken, transport)?;
        self.note_taken(taken);
        Ok(taken)
    }

    fn datagram_received(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        self.check("datagram_received", Stage::Open, Stage::Open);
        self.check_shown(data);

        let taken = self.protocol.datagram_received(data, transport);
        let taken = self.settle(taken, transport)?;
        self.note_taken(taken);
        Ok(taken)
    }

    fn eof_received(
        &mut self,
        unread: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<(), ProtocolError> {
        self.check("eof_received", Stage::Open, Stage::Open);
        self.check_end(unread);
        self.stage = Stage::Ended;
        let outcome = self.protocol.eof_received(unread, transport);
        self.settle(outcome, transport)
    }

    fn datagram_undelivered(&mut self, error: &DeliveryError, transport: &mut Transport<'_>) {
        self.check("datagram_undelivered", Stage::Open, Stage::Open);
        if self.ledger.borrow().slip == Some(Slip::EndsByReport) {
            let refused = io::Error::from_raw_os_error(libc::ECONNREFUSED);
            transport.fail(CloseReason::Io(refused));
        }
        self.protocol.datagram_undelivered(error, transport);
        let _ = self.settle(Ok(()), transport);
    }

    fn resume_writing(&mut self, transport: &mut Transport<'_>) {
        self.check("resume_writing", Stage::Open, Stage::Ended);
        self.protocol.resume_writing(transport);
        let _ = self.settle(Ok(()), transport);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.check("poll_timeout", Stage::Open, Stage::Ended);
        self.note_deadline(None);
        let at = self.protocol.poll_timeout();
        self.note_deadline(at);
        at
    }

    fn handle_timeout(&mut self, transport: &mut Transport<'_>) {
        self.check("handle_timeout", Stage::Open, Stage::Ended);

        let early = self
            .protocol
            .poll_timeout()
            .is_none_or(|at| at > transport.now());

        if early {
            let problem = "handle_timeout was called before its time".to_owned();
            self.ledger.borrow_mut().object(problem);
        }

        self.protocol.handle_timeout(transport);
        let _ = self.settle(Ok(()), transport);
    }

    fn woken(&mut self, transport: &mut Transport<'_>) {
        self.check("woken", Stage::Open, Stage::Ended);
        self.protocol.woken(transport);
        let _ = self.settle(Ok(()), transport);
    }

    fn deadline_passed(&mut self, deadline: Deadline, transport: &mut Transport<'_>) {
        self.check("deadline_passed", Stage::Open, Stage::Ended);
        if let (Place::Wire, Some(number)) = (self.place, self.number.get()) {
            self.ledger
                .borrow_mut()
                .note_deadline_passed(number, deadline);
        }
        self.protocol.deadline_passed(deadline, transport);
        // Inside a layer it is the session outside that ends, so that deadlines are still asked for.
        let _ = self.settle(Ok(()), transport);
    }

    fn input_rejected(&mut self, error: &ProtocolError, transport: &mut Transport<'_>) {
        self.protocol.input_rejected(error, transport);
        self.is_closing.set(true);
    }

    fn shutdown_requested(&mut self, transport: &mut Transport<'_>) {
        self.check("shutdown_requested", Stage::Open, Stage::Ended);
        if std::mem::replace(&mut self.is_told, true) {
            let problem = "the protocol was told twice of the shutdown".to_owned();
            self.ledger.borrow_mut().object(problem);
        }
        self.protocol.shutdown_requested(transport);
        let _ = self.settle(Ok(()), transport);
    }

    fn connection_lost(&mut self, ended: &Ended<'_>) {
        let reason = ended.reason();
        if self.place == Place::Wire && !self.is_told && !self.is_closing.get() {
            self.ledger.borrow_mut().check_told(&self.number, reason);
        }
        self.is_closing.set(false);
        self.check("connection_lost", Stage::New, Stage::Ended);
        self.stage = Stage::Lost;
        self.note_deadline(None);
        if self.place == Place::Inside {
            self.ledger.borrow_mut().lost_inside += 1;
            return self.protocol.connection_lost(ended);
        }

        let mut ledger = self.ledger.borrow_mut();
        ledger.lost += 1;
        if ended.peer().is_datagram() {
            ledger.note_peer_lost(ended);
        }
        if let Some(outbound) = self.outbound.get() {
            let lost = ledger.outbound[outbound].note_lost(reason);
            lost.unwrap_or_else(|problem| ledger.object(problem));
        }

        let slip = ledger.slip;
        let panicked = matches!(reason, CloseReason::Panicked);
        ledger.slipped += usize::from(panicked && slip == Some(Slip::KeepsAccount));
        ledger
            .connecting
            .retain(|number| !Rc::ptr_eq(number, &self.number));
        match self.number.get() {
            Some(number) => ledger.note_lost(number, reason),
            None => ledger.lost_connects |= !ended.peer().is_datagram(),
        }

        drop(ledger);
        if slip == Some(Slip::AsksAfterEnd) {
            let _ = self.poll_timeout();
        }
        self.protocol.connection_lost(ended);
    }

    fn owes_first(&self, outside: bool) -> bool {
        self.protocol.owes_first(outside)
    }

    fn catch_up(&mut self, from: Tick, to: Tick) {
        self.protocol.catch_up(from, to);
    }

    fn needs_stream() -> bool {
        P::needs_stream()
    }

    fn posted(&mut self, post: &Post, transport: &mut Transport<'_>) {
        self.protocol.posted(post, transport);
    }

    fn write_end_mark(&mut self, transport: &mut Transport<'_>) {
        self.protocol.write_end_mark(transport);
    }
}
