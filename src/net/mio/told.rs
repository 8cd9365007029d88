//! What the system tells with a datagram, beyond its data and its addresses, and what it has put together.

use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;

use crate::address::{Address, PacketInfo};
use crate::config::Config;
use crate::net::destination;
use crate::net::destination::Destination;

/// What a socket is asked to tell. Most are asked nothing, and have none of this.
#[derive(Debug)]
pub(super) struct Told {
    /// What the header of the last datagram says.
    pub(super) packet: Option<PacketInfo>,
    /// The other datagrams of the run that was received last, if it has not been passed on whole.
    rest: Option<Rest>,
}

/// Datagrams of one peer that the system has put together (GRO). The first of them is not here any more.
#[derive(Debug)]
struct Rest {
    from: SocketAddr,
    data: Vec<u8>,
    /// Where the next one begins.
    at: usize,
    /// The length of each, of which the last may have less.
    size: usize,
}

impl Told {
    /// Returns what is kept for a socket at this address, if it is asked for anything.
    pub(super) fn of(at: &Address, config: &Config) -> Option<Box<Self>> {
        let asks = config.udp.packet_info || config.udp.gro;
        (asks && matches!(at, Address::Udp(_))).then(|| Box::new(Self::new(None)))
    }

    fn new(packet: Option<PacketInfo>) -> Self {
        Self { packet, rest: None }
    }

    /// Returns the same for a copy of the socket, which answers the last datagram.
    pub(super) fn copy(&self) -> Box<Self> {
        Box::new(Self::new(self.packet))
    }

    /// Returns whether datagrams were received that were not passed on.
    pub(super) fn has_rest(&self) -> bool {
        self.rest.is_some()
    }

    /// Puts the next datagram of the last run into `buffer`, if there is one left.
    pub(super) fn next(&mut self, buffer: &mut [u8]) -> Option<(usize, SocketAddr)> {
        let rest = self.rest.as_mut()?;
        let left = &rest.data[rest.at..];
        let data = &left[..rest.size.min(left.len())];
        let count = data.len().min(buffer.len());
        buffer[..count].copy_from_slice(&data[..count]);

        rest.at += data.len();
        let next = (count, rest.from);
        if rest.at == rest.data.len() {
            self.rest = None;
        }
        Some(next)
    }

    /// Receives a run into `buffer`, and returns the length of its first datagram, which is there, with
    /// its sender and its destination.
    ///
    /// # Errors
    /// The errors of recvmsg(2).
    pub(super) fn receive(
        &mut self,
        socket: BorrowedFd<'_>,
        buffer: &mut [u8],
    ) -> io::Result<(usize, SocketAddr, Option<Destination>)> {
        let run = destination::receive_run(socket, buffer)?;
        self.packet = run.packet;
        Ok((
            self.part(run.size, run.from, &buffer[..run.count]),
            run.from,
            run.destination,
        ))
    }

    /// Keeps what is behind the first `size` bytes of `run`, and returns the length of what is before. All
    /// of it is one datagram if the system has put none together.
    fn part(&mut self, size: Option<usize>, from: SocketAddr, run: &[u8]) -> usize {
        let Some(size) = size.filter(|size| (1..run.len()).contains(size)) else {
            return run.len();
        };
        self.rest = Some(Rest {
            from,
            data: run[size..].to_vec(),
            at: 0,
            size,
        });
        size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from() -> SocketAddr {
        "192.0.2.1:5".parse().unwrap()
    }

    /// Returns all datagrams of a run.
    fn parted(size: Option<usize>, run: &[u8]) -> Vec<Vec<u8>> {
        let mut told = Told::new(None);
        let first = told.part(size, from(), run);
        let mut all = vec![run[..first].to_vec()];
        let mut buffer = [0; 9];
        while told.has_rest() {
            let (count, of) = told.next(&mut buffer).unwrap();
            assert_eq!(of, from());
            all.push(buffer[..count].to_vec());
        }
        assert_eq!(told.next(&mut buffer), None);
        all
    }

    #[test]
    fn a_run_is_taken_apart() {
        assert_eq!(parted(Some(2), b"aabbcc"), [b"aa", b"bb", b"cc"]);
        assert_eq!(parted(Some(3), b"aaabb"), [&b"aaa"[..], b"bb"]);
        assert_eq!(parted(Some(1), b"ab"), [b"a", b"b"]);
    }

    #[test]
    fn what_is_not_put_together_is_one_datagram() {
        for size in [None, Some(0), Some(4), Some(5), Some(usize::MAX)] {
            assert_eq!(parted(size, b"abcd"), [b"abcd"]);
        }
        assert_eq!(parted(Some(3), b""), [b""]);
    }

    #[test]
    fn a_copy_has_no_rest() {
        let mut told = Told::new(None);
        told.part(Some(1), from(), b"ab");
        assert!(told.has_rest() && !told.copy().has_rest());
    }
}
