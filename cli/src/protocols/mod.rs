//! The protocols that `serve` offers, each with its options and an example.
//!
//! Each protocol is a file or a folder. What several protocols share is in `serving`. Limits and
//! the start of a server are in `serve`, which imports this room.

mod operator;

mod command;
mod dispatch;
mod greet;
mod print;
mod timestamp;

use std::io;
use std::time::Duration;

use clap::{Args, Subcommand};
use serveloop::framing::{Framed, Lines};
use serveloop::protocols::{Discard, Echo, Hello};
use serveloop::{Address, Config, Peer, Server, Statistics};

use crate::failure::Failure;
use crate::protocols::command::CommandOptions;
use crate::protocols::dispatch::DispatchOptions;
use crate::protocols::greet::GreetOptions;
use crate::protocols::operator::OperatorOptions;
use crate::protocols::print::PrintOptions;
use crate::protocols::timestamp::TimestampOptions;
use crate::serving::{Execution, MessageKind, Need};
use crate::units::Span;

pub(crate) use self::command::Wire;

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
    /// In another terminal; the first line is typed, the second comes back:
    ///
    ///   $ nc 127.0.0.1 9999
    ///   good morning
    ///   good morning
    ///
    /// Each datagram comes back on its own:
    ///
    ///   $ serveloop serve echo --listen udp://127.0.0.1:9999
    ///   $ nc -u 127.0.0.1 9999
    #[command(verbatim_doc_comment)]
    Echo,
    /// Takes everything and answers nothing.
    ///
    ///   $ serveloop serve discard
    ///   listening on tcp://127.0.0.1:9999
    ///
    /// In another terminal; the line is typed, and nothing comes back:
    ///
    ///   $ nc 127.0.0.1 9999
    ///   good morning
    ///
    /// How much it was, the server's log says at the end.
    #[command(verbatim_doc_comment)]
    Discard,
    /// Says Welcome!, answers NAME with Hello,NAME after a delay, closes on exit.
    ///
    ///   $ serveloop serve hello --framing line
    ///   listening on tcp://127.0.0.1:9999
    ///
    /// In another terminal; bob and exit are typed, Hello,bob comes a second later:
    ///
    ///   $ nc 127.0.0.1 9999
    ///   Welcome!
    ///   bob
    ///   Hello,bob
    ///   exit
    ///
    /// Without --framing line each piece that arrives is a name, less a newline at its end, and
    /// replies end with no newline. A delay holds up nobody else; over datagrams there is none:
    ///
    ///   $ serveloop serve hello --delay 0 --listen udp://127.0.0.1:9999
    ///   $ nc -u 127.0.0.1 9999
    ///   bob
    ///   Hello,bob
    ///
    /// Datagrams of other machines get a reply if --reply-factor is large enough, 7 for every name:
    /// one that is longer than what it answers is dropped otherwise.
    #[command(verbatim_doc_comment)]
    Hello(HelloOptions),
    Greet(GreetOptions),
    Print(PrintOptions),
    Timestamp(TimestampOptions),
    Dispatch(DispatchOptions),
    Operator(OperatorOptions),
    Command(CommandOptions),
}

#[derive(Args, Debug)]
pub(crate) struct HelloOptions {
    /// How long a reply takes
    #[arg(long, value_name = "DURATION", default_value_t = Duration::from_secs(1).into())]
    delay: Span,
    /// What one message is
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
            _ => Ok(()),
        }
    }

    /// Returns the limits that the protocol's options need.
    pub(crate) fn needs(&self) -> Vec<Need> {
        match self {
            Self::Command(options) => options.needs(),
            _ => Vec::new(),
        }
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
        server: Server,
        config: &Config,
        execution: Execution,
    ) -> io::Result<Statistics> {
        match self {
            Self::Echo => execution.serve(server, |_: &Peer| Some(Echo)),
            Self::Discard => execution.serve(server, |_: &Peer| Some(Discard)),
            Self::Hello(options) => options.serve(server, config.max_line, execution),
            Self::Greet(options) => options.serve(server, execution),
            Self::Print(options) => options.serve(server, execution),
            Self::Timestamp(options) => options.serve(server, config.max_line, execution),
            Self::Dispatch(options) => options.serve(server, execution),
            Self::Operator(options) => options.serve(server, config.max_line, execution),
            Self::Command(options) => options.serve(server, config, execution),
        }
    }
}

impl HelloOptions {
    fn check(&self, addresses: &[Address]) -> Result<(), Failure> {
        let delay = Duration::from(self.delay);
        if !delay.is_zero() && addresses.iter().any(Address::is_datagram) {
            let problem = "hello over datagrams needs --delay 0";
            return Err(Failure::Usage(problem.to_owned()));
        }
        Ok(())
    }

    fn serve(
        self,
        server: Server,
        max_line: usize,
        execution: Execution,
    ) -> io::Result<Statistics> {
        let delay = self.delay.into();
        match self.framing {
            MessageKind::Raw => execution.serve(server, move |_: &Peer| Some(Hello::new(delay))),
            MessageKind::Line => execution.serve(server, move |_: &Peer| {
                Some(Framed::new(Lines::new(max_line), Hello::new(delay)))
            }),
        }
    }
}
