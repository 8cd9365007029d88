//! The factory: one protocol for each connection of a server.

use std::io;
use std::sync::Arc;

use rustix::process::geteuid;
use serveloop::layer::{Observed, Screen};
use serveloop::{Config, Factory, Peer};

use crate::requests::Requests;
use crate::running::keep_children;
use crate::service::Service;
use crate::settings::Settings;
use crate::tally::Tally;
use crate::{LOG_TARGET, launcher, platform};

/// Serves requests to run programs, on any number of connections. Its clones share one pool of
/// programs, and one count of requests.
///
/// Give a clone to [`Server::with`](serveloop::Server::with), and call [`end`](Self::end) once the
/// server has ended. It serves in every model but forking: a process for each connection could not
/// end its program's children when it is killed itself. Datagrams are refused, because a datagram's
/// reply cannot wait for a program.
///
/// Connections that begin as HTTP, TLS or STUN are closed before anything runs, because a web page
/// can make a browser on the same machine send them: see [`Screen`].
#[derive(Clone, Debug)]
pub struct Commands {
    service: Arc<Service>,
}

impl Commands {
    /// Prepares this process to run programs for the connections of a server with `config`, whose
    /// `max_buffered` and `idle_timeout` matter here. Logs a warning if this process runs as root,
    /// since its programs do too.
    ///
    /// From now on the system keeps ended children of this process until they are reaped, and on
    /// Linux programs do not see this process's memory and environment in `/proc`, unless it runs as
    /// root.
    ///
    /// # Errors
    /// Fails if [`become_program`](crate::become_program) has not been called, a setting is [out of
    /// its limits](Settings::validate), or the system refuses.
    pub fn new(settings: Settings, config: &Config) -> io::Result<Self> {
        settings.validate()?;
        if !launcher::is_ready() {
            let problem = "the program's main must call serveloop_command::become_program first";
            return Err(io::Error::other(problem));
        }

        if geteuid().is_root() {
            log::warn!(target: LOG_TARGET, "the programs run as root, because this server does");
        }
        keep_children()?;
        platform::hide_from_programs()?;

        let service = Arc::new(Service::new(settings, config));
        Ok(Self { service })
    }

    /// Returns the counts of requests so far.
    #[must_use]
    pub fn tally(&self) -> &Tally {
        &self.service.tally
    }

    /// Kills all programs that still run, and waits until they are reaped, for at most 2 seconds. The
    /// end of a connection kills its program too, without waiting.
    pub fn end(&self) {
        self.service.pool.end();
    }
}

impl Factory for Commands {
    type Protocol = Observed<Requests, Screen>;

    fn build_protocol(&mut self, peer: &Peer) -> Option<Self::Protocol> {
        if peer.is_datagram() {
            return None;
        }

        let length_size = self.service.settings.wire.length_size();
        let screen = Screen::new(peer, &self.service.alarm)
            .with_method_least(length_size.unwrap_or(usize::MAX));
        Some(Observed::new(Requests::new(&self.service, peer), screen))
    }
}
