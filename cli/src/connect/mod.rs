//! `serveloop connect`: a conversation with a server from the terminal.
//!
//! This room holds the user's side of a connection: the keyboard, the screen, and whose turn it is.
//! The connection itself is in `outbound`.

mod datagrams;
mod framing;
mod line_client;

mod console;
mod keyboard;
mod relay;
mod screen;
mod turns;

use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serveloop::framing::{LengthPrefix, Lines, Netstring, Varint};
use serveloop::net::VsockAddr;
use serveloop::{Address, Config, Limits};

use crate::connect::datagrams::Manner;
use crate::connect::framing::WireFraming;
use crate::connect::keyboard::Unit;
use crate::connect::line_client::LineClient;
use crate::connect::relay::Relay;
use crate::connect::turns::{Manners, Turns};
use crate::failure::Failure;
use crate::interrupt::Leftover;
use crate::outbound::{
    Before, ProxyHeader, Secured, TlsOptions, Trust, host, place_of_tls, resolve_secured,
    visit_after,
};
use crate::protocols::Wire;
use crate::units::{KeepAlive, Size, Timeout};

/// The default limit of a framed message, in bytes.
const FRAME_MOST: usize = 1 << 20;

/// The default limit of a command's output, in bytes. The output is not collected in memory.
const OUTPUT_MOST: usize = 1 << 30;

/// How long to wait for the reply to a datagram by default.
const DATAGRAM_PATIENCE: Duration = Duration::from_secs(1);

/// How long a server may take to close after we close first.
const FAREWELL: Duration = Duration::from_secs(1);

/// Talks to a server: sends what is typed, and prints what comes back.
///
/// With `serveloop serve echo` running, type the first line; the second comes back:
///
///   $ serveloop connect tcp://127.0.0.1:9999
///   good morning
///   good morning
///
/// At the end of the input (Ctrl-D) our side of the connection is closed, and what still arrives is
/// printed until the server closes its side. That works in a pipeline, with input of any size:
///
///   $ serveloop connect tcp://127.0.0.1:9999 < song.flac | cmp - song.flac
///
/// Some servers close the connection as soon as our side is closed, and the reply is lost. --keep-open
/// keeps our side open until the server closes the connection, or has been silent for --timeout. That
/// is a success (status 0) if the server has replied, and a failure if it has not:
///
///   $ echo ping | serveloop connect tcp://127.0.0.1:7000 --keep-open --timeout 1s
///   pong
///
/// Each line can be sent as a message, with a newline or after its length; each message that arrives is
/// printed as a line:
///
///   $ serveloop connect unix:///tmp/sum.sock --framing length
///
/// Over datagrams, each line is sent as a datagram, and each datagram that arrives is printed as a
/// line, whenever it comes. At the end of the input, missing replies are waited for; with --keep-open, what
/// comes is printed until nothing came for --timeout:
///
///   $ echo ping | serveloop connect udp://127.0.0.1:9999 --timeout 250ms
///   ping
///   $ echo join | serveloop connect udp://127.0.0.1:9999 --keep-open --timeout 5s
///
/// In some protocols the two sides take turns: a line, its reply, the next line. With --protocol, lines
/// are sent without their newline, empty lines are skipped, and each reply is printed as a line:
///
///   $ printf 'Michael\nexit\n' | serveloop connect tcp://127.0.0.1:9999 --protocol hello
///   Welcome!
///   Hello,Michael
///
///   $ echo uptime | serveloop connect tcp://127.0.0.1:8080 --protocol command --wire ready
///    21:36:45 up 3 days,  2:07,  1 user,  load average: 0.52, 0.58, 0.59
///
/// A server that expects load balancers in front of it reads a PROXY header first:
///
///   $ serveloop serve echo --proxy required --trust 127.0.0.1
///   $ echo ping | serveloop connect tcp://127.0.0.1:9999 --proxy-header v2,192.0.2.1:4711
///   ping
///
/// At a server with TLS, the header comes before the handshake.
///
/// Over TLS (1.2 or 1.3), the server has to prove by its certificate that it is the host. The system's
/// authorities are trusted (SSL_CERT_FILE names others), or those of --ca; a self-signed certificate is
/// an authority for itself. The end of our side is TLS's own end mark (close_notify), and a server that
/// ends without it is a failure, since bytes may be missing:
///
///   $ echo ping | serveloop connect tls://localhost:9443 --ca cert.pem
///   ping
///
/// What arrives is printed byte for byte. On a terminal, control characters other than line ends and
/// tabs, and bytes that are not UTF-8, are shown as \u{1b} or \xff, so that no server controls the
/// terminal.
///
/// The exit status is 0 after an orderly end, 1 after a failure (no server listens there, the
/// connection was cut, a reply is incomplete), and 130 after Ctrl-C.
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(crate) struct Connect {
    /// The server's address: tcp://HOST:PORT, tls://HOST:PORT, udp://HOST:PORT, unix://PATH, unixgram://PATH or vsock://CID:PORT
    uri: String,
    /// What counts as one message
    #[arg(long, value_enum, default_value_t = FrameKind::Raw, conflicts_with = "protocol")]
    framing: FrameKind,
    /// Keep our side of the connection open at the end of the input, until the server closes the
    /// connection or is silent for --timeout. Over datagrams, print what comes until the server is silent
    /// for --timeout, if it is given. Not with --protocol, which waits for every reply anyway
    #[arg(long, conflicts_with = "protocol")]
    keep_open: bool,
    /// Take turns, as clients of this protocol do
    #[arg(long, value_enum, value_name = "NAME")]
    protocol: Option<LineClient>,
    /// How commands and their output are sent, with --protocol command. Must be the same as the
    /// server's --wire: otherwise both sides may wait for each other until --timeout [default: framed]
    #[arg(long, value_enum, requires = "protocol")]
    wire: Option<Wire>,
    /// Ask for each line with this text, on standard error, if the line is typed at a terminal
    #[arg(
        long,
        value_name = "TEXT",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "> "
    )]
    prompt: Option<String>,
    /// How long to wait for the connection, for the TLS handshake, and then for any next byte; 0: no limit. Over datagrams,
    /// how long to wait for a reply; 0: do not wait [default: 10s for the connection, then no limit; 1s
    /// for a datagram]
    #[arg(long, value_name = "DURATION")]
    timeout: Option<Timeout>,
    /// How long a TCP connection may be silent before the system probes whether the server is still
    /// there; 0: no probes. A dead server ends the conversation after about twice this time
    #[arg(long, value_name = "DURATION", default_value_t = None.into())]
    keepalive: KeepAlive,
    /// Begin the connection with a PROXY header, as a load balancer does: v1 or v2, for a server that
    /// trusts us. It names our own address, or after a comma another client (v2,192.0.2.1:4711), or
    /// nobody, as in a health check (v2,local)
    #[arg(long, value_name = "VERSION[,CLIENT]")]
    proxy_header: Option<ProxyHeader>,
    /// The longest message to accept [default: 1MiB, and 1GiB for the output of a command]
    #[arg(long, value_name = "SIZE")]
    max_message: Option<Size>,
    #[command(flatten)]
    tls: TlsOptions,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum FrameKind {
    /// Any bytes, as they come and go
    Raw,
    /// Each line
    Line,
    /// The bytes that follow a length (4 bytes, big-endian)
    Length,
    /// The bytes that follow a length of 1 to 10 bytes, as Protocol Buffers writes delimited messages
    Varint,
    /// The bytes of a netstring: a length in digits, a colon, the bytes, a comma
    Netstring,
}

impl Connect {
    /// Talks until one side ends the conversation. Returns the exit status.
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        let leftover = Leftover::watch()?;
        let patience = self.config().connect_timeout;
        let addresses = resolve_secured(&self.uri, patience).map_err(Failure::of_input)?;

        self.check(&addresses)?;
        let before = Before {
            header: self.proxy_header,
            secured: self.secured()?,
        };

        if addresses.iter().any(Address::is_datagram) {
            let patience = self.timeout.map_or(Some(DATAGRAM_PATIENCE), Into::into);
            let manner = Manner {
                prompt: self.prompt,
                patience,
                stays: self.keep_open.then(|| self.timeout.and_then(Into::into)),
            };
            datagrams::exchange(&self.uri, &addresses, manner, &leftover)?;
        } else if let Some(talk) = self.protocol {
            let manners = self.manners(talk);
            let make = |ending| Turns::new(manners.clone(), ending);
            visit_after(&before, &self.uri, addresses, &self.config(), make)?;
        } else {
            let (cut, unit) = self.cut();
            let make = |ending| {
                Relay::new(cut.clone(), unit, self.prompt.clone(), ending).keep_open(self.keep_open)
            };
            visit_after(&before, &self.uri, addresses, &self.config(), make)?;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Returns host and port of a server that speaks TLS, or `None` for all other servers.
    fn place_of_tls(&self) -> Option<&str> {
        place_of_tls(&self.uri)
    }

    /// Returns TLS for the server, if its address says so.
    fn secured(&self) -> Result<Option<Secured>, Failure> {
        match (self.place_of_tls(), self.tls.given()) {
            (Some(place), _) => {
                let name = self.tls.server_name().unwrap_or(host(place));
                Trust::new(&self.tls, None)?.server(name).map(Some)
            }
            (None, Some(option)) => {
                let problem = format!("{option} is for servers that speak TLS: tls://HOST:PORT");
                Err(Failure::Usage(problem))
            }
            (None, None) => Ok(None),
        }
    }

    /// Refuses options and addresses that make no sense together.
    fn check(&self, addresses: &[Address]) -> Result<(), Failure> {
        let is_cut = self.protocol.is_some() || self.framing != FrameKind::Raw;
        let is_datagram = addresses.iter().any(Address::is_datagram);
        let several = |address: &&Address| {
            let ip = address.socket_addr().map(|addr| addr.ip().to_canonical());
            ip.is_some_and(|ip| ip.is_multicast() || ip == Ipv4Addr::BROADCAST)
        };

        if let Some(address) = addresses.iter().find(several) {
            let problem =
                format!("{address}: several machines share this address: use that of one machine");
            return Err(Failure::Usage(problem));
        }

        let has_no_port = |it: &&Address| match it {
            Address::Tcp(addr) | Address::Udp(addr) => addr.port() == 0,
            Address::Vsock(addr) => addr.port == 0,
            Address::Unix(_) | Address::Unixgram(_) => false,
        };
        if let Some(address) = addresses.iter().find(has_no_port) {
            let problem = format!("{address}: no server can listen on port 0");
            return Err(Failure::Usage(problem));
        }

        let is_every =
            |it: &&Address| matches!(it, Address::Vsock(addr) if addr.cid == VsockAddr::ANY);
        if let Some(address) = addresses.iter().find(is_every) {
            let problem = format!("{address}: say which machine: vsock://2:PORT is the host");
            return Err(Failure::Usage(problem));
        }

        let problem = if is_cut && is_datagram {
            "over datagrams each line is a message: --framing and --protocol are for streams"
        } else if self.proxy_header.is_some() && is_datagram {
            "a datagram has no PROXY header: --proxy-header is for streams"
        } else if self.wire.is_some() && self.protocol != Some(LineClient::Command) {
            "--wire is only for --protocol command"
        } else {
            return Ok(());
        };
        Err(Failure::Usage(problem.to_owned()))
    }

    fn config(&self) -> Config {
        let usual = Config::default();
        let idle = self.timeout.and_then(Into::into);
        let message = self.message_most(FRAME_MOST);

        Config {
            connect_timeout: self.timeout.map_or(usual.connect_timeout, Into::into),
            keepalive: self.keepalive.into(),
            // There must be room for the message, whose buffer grows in steps.
            max_buffered: usual.max_buffered.max(message.saturating_mul(2)),
            limits: Limits {
                handshake_timeout: self
                    .timeout
                    .map_or(usual.limits.handshake_timeout, Into::into),
                message_timeout: None,
                idle_timeout: idle,
                write_timeout: idle,
                linger_timeout: Some(FAREWELL),
                max_frame: message,
                ..usual.limits
            },
            ..usual
        }
    }

    fn cut(&self) -> (WireFraming, Unit) {
        let most = self.message_most(FRAME_MOST);
        let framing = match self.framing {
            FrameKind::Raw => return (WireFraming::Raw, Unit::Bytes),
            FrameKind::Line => WireFraming::Line(Lines::new(most)),
            FrameKind::Length => WireFraming::Length(LengthPrefix::u32(most)),
            FrameKind::Varint => WireFraming::Varint(Varint::new(most)),
            FrameKind::Netstring => WireFraming::Netstring(Netstring::new(most)),
        };
        (framing, Unit::Line(most))
    }

    fn manners(&self, talk: LineClient) -> Manners {
        Manners {
            talk,
            wire: self.wire.unwrap_or_default(),
            line_most: FRAME_MOST / 2,
            output_most: self.message_most(OUTPUT_MOST),
            prompt: self.prompt.clone(),
        }
    }

    fn message_most(&self, usual: usize) -> usize {
        self.max_message.map_or(usual, Into::into)
    }
}

#[cfg(test)]
mod tests {
    use clap::{Command, FromArgMatches};

    use super::*;

    fn config(options: &[&str]) -> Config {
        let command = Connect::augment_args(Command::new("connect").no_binary_name(true));
        let arguments = [&["tcp://127.0.0.1:9"], options].concat();
        let matches = command.try_get_matches_from(arguments).unwrap();
        Connect::from_arg_matches(&matches).unwrap().config()
    }

    #[test]
    fn a_longer_message_has_room_among_the_buffers() {
        let usual = Config::default();
        assert_eq!(config(&[]).max_buffered, usual.max_buffered);
        let config = |size| config(&["--framing", "length", "--max-message", size]);
        assert_eq!(config("8MiB").max_buffered, usual.max_buffered);

        let large = config("512MiB");
        assert_eq!(large.limits.max_frame, 512 << 20);
        assert!(large.max_buffered >= large.limits.max_frame / 9 * 10);
        let largest = config(&usize::MAX.to_string());
        assert_eq!(largest.max_buffered, usize::MAX);
        largest.validate().unwrap();
    }
}
