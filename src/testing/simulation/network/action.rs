//! What can happen in the simulated world, apart from what the loop does.

use crate::testing::simulation::wire::Segment;

/// An action on the simulation's timeline. The numbers are those of wires or datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Action {
    /// A client connects, sends some bytes, or takes some.
    Begin(usize),
    Send(usize),
    Take(usize),
    ToServer(usize, Segment),
    ToClient(usize, Segment),
    /// An outbound connection is established or refused.
    Stand(usize),
    Refuse(usize),
    /// Announces an event that was delayed.
    Announce(usize),
    AnnounceDoor,
    AnnouncePost,
    Packet(usize),
    /// The network reports that datagrams to the sender of this one do not arrive.
    Unreachable(usize, Unreachable),
    /// The same of those of an outbound session.
    OutboundUnreachable(usize, Unreachable),
    AnnounceOutbound(usize),
    OutboundRoom(usize),
    /// A datagram to or from an outbound session arrives.
    Flight(usize),
    /// The server is asked to shut down.
    Shutdown,
}

/// What a report about a datagram says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Unreachable {
    Refused,
    NoRoute,
    TooLong,
}
