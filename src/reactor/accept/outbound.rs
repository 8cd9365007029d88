//! Outbound sessions of datagrams, from the request to the socket.

use std::io;

use crate::address::Address;
use crate::error::CloseReason;
use crate::net::Net;
use crate::reactor::accept::Admission;
use crate::reactor::accept::admission::is_postponed;
use crate::reactor::hub::Hub;
use crate::session::{Connect, Factory, Tick, Ticket};

impl<F: Factory, N: Net> Admission<'_, F, N> {
    /// Begins a session of datagrams with the first of the addresses that the system finds a way to.
    #[cold]
    pub(super) fn connect_datagrams(
        &mut self,
        connect: Connect<F::Protocol>,
        until: Option<Tick>,
    ) -> Option<Connect<F::Protocol>> {
        match self.open_datagrams(&connect) {
            Err(CloseReason::ConnectFailed(error))
                if is_postponed(&error) && until.is_none_or(|until| self.hub.now() < until) =>
            {
                return Some(connect);
            }
            Err(reason) => self.refuse_connect(connect, reason),
            Ok((socket, address)) => {
                connect.ticket.inspect(Ticket::end);
                let session = self.begin_session(address, connect.protocol);
                self.sessions.connect(socket, session, &mut self.hub);
            }
        }
        None
    }

    fn open_datagrams(
        &mut self,
        connect: &Connect<F::Protocol>,
    ) -> Result<(N::Datagram, Address), CloseReason> {
        self.check_place(connect)?;
        let token = self.sessions.next_token();
        let mut failure = None;
        for address in connect.to.addresses() {
            let opened = match address {
                Address::Udp(_) => {
                    let Hub { net, env, .. } = &mut self.hub;
                    net.connect_datagram(address, &env.config, token)
                }
                _ => Err(io::Error::new(
                    io::ErrorKind::Unsupported,
                    "only streams and UDP can be connected",
                )),
            };
            match opened {
                Ok(socket) => return Ok((socket, address.clone())),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        let error = failure.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into());
        Err(CloseReason::ConnectFailed(error))
    }
}
