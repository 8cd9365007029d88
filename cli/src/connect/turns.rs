//! A conversation in turns: a line is typed and sent, its reply is printed, and then the next line
//! is typed.

use std::time::{Duration, Instant};

use serveloop::protocols::counted;
use serveloop::{Ended, Protocol, ProtocolError, Transport};

use crate::connect::console::Console;
use crate::connect::keyboard::{Typed, Unit};
use crate::connect::line_client::{LineClient, Next, Reply, Saying};
use crate::outbound::Ending;
use crate::protocols::Wire;

/// The error if a peer ends its side before it has replied to a line.
const NO_REPLY: &str = "the server closed before the reply was complete";

/// How long to wait for the end of the input after the peer's end. Input that is already available
/// is read by then.
const INPUT_PATIENCE: Duration = Duration::from_secs(1);

/// The settings of a conversation in turns.
#[derive(Clone, Debug)]
pub(crate) struct Manners {
    pub(crate) talk: LineClient,
    pub(crate) wire: Wire,
    /// The longest line and the longest output, in bytes.
    pub(crate) line_most: usize,
    pub(crate) output_most: usize,
    pub(crate) prompt: Option<String>,
}

/// Talks in turns over one connection, until the input or the peer ends.
#[derive(Debug)]
pub(crate) struct Turns {
    manners: Manners,
    ending: Ending,
    console: Option<Console>,
    /// The reply that the peer still owes.
    reply: Option<Reply>,
    quiet_at: Option<Instant>,
    /// Whether the peer has ended its side, and it is not known yet whether there is another line
    /// for it.
    is_alone: bool,
}

impl Turns {
    pub(crate) fn new(manners: Manners, ending: Ending) -> Self {
        Self {
            reply: manners.talk.greeting(),
            manners,
            ending,
            console: None,
            quiet_at: None,
            is_alone: false,
        }
    }

    /// Does whatever is possible now. Call this after every event.
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

    /// Requests the next line if it is the user's turn: after the whole reply has been printed, so
    /// that the prompt follows it.
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
            Saying::Send(..) if self.is_alone => self.fail(NO_REPLY, transport),
            Saying::Send(request, reply) => {
                transport.write(&request);
                self.reply = Some(reply);
            }
        }
    }

    fn fail(&self, problem: impl ToString, transport: &mut Transport<'_>) {
        self.ending.fail(problem);
        transport.abort();
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
                let more = counted(data.len(), "byte", "bytes");
                let problem = format!("{more} more than the reply");
                return Err(ProtocolError::malformed(problem));
            };

            let next = reply.receive(data, printed, self.manners.output_most)?;
            self.go_on(next, now);
        }
        Ok(())
    }

    /// Handles the case that the peer has ended its side, and neither a line nor the end of the
    /// input has come since.
    fn stop_waiting(&mut self, transport: &mut Transport<'_>) {
        let is_drained = |console: &Console| console.screen().is_drained();
        if self.console.as_ref().is_none_or(is_drained) {
            self.fail("the server closed before the input ended", transport);
        } else {
            // No line was requested yet, because the reader of our output is slow.
            self.quiet_at = Some(transport.now() + INPUT_PATIENCE);
        }
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
        // A complete output no longer needs to be followed by silence.
        let is_missing = |reply| !matches!(reply, Reply::End | Reply::Output(_, 0));
        if self.reply.take().is_some_and(is_missing) {
            return Err(ProtocolError::other(NO_REPLY));
        }
        self.quiet_at = None;
        if transport.is_closing() || self.console.as_ref().is_none_or(Console::has_person) {
            // A person sees that the conversation is over, and types nothing more.
            transport.close();
            return Ok(());
        }

        // The result must not depend on whether a last line or the peer's end came first.
        self.is_alone = true;
        self.quiet_at = Some(transport.now() + INPUT_PATIENCE);
        self.settle(transport);
        Ok(())
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.quiet_at
    }

    fn handle_timeout(&mut self, transport: &mut Transport<'_>) {
        if self.is_alone {
            return self.stop_waiting(transport);
        }
        let Some(reply) = &mut self.reply else {
            return;
        };

        match reply.quiet(self.manners.output_most) {
            Ok((request, next)) => {
                transport.write(request);
                self.go_on(next, transport.now());
                self.settle(transport);
            }
            Err(error) => self.fail(error, transport),
        }
    }

    fn woken(&mut self, transport: &mut Transport<'_>) {
        self.settle(transport);
    }

    fn connection_lost(&mut self, ended: &Ended<'_>) {
        if let Some(console) = self.console.take() {
            console.finish(&self.ending);
        }
        self.ending.note(ended.reason());
    }
}
