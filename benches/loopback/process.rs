//! A server as a child process.

use std::env;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serveloop::Address;
use serveloop_measure::{Cores, Launched, Load, Scenario, Terms, Tracer, Uninterrupted, launch};

use crate::servers::Kind;

/// A server that runs until it is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) process: Launched,
    /// One address, or several of the same port for clients that come and go.
    addresses: Vec<Address>,
}

impl Running {
    /// Starts a server for the load.
    pub(crate) fn start(kind: Kind, cores: &Cores, scenario: &Scenario) -> io::Result<Self> {
        Self::start_by(&[], kind, cores, None, scenario)
    }

    /// Starts the server under `tracer`, or by another program, whose command line `before` begins.
    pub(crate) fn start_by(
        before: &[&str],
        kind: Kind,
        cores: &Cores,
        tracer: Option<&Tracer>,
        scenario: &Scenario,
    ) -> io::Result<Self> {
        let listeners = scenario.listeners();
        let host = match listeners {
            1 => Ipv4Addr::LOCALHOST,
            _ => Ipv4Addr::UNSPECIFIED,
        };

        let mut command = launch::command(&[], tracer, &cores.servers)?;
        command.args(before);
        match kind.program(host) {
            Some(program) => command.args(program?),
            None => {
                command
                    .arg(env::current_exe()?)
                    .args(["--serve", kind.name(), &host.to_string()])
            }
        };

        let process = Launched::spawn(&mut command)?;
        let announced = process.addresses(1, &Uninterrupted)?;
        let port = announced[0].socket_addr().map_or(0, |addr| addr.port());
        let hosts = (1..).map(|last| Ipv4Addr::new(127, 0, 0, last));
        let addresses = hosts.map(|host| Address::Tcp((host, port).into()));
        Ok(Self {
            process,
            addresses: addresses.take(listeners).collect(),
        })
    }

    pub(crate) fn socket_addr(&self) -> SocketAddr {
        let nowhere = (IpAddr::from(Ipv4Addr::UNSPECIFIED), 0).into();
        self.addresses[0].socket_addr().unwrap_or(nowhere)
    }

    /// Prepares the load on this server.
    pub(crate) fn load(&self, scenario: &Scenario) -> io::Result<Load<'static>> {
        Load::new(scenario, self.addresses.clone(), Terms::default())
    }

    /// Ends the server so that a tracer still writes down what it has counted.
    pub(crate) fn end_traced(self) -> io::Result<()> {
        self.process.end_traced()
    }
}
