//! What concerns UDP sockets alone.

use core::net::IpAddr;

use crate::address::{ListenOptions, TTL_MOST};
use crate::config::{ConfigError, expect};

/// How UDP sockets receive from groups of multicast, and how they send.
///
/// A socket that is bound to an address of multicast, such as `udp://239.1.2.3:9999` or
/// `udp://[ff02::1]:9999`, joins that group, and leaves it when it closes. It receives what is sent to
/// the group alone, and answers from an address of the machine. Several programs can listen to one
/// group at the same port, and each gets everything. With several workers, one of them gets each
/// datagram.
///
/// ```
/// use serveloop::Config;
/// use serveloop::net::UdpOptions;
///
/// let udp = UdpOptions { interface: Some("eth0".to_owned()), ttl: Some(1), ..UdpOptions::default() };
/// let config = Config { udp, ..Config::default() };
/// # config.validate().unwrap();
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UdpOptions {
    /// The interface by which groups are joined and sent to: its name, or one of its addresses.
    /// Default `None`: the one that the system's routes lead to.
    pub interface: Option<String>,
    /// The one address whose datagrams a group is joined for, of the group's family. It needs Linux;
    /// elsewhere such a listener is refused. Default `None`: all senders.
    pub source: Option<IpAddr>,
    /// How many routers a datagram can pass, plus one: from 1 to 255. Default `None`: 1 for datagrams
    /// to groups, and what the system has set for others, usually 64.
    pub ttl: Option<u32>,
    /// Whether this machine too receives what is sent to a group from here. Default `None`: as the
    /// system has it, usually true.
    pub loopback: Option<bool>,
    /// Whether datagrams can be sent to addresses of broadcast. The system refuses them otherwise.
    /// They are received without it. Default false.
    pub broadcast: bool,
    /// Whether the system tells the ECN mark and the hop limit of each datagram, which
    /// [`Transport::packet_info`](crate::Transport::packet_info) then returns. It needs Linux; elsewhere such
    /// a listener is refused. Default false, since it costs a few instructions for each datagram.
    pub packet_info: bool,
    /// Whether the system puts datagrams of one peer together that come at once and have one length
    /// (GRO), so that one call receives up to 64 KiB of them. Sessions are shown each by itself. It saves
    /// two thirds of the receiver's processor time for bulk such as QUIC's, and costs about a tenth more
    /// for a datagram that comes alone. It needs Linux 5.0; elsewhere such a listener is refused. Default
    /// false.
    pub gro: bool,
}

impl UdpOptions {
    /// Returns these with the options of a listener in their place.
    pub(crate) fn with(&self, options: &ListenOptions) -> Self {
        let interface = options.interface.as_ref().or(self.interface.as_ref());
        Self {
            interface: interface.cloned(),
            source: options.source.or(self.source),
            ttl: options.ttl.or(self.ttl),
            loopback: options.loopback.or(self.loopback),
            broadcast: options.broadcast.unwrap_or(self.broadcast),
            packet_info: options.packet_info.unwrap_or(self.packet_info),
            gro: options.gro.unwrap_or(self.gro),
        }
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let ttl = self.ttl.unwrap_or(1);
        let is_possible = (1..=TTL_MOST).contains(&ttl);
        expect(is_possible, "udp.ttl", "from 1 to 255", ttl)
    }
}
