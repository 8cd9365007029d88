//! One connection of ours, from its URI to its end.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use serveloop::{Address, CloseReason, Config, Deadline, Peer, Protocol, Reactor};

use crate::failure::Failure;

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
            CloseReason::ConnectFailed(_) | CloseReason::TimedOut(Deadline::Connect) => {
                End::Unreached(reason.to_string())
            }
            CloseReason::Protocol(error) => End::Failed(error.to_string()),
            _ => End::Failed(reason.to_string()),
        });
    }

    fn tell(&self, end: End) {
        self.0.borrow_mut().get_or_insert(end);
    }
}

/// Connects to one of `addresses`, each in its turn until one answers, and serves the connection by
/// what `make` makes, to its end. `name` is what the user calls the place.
///
/// # Errors
/// No address answers, or the connection did not end well.
pub(crate) fn visit<P: Protocol>(
    name: &str,
    addresses: Vec<Address>,
    config: &Config,
    mut make: impl FnMut(Ending) -> P,
) -> Result<(), Failure> {
    let named = |problem: String| Failure::from(io::Error::other(format!("{name}: {problem}")));
    let mut unreached = "no address".to_owned();
    for address in addresses {
        let ending = Ending::default();
        let mut reactor = Reactor::new(|_: &Peer| None::<P>, config.clone())?;
        reactor.connect(address, make(ending.clone()));
        reactor.run()?;
        match ending.0.take() {
            Some(End::Well) => return Ok(()),
            Some(End::Unreached(problem)) => unreached = problem,
            Some(End::Failed(problem)) => return Err(named(problem)),
            None => return Err(named("its end was not told".to_owned())),
        }
    }
    Err(named(unreached))
}
