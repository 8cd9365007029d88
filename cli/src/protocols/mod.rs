//! The protocols that `serve` offers, each with its options and an example.
//!
//! Each protocol is a file or a folder. What several protocols share is in `serving`. Limits and
//! the start of a server are in `serve`, which imports this room.

mod operator;

mod chat;
mod command;
mod dispatch;
mod greet;
mod http;
mod memcached;
mod print;
mod resp;
mod streams;
mod timestamp;
mod websocket;

use std::io;
use std::time::Duration;

use clap::{Args, Subcommand};
use serveloop::framing::{Framed, Lines};
use serveloop::protocols::{Discard, Echo, Hello};
use serveloop::{Address, Config, Peer, Statistics};

use crate::failure::Failure;
use crate::protocols::chat::ChatOptions;
use crate::protocols::command::CommandOptions;
use crate::protocols::dispatch::DispatchOptions;
use crate::protocols::greet::GreetOptions;
use crate::protocols::http::HttpOptions;
use crate::protocols::memcached::MemcachedOptions;
use crate::protocols::operator::OperatorOptions;
use crate::protocols::print::PrintOptions;
use crate::protocols::resp::RespOptions;
use crate::protocols::streams::need_streams;
use crate::protocols::timestamp::TimestampOptions;
use crate::protocols::websocket::WebSocketOptions;
use crate::serving::{BoundServer, Execution, MessageKind, Need};
use crate::units::Span;

pub(crate) use self::command::Wire;
#[cfg(test)]
pub(crate) use self::greet::Greet;

#[derive(Debug, Subcommand)]
#[command(
    subcommand_value_name = "PROTOCOL",
    subcommand_help_heading = "Protocols"
)]
pub(crate) enum Protocol {
    /// Sends back what it receives.
    ///
    ///   $ serveloop serve echo
    ///   listening on tcp://127.0.0.1:9999
    ///
    /// In another terminal, type the first line; the second comes back:
    ///
    ///   $ nc 127.0.0.1 9999
    ///   good morning
    ///   good morning
    ///
    /// Over UDP, each datagram is sent back as a datagram:
    ///
    ///   $ serveloop serve echo --listen udp://127.0.0.1:9999
    ///   $ nc -u 127.0.0.1 9999
    #[command(verbatim_doc_comment)]
    Echo,
    /// Discards what it receives, and never replies.
    ///
    ///   $ serveloop serve discard
    ///   listening on tcp://127.0.0.1:9999
    ///
    /// In another terminal, type a line; nothing comes back:
    ///
    ///   $ nc 127.0.0.1 9999
    ///   good morning
    ///
    /// When the server ends, its log says how many bytes it has read.
    #[command(verbatim_doc_comment)]
    Discard,
    /// Sends Welcome!, answers NAME with Hello,NAME after a delay, and closes on exit.
    ///
    ///   $ serveloop serve hello --framing line
    ///   listening on tcp://127.0.0.1:9999
    ///
    /// In another terminal, type bob and, after a second, exit:
    ///
    ///   $ nc 127.0.0.1 9999
    ///   Welcome!
    ///   bob
    ///   Hello,bob
    ///   exit
    ///
    /// Without --framing line, each piece of data that arrives is a name, without the newline at its
    /// end, and replies have no newline. A delay does not hold up other clients. Over datagrams,
    /// replies cannot be delayed:
    ///
    ///   $ serveloop serve hello --delay 0 --listen udp://127.0.0.1:9999
    ///   $ nc -u 127.0.0.1 9999
    ///   bob
    ///   Hello,bob
    ///
    /// A reply to another machine's datagram is dropped if it is longer than --reply-factor times the
    /// datagram. With --reply-factor 7 every name gets its reply.
    #[command(verbatim_doc_comment)]
    Hello(HelloOptions),
    Greet(GreetOptions),
    Print(PrintOptions),
    Timestamp(TimestampOptions),
    Dispatch(DispatchOptions),
    Operator(OperatorOptions),
    Command(CommandOptions),
    Http(HttpOptions),
    #[command(name = "websocket")]
    WebSocket(WebSocketOptions),
    Resp(RespOptions),
    Memcached(MemcachedOptions),
    Chat(ChatOptions),
}

#[derive(Args, Debug)]
pub(crate) struct HelloOptions {
    /// How long to wait before each reply
    #[arg(long, value_name = "DURATION", default_value_t = Duration::from_secs(1).into())]
    delay: Span,
    /// What counts as one message
    #[arg(long, value_enum, default_value_t = MessageKind::Raw)]
    framing: MessageKind,
}

impl Protocol {
    /// Returns an error if this protocol cannot be served at one of `addresses`, or with this
    /// model.
    pub(crate) fn check(&self, addresses: &[Address], execution: Execution) -> Result<(), Failure> {
        match self {
            Self::Hello(options) => options.check(addresses),
            Self::Operator(options) => options.check(addresses, execution),
            Self::Command(options) => options.check(addresses, execution),
            Self::Memcached(options) => options.check(addresses, execution),
            Self::Resp(_) => RespOptions::check(addresses, execution),
            Self::WebSocket(options) => options.check(addresses, execution),
            Self::Http(options) => options.check(addresses),
            Self::Chat(_) => ChatOptions::check(addresses, execution),
            _ => Ok(()),
        }
    }

    /// Returns why a server of this protocol cannot be replaced by a new process, if so.
    pub(crate) fn objection_to_restarts(&self) -> Option<&'static str> {
        let shares_input = matches!(self, Self::Operator(_));
        shares_input.then_some("operator reads standard input, which two processes cannot share")
    }

    /// Returns what the protocol is called on the command line.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Discard => "discard",
            Self::Hello(_) => "hello",
            Self::Greet(_) => "greet",
            Self::Print(_) => "print",
            Self::Timestamp(_) => "timestamp",
            Self::Dispatch(_) => "dispatch",
            Self::Operator(_) => "operator",
            Self::Command(_) => "command",
            Self::Http(_) => "http",
            Self::WebSocket(_) => "websocket",
            Self::Resp(_) => "resp",
            Self::Memcached(_) => "memcached",
            Self::Chat(_) => "chat",
        }
    }

    /// Returns the limits that the protocol's options need.
    pub(crate) fn needs(&self) -> Vec<Need> {
        match self {
            Self::Command(options) => options.needs(),
            Self::Memcached(options) => options.needs(),
            Self::Resp(options) => options.needs(),
            _ => Vec::new(),
        }
    }

    /// Returns how much may usually wait for a client from others, if it gets anything from them. A burst
    /// of one of them waits as a whole, also for a client that reads promptly.
    pub(crate) fn posts_usual(&self) -> Option<usize> {
        match self {
            Self::Chat(_) => Some(8 << 20),
            Self::WebSocket(options) => options.has_room().then_some(8 << 20),
            // As in Redis.
            Self::Resp(_) => Some(32 << 20),
            _ => None,
        }
    }

    /// Returns whether clients usually wait for what others say, so that their silence means nothing.
    pub(crate) fn has_listeners(&self) -> bool {
        matches!(self, Self::Chat(_))
    }

    /// Returns whether a reply can be longer than what it answers.
    pub(crate) fn has_long_replies(&self) -> bool {
        matches!(
            self,
            Self::Hello(_) | Self::Greet(_) | Self::Timestamp(_) | Self::Dispatch(_)
        )
    }

    /// Serves until the server ends.
    pub(crate) fn serve(
        self,
        server: BoundServer,
        config: &Config,
        execution: Execution,
    ) -> io::Result<Statistics> {
        match self {
            Self::Echo => execution.serve_compiled(server, |_: &Peer| Some(Echo)),
            Self::Discard => execution.serve(server, |_: &Peer| Some(Discard)),
            Self::Hello(options) => options.serve(server, execution),
            Self::Greet(options) => options.serve(server, execution),
            Self::Print(options) => options.serve(server, execution),
            Self::Timestamp(options) => options.serve(server, execution),
            Self::Dispatch(options) => options.serve(server, execution),
            Self::Operator(options) => options.serve(server, config.limits.max_line, execution),
            Self::Command(options) => options.serve(server, config, execution),
            Self::Memcached(options) => options.serve(server, execution),
            Self::Resp(options) => options.serve(server, config, execution),
            Self::WebSocket(options) => options.serve(server, execution),
            Self::Http(options) => options.serve(server, config, execution),
            Self::Chat(options) => options.serve(server, execution),
        }
    }
}

impl HelloOptions {
    fn check(&self, addresses: &[Address]) -> Result<(), Failure> {
        let delay = Duration::from(self.delay);
        if delay.is_zero() {
            return Ok(());
        }
        let why = "hello over datagrams needs --delay 0: their replies cannot be delayed";
        need_streams(addresses, why)
    }

    fn serve(self, server: BoundServer, execution: Execution) -> io::Result<Statistics> {
        let (delay, max_line) = (self.delay.into(), server.max_line());
        match self.framing {
            MessageKind::Raw => execution.serve(server, move |_: &Peer| Some(Hello::new(delay))),
            MessageKind::Line => execution.serve(server, move |peer: &Peer| {
                let lines = Lines::new(max_line.of(peer));
                Some(Framed::new(lines, Hello::new(delay)))
            }),
        }
    }
}
