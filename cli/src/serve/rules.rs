//! What a server refuses before it touches the network. `serve` and `check` have these rules in common.

use serveloop::{Address, Config, Listen};

use crate::failure::Failure;
use crate::monitoring::SideServer;
use crate::serve::Serve;
use crate::serve::manager::Manager;
use crate::serve::place::has_name;
use crate::serve::proxies::Places;
use crate::serving::Access;

impl Serve {
    /// Returns the limits, and the places of the URIs in `listen`, with `access` for those that have no lists
    /// of their own.
    ///
    /// # Errors
    /// Returns what makes no sense, or what cannot be read.
    pub(super) fn plan(
        &self,
        listen: &[String],
        access: Option<&Access>,
        manager: &mut Manager,
    ) -> Result<(Config, Places), Failure> {
        let mut config = self.limits.config(&self.protocol.needs())?;
        if self.protocol.has_listeners() {
            self.limits.allow_silence(&mut config);
        }
        if let Some(bytes) = self.protocol.posts_usual() {
            self.limits.let_posts_wait(&mut config, bytes);
        }
        let places = self.proxies.resolve(listen, access, &config, manager)?;

        self.execution.check()?;
        self.restart.check(self.execution.has_loops())?;
        if manager.looks_names_up() || !self.monitoring.uris().any(has_name) {
            SideServer::check(&self.monitoring)?;
        }
        self.record.check(self.execution)?;
        self.check_rate(&places)?;
        if manager.is_elsewhere() {
            self.check_files(&places)?;
        }
        self.check_loops(&places, &config)?;
        self.protocol.check(&places.addresses(), self.execution)?;
        Ok((config, places))
    }

    fn check_rate(&self, places: &Places) -> Result<(), Failure> {
        if self.entry.rate().is_some() && self.execution.is_forking() && places.has_doors() {
            let problem = "--connects-per-second with --proxy needs another model than forking: each \
                           process knows only the client that a header names to it";
            return Err(Failure::Usage(problem.to_owned()));
        }
        Ok(())
    }

    /// Refuses several listeners on one file. A server that binds its sockets learns that from the system.
    fn check_files(&self, places: &Places) -> Result<(), Failure> {
        let side = self.monitoring.uris().filter_map(|uri| uri.parse().ok());
        let side: Vec<Listen> = side.collect();
        let listens: Vec<_> = places.listens.iter().flatten().chain(&side).collect();

        for (number, listen) in listens.iter().enumerate() {
            let path = listen.address().path();
            let mut earlier = listens[..number].iter();
            if path.is_some() && earlier.any(|other| other.address().path() == path) {
                let problem = "another listener has the same file";
                return Err(Failure::Usage(format!("{}: {problem}", shown(listen))));
            }
        }
        Ok(())
    }

    /// Refuses listeners that the loops of this model cannot serve.
    fn check_loops(&self, places: &Places, config: &Config) -> Result<(), Failure> {
        let (loops, _) = self.execution.parts();
        for listen in places.listens.iter().flatten() {
            let (address, options) = (listen.address(), listen.options());
            let has_sessions = address.is_datagram() && options.sessions.unwrap_or(config.sessions);
            let problem = if has_sessions && !self.execution.has_loops() {
                "sessions of datagrams need the event loop, and connections are served apart"
            } else if has_sessions && loops > 1 && is_one_for_all(address) {
                "a peer's datagrams would come to any worker, because they share this socket, and a session \
                 is served by one"
            } else if loops > 1 && options.reuse_port == Some(false) && !is_one_for_all(address) {
                "several workers on one port need reuse-port"
            } else {
                continue;
            };
            return Err(Failure::Usage(format!("{}: {problem}", shown(listen))));
        }
        Ok(())
    }
}

/// Returns whether all loops of a server have one socket at this address.
fn is_one_for_all(address: &Address) -> bool {
    let ip = address.socket_addr().map(|addr| addr.ip().to_canonical());
    ip.is_none_or(|ip| address.is_datagram() && ip.is_multicast())
}

fn shown(listen: &Listen) -> String {
    format!("{:?}", listen.to_string())
}
