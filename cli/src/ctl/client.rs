//! A connection to the `--admin` of a server.

use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::Value;
use serveloop::{Address, Listen};

use crate::failure::Failure;
use crate::monitoring::{Answer, Question};

/// How long a server may take to answer. One whose loops stand still answers within a second.
const PATIENCE: Duration = Duration::from_secs(20);

/// A client of a server's `--admin`.
#[derive(Debug)]
pub(crate) struct Client {
    uri: String,
    stream: BufReader<File>,
}

impl Client {
    /// Connects to the server that listens at `uri`.
    ///
    /// # Errors
    /// Returns a usage error for what is no such address, and otherwise one that says what to look
    /// at.
    pub(crate) fn connect(uri: &str) -> Result<Self, Failure> {
        // The options that the server's listener has are no part of where it is.
        let places = Listen::resolve(uri);
        let places = places.map_err(|error| Failure::of_input(about(uri, &error)))?;
        let mut outcome = Err(io::Error::from(ErrorKind::AddrNotAvailable));
        for place in &places {
            outcome = match place.address() {
                Address::Tcp(addr) => connect_tcp(*addr),
                Address::Unix(path) => connect_unix(path),
                _ => {
                    let problem = "expected unix:///PATH or tcp://HOST:PORT";
                    return Err(Failure::Usage(format!("{uri:?}: {problem}")));
                }
            };
            if outcome.is_ok() {
                break;
            }
        }
        let stream = outcome.map_err(|error| explain(uri, error))?;
        Ok(Self {
            uri: uri.to_owned(),
            stream: BufReader::new(File::from(stream)),
        })
    }

    /// Asks a question, and returns the value that the server answers.
    ///
    /// # Errors
    /// Returns what the server said, or why it said nothing.
    pub(crate) fn ask(&mut self, question: &Question) -> io::Result<Value> {
        self.answer(question)?.into_result()
    }

    /// Asks a question, and returns the answer, which may say that there is no value.
    ///
    /// # Errors
    /// Says why the server said nothing.
    pub(crate) fn answer(&mut self, question: &Question) -> io::Result<Answer> {
        let mut line = serde_json::to_string(question)?;
        line.push('\n');
        let answer = self.exchange(line.as_bytes());
        let answer = answer.map_err(|error| about(&self.uri, &error))?;
        serde_json::from_str(&answer).map_err(|error| {
            let problem = format!("this is no server's --admin: {error}");
            about(&self.uri, &io::Error::new(ErrorKind::InvalidData, problem))
        })
    }

    fn exchange(&mut self, line: &[u8]) -> io::Result<String> {
        let sent = self.stream.get_mut().write_all(line);
        let mut answer = String::new();
        let read = sent.and_then(|()| self.stream.read_line(&mut answer));

        let (kind, problem) = match read {
            Ok(1..) => return Ok(answer),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let seconds = PATIENCE.as_secs();
                (ErrorKind::TimedOut, format!("no answer within {seconds} s"))
            }
            Err(error) if !is_closed(error.kind()) => return Err(error),
            _ => {
                let problem = "the server has closed the connection without an answer: it ends, or \
                               too many others ask it";
                (ErrorKind::UnexpectedEof, problem.to_owned())
            }
        };
        Err(io::Error::new(kind, problem))
    }
}

/// Returns whether an error only says that the server has closed the connection.
fn is_closed(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
}

fn connect_tcp(addr: std::net::SocketAddr) -> io::Result<OwnedFd> {
    let stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream.into())
}

fn connect_unix(path: &std::path::Path) -> io::Result<OwnedFd> {
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream.into())
}

/// Says what a failure to connect probably means.
fn explain(uri: &str, error: io::Error) -> Failure {
    let hint = match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
            format!("no server listens there: was one started with --admin {uri}?")
        }
        ErrorKind::PermissionDenied => {
            "permission denied: only the user that runs the server may connect".to_owned()
        }
        _ => error.to_string(),
    };
    Failure::System(io::Error::new(error.kind(), format!("{uri}: {hint}")))
}

fn about(uri: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{uri}: {error}"))
}
