//! A free conversation: input is sent as it is typed, and messages are printed as they come.

use serveloop::driver::Buffer;
use serveloop::framing::Decoder;
use serveloop::framing::Encoder;
use serveloop::{CloseReason, Deadline, Ended, Protocol, ProtocolError, Transport};

use crate::connect::console::Console;
use crate::connect::framing::WireFraming;
use crate::connect::keyboard::{Typed, Unit};
use crate::outbound::Ending;

/// Relays between the console and one connection until the peer ends it. Neither side is read while
/// its data would only fill memory.
#[derive(Debug)]
pub(crate) struct Relay {
    cut: WireFraming,
    unit: Unit,
    prompt: Option<String>,
    ending: Ending,
    console: Option<Console>,
    /// Input that the transport has had no room for yet.
    unsent: Buffer,
    input_ended: bool,
    /// Whether our side stays open at the end of the input.
    keeps_open: bool,
    /// What the peer has said so far.
    said: Said,
}

/// How much of the peer's messages has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Nothing,
    /// The beginning of a message.
    Half,
    /// Whole messages.
    Whole,
}

impl Relay {
    /// Returns a relay for messages framed by `cut`. Input comes in pieces of `unit`, with `prompt`
    /// before each.
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

    /// Keeps our side open at the end of the input, if `is_wanted`.
    pub(crate) fn keep_open(mut self, is_wanted: bool) -> Self {
        self.keeps_open = is_wanted;
        self
    }

    /// Does whatever is possible now. Call this after every event.
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

    /// Returns whether both sides have said everything, as far as that can be known while the
    /// connection stays open.
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

        // `write` would stop the peer's output until it has taken ours.
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
        let end = self.cut.line_end();
        let Some(frame) = self.cut.decode(data)? else {
            self.said = Said::Half;
            return Ok(0);
        };

        self.said = Said::Whole;
        if let Some(console) = &self.console {
            console.screen().print([frame.message, end].concat());
        }
        let taken = frame.taken;
        self.settle(transport);
        Ok(taken)
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

    fn connection_lost(&mut self, ended: &Ended<'_>) {
        let reason = ended.reason();
        if let Some(console) = self.console.take() {
            console.finish(&self.ending);
        }

        if self.has_waited_enough(reason) {
            self.ending.succeed();
        }
        self.ending.note(reason);
    }
}
