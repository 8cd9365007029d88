//! One connection of ours, from its URI to its end.
//!
//! What `connect` and `fetch` share comes in here: looking a name up, trying several addresses, a timeout
//! for all of it. It knows no protocol and none of the commands.

mod happy_eyeballs;

mod runner;

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::mpsc;
use std::time::Duration;

use libc::{EADDRNOTAVAIL, EMFILE};
use rustix::process::Resource;
use serveloop::{Address, CloseReason, Config, Deadline, Protocol};

use crate::failure::Failure;
use crate::outbound::happy_eyeballs::Race;
use crate::sys::limits;
use crate::threads;

/// How a connection ended, as its protocol tells whoever made it. What is told first counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ending(Rc<RefCell<Option<End>>>);

#[derive(Debug)]
enum End {
    Well,
    /// There was no connection; another address may be better.
    Unreached(String),
    Failed(String),
}

impl Ending {
    /// All is done, whatever becomes of the connection now.
    pub(crate) fn succeed(&self) {
        self.tell(End::Well);
    }

    pub(crate) fn fail(&self, problem: impl ToString) {
        self.tell(End::Failed(problem.to_string()));
    }

    /// For a protocol's `connection_lost`.
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

    /// What was told, if anything was.
    fn take(&self) -> Option<End> {
        self.0.take()
    }

    fn tell(&self, end: End) {
        self.0.borrow_mut().get_or_insert(end);
    }
}

/// Connects to one of `addresses` and serves the connection by what `make` makes, to its end. Which
/// one that is, a [`Race`] decides. `name` is what the user calls the place.
///
/// # Errors
/// No address answers within the `connect_timeout` of `config`, or the connection did not end well.
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

/// What helps where the system refuses a connection for a reason of this machine's, after a colon.
pub(crate) fn advice(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(EADDRNOTAVAIL) => {
            ": no local port is free, or this machine has no address of that kind. A port is kept for a \
             minute after its connection (TIME_WAIT); sysctl net.ipv4.ip_local_port_range gives more"
                .to_owned()
        }
        Some(EMFILE) => {
            let most = limits(Resource::Nofile).and_then(|limits| limits.current);
            let most = most.map_or("any number of".to_owned(), |most| most.to_string());
            format!(": this process may have {most} descriptors, ulimit -n allows more")
        }
        _ => String::new(),
    }
}

/// Looks up the addresses of `uri`, for at most `patience`: a name server that is gone is a wait like
/// any other.
///
/// # Errors
/// `InvalidInput` where it is no URI, `TimedOut`, and what the resolver says.
pub(crate) fn resolve(uri: &str, patience: Option<Duration>) -> io::Result<Vec<Address>> {
    // What needs no name server needs no thread.
    if let Ok(address) = uri.parse() {
        return Ok(vec![address]);
    }
    let (tell, told) = mpsc::channel();
    let sought = uri.to_owned();
    let ask = move || {
        // Whoever asked may have lost patience.
        let _ = tell.send(Address::resolve(&sought));
    };
    threads::spawn("looking up a name", ask)?;

    let late = |_| {
        let problem = format!("{uri}: the name was not looked up in time");
        io::Error::new(io::ErrorKind::TimedOut, problem)
    };
    match patience {
        Some(patience) => told.recv_timeout(patience).map_err(late)?,
        None => told.recv().map_err(io::Error::other)?,
    }
}
