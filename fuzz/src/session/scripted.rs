//! A protocol that does what a script says, and tells the model of it.

use std::cell::{RefCell, RefMut};
use std::panic::resume_unwind;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serveloop::{CloseReason, Ended, Protocol, ProtocolError, Transport};

use super::model::{Event, Model};
use super::pattern::piece;
use super::steps::{Answer, Deed};

/// The protocol.
#[derive(Clone, Debug)]
pub(super) struct Scripted {
    pub(super) model: Rc<RefCell<Model>>,
    /// What the calls of one event answer, in turn.
    pub(super) answers: Rc<RefCell<[Answer; 2]>>,
    pub(super) panics_later: Rc<RefCell<bool>>,
}

impl Scripted {
    pub(super) fn new(model: Rc<RefCell<Model>>) -> Self {
        Self {
            model,
            answers: Rc::default(),
            panics_later: Rc::default(),
        }
    }

    fn model(&self) -> RefMut<'_, Model> {
        self.model.borrow_mut()
    }

    fn answer(&self) -> Answer {
        let call = self.model().calls;
        self.answers.borrow()[call % 2]
    }

    /// Does what the script says, to the session and to the model of it.
    fn act(&self, transport: &mut Transport<'_>) -> Result<(), ProtocolError> {
        match self.answer().deed() {
            Deed::Nothing => {}
            Deed::Write(size) => {
                let count = size.bytes(&self.model());
                transport.write(&piece(self.model().written, count));
                self.model().write(count);
            }
            Deed::WriteSome(size) => {
                let count = size.bytes(&self.model());
                let taken = transport.write_some(&piece(self.model().written, count));
                let expected = self.model().write_some(count);
                self.model()
                    .demand(taken == expected, "some was not what there was room for");
            }
            Deed::Pause => {
                transport.pause_reading();
                self.model().paused = true;
            }
            Deed::Resume => {
                transport.resume_reading();
                self.model().resume();
            }
            Deed::Again => {
                transport.call_again();
                self.model().again = true;
            }
            Deed::Close => {
                transport.close();
                self.model().close();
            }
            Deed::Finish => {
                transport.finish();
                self.model().finished = true;
            }
            Deed::Abort => {
                transport.abort();
                self.model().fail(CloseReason::Aborted);
            }
            Deed::SetDeadline(millis) => {
                self.model().own = Some(transport.now() + Duration::from_millis(millis));
            }
            Deed::ClearDeadline => self.model().own = None,
            Deed::PanicLater => *self.panics_later.borrow_mut() = true,
            Deed::Error => return Err(ProtocolError::malformed("as scripted")),
            Deed::Panic => self.panic(),
        }
        self.compare(transport);
        Ok(())
    }

    /// Without the panic hook, which prints, and which a fuzzer takes for a finding.
    fn panic(&self) -> ! {
        self.model().fail(CloseReason::Panicked);
        resume_unwind(Box::new("as scripted"))
    }

    /// What a protocol sees of its session is what the model says.
    fn compare(&self, transport: &Transport<'_>) {
        let mut model = self.model();
        let waiting = model.waiting();
        model.demand(transport.waiting() == waiting, "waiting");
        let seen = (
            transport.is_paused(),
            transport.is_full(),
            transport.is_closing(),
        );
        let expected = (model.paused, model.full, model.closing);
        model.demand(seen == expected, "paused, full or closing");
    }

    /// The same where errors are told by returning them.
    fn act_or_fail(&self, transport: &mut Transport<'_>) -> Result<(), ProtocolError> {
        self.act(transport).inspect_err(|_| {
            let error = ProtocolError::malformed("as scripted");
            self.model().fail(CloseReason::Protocol(error));
        })
    }

    fn tell(&self, event: Event, transport: &mut Transport<'_>) {
        self.model().tell(event);
        if self.act(transport).is_err() {
            // Where a protocol cannot return an error it may as well panic.
            self.panic();
        }
        if event == Event::Woken {
            self.model().called_again();
        }
    }
}

impl Protocol for Scripted {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result<(), ProtocolError> {
        self.model().tell_open();
        self.act_or_fail(transport)
    }

    fn data_received(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        self.model().tell_data(data);
        self.act_or_fail(transport)?;
        let count = self.answer().take(data.len());
        self.model().take(count);
        Ok(count)
    }

    fn eof_received(
        &mut self,
        unread: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<(), ProtocolError> {
        self.model().tell_eof(unread);
        self.act_or_fail(transport)
    }

    fn resume_writing(&mut self, transport: &mut Transport<'_>) {
        self.tell(Event::Sent, transport);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let over = self.model().closing;
        self.model()
            .demand(!over, "asked for its deadline after its end");
        if self.panics_later.replace(false) {
            self.panic();
        }
        self.model().own
    }

    fn handle_timeout(&mut self, transport: &mut Transport<'_>) {
        self.tell(Event::Timeout, transport);
    }

    fn woken(&mut self, transport: &mut Transport<'_>) {
        self.tell(Event::Woken, transport);
    }

    fn shutdown_requested(&mut self, transport: &mut Transport<'_>) {
        self.tell(Event::Shutdown, transport);
    }

    fn connection_lost(&mut self, ended: &Ended<'_>) {
        let mut model = self.model();
        model.calls += 1;
        let is_end = model.event == Event::Lost && model.calls == 1;
        model.demand(is_end, "lost more than once");
        let expected = model.reason.as_ref().unwrap_or(&CloseReason::Closed);
        let (expected, reason) = (expected.to_string(), ended.reason().to_string());
        model.demand(
            expected == reason,
            &format!("{reason} instead of {expected}"),
        );

        let (expected, bytes) = (
            model.bytes(),
            [ended.received(), ended.sent(), ended.unsent()],
        );
        model.demand(
            expected == bytes,
            &format!("bytes {bytes:?} instead of {expected:?}"),
        );
        drop(model);
        if self.answer().deed() == Deed::Panic {
            resume_unwind(Box::new("as scripted"));
        }
    }
}
