//! `serve operator`: a person at the server's terminal answers clients.

mod console;
mod foreground;
mod typed;

use std::io::{self, BufReader, IsTerminal};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use serveloop::framing::{Decoder, Encoder};
use serveloop::protocols::counted;
use serveloop::{Address, Ended, Peer, Protocol, ProtocolError, Statistics, Transport};

use crate::escaped::Escaped;
use crate::failure::Failure;
use crate::logger::TARGET;
use crate::patient::Patient;
use crate::protocols::operator::console::Console;
use crate::protocols::operator::foreground::Foreground;
use crate::serving::{
    AccessLog, BoundServer, Execution, MessageKind, Messages, Outflow, StdoutQueue,
};
use crate::threads;
use crate::units::Timeout;

/// The default of `--reply-timeout`. A client that waits for a reply is not read from, so one that
/// left without a word keeps its place until then.
const REPLY_TIMEOUT: Duration = Duration::from_secs(600);

/// One client's side of the conversation: shows a message, waits for the reply, and then takes the
/// next message.
#[derive(Debug)]
pub(crate) struct Operator {
    console: Arc<Console>,
    outflow: Outflow,
    messages: Messages,
    /// The number by which the operator addresses this client, or 0 before it is connected.
    number: u64,
    /// Whether a message is shown and not answered yet.
    asked: bool,
    timeout: Option<Duration>,
    /// When this client is disconnected if it has no reply.
    give_up_at: Option<Instant>,
    /// A reply that waits for room on standard output, where it is shown before it is sent.
    held: Option<Vec<u8>>,
}

impl Operator {
    /// Shows a line of the conversation. Returns false if there is no room for it now.
    fn show(&mut self, line: &str, transport: &Transport<'_>) -> Result<bool, ProtocolError> {
        self.outflow
            .offer(line.as_bytes(), || Some(transport.waker()))
    }

    /// Sends the typed replies, as long as there is room for them.
    fn deliver(&mut self, transport: &mut Transport<'_>) -> Result<(), ProtocolError> {
        while !transport.is_full() {
            let typed = || self.console.take_reply(self.number);
            let Some(reply) = self.held.take().or_else(typed) else {
                break;
            };
            // Standard output may have failed, but the client still waits, so the reply is sent.
            let line = line_of(self.number, "reply", &reply);
            if !self.show(&line, transport).unwrap_or(true) {
                self.held = Some(reply);
                break;
            }

            self.asked = false;
            self.messages
                .encode(&reply, |piece| transport.write(piece))?;
        }
        Ok(())
    }

    fn go_on(&mut self, transport: &mut Transport<'_>) {
        if self.deliver(transport).is_err() {
            return transport.close();
        }

        let closed = self.asked && self.held.is_none() && self.console.is_closed();
        if closed || !self.asked {
            self.asked = false;
            transport.resume_reading();
        }
    }
}

impl Protocol for Operator {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result<(), ProtocolError> {
        self.number = self.console.join(transport.waker());
        Ok(())
    }

    fn data_received(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        let Some(message) = self.messages.decode(data)? else {
            return Ok(0);
        };

        let taken = message.taken;
        let who = address_of(transport.peer());
        let line = line_of(self.number, &who, message.message);
        if !self.show(&line, transport)? {
            transport.pause_reading();
            return Ok(0);
        }

        self.asked = self.console.ask(self.number);
        if self.asked {
            let now = transport.now();
            self.give_up_at = self.timeout.and_then(|timeout| now.checked_add(timeout));
            transport.pause_reading();
        }
        Ok(taken)
    }

    fn resume_writing(&mut self, transport: &mut Transport<'_>) {
        self.go_on(transport);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.give_up_at.filter(|_| self.asked)
    }

    fn handle_timeout(&mut self, transport: &mut Transport<'_>) {
        AccessLog.note(
            transport.peer(),
            format_args!("client {} got no reply in time", self.number),
        );
        transport.close();
    }

    fn woken(&mut self, transport: &mut Transport<'_>) {
        self.go_on(transport);
    }

    fn connection_lost(&mut self, _: &Ended<'_>) {
        let lost = self.console.leave(self.number) + usize::from(self.held.is_some());
        if lost > 0 {
            let lost = counted(lost, "reply was", "replies were");
            log::warn!(target: TARGET, "client {} left: {lost} not sent", self.number);
        }
    }
}

/// Returns a line of the conversation with a client.
fn line_of(number: u64, who: &str, text: &[u8]) -> String {
    format!("[{number}] {who}: {}\n", Escaped(text))
}

/// Returns the peer's address in its shortest clear form.
fn address_of(peer: &Peer) -> String {
    match peer.address().socket_addr() {
        Some(address) => address.to_string(),
        None => peer.to_string(),
    }
}

/// Shows what clients send, and lets you answer.
///
///   $ serveloop serve operator
///   listening on tcp://127.0.0.1:9999
///   [1] 127.0.0.1:50412: is anybody there?
///   yes, one moment
///   [1] reply: yes, one moment
///
/// The fourth line is what you typed. In another terminal, the client typed the first line, and the
/// second came back:
///
///   $ nc 127.0.0.1 9999
///   is anybody there?
///   yes, one moment
///
/// What you type goes to the client that has waited longest for a reply, or to the only client that is
/// connected. To answer another client, begin with @ and its number. For a text that begins with @,
/// type the @ twice:
///
///   @2 good morning      to client 2
///   @@home               @home, to the client that has waited longest
///
/// Each client has one message on the screen at a time; its next message is shown after you have
/// answered. Until then --reply-timeout applies to the client, not --idle-timeout. A client that has
/// left is noticed only when its reply is sent. Empty lines are ignored.
///
/// Standard input can also be a pipe or a file: a line without @ waits until a client waits. When it
/// ends or is closed, messages are still shown, and clients no longer wait for replies. Standard output
/// has the conversation, in which control characters from clients are escaped: \n, \u{1b}, \xff.
/// Standard error has the log, which says who connects and leaves, and why a line was not sent.
///
/// Each piece of data that arrives is a message, without the newline at its end, and replies have no
/// newline; with --framing line both are lines. This protocol works neither over datagrams nor with
/// --model forking. With --model sequential the next client is served when the first one has left.
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(crate) struct OperatorOptions {
    /// What counts as one message
    #[arg(long, value_enum, default_value_t = MessageKind::Raw)]
    framing: MessageKind,
    /// How long a client waits for a reply before it is disconnected; 0: no limit
    #[arg(long, value_name = "DURATION", default_value_t = Some(REPLY_TIMEOUT).into())]
    reply_timeout: Timeout,
}

impl OperatorOptions {
    /// Returns an error for addresses or models that leave no way from the terminal to the client.
    pub(crate) fn check(&self, addresses: &[Address], execution: Execution) -> Result<(), Failure> {
        if let Some(address) = addresses.iter().find(|it| it.is_datagram()) {
            let problem = format!(
                "operator cannot serve {address}: a datagram cannot wait for a typed reply"
            );
            return Err(Failure::Usage(problem));
        }

        if execution.is_forking() {
            let problem = "operator cannot be served with --model forking: \
                           typed replies do not reach the processes";
            return Err(Failure::Usage(problem.to_owned()));
        }
        Ok(())
    }

    pub(crate) fn serve(
        self,
        server: BoundServer,
        max_line: usize,
        execution: Execution,
    ) -> io::Result<Statistics> {
        let stdout_queue = StdoutQueue::new(execution.is_forking())?;
        let console = Arc::new(Console::default());
        listen_to_input(Arc::clone(&console), max_line)?;

        let factory_outlet = stdout_queue.clone();
        let line_limits = server.max_line();
        let served = execution.serve(server, move |peer: &Peer| {
            let operator = Operator {
                console: Arc::clone(&console),
                outflow: Outflow::new(&factory_outlet),
                messages: Messages::new(self.framing, line_limits.of(peer)),
                number: 0,
                asked: false,
                timeout: self.reply_timeout.into(),
                give_up_at: None,
                held: None,
            };
            Some(operator)
        });

        stdout_queue.finish();
        served
    }
}

/// Starts a thread that reads standard input. It ends only with the process, because nothing
/// interrupts the wait for a person.
fn listen_to_input(console: Arc<Console>, max_line: usize) -> io::Result<()> {
    let input = Patient::new(io::stdin())?;
    let read = move || {
        let mut input = BufReader::new(Foreground(input));
        let patience = !io::stdin().is_terminal();
        console.read(&mut input, max_line, patience);
    };
    threads::spawn("standard input", read).map(drop)
}
