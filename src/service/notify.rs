//! What a server tells its service manager: that it is ready, reloads, stops, and lives.
//!
//! The protocol is that of systemd's `sd_notify`, which other managers understand too: datagrams to
//! the socket that `NOTIFY_SOCKET` names. A unit with `Type=notify` is started when the server says
//! `READY=1`, so what depends on it begins when clients can connect. With `WatchdogSec=` the manager
//! restarts a server that no longer says `WATCHDOG=1`.
//!
//! [`Notified`] does this for a whole server, in every model. A [`Notifier`] alone is for programs
//! with more to say:
//!
//! ```no_run
//! use serveloop::service::notify::{self, Notified};
//! use serveloop::{Config, Peer, Server, protocols::Echo};
//!
//! let notifier = notify::take()?;
//! let server = Server::bind(&["tcp://127.0.0.1:9999".parse()?], Config::default())?;
//! let factory = Notified::new(notifier, server.shutdown_handle(), |_: &Peer| Some(Echo));
//! server.with(factory).serve_forever()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod notified;

pub use self::notified::Notified;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use std::{env, io, process};

use socket2::{Domain, SockAddr, Socket, Type};

use crate::waker::sync::lock;
use crate::{LOG_TARGET, sys};

/// The variables that say where and how often to notify. [`take`] removes them.
pub const VARIABLES: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// The most messages that wait for a manager that does not read.
const OWED_MOST: usize = 16;

/// Sends messages to the service manager. All clones are the same.
///
/// No method waits. Messages that the manager has no room for are kept, up to 16, and sent before the
/// next one. If it is gone, a warning is logged once, and the server goes on.
///
/// ```
/// use std::os::unix::net::UnixDatagram;
///
/// use serveloop::service::notify::Notifier;
///
/// # let directory = std::env::temp_dir().join(format!("notify-{}", std::process::id()));
/// # std::fs::create_dir_all(&directory)?;
/// let path = directory.join("manager");
/// let manager = UnixDatagram::bind(&path)?;
///
/// let notifier = Notifier::new(path.to_str().ok_or("a path in UTF-8")?)?;
/// notifier.status("warming up");
/// notifier.ready();
///
/// let mut room = [0; 64];
/// let count = manager.recv(&mut room)?;
/// assert_eq!(&room[..count], b"STATUS=warming up");
/// let count = manager.recv(&mut room)?;
/// assert_eq!(&room[..count], b"READY=1");
/// # std::fs::remove_dir_all(&directory)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Notifier {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    socket: Socket,
    address: SockAddr,
    watchdog: Option<Duration>,
    /// What the manager had no room for.
    owed: Mutex<VecDeque<String>>,
    has_failed: AtomicBool,
    is_silent: AtomicBool,
}

/// Takes the notifier that the environment describes, and removes its [variables](VARIABLES) so that
/// programs that this process starts do not speak for it. Returns `None` if there is no manager that
/// wants to be notified.
///
/// `WATCHDOG_USEC` counts only if `WATCHDOG_PID` is this process or absent. Call this at the start of
/// `main`, while there is one thread; with more the variables stay.
///
/// # Errors
/// Fails like [`Notifier::new`].
pub fn take() -> io::Result<Option<Notifier>> {
    let address = env::var("NOTIFY_SOCKET").ok();
    let watchdog = watchdog(|name| env::var(name).ok());
    sys::remove_variables(&VARIABLES);
    match address.as_deref() {
        None | Some("") => Ok(None),
        Some(address) => Ok(Some(Notifier::new(address)?.with_watchdog(watchdog))),
    }
}

/// Returns how often the manager wants to hear of this process.
fn watchdog(variable: impl Fn(&str) -> Option<String>) -> Option<Duration> {
    let number = |name| variable(name)?.trim().parse::<u64>().ok();
    if variable("WATCHDOG_PID").is_some() && number("WATCHDOG_PID") != Some(process::id().into()) {
        return None;
    }
    let micros = number("WATCHDOG_USEC")?;
    (micros > 0).then(|| Duration::from_micros(micros))
}

impl Notifier {
    /// Creates a notifier that sends to `address`: the path of a Unix datagram socket, or on Linux a
    /// name outside the file system after an `@`, as in `NOTIFY_SOCKET`. The socket need not exist
    /// yet.
    ///
    /// # Errors
    /// `InvalidInput` if the address is neither, or too long. Otherwise the system has no descriptor
    /// left.
    pub fn new(address: &str) -> io::Result<Self> {
        let bad = |problem: &str| {
            let problem = format!("NOTIFY_SOCKET={address:?}: {problem}");
            io::Error::new(io::ErrorKind::InvalidInput, problem)
        };
        let path = match address.strip_prefix('@') {
            Some(name) if cfg!(target_os = "linux") => format!("\0{name}"),
            _ if address.starts_with('/') => address.to_owned(),
            _ => return Err(bad("expected an absolute path, or @ and a name")),
        };
        let address = SockAddr::unix(path).map_err(|error| bad(&error.to_string()))?;

        let socket = Socket::new(Domain::UNIX, Type::DGRAM, None)?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            shared: Arc::new(Shared {
                socket,
                address,
                watchdog: None,
                owed: Mutex::default(),
                has_failed: AtomicBool::new(false),
                is_silent: AtomicBool::new(false),
            }),
        })
    }

    /// Sets how long the manager waits for a sign of life, before the notifier is used. A
    /// [`Notified`] gives one four times as often.
    #[must_use]
    pub fn with_watchdog(mut self, timeout: Option<Duration>) -> Self {
        if let Some(shared) = Arc::get_mut(&mut self.shared) {
            shared.watchdog = timeout;
        }
        self
    }

    /// Returns how long the manager waits for a sign of life before it acts, if it does.
    #[must_use]
    pub fn watchdog(&self) -> Option<Duration> {
        self.shared.watchdog
    }

    /// Says that clients can connect, or that a reload is complete.
    pub fn ready(&self) {
        self.send("READY=1");
    }

    /// Says that a reload begins. [`ready`](Self::ready) has to follow when it is complete, even if
    /// it failed and what was there before stays.
    pub fn reloading(&self) {
        let micros = sys::monotonic_micros();
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }

    /// Says that the server begins to stop.
    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// Says in one line what the server does, for people. Control characters become spaces.
    pub fn status(&self, text: &str) {
        let line = text.replace(|c: char| c.is_control(), " ");
        self.send(&format!("STATUS={line}"));
    }

    /// Gives a sign of life for the manager's watchdog.
    pub fn alive(&self) {
        self.send("WATCHDOG=1");
    }

    /// Says that another process is the service's main one from now on, and nothing more: neither that
    /// this one stops, nor that it lives. The manager hears of those from that process.
    ///
    /// ```
    /// use std::os::unix::net::UnixDatagram;
    ///
    /// use serveloop::service::notify::Notifier;
    ///
    /// # let directory = std::env::temp_dir().join(format!("handed-{}", std::process::id()));
    /// # std::fs::create_dir_all(&directory)?;
    /// let path = directory.join("manager");
    /// let manager = UnixDatagram::bind(&path)?;
    /// manager.set_nonblocking(true)?;
    ///
    /// let notifier = Notifier::new(path.to_str().ok_or("a path in UTF-8")?)?;
    /// notifier.hand_over(4711);
    /// notifier.stopping();
    ///
    /// let mut room = [0; 64];
    /// let count = manager.recv(&mut room)?;
    /// assert_eq!(&room[..count], b"MAINPID=4711");
    /// assert!(manager.recv(&mut room).is_err());
    /// # std::fs::remove_dir_all(&directory)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn hand_over(&self, process: u32) {
        self.send(&format!("MAINPID={process}"));
        self.shared.is_silent.store(true, Ordering::SeqCst);
    }

    /// Sends a message of the caller's own: lines of the form `NAME=value`.
    pub fn send(&self, message: &str) {
        if self.shared.is_silent.load(Ordering::SeqCst) {
            return;
        }
        let mut owed = self.shared.owed();
        let is_last = owed.back().is_some_and(|last| last == message);
        if !is_last {
            if owed.len() == OWED_MOST {
                owed.pop_front();
            }
            owed.push_back(message.to_owned());
        }
        self.shared.send_owed(&mut owed);
    }

    /// Tries again to send what the manager had no room for. Returns whether something is left.
    pub(crate) fn retry(&self) -> bool {
        let mut owed = self.shared.owed();
        self.shared.send_owed(&mut owed);
        !owed.is_empty()
    }
}

impl Shared {
    fn owed(&self) -> std::sync::MutexGuard<'_, VecDeque<String>> {
        lock(&self.owed)
    }

    fn send_owed(&self, owed: &mut VecDeque<String>) {
        while let Some(message) = owed.front() {
            let sent =
                self.socket
                    .send_to_with_flags(message.as_bytes(), &self.address, sys::QUIETLY);
            match sent {
                Err(error) if is_full(&error) => return,
                Err(error) if !self.has_failed.swap(true, Ordering::Relaxed) => {
                    log::warn!(target: LOG_TARGET, "cannot notify the service manager: {error}");
                }
                _ => {}
            }
            owed.pop_front();
        }
    }
}

/// Returns whether a message can be sent later.
fn is_full(error: &io::Error) -> bool {
    let kind = error.kind();
    kind == io::ErrorKind::WouldBlock
        || kind == io::ErrorKind::Interrupted
        || sys::is_out_of_memory(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patience(usec: &str, pid: Option<String>) -> Option<Duration> {
        watchdog(|name| match name {
            "WATCHDOG_USEC" => Some(usec.to_owned()),
            "WATCHDOG_PID" => pid.clone(),
            _ => None,
        })
    }

    #[test]
    fn only_the_watchdog_of_this_process_counts() {
        let second = Some(Duration::from_secs(1));
        let own = Some(process::id().to_string());
        assert_eq!(patience("1000000", own), second);
        assert_eq!(patience("1000000", None), second);
        for other in ["1", "", "x"] {
            assert_eq!(patience("1000000", Some(other.to_owned())), None);
        }
        for nonsense in ["0", "-1", "", "x"] {
            assert_eq!(patience(nonsense, None), None, "{nonsense}");
        }
        assert_eq!(watchdog(|_| None), None);
    }

    #[test]
    fn an_address_is_a_path_or_a_name() {
        for nonsense in ["relative", "", "vsock:2:1234"] {
            let error = Notifier::new(nonsense).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            assert!(error.to_string().contains("NOTIFY_SOCKET"), "{error}");
        }
        let long = format!("/{}", "x".repeat(200));
        assert_eq!(
            Notifier::new(&long).unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
        assert!(Notifier::new("/run/nobody").is_ok());
    }
}
