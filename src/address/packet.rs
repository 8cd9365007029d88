//! What the header of an IP packet says besides the addresses.

/// The mark of Explicit Congestion Notification in a packet (RFC 3168). A sender of datagrams that reacts
/// to congestion marks them [`Ect0`](Self::Ect0), and a router that is about to be congested changes that
/// to [`Ce`](Self::Ce), in place of dropping them. The receiver tells the sender by its own protocol.
///
/// ```
/// use serveloop::net::Ecn;
///
/// assert_eq!(Ecn::from_bits(0b11), Ecn::Ce);
/// assert_eq!(Ecn::Ect0.bits(), 0b10);
/// assert_eq!(Ecn::default(), Ecn::NotEct);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Ecn {
    /// The sender does not react to marks. Routers drop such packets.
    #[default]
    NotEct = 0,
    /// The sender reacts to marks as RFC 9331 says (L4S).
    Ect1 = 1,
    /// The sender reacts to marks as to a lost packet.
    Ect0 = 2,
    /// A router on the way is congested.
    Ce = 3,
}

impl Ecn {
    /// Returns the mark in the two lowest bits of a byte, such as the traffic class of IPv6. The other
    /// bits do not matter.
    #[must_use]
    pub fn from_bits(bits: u8) -> Self {
        match bits & 3 {
            0 => Self::NotEct,
            1 => Self::Ect1,
            2 => Self::Ect0,
            _ => Self::Ce,
        }
    }

    /// Returns the two bits of the mark.
    #[must_use]
    pub fn bits(self) -> u8 {
        self as u8
    }
}

/// What the header of a datagram's packet says besides the addresses:
/// [`Transport::packet_info`](crate::Transport::packet_info).
///
/// ```
/// use serveloop::net::{Ecn, PacketInfo};
///
/// let neighbour = PacketInfo::new(Ecn::Ect0, 255);
/// assert_eq!(neighbour.hop_limit, 255);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct PacketInfo {
    /// The mark, as the last router has left it.
    pub ecn: Ecn,
    /// How many more routers the packet could have passed: the hop limit of IPv6, the time to live of
    /// IPv4. It is 255 if a neighbour sent it with 255, since no router between could have left that.
    pub hop_limit: u8,
}

impl PacketInfo {
    /// Puts the two together, for a test or your own network.
    #[must_use]
    pub fn new(ecn: Ecn, hop_limit: u8) -> Self {
        Self { ecn, hop_limit }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mark_is_its_bits_whatever_the_others_are() {
        for bits in 0..=u8::MAX {
            assert_eq!(Ecn::from_bits(bits).bits(), bits & 3);
        }
    }
}
