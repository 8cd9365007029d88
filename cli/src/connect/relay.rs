//! A conversation in which both sides speak when they like: what is typed is sent, what comes is
//! printed.

use serveloop::{Buffer, CloseReason, Framing, Protocol, ProtocolError, Transport};

use super::console::Console;
use super::cut::Cut;
use super::keyboard::{Typed, Unit};
use crate::outbound::Ending;

/// Relays between the console and one connection, until the peer ends it. Neither side is read
/// while it would only fill memory.
#[derive(Debug)]
pub(crate) struct Relay {
    cut: Cut,
    unit: Unit,
    prompt: Option<String>,
    ending: Ending,
    console: Option<Console>,
    /// What was typed and found no room yet.
    unsent: Buffer,
    input_ended: bool,
}

impl Relay {
    /// A relay of messages cut by `cut`, typed in pieces of `unit`, each after `prompt`.
    pub(crate) fn new(cut: Cut, unit: Unit, prompt: Option<String>, ending: Ending) -> Self {
        Self {
            cut,
            unit,
            prompt,
            ending,
            console: None,
            unsent: Buffer::default(),
            input_ended: false,
        }
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
            return transport.finish();
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
            return Ok(0);
        };
        if let Some(console) = &self.console {
            let end = self.cut.line_end();
            console.screen().print([frame.payload, end].concat());
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
        self.ending.note(reason);
    }
}
