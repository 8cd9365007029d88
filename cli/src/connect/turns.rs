//! A conversation in turns: a line is typed and sent, its reply is printed, and then the next one.

use std::time::Instant;

use serveloop::{CloseReason, Protocol, ProtocolError, Transport};

use crate::connect::console::Console;
use crate::connect::keyboard::{Typed, Unit};
use crate::connect::line_client::{LineClient, Next, Reply, Saying};
use crate::outbound::Ending;
use crate::protocols::Wire;

/// How one talks.
#[derive(Clone, Debug)]
pub(crate) struct Manners {
    pub(crate) talk: LineClient,
    pub(crate) wire: Wire,
    /// The longest line and the longest output, in bytes.
    pub(crate) line_most: usize,
    pub(crate) output_most: usize,
    pub(crate) prompt: Option<String>,
}

/// Talks in turns over one connection, until nothing more is typed or the peer ends it.
#[derive(Debug)]
pub(crate) struct Turns {
    manners: Manners,
    ending: Ending,
    console: Option<Console>,
    /// What the peer owes us.
    reply: Option<Reply>,
    quiet_at: Option<Instant>,
}

impl Turns {
    pub(crate) fn new(manners: Manners, ending: Ending) -> Self {
        Self {
            reply: manners.talk.greeting(),
            manners,
            ending,
            console: None,
            quiet_at: None,
        }
    }

    /// Does what can be done, after anything happened.
    fn settle(&mut self, transport: &mut Transport<'_>) {
        let Some(console) = &mut self.console else {
            return;
        };
        match console.attend(&self.ending, transport) {
            Some(Typed::Piece(line)) => self.say(&line, transport),
            Some(Typed::End) => transport.close(),
            None => {}
        }
        if !transport.is_closing() {
            self.ask();
        }
    }

    /// Whose turn is it? A prompt comes after the whole reply.
    fn ask(&mut self) {
        let Some(console) = &mut self.console else {
            return;
        };
        if self.reply.is_none() && console.screen().is_drained() {
            console.ask();
        }
    }

    fn say(&mut self, line: &[u8], transport: &mut Transport<'_>) {
        match self.manners.talk.say(line, self.manners.wire) {
            Saying::Skip => {}
            Saying::Quit => transport.close(),
            Saying::Send(request, reply) => {
                transport.write(&request);
                self.reply = Some(reply);
            }
        }
    }

    fn receive(
        &mut self,
        data: &mut &[u8],
        printed: &mut Vec<u8>,
        now: Instant,
    ) -> Result<(), ProtocolError> {
        while !data.is_empty() {
            let spontaneous = self.manners.talk.is_spontaneous();
            if self.reply.is_none() && spontaneous {
                self.reply = Some(Reply::Piece);
            }
            let Some(reply) = &mut self.reply else {
                let problem = format!("{} bytes more than the reply", data.len());
                return Err(ProtocolError::malformed(problem));
            };
            let next = reply.receive(data, printed, self.manners.output_most)?;
            self.go_on(next, now);
        }
        Ok(())
    }

    fn go_on(&mut self, next: Next, now: Instant) {
        self.quiet_at = None;
        match next {
            Next::Receive => {}
            Next::Await(time) => self.quiet_at = Some(now + time),
            Next::Done => self.reply = None,
        }
    }
}

impl Protocol for Turns {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result<(), ProtocolError> {
        let unit = Unit::Line(self.manners.line_most);
        let prompt = self.manners.prompt.take();
        let console = Console::start(unit, prompt, transport.waker());
        self.console = Some(console.map_err(ProtocolError::other)?);
        self.settle(transport);
        Ok(())
    }

    fn data_received(
        &mut self,
        mut data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        let (count, mut printed) = (data.len(), Vec::new());
        let outcome = self.receive(&mut data, &mut printed, transport.now());
        if let Some(console) = &self.console {
            console.screen().print(printed);
        }
        outcome?;
        self.settle(transport);
        Ok(count)
    }

    fn eof_received(
        &mut self,
        _: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<(), ProtocolError> {
        // An output that is there needs no quiet after it any more.
        let is_missing = |reply| !matches!(reply, Reply::End | Reply::Output(_, 0));
        if self.reply.take().is_some_and(is_missing) {
            return Err(ProtocolError::other("closed before the reply was complete"));
        }
        transport.close();
        Ok(())
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.quiet_at
    }

    fn handle_timeout(&mut self, transport: &mut Transport<'_>) {
        let Some(reply) = &mut self.reply else {
            return;
        };
        match reply.quiet(self.manners.output_most) {
            Ok((request, next)) => {
                transport.write(request);
                self.go_on(next, transport.now());
                self.settle(transport);
            }
            Err(error) => {
                self.ending.fail(error);
                transport.abort();
            }
        }
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
