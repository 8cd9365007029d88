//! The servers that are measured: one of the command's own models, or a server that is already
//! running.

use std::fmt;
use std::io;
use std::net::TcpStream;
use std::num::NonZero;
use std::str::FromStr;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serveloop::Address;
use serveloop_measure::{Audience, Family, Pace, Scenario, Secured};

use crate::bench::interrupt::Interrupt;
use crate::bench::spoken::Spoken;
use crate::bench::trouble::TIMED_OUT;
use crate::failure::Failure;
use crate::outbound::{Sessions, TlsOptions, host, place_of_tls, resolve_secured, secured_load};
use crate::threads;

/// A timeout longer than any measurement, since connections may be idle throughout.
const DEADLINE: &str = "3h";
/// How long one address of several is tried before the next one is tried as well.
const HEAD_START: Duration = Duration::from_millis(250);
/// The interval at which signals and the next address's turn are checked.
const STEP: Duration = Duration::from_millis(20);
/// The most processes that are started. More would exhaust most machines.
const PROCESSES_MOST: usize = 2_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Contender {
    Model(Model),
    Target(Target),
}

/// A model of the command's own servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Model {
    EventLoop,
    Workers(NonZero<usize>),
    Threaded,
    Forking,
    Sequential,
}

/// A server that is already running.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    uri: String,
    /// All addresses that the name resolves to.
    addresses: Vec<Address>,
    /// Its process, if the user says which one that is.
    pub(crate) process: Option<Family>,
    /// TLS, if the URI says so.
    pub(crate) secured: Option<Secured>,
}

impl PartialEq for Target {
    fn eq(&self, other: &Self) -> bool {
        self.uri == other.uri
    }
}

impl Eq for Target {}

impl Contender {
    /// Returns where the server is, or nothing for one that is started.
    pub(crate) fn uri(&self) -> &str {
        match self {
            Self::Model(_) => "",
            Self::Target(target) => &target.uri,
        }
    }

    /// Returns why this server cannot take the load, or `None` if it can.
    pub(crate) fn objection(&self, scenario: &Scenario) -> Option<&'static str> {
        let total = scenario.total();
        match self {
            // With churn, clients wait in the system's queue for their turn.
            Self::Model(Model::Sequential) if total > 1 && scenario.pace != Pace::Churn => {
                Some("serves one connection at a time")
            }
            Self::Model(Model::Forking) if scenario.audience == Audience::All => {
                Some("processes do not share their clients")
            }
            Self::Model(Model::Sequential) if scenario.audience == Audience::All => {
                Some("serves one connection at a time")
            }
            Self::Model(Model::Forking) if scenario.protocol == "resp" => {
                Some("processes do not share the keys")
            }
            Self::Model(Model::Forking) if total > PROCESSES_MOST => {
                Some("needs more than 2,000 processes")
            }
            _ => None,
        }
    }
}

impl Model {
    /// Returns the arguments that start a server of this model and protocol for the load. All limits and
    /// deadlines are on, and raised only as far as the load needs.
    pub(crate) fn arguments(self, spoken: &Spoken, scenario: &Scenario) -> Vec<String> {
        let most = scenario.standing_most().to_string();
        let mut arguments: Vec<String> = ["serve", spoken.server()].map(str::to_owned).into();
        arguments.extend(spoken.server_options().iter().copied().map(str::to_owned));
        for listener in 1..=scenario.listeners() {
            // Only Linux accepts all of 127.0.0.0/8. Elsewhere, the ports distinguish the
            // listeners.
            let host = if cfg!(target_os = "linux") {
                listener
            } else {
                1
            };
            arguments.extend(["--listen".to_owned(), format!("tcp://127.0.0.{host}:0")]);
        }

        let (model, workers) = match self {
            Self::Workers(count) => ("event-loop", count.get()),
            Self::EventLoop => ("event-loop", 1),
            Self::Threaded => ("threaded", 1),
            Self::Forking => ("forking", 1),
            Self::Sequential => ("sequential", 1),
        };
        for (option, value) in [
            ("--model", model),
            ("--workers", &workers.to_string()),
            ("--max-connections", &most),
            ("--max-children", &most),
            ("--first-message-timeout", DEADLINE),
            ("--message-timeout", DEADLINE),
            ("--idle-timeout", DEADLINE),
            ("--write-timeout", DEADLINE),
        ] {
            arguments.extend([option.to_owned(), value.to_owned()]);
        }
        arguments
    }

    /// Returns whether child processes do the server's work.
    pub(crate) fn forks(self) -> bool {
        self == Self::Forking
    }

    /// Returns how many of `cores` cores the server can keep busy.
    pub(crate) fn cores_used(self, cores: usize) -> usize {
        match self {
            Self::EventLoop | Self::Sequential => 1,
            Self::Workers(count) => count.get().min(cores),
            Self::Threaded | Self::Forking => cores,
        }
    }
}

impl Target {
    /// Looks up the addresses of `uri`, for at most `patience`. `tls` and `sessions` are for one that
    /// speaks TLS.
    ///
    /// # Errors
    /// Fails if `uri` is not a URI or is that of a datagram socket, if the lookup fails or takes too
    /// long, or if TLS cannot be used.
    pub(crate) fn find(
        uri: &str,
        patience: Duration,
        tls: &TlsOptions,
        sessions: Sessions,
    ) -> Result<Self, Failure> {
        let addresses = resolve_secured(uri, Some(patience)).map_err(Failure::of_input)?;
        if addresses.iter().any(Address::is_datagram) {
            let problem = "only streams can be measured: tcp://, tls:// or unix://";
            return Err(Failure::Usage(format!("--target {uri}: {problem}")));
        }

        let secured = place_of_tls(uri).map(|place| {
            let name = tls.server_name().unwrap_or(host(place));
            secured_load(tls, name, sessions)
        });
        Ok(Self {
            uri: uri.to_owned(),
            addresses,
            process: None,
            secured: secured.transpose()?,
        })
    }

    /// Returns the address of the server. A single address is returned untried. Of several, it is
    /// the first that accepts a connection within `patience`. An address that does not answer
    /// delays the next one only briefly. If none accepts, it is the first that refuses, so that the
    /// benchmark reports the reason.
    ///
    /// # Errors
    /// Fails if none of several addresses answers within `patience`, or after a signal.
    pub(crate) fn address(
        &self,
        patience: Duration,
        interrupt: &Interrupt,
    ) -> io::Result<&Address> {
        if let [only] = &self.addresses[..] {
            return Ok(only);
        }

        let deadline = Instant::now() + patience;
        let (tell, told) = mpsc::channel();
        let mut waiting = self.addresses.iter().enumerate();
        let (mut pending, mut due, mut refusing) = (0, Instant::now(), None);
        loop {
            interrupt.check()?;
            let now = Instant::now();
            if (pending == 0 || now >= due)
                && let Some((number, address)) = waiting.next()
            {
                try_out(number, address, deadline - now, tell.clone());
                (pending, due) = (pending + 1, now + HEAD_START);
            }

            match told.recv_timeout(STEP) {
                Ok((number, Answer::Here)) => return Ok(&self.addresses[number]),
                Ok((number, Answer::Refused)) => {
                    refusing = refusing.or(Some(number));
                    pending -= 1;
                }
                Ok((_, Answer::Silent)) => pending -= 1,
                Err(_) => {}
            }

            let is_over = Instant::now() >= deadline;
            if is_over || pending == 0 && waiting.len() == 0 {
                return refusing
                    .map(|number| &self.addresses[number])
                    .ok_or_else(|| self.silent(patience));
            }
        }
    }

    fn silent(&self, patience: Duration) -> io::Error {
        let patience = humantime::format_duration(patience);
        let problem = match self.addresses.len() {
            1 => format!("no answer within {patience}"),
            count => format!("none of its {count} addresses answered within {patience}"),
        };
        io::Error::new(io::ErrorKind::TimedOut, format!("{problem}: {TIMED_OUT}"))
    }
}

/// The outcome of an attempt to connect to an address.
#[derive(Clone, Copy, Debug)]
enum Answer {
    Here,
    Refused,
    Silent,
}

/// Connects in a thread and sends the outcome. If no thread can be started, the outcome is
/// `Refused`.
fn try_out(
    number: usize,
    address: &Address,
    patience: Duration,
    tell: mpsc::Sender<(usize, Answer)>,
) {
    let addr = address.socket_addr();
    let untold = tell.clone();
    let attempt = move || {
        let connected = addr.map(|addr| TcpStream::connect_timeout(&addr, patience));
        let answer = match connected {
            Some(Ok(_)) => Answer::Here,
            Some(Err(error)) if error.kind() == io::ErrorKind::TimedOut => Answer::Silent,
            _ => Answer::Refused,
        };
        let _ = tell.send((number, answer));
    };

    if threads::spawn("an address", attempt).is_err() {
        let _ = untold.send((number, Answer::Refused));
    }
}

impl FromStr for Model {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=').unwrap_or((text, "")) {
            ("event-loop", "") => Ok(Self::EventLoop),
            ("threaded", "") => Ok(Self::Threaded),
            ("forking", "") => Ok(Self::Forking),
            ("sequential", "") => Ok(Self::Sequential),
            ("workers", count) => match count.parse() {
                Ok(count) => Ok(Self::Workers(count)),
                Err(_) => Err("expected a number of workers, for example workers=2".to_owned()),
            },
            _ => Err(
                "expected event-loop, workers=NUMBER, threaded, forking or sequential".to_owned(),
            ),
        }
    }
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Model(model) => model.fmt(f),
            Self::Target(target) => f.write_str(&target.uri),
        }
    }
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EventLoop => f.write_str("event-loop"),
            Self::Workers(count) => write!(f, "workers={count}"),
            Self::Threaded => f.write_str("threaded"),
            Self::Forking => f.write_str("forking"),
            Self::Sequential => f.write_str("sequential"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scenario(connections: usize) -> Scenario {
        Scenario {
            connections,
            ..Scenario::default()
        }
    }

    #[test]
    fn models_are_shown_as_they_are_typed() {
        for text in [
            "event-loop",
            "workers=2",
            "threaded",
            "forking",
            "sequential",
        ] {
            assert_eq!(text.parse::<Model>().unwrap().to_string(), text);
        }

        for text in [
            "workers",
            "workers=0",
            "workers=two",
            "threaded=2",
            "",
            "tokio",
        ] {
            assert!(text.parse::<Model>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn targets_are_streams() {
        let target = |text: &str| {
            let tls = TlsOptions::default();
            Target::find(text, Duration::from_secs(1), &tls, Sessions::New)
        };
        assert_eq!(
            Contender::Target(target("tcp://127.0.0.1:7").unwrap()).to_string(),
            "tcp://127.0.0.1:7"
        );

        assert!(target("unix:///tmp/echo").is_ok());
        for uri in ["udp://127.0.0.1:7", "unixgram:///tmp/echo"] {
            let Err(Failure::Usage(problem)) = target(uri) else {
                panic!("{uri} is no stream");
            };
            let expected = format!("--target {uri}: only streams can be measured");
            assert!(problem.starts_with(&expected), "{problem}");
        }
        assert!(matches!(target("127.0.0.1:7"), Err(Failure::Usage(_))));
    }

    #[test]
    fn who_cannot_take_the_load_is_known_before() {
        let objection = |model, connections| {
            let contender = Contender::Model(model);
            contender.objection(&scenario(connections)).is_some()
        };
        assert!(!objection(Model::Sequential, 1));
        assert!(objection(Model::Sequential, 2));
        assert!(!objection(Model::Forking, PROCESSES_MOST));
        assert!(objection(Model::Forking, PROCESSES_MOST + 1));
        assert!(!objection(Model::Threaded, 15_000));

        let churn = Scenario {
            pace: Pace::Churn,
            ..scenario(10)
        };
        assert_eq!(Contender::Model(Model::Sequential).objection(&churn), None);
    }

    #[test]
    fn servers_take_the_load_that_they_are_started_for() {
        let arguments = Model::Forking.arguments(&Spoken::default(), &scenario(1_000));
        let value = |option: &str| {
            let place = arguments.iter().position(|argument| argument == option);
            arguments[place.unwrap() + 1].as_str()
        };
        assert_eq!(value("--model"), "forking");
        assert_eq!(value("--max-children"), "1512");
        assert_eq!(value("--max-connections"), "1512");
        assert_eq!(value("--listen"), "tcp://127.0.0.1:0");
    }
}
