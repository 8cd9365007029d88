//! The protocols that `serve` offers, each with its options and an example.

mod command;

use std::io;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use serveloop::protocols::{Discard, Echo, Hello};
use serveloop::{Address, Config, Framed, Lines, Peer, Server, Statistics};

use self::command::CommandOptions;
pub(crate) use self::command::become_program;
use crate::failure::Failure;
use crate::logged::{Diary, Logged};
use crate::units::Span;
use crate::way::Way;

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
    #[command(verbatim_doc_comment)]
    Hello(HelloOptions),
    /// Runs programs that were allowed by name, never a shell, and sends back what they print.
    ///
    /// A request is a command line: words, and quotes as in Python's shlex.split. The first word must
    /// be a program of --allow, by the name or the path given there; the others are its arguments, as
    /// they are. Variables, wildcards, pipes and ; mean nothing. --wire says how requests and replies
    /// travel:
    ///
    ///   $ serveloop serve command --wire framed --allow ls --allow date
    ///   listening on tcp://127.0.0.1:9999
    ///
    ///   client: 00 00 00 04 date        a length (big-endian), the command line
    ///   server: 00 00 00 1d Thu Jan...  a length (big-endian), the output
    ///
    ///   $ serveloop serve command --wire struct --allow echo
    ///
    ///   client: echo hi                 the command line; what arrives at once is one request,
    ///   server: 03 00 00 00 hi          or one for each line. A length (little-endian, signed)
    ///
    ///   $ serveloop serve command --wire ready --allow echo
    ///
    ///   client: echo hi
    ///   server: 3                       the length in digits
    ///   client: ready
    ///   server: hi
    ///
    /// This one can be typed in another terminal:
    ///
    ///   $ nc 127.0.0.1 9999
    ///   echo hi
    ///   3ready
    ///   hi
    ///
    /// With framed and struct a client need not wait for a reply before its next request; its
    /// programs run one after the other. Without line ends only framed keeps requests apart.
    ///
    /// The reply is what the program writes to standard output and standard error, as it comes. What
    /// did not go well is said in brackets on a last line:
    ///
    ///   [exit status N]          [killed by signal N]       [could not be started: ...]
    ///   [timed out after 30s]    [output cut off at 1MiB]   [stopped: the client's stream has ended]
    ///   [not allowed: "rm"]      [bad request: ...]         [request too long: ...]   [busy: ...]
    ///
    /// A program finds PATH and LANG in its environment, / as its directory, nothing on standard input,
    /// and no other descriptor; it has a session of its own, gains no rights by set-user-ID, and dies
    /// with its connection. When it ends, the processes that it left behind are killed.
    ///
    /// None of this protects from what an allowed program can be told to do: whoever allows a shell,
    /// an interpreter, env, find, xargs or an editor allows everything, with the rights of the server.
    /// Memory, the number of processes and the network are not limited, and a process that makes a
    /// session of its own escapes. Clients are not asked who they are, so only loopback and Unix
    /// sockets are listened at; the permissions of a Unix socket's directory say who may connect.
    #[command(verbatim_doc_comment)]
    Command(CommandOptions),
}

#[derive(Args, Debug)]
pub(crate) struct HelloOptions {
    /// How long a reply takes
    #[arg(long, value_name = "DURATION", default_value_t = Duration::from_secs(1).into())]
    delay: Span,
    /// What one message is
    #[arg(long, value_enum, default_value_t = Cut::Raw)]
    framing: Cut,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Cut {
    /// Each piece that arrives
    Raw,
    /// Each line
    Line,
}

impl Protocol {
    /// Refuses what cannot be served at one of `addresses`.
    pub(crate) fn check(&self, addresses: &[Address]) -> Result<(), Failure> {
        match self {
            Self::Echo | Self::Discard => Ok(()),
            Self::Hello(options) => options.check(addresses),
            Self::Command(options) => options.check(addresses),
        }
    }

    /// Serves until the end of the server.
    pub(crate) fn serve(self, server: Server, config: &Config, way: Way) -> io::Result<Statistics> {
        match self {
            Self::Echo => way.serve(server, |_: &Peer| Some(Echo)),
            Self::Discard => way.serve(server, |_: &Peer| Some(Discard)),
            Self::Hello(options) => options.serve(server, config.max_line, way),
            Self::Command(options) => options.serve(server, config, way),
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

    fn serve(self, server: Server, max_line: usize, way: Way) -> io::Result<Statistics> {
        let delay = self.delay.into();
        let diary = Diary::default();
        match self.framing {
            Cut::Raw => way.serve(server, move |peer: &Peer| {
                Some(Logged::new(peer, &diary, Hello::new(delay)))
            }),
            Cut::Line => way.serve(server, move |peer: &Peer| {
                let lines = Framed::new(Lines::new(max_line), Hello::new(delay));
                Some(Logged::new(peer, &diary, lines))
            }),
        }
    }
}
