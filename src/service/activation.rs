//! Socket activation: sockets that a service manager has opened for this process.
//!
//! systemd opens the sockets of a socket unit and starts the service when a client comes, or with
//! the system. Its descriptors are 3 and the next ones; `LISTEN_FDS` says how many, `LISTEN_FDNAMES`
//! what the unit calls each, and `LISTEN_PID` for which process they are. A restart loses no client,
//! since the manager keeps the sockets open meanwhile, and the service needs no right to bind them.
//!
//! ```no_run
//! use serveloop::service::activation;
//! use serveloop::{Config, Listen, Server, protocols::Echo};
//!
//! let sockets = activation::take();
//! let server = Server::bind_with(&Listen::inherited(&sockets, "")?, Config::default())?;
//! activation::warn_unused(&sockets);
//! drop(sockets);
//! server.serve_forever(|_| Some(Echo))?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! To try it: `systemd-socket-activate -l 127.0.0.1:9999 PROGRAM`.

use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{env, fmt, io, process};

use socket2::{Domain, SockAddr, SockRef, Type};

use crate::address::{Address, Former, Listen, ListenOptions, PassedSocket, SocketFileId};
use crate::net::vsock_address_of;
use crate::{LOG_TARGET, sys};

/// The number of the first descriptor.
const FIRST: RawFd = 3;

/// What systemd calls a descriptor without a name.
const UNNAMED: &str = "unknown";

/// The most descriptors that a process can have, where the administrator did not change that.
const MOST: RawFd = 1 << 20;

/// The most descriptors that a warning names.
const NAMED_MOST: usize = 16;

/// The variables that describe the descriptors. [`take`] removes them.
pub const VARIABLES: [&str; 4] = [
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "LISTEN_PIDFDID",
];

/// A descriptor that was passed to this process, and what it is.
///
/// It is closed when this value and all listeners made from it are gone. No program that this
/// process starts inherits it.
///
/// ```
/// use std::net::TcpListener;
///
/// use serveloop::service::activation::Inherited;
/// use serveloop::{Config, Server};
///
/// let inherited = Inherited::new(TcpListener::bind("127.0.0.1:0")?, "web");
/// assert_eq!(inherited.name(), "web");
///
/// let server = Server::bind_with(&[inherited.listen()?], Config::default())?;
/// assert_eq!(Some(&server.addresses()[0]), inherited.address());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Inherited {
    name: String,
    number: RawFd,
    /// `None` if it was announced and is not open.
    descriptor: Option<Arc<OwnedFd>>,
    former: Option<Former>,
    kind: Kind,
    is_used: AtomicBool,
}

/// What a descriptor is.
#[derive(Debug)]
enum Kind {
    /// A socket that can be served.
    Bound(Address),
    /// Anything else, in words.
    Other(String),
    /// This one and those up to this number are not open.
    Missing(RawFd),
}

impl Inherited {
    /// Examines a descriptor that came to this process in another way than by [`take`].
    #[must_use]
    pub fn new(descriptor: impl Into<OwnedFd>, name: impl Into<String>) -> Self {
        let descriptor = descriptor.into();
        Self {
            name: name.into(),
            number: descriptor.as_raw_fd(),
            kind: Kind::of(&descriptor),
            descriptor: Some(Arc::new(descriptor)),
            former: None,
            is_used: AtomicBool::new(false),
        }
    }

    /// Takes over the sockets of one listener from a former process of the same server: copies of its
    /// [`OpenSockets`](crate::net::OpenSockets) at one address, of which there are several if it had
    /// several workers. Any number of workers serves them. `file` is that of a Unix socket.
    ///
    /// The listener may have all options, since the former process has bound the sockets with them. The
    /// file is left to the former process until [`OpenSocket::own_file`](crate::net::OpenSocket::own_file).
    ///
    /// # Errors
    /// `InvalidInput` if there is no socket, or one has another address than the first.
    pub fn handed_on(
        sockets: impl IntoIterator<Item = OwnedFd>,
        file: Option<SocketFileId>,
    ) -> io::Result<Self> {
        let bad = |problem: String| io::Error::new(io::ErrorKind::InvalidInput, problem);
        let mut sockets = sockets.into_iter();
        let first = sockets.next().ok_or_else(|| bad("no socket".to_owned()))?;
        let (mut inherited, others) = (Self::new(first, ""), sockets.collect::<Vec<_>>());

        for other in &others {
            let kind = Kind::of(other);
            if !matches!(&kind, Kind::Bound(address) if Some(address) == inherited.address()) {
                let number = other.as_raw_fd();
                return Err(bad(format!(
                    "descriptor {number} {kind}, and descriptor {inherited}"
                )));
            }
        }
        inherited.former = Some(Former {
            others: Arc::new(others),
            file,
        });
        Ok(inherited)
    }

    /// Notes a descriptor that was announced and is not open.
    fn missing(number: RawFd) -> Self {
        Self {
            name: UNNAMED.to_owned(),
            number,
            descriptor: None,
            former: None,
            kind: Kind::Missing(number),
            is_used: AtomicBool::new(false),
        }
    }

    /// Returns what the manager calls the descriptor: `FileDescriptorName=` of the socket unit, by
    /// default the unit's name. Several may have the same name. It is `unknown` if the manager gives
    /// none.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the number of the descriptor.
    #[must_use]
    pub fn number(&self) -> RawFd {
        self.number
    }

    /// Returns the address that the socket is bound to. `None` if it cannot be served: if it is no
    /// socket, not bound, a connection, or of another kind than TCP, UDP, and Unix streams and
    /// datagrams.
    #[must_use]
    pub fn address(&self) -> Option<&Address> {
        match &self.kind {
            Kind::Bound(address) => Some(address),
            Kind::Other(_) | Kind::Missing(_) => None,
        }
    }

    /// Returns the descriptor itself, unless it was announced and is not open.
    #[must_use]
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.descriptor.as_ref().map(AsFd::as_fd)
    }

    /// Returns whether a listener was made from it.
    #[must_use]
    pub fn is_used(&self) -> bool {
        self.is_used.load(Ordering::Relaxed)
    }

    /// Returns a listener on this socket, for [`Server::bind_with`](crate::Server::bind_with). All
    /// models serve it; several workers share it.
    ///
    /// # Errors
    /// `InvalidInput` if it cannot be served; the message says what it is.
    pub fn listen(&self) -> io::Result<Listen> {
        self.listen_with(ListenOptions::default())
    }

    /// Returns a listener on this socket with options of its own. Those that take effect when a
    /// socket is bound (`dual_stack`, `reuse_address`, `reuse_port`, `mode`, `group`) are for whoever
    /// bound it: a server refuses them. The backlog stays as it is unless the options have one.
    ///
    /// # Errors
    /// Fails like [`listen`](Self::listen).
    pub fn listen_with(&self, options: ListenOptions) -> io::Result<Listen> {
        let (Kind::Bound(address), Some(descriptor)) = (&self.kind, &self.descriptor) else {
            let problem = format!("descriptor {self}: it cannot be served");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
        };
        self.is_used.store(true, Ordering::Relaxed);
        let socket = PassedSocket {
            socket: Arc::clone(descriptor),
            former: self.former.clone(),
        };
        Ok(Listen::on_socket(address.clone(), options, socket))
    }
}

impl fmt::Display for Inherited {
    /// Writes the number, and what the descriptor is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Missing(last) if *last != self.number => {
                write!(f, "{} to {last} are not open", self.number)
            }
            kind => write!(f, "{} {kind}", self.number),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bound(address) => write!(f, "is {address}"),
            Self::Other(what) => write!(f, "is {what}"),
            Self::Missing(_) => f.write_str("is not open"),
        }
    }
}

impl Listen {
    /// Returns listeners on the passed sockets with this name, or if it is empty on all that can be
    /// served. [`activation::take`](take) gives the sockets.
    ///
    /// # Errors
    /// `NotFound` if there is none; the message lists the names that there are. `InvalidInput` if
    /// one of them cannot be served.
    pub fn inherited(sockets: &[Inherited], name: &str) -> io::Result<Vec<Self>> {
        let found = named(sockets, name)?;
        found.into_iter().map(Inherited::listen).collect()
    }
}

/// Returns the passed descriptors with this name, or if it is empty all that can be served. If none can,
/// these are all that were passed, so that making a listener says what is wrong with them.
///
/// # Errors
/// `NotFound` if there is none; the message lists the names that there are.
pub fn named<'a>(sockets: &'a [Inherited], name: &str) -> io::Result<Vec<&'a Inherited>> {
    let is_it = |socket: &&Inherited| match name {
        "" => socket.address().is_some(),
        name => socket.name == name,
    };
    let found: Vec<_> = sockets.iter().filter(is_it).collect();
    if !found.is_empty() {
        return Ok(found);
    }
    if name.is_empty() && !sockets.is_empty() {
        return Ok(sockets.iter().collect());
    }

    let mut names: Vec<_> = sockets.iter().map(Inherited::name).collect();
    names.dedup();
    let problem = if names.is_empty() {
        "no socket was passed to this process (LISTEN_FDS, LISTEN_PID)".to_owned()
    } else {
        let names = names
            .iter()
            .take(NAMED_MOST)
            .map(|name| format!("{name:?}"));
        let names: Vec<_> = names.collect();
        format!(
            "no socket named {name:?} was passed, only {}",
            names.join(", ")
        )
    };
    Err(io::Error::new(io::ErrorKind::NotFound, problem))
}

/// Takes over the descriptors that a service manager passed to this process, in their order. Returns
/// none if it passed none, or if they are for another process.
///
/// Call it once, at the start of `main`, before anything else is opened and while there is one
/// thread. It removes the [variables](VARIABLES), so that later calls and the programs that this
/// process starts find nothing; with more than one thread they stay in the environment, which names
/// this process alone.
///
/// Descriptors that are announced and not open are in the list, and cannot be served. Variables that
/// make no sense count as absent. Nothing is logged, so a program can call this before it has a log;
/// later [`warn_unused`] names what is not served.
#[must_use]
pub fn take() -> Vec<Inherited> {
    static TAKEN: AtomicBool = AtomicBool::new(false);

    let count = announced(|name| env::var(name).ok());
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    sys::remove_variables(&VARIABLES);
    if TAKEN.swap(true, Ordering::SeqCst) {
        return Vec::new();
    }

    let mut names = names.split(':').filter(|name| !name.is_empty());
    let mut taken: Vec<Inherited> = Vec::new();
    for number in FIRST..FIRST.saturating_add(count.min(MOST)) {
        let name = names.next().unwrap_or(UNNAMED);
        match sys::take_descriptor(number) {
            Ok(descriptor) => taken.push(Inherited::new(descriptor, name)),
            Err(_) => match taken.last_mut().map(|last| &mut last.kind) {
                Some(Kind::Missing(last)) => *last = number,
                _ => taken.push(Inherited::missing(number)),
            },
        }
    }
    taken
}

/// Logs a warning that names the passed descriptors that no listener was made from, if there are
/// any. Clients of such a socket wait without a reply.
pub fn warn_unused(sockets: &[Inherited]) {
    if let Some(unused) = unused(sockets) {
        log::warn!(
            target: LOG_TARGET,
            "passed descriptors (LISTEN_FDS) are not served, and their clients wait without a reply: {unused}"
        );
    }
}

/// Lists the passed descriptors that no listener was made from, for a message of the caller's own.
/// `None` if all are used.
#[must_use]
pub fn unused(sockets: &[Inherited]) -> Option<String> {
    let unused = sockets.iter().filter(|socket| !socket.is_used());
    let shown = unused.map(ToString::to_string);
    let shown: Vec<_> = shown.collect();
    (!shown.is_empty()).then(|| listed(shown.into_iter()))
}

/// Lists the first of many.
fn listed(all: impl ExactSizeIterator<Item = String>) -> String {
    let more = all.len().saturating_sub(NAMED_MOST);
    let named: Vec<_> = all.take(NAMED_MOST).collect();
    let named = named.join(", ");
    match more {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

/// Returns how many descriptors are passed to this process, as its variables say.
fn announced(variable: impl Fn(&str) -> Option<String>) -> RawFd {
    let number = |name| variable(name)?.trim().parse::<i64>().ok();
    if number("LISTEN_PID") != Some(i64::from(process::id())) {
        return 0;
    }
    let count = number("LISTEN_FDS").and_then(|count| RawFd::try_from(count).ok());
    count.unwrap_or(0).max(0)
}

impl Kind {
    fn of(descriptor: &OwnedFd) -> Self {
        let socket = SockRef::from(descriptor);
        let (Ok(kind), Ok(at)) = (socket.r#type(), socket.local_addr()) else {
            return Self::Other("not a socket".to_owned());
        };

        let Some(address) = address(&at, kind) else {
            return Self::Other(other_kind(&at, kind));
        };
        if matches!(address, Address::Tcp(_)) && socket.tcp_nodelay().is_err() {
            return Self::Other("a stream of another protocol than TCP".to_owned());
        }
        if !is_bound(&address) {
            return Self::Other(format!("a socket that is not bound ({address})"));
        }
        if !sys::is_listening(descriptor.as_fd()) && socket.peer_addr().is_ok() {
            return Self::Other(format!(
                "a connection of {address}, not a listener (Accept=no in its unit passes one)"
            ));
        }
        Self::Bound(address)
    }
}

/// Returns the address of a socket of a kind that can be served.
fn address(at: &SockAddr, kind: Type) -> Option<Address> {
    if let Some(addr) = at.as_socket() {
        return match kind {
            Type::STREAM => Some(Address::Tcp(addr)),
            Type::DGRAM => Some(Address::Udp(addr)),
            _ => None,
        };
    }
    if let Some(addr) = vsock_address_of(at) {
        return (kind == Type::STREAM).then_some(Address::Vsock(addr));
    }
    if at.domain() != Domain::UNIX {
        return None;
    }

    let path = unix_path_of(at);
    match kind {
        Type::STREAM => Some(Address::Unix(path)),
        Type::DGRAM => Some(Address::Unixgram(path)),
        _ => None,
    }
}

/// Returns the path of a Unix socket, or its name behind a NUL.
fn unix_path_of(at: &SockAddr) -> PathBuf {
    let pathname = at.as_pathname().map(PathBuf::from);
    let name = || {
        let name = [b"\0", at.as_abstract_namespace()?].concat();
        Some(PathBuf::from(OsString::from_vec(name)))
    };
    pathname.or_else(name).unwrap_or_default()
}

fn is_bound(address: &Address) -> bool {
    match address {
        Address::Tcp(addr) | Address::Udp(addr) => addr.port() != 0,
        Address::Unix(path) | Address::Unixgram(path) => !path.as_os_str().is_empty(),
        // One that is not bound has the last port.
        Address::Vsock(addr) => addr.port != u32::MAX,
    }
}

/// Describes a socket that cannot be served.
fn other_kind(at: &SockAddr, kind: Type) -> String {
    let family = match at.domain() {
        Domain::UNIX => "a Unix socket",
        Domain::IPV4 | Domain::IPV6 => "an IP socket",
        _ => "a socket of another family than IP and Unix",
    };
    let kind = match kind {
        Type::STREAM => "of streams",
        Type::DGRAM => "of datagrams",
        Type::SEQPACKET => "of sequenced packets",
        _ => "of another type",
    };
    format!("{family} {kind}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(of: &str, process: &str) -> RawFd {
        announced(|name| match name {
            "LISTEN_PID" => Some(process.to_owned()),
            "LISTEN_FDS" => Some(of.to_owned()),
            _ => None,
        })
    }

    #[test]
    fn only_what_is_announced_to_this_process_counts() {
        let own = process::id().to_string();
        assert_eq!(count("2", &own), 2);
        assert_eq!(count(" 2 ", &own), 2);
        for nonsense in ["0", "-1", "x", "", "99999999999999999999"] {
            assert_eq!(count(nonsense, &own), 0, "{nonsense}");
        }
        for other in ["1", "", "x", "-1"] {
            assert_eq!(count("2", other), 0, "{other}");
        }
        assert_eq!(announced(|_| None), 0);
    }

    #[test]
    fn long_lists_are_cut() {
        let all = |count: usize| (0..count).map(|number| number.to_string());
        assert_eq!(listed(all(2)), "0, 1");
        let shown = listed(all(NAMED_MOST + 5));
        assert!(shown.ends_with("15 and 5 more"), "{shown}");
    }
}
