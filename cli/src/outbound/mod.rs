//! An outbound connection, from its URI to its end.
//!
//! This room holds what `connect`, `fetch` and `bench` share: looking up a name, trying several
//! addresses, PROXY headers, TLS, and a timeout for all of it. It knows no protocol and no command.

mod announced;
mod happy_eyeballs;
mod proxy_header;
#[cfg(feature = "tls")]
mod tls;
#[cfg(not(feature = "tls"))]
#[path = "no_tls.rs"]
mod tls;
mod tls_options;

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::LazyLock;
use std::time::Duration;

use libc::{EADDRNOTAVAIL, EMFILE, ENFILE};
use rustix::process::Resource;
use serveloop::protocols::counted;
use serveloop::service::Offload;
use serveloop::{Address, CloseReason, Config, Deadline, Protocol};

use crate::failure::Failure;
use crate::outbound::announced::announced;
use crate::outbound::happy_eyeballs::Race;
use crate::sys::limits;

pub(crate) use self::proxy_header::ProxyHeader;
pub(crate) use self::tls::{Secured, Trust, secured_load};
pub(crate) use self::tls_options::{Sessions, TlsOptions};

/// Where names are looked up. A lookup that takes too long keeps its thread until the process ends.
static LOOKUPS: LazyLock<Offload> = LazyLock::new(Offload::default);

/// How a connection ended, reported by its protocol to the code that made it. The first report
/// counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ending(Rc<RefCell<Option<End>>>);

#[derive(Debug)]
enum End {
    Well,
    /// No connection was established. Another address may work.
    Unreached(String),
    Failed(String),
}

impl Ending {
    /// Reports success, however the connection ends from now on.
    pub(crate) fn succeed(&self) {
        self.tell(End::Well);
    }

    pub(crate) fn fail(&self, problem: impl ToString) {
        self.tell(End::Failed(problem.to_string()));
    }

    /// Reports the reason that a protocol's `connection_lost` receives.
    pub(crate) fn note(&self, reason: &CloseReason) {
        self.tell(match reason {
            CloseReason::Closed | CloseReason::PeerClosed => End::Well,
            CloseReason::ConnectFailed(error) => {
                End::Unreached(format!("{reason}{}", advice(error)))
            }
            CloseReason::TimedOut(Deadline::Connect) => End::Unreached(reason.to_string()),
            CloseReason::Protocol(error) => End::Failed(error.to_string()),
            _ => End::Failed(reason.to_string()),
        });
    }

    fn has_failed(&self) -> bool {
        matches!(*self.0.borrow(), Some(End::Failed(_) | End::Unreached(_)))
    }

    /// Takes the report, if there is one.
    fn take(&self) -> Option<End> {
        self.0.take()
    }

    fn tell(&self, end: End) {
        self.0.borrow_mut().get_or_insert(end);
    }
}

/// Connects to one of `addresses` and serves the connection to its end with a protocol from `make`.
/// A [`Race`] selects the address. `name` is the user's name for the place.
///
/// # Errors
/// Fails if no address answers within the `connect_timeout` of `config`, or if the connection does
/// not end well.
pub(crate) fn visit<P: Protocol>(
    name: &str,
    addresses: Vec<Address>,
    config: &Config,
    make: impl FnMut(Ending) -> P,
) -> Result<(), Failure> {
    let named = |problem: String| Failure::from(io::Error::other(format!("{name}: {problem}")));
    let race = Race::new(addresses, config, make);
    let failed = |error| named(format!("cannot connect: {error}{}", advice(&error)));
    match race.run().map_err(failed)? {
        End::Well => Ok(()),
        End::Unreached(problem) | End::Failed(problem) => Err(named(problem)),
    }
}

/// What comes before the protocol on a connection, in this order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Before {
    pub(crate) header: Option<ProxyHeader>,
    pub(crate) secured: Option<Secured>,
}

/// Works like [`visit`] for connections on which something else comes `before` the protocols. The race
/// is decided when a connection is established, before that.
///
/// # Errors
/// Fails like `visit`, and if the handshake fails.
pub(crate) fn visit_after<P: Protocol>(
    before: &Before,
    name: &str,
    addresses: Vec<Address>,
    config: &Config,
    mut make: impl FnMut(Ending) -> P,
) -> Result<(), Failure> {
    let header = before.header;
    match &before.secured {
        None => visit(name, addresses, config, |ending| {
            announced(header, make(ending))
        }),
        Some(secured) => visit(name, addresses, config, |ending| {
            announced(header, secured.around(make(ending.clone()), ending))
        }),
    }
}

/// How to allow this process more descriptors.
pub(crate) const MORE_DESCRIPTORS: &str =
    "raise the limit (ulimit -n, or LimitNOFILE= in a unit of systemd)";

/// Says how many descriptors this process may have.
pub(crate) fn descriptors_most() -> String {
    let soft = limits(Resource::Nofile).and_then(|limits| limits.current);
    soft.map_or("any number of open descriptors".to_owned(), |soft| {
        counted(soft, "open descriptor", "open descriptors").to_string()
    })
}

/// Returns advice, after a colon, on an error whose cause lies on this machine. It is empty for all
/// other errors.
pub(crate) fn advice(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(EADDRNOTAVAIL) => {
            ": no local port is free, or this machine has no address of that kind. The system keeps a port \
             for a minute after its connection (TIME_WAIT); sysctl net.ipv4.ip_local_port_range allows \
             more ports"
                .to_owned()
        }
        Some(EMFILE) => {
            let most = descriptors_most();
            format!(": this process may have {most}: {MORE_DESCRIPTORS}")
        }
        Some(ENFILE) => {
            ": the whole system has no descriptor left: raise its limit (sysctl fs.file-max)".to_owned()
        }
        _ => String::new(),
    }
}

/// Looks up the addresses of `uri`, for at most `patience`, since a name server may never answer.
///
/// # Errors
/// Returns `InvalidInput` if `uri` is not a URI, `TimedOut` if the lookup takes too long, and
/// otherwise the error of the resolver.
pub(crate) fn resolve(uri: &str, patience: Option<Duration>) -> io::Result<Vec<Address>> {
    // An address that needs no name server needs no thread.
    if let Ok(address) = uri.parse() {
        return Ok(vec![address]);
    }

    let sought = uri.to_owned();
    let lookup = LOOKUPS.submit(|| (), move || Address::resolve(&sought));
    let lookup = lookup.map_err(|rejected| {
        let problem = format!("{uri}: the name cannot be looked up: {rejected}");
        io::Error::other(problem)
    })?;

    match lookup.wait(patience) {
        Some(found) => found.map_err(io::Error::other)?,
        None => {
            let problem = format!("{uri}: the lookup of the name timed out");
            Err(io::Error::new(io::ErrorKind::TimedOut, problem))
        }
    }
}

/// Returns host and port of a server that speaks TLS, or `None` for all other URIs.
pub(crate) fn place_of_tls(uri: &str) -> Option<&str> {
    uri.strip_prefix("tls://")
}

/// Works like [`resolve`], and takes `tls://HOST:PORT` too.
///
/// # Errors
/// Fails like `resolve`.
pub(crate) fn resolve_secured(uri: &str, patience: Option<Duration>) -> io::Result<Vec<Address>> {
    // The library knows nothing of this scheme, so its errors are completed.
    let changed = |error: io::Error, from: &str, to: &str| {
        io::Error::new(error.kind(), error.to_string().replacen(from, to, 1))
    };
    match place_of_tls(uri) {
        None => resolve(uri, patience)
            .map_err(|error| changed(error, "expected tcp, udp", "expected tcp, tls, udp")),
        Some(place) => resolve(&format!("tcp://{place}"), patience)
            .map_err(|error| changed(error, "tcp://", "tls://")),
    }
}

/// Returns the host of a place as certificates name it: without brackets, port and zone.
pub(crate) fn host(place: &str) -> &str {
    let host = place.rsplit_once(':').map_or(place, |(host, _)| host);
    match host.strip_prefix('[') {
        None => host,
        Some(ip) => ip.split(['%', ']']).next().unwrap_or(ip),
    }
}
