//! What the service manager gave this process: sockets, and whom to notify.

use std::io;

use serveloop::service::activation::{self, Inherited};
use serveloop::service::notify::{self, Notifier};

use crate::failure::Failure;
use crate::logger::TARGET;
use crate::sys;

/// The sockets and the notifier of a service manager.
#[derive(Debug)]
pub(crate) struct Manager {
    sockets: Vec<Inherited>,
    notifier: io::Result<Option<Notifier>>,
}

impl Manager {
    /// Takes what the environment describes. Call this at the start of `main`: nothing may be opened
    /// before it, and no thread may run.
    pub(crate) fn take() -> Self {
        Self {
            sockets: activation::take(),
            notifier: notify::take(),
        }
    }

    /// Returns whether it passed a descriptor.
    pub(super) fn has_sockets(&self) -> bool {
        !self.sockets.is_empty()
    }

    /// Returns the passed sockets with this name, or all of them if it is empty.
    ///
    /// # Errors
    /// Fails if there is none, or if one is listened on already.
    pub(super) fn named(&self, uri: &str, name: &str) -> Result<Vec<&Inherited>, Failure> {
        let named = activation::named(&self.sockets, name);
        let named = named.map_err(|error| about(uri, &error))?;
        named
            .iter()
            .try_for_each(|socket| check_unused(uri, socket))?;
        Ok(named)
    }

    /// Returns the socket with this number, which is passed by the manager or was open at the start.
    ///
    /// # Errors
    /// Fails if it cannot be served, or is listened on already.
    pub(super) fn numbered(&mut self, uri: &str, number: i32) -> Result<&Inherited, Failure> {
        let is_it = |socket: &Inherited| socket.number() == number;
        if !self.sockets.iter().any(is_it) {
            let socket = sys::take_socket(number).map_err(|error| about(uri, &error))?;
            self.sockets.push(socket);
            // A standard descriptor is copied, and the copy has another number.
            return Ok(&self.sockets[self.sockets.len() - 1]);
        }
        let found = self.sockets.iter().find(|socket| is_it(socket));
        let socket = found.expect("it was found before");
        check_unused(uri, socket)?;
        Ok(socket)
    }

    /// Warns of sockets that are not listened on, and gives up all of them. The listeners have their
    /// own descriptors by now.
    ///
    /// # Errors
    /// Returns what is wrong with the address of the manager.
    pub(super) fn into_notifier(self) -> io::Result<Option<Notifier>> {
        if let Some(unused) = activation::unused(&self.sockets) {
            log::warn!(
                target: TARGET, "passed descriptors (LISTEN_FDS) are not served, and their clients \
                 wait without a reply: {unused}; --listen systemd://NAME or fd://N serves them"
            );
        }
        self.notifier
    }
}

fn check_unused(uri: &str, socket: &Inherited) -> Result<(), Failure> {
    if socket.is_used() {
        let problem = format!("{uri:?}: {socket}, which is listened on already");
        return Err(Failure::Usage(problem));
    }
    Ok(())
}

fn about(uri: &str, error: &io::Error) -> Failure {
    Failure::System(io::Error::new(error.kind(), format!("{uri}: {error}")))
}
