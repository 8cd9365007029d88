//! The old process's side of one attempt: a new process that does not serve yet.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use serveloop::net::OpenSocket;

use crate::restart::manifest::{
    FAILED, GO, GO_ON, HandedSocket, Manifest, PlaceName, READY, Served, VARIABLE,
};
use crate::sys;

/// How long the new process may take to take a connection over.
const PATIENCE: Duration = Duration::from_secs(10);

/// The most that a new process may say before a line ends, in bytes.
const WORD_MOST: usize = 1 << 20;

/// A new process that was started and does not serve yet. Dropping it ends the process.
#[derive(Debug)]
pub(super) struct Attempt {
    child: Child,
    control: UnixStream,
    heard: Vec<u8>,
    until: Instant,
    patience: Duration,
    is_done: bool,
}

/// A socket that is handed on, and where it belongs.
#[derive(Debug)]
pub(super) struct Placed {
    pub(super) socket: OpenSocket,
    pub(super) listener: usize,
    pub(super) place_number: usize,
    pub(super) place: PlaceName,
}

/// What goes on in the new process besides the listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Follows {
    Nothing,
    Connections,
}

/// How far an attempt is.
#[derive(Debug, PartialEq)]
pub(super) enum Progress {
    /// The new process does not serve yet.
    Waits,
    /// It serves.
    Ready(Served),
    Failed(String),
}

impl Attempt {
    /// Starts the program with these sockets.
    ///
    /// # Errors
    /// Says why it cannot be started.
    pub(super) fn start(
        mut command: Command,
        sockets: Vec<Placed>,
        patience: Duration,
    ) -> io::Result<Self> {
        let (control, theirs) = UnixStream::pair()?;
        control.set_nonblocking(true)?;
        let handed = |placed: &Placed| HandedSocket {
            descriptor: placed.socket.as_fd().as_raw_fd(),
            place: placed.place.clone(),
            place_number: placed.place_number,
            listener: placed.listener,
            file: placed.socket.file().map(|file| file.to_string()),
        };
        let manifest = Manifest {
            control: theirs.as_raw_fd(),
            sockets: sockets.iter().map(handed).collect(),
        };

        let descriptors = sockets.into_iter().map(|it| OwnedFd::from(it.socket));
        let descriptors = descriptors.chain([theirs.into()]).collect();
        command.env(VARIABLE, serde_json::to_string(&manifest)?);
        sys::pass_on(&mut command, descriptors);
        Ok(Self {
            child: command.spawn()?,
            control,
            heard: Vec::new(),
            until: Instant::now() + patience,
            patience,
            is_done: false,
        })
    }

    /// Returns the number of the new process.
    pub(super) fn process(&self) -> u32 {
        self.child.id()
    }

    /// Looks how far it is. Never waits.
    pub(super) fn progress(&mut self) -> Progress {
        // What it said before it ended counts.
        let ended = self.child.try_wait();
        self.hear();
        if let Some(line) = self.line() {
            return self.understood(&line);
        }
        match ended {
            Ok(None) if Instant::now() < self.until => Progress::Waits,
            Ok(None) => Progress::Failed(format!(
                "the new process ({}) does not serve within {:?} (--restart-timeout)",
                self.process(),
                self.patience
            )),
            Ok(Some(status)) => Progress::Failed(format!(
                "the new process ({}) ended before it served, with {status}",
                self.process()
            )),
            Err(error) => Progress::Failed(format!("the new process is lost: {error}")),
        }
    }

    /// Lets the new process go on alone. Returns the stream to it, if `follows` says that open
    /// connections follow.
    pub(super) fn release(mut self, follows: Follows) -> Option<UnixStream> {
        self.is_done = true;
        let word = match follows {
            Follows::Nothing => GO,
            Follows::Connections => GO_ON,
        };
        // If it has ended just now, no process is left to tell.
        let said = writeln!(self.control, "{word}");
        let stream = self.control.try_clone().ok()?;
        stream.set_nonblocking(false).ok()?;
        stream.set_write_timeout(Some(PATIENCE)).ok()?;
        (said.is_ok() && follows == Follows::Connections).then_some(stream)
    }

    fn hear(&mut self) {
        let mut room = [0; 4_096];
        while self.heard.len() < WORD_MOST {
            match self.control.read(&mut room) {
                Ok(0) => return,
                Ok(count) => self.heard.extend_from_slice(&room[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    fn line(&self) -> Option<String> {
        let end = self.heard.iter().position(|byte| *byte == b'\n')?;
        Some(String::from_utf8_lossy(&self.heard[..end]).into_owned())
    }

    fn understood(&self, line: &str) -> Progress {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            READY => match serde_json::from_str(rest) {
                Ok(served) => Progress::Ready(served),
                Err(error) => Progress::Failed(format!("the new process says {line:?}: {error}")),
            },
            FAILED => Progress::Failed(format!(
                "the new process ({}) cannot serve: {rest}",
                self.process()
            )),
            _ => Progress::Failed(format!("the new process says {line:?}")),
        }
    }
}

impl Drop for Attempt {
    /// It serves no client, so there is nothing that it would have to finish.
    fn drop(&mut self) {
        if !self.is_done {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
