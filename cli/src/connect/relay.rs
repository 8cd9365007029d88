//! A conversation in which both sides speak when they like: what is typed is sent, what comes is
//! printed.

use serveloop::driver::Buffer;
use serveloop::framing::Decoder;
use serveloop::framing::Encoder;
use serveloop::{CloseReason, Deadline, Protocol, ProtocolError, Transport};

use crate::connect::console::Console;
use crate::connect::framing::WireFraming;
use crate::connect::keyboard::{Typed, Unit};
use crate::outbound::Ending;

/// Relays between the console and one connection, until the peer ends it. Neither side is read
/// while it would only fill memory.
#[derive(Debug)]
pub(crate) struct Relay {
    cut: WireFraming,
    unit: Unit,
    prompt: Option<String>,
    ending: Ending,
    console: Option<Console>,
    /// What was typed and found no room yet.
    unsent: Buffer,
    input_ended: bool,
    /// Our side does not end with the input.
    keeps_open: bool,
    /// What the peer has said so far.
    said: Said,
}

/// What has come of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Nothing,
    /// The beginning of a message.
    Half,
    /// Whole messages.
    Whole,
}

impl Relay {
    /// A relay of messages cut by `cut`, typed in pieces of `unit`, each after `prompt`.
    pub(crate) fn new(
        cut: WireFraming,
        unit: Unit,
        prompt: Option<String>,
        ending: Ending,
    ) -> Self {
        Self {
            cut,
            unit,
            prompt,
            ending,
            console: None,
            unsent: Buffer::default(),
            input_ended: false,
            keeps_open: false,
            said: Said::Nothing,
        }
    }

    /// Does not end our side at the end of the input, if that `is_wanted`.
    pub(crate) fn keep_open(mut self, is_wanted: bool) -> Self {
        self.keeps_open = is_wanted;
        self
    }

    /// Does what can be done, after anything happened.
    fn settle(&mut self, transport: &mut Transport<'_>) {
        let Some(console) = &mut self.console else {
            return;
        };
        match console.attend(&self.ending, transport) {
            Some(Typed::Piece(piece)) => self.take(&piece, transport),
            Some(Typed::End) => self.input_ended = true,
            None => {}
        }
        self.send(transport);
    }

    /// Whether all was said on both sides, as far as one can know who keeps the connection open.
    fn has_waited_enough(&self, reason: &CloseReason) -> bool {
        let all_sent = self.keeps_open && self.input_ended && self.unsent.is_empty();
        let is_silent = matches!(reason, CloseReason::TimedOut(Deadline::Idle));
        all_sent && is_silent && self.said == Said::Whole
    }

    fn take(&mut self, piece: &[u8], transport: &mut Transport<'_>) {
        let Self { cut, unsent, .. } = self;
        if let Err(error) = cut.encode(piece, |bytes| unsent.push(bytes)) {
            self.ending.fail(error);
            transport.abort();
        }
    }

    fn send(&mut self, transport: &mut Transport<'_>) {
        if transport.is_closing() {
            return;
        }
        // Not `write`, which would stop the peer's output until it has taken ours.
        let sent = transport.write_some(self.unsent.as_slice());
        self.unsent.consume(sent);
        if !self.unsent.is_empty() {
            return;
        }
        if self.input_ended {
            if !self.keeps_open {
                transport.finish();
            }
            return;
        }
        if let Some(console) = &mut self.console {
            console.ask();
        }
    }
}

impl Protocol for Relay {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result<(), ProtocolError> {
        let prompt = self.prompt.take();
        let console = Console::start(self.unit, prompt, transport.waker());
        self.console = Some(console.map_err(ProtocolError::other)?);
        self.settle(transport);
        Ok(())
    }

    fn data_received(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        let Some(frame) = self.cut.decode(data)? else {
            self.said = Said::Half;
            return Ok(0);
        };
        self.said = Said::Whole;
        if let Some(console) = &self.console {
            let end = self.cut.line_end();
            console.screen().print([frame.message, end].concat());
        }
        self.settle(transport);
        Ok(frame.taken)
    }

    fn eof_received(
        &mut self,
        unread: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<(), ProtocolError> {
        self.cut.decode_eof(unread)?;
        transport.close();
        Ok(())
    }

    fn resume_writing(&mut self, transport: &mut Transport<'_>) {
        self.settle(transport);
    }

    fn woken(&mut self, transport: &mut Transport<'_>) {
        self.settle(transport);
    }

    fn connection_lost(&mut self, reason: &CloseReason) {
        if let Some(console) = self.console.take() {
            console.finish(&self.ending);
        }
        if self.has_waited_enough(reason) {
            self.ending.succeed();
        }
        self.ending.note(reason);
    }
}
