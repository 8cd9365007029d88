//! A server as a child process.

use std::env;
use std::io;
use std::net::Ipv4Addr;

use serveloop::Address;
use serveloop_measure::{
    Cores, Launched, Load, Scenario, Secured, Terms, Tracer, Uninterrupted, launch,
};

use crate::nginx;
use crate::servers::Kind;

/// A server that runs until it is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) process: Launched,
    /// One address, or several of the same port for clients that come and go.
    pub(crate) addresses: Vec<Address>,
}

impl Running {
    /// Starts a server for the load, under `tracer` if there is one.
    pub(crate) fn start(
        kind: Kind,
        cores: &Cores,
        tracer: Option<&Tracer>,
        scenario: &Scenario,
    ) -> io::Result<Self> {
        let mut command = launch::command(&[], tracer, &cores.servers)?;
        let (process, port) = if kind == Kind::Nginx {
            let port = nginx::free_port()?;
            command.args(nginx::words(port)?);
            nginx::silence(&mut command);
            let process = Launched::spawn(&mut command)?;
            nginx::await_port(port)?;
            (process, port)
        } else {
            let host = Ipv4Addr::UNSPECIFIED.to_string();
            command.arg(env::current_exe()?);
            command.args(["--serve", kind.name(), &host]);
            let process = Launched::spawn(&mut command)?;
            let announced = process.addresses(1, &Uninterrupted)?;
            let port = announced[0].socket_addr().map_or(0, |addr| addr.port());
            (process, port)
        };

        let hosts = (1..).map(|last| Ipv4Addr::new(127, 0, 0, last));
        let addresses = hosts.map(|host| Address::Tcp((host, port).into()));
        Ok(Self {
            process,
            addresses: addresses.take(scenario.listeners()).collect(),
        })
    }

    /// Prepares the load on this server.
    pub(crate) fn load<'a>(
        &self,
        scenario: &Scenario,
        secured: &'a Secured,
    ) -> io::Result<Load<'a>> {
        let terms = Terms {
            secured: Some(secured),
            ..Terms::default()
        };
        Load::new(scenario, self.addresses.clone(), terms)
    }

    /// Ends the server so that a tracer still writes down what it has counted.
    pub(crate) fn end_traced(self) -> io::Result<()> {
        self.process.end_traced()
    }
}
