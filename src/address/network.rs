//! Networks of IP addresses, and lists of them.

use std::net::IpAddr;
use std::str::FromStr;
use std::{fmt, slice};

use super::Address;
use super::units::parse_digits;

/// The prefix of the IPv6 addresses that stand for IPv4 addresses, `::ffff:0:0/96`.
const MAPPED_PREFIX: u8 = 96;

/// A network of IPv4 or IPv6 addresses in CIDR notation: `10.0.0.0/8`, `2001:db8::/32`.
///
/// An address without a prefix length is the network that holds this address alone, `/32` or
/// `/128`. Bits behind the prefix are cleared, as nginx, ufw and HAProxy do: `10.1.2.3/8` is
/// `10.0.0.0/8`, and is displayed so. Brackets, interfaces (`fe80::1%eth0`), netmasks
/// (`10.0.0.0/255.0.0.0`) and leading zeros are errors.
///
/// An IPv6 address that stands for an IPv4 address (`::ffff:10.0.0.1`, RFC 4291 section 2.5.5.2)
/// counts as the IPv4 address, because a socket for both families reports IPv4 clients so.
/// Therefore `::/0` contains no IPv4 address; `0.0.0.0/0` and `::/0` together contain all.
///
/// ```
/// use serveloop::net::IpNetwork;
/// let network: IpNetwork = "10.0.0.0/8".parse()?;
/// assert!(network.contains("10.1.2.3".parse()?));
/// assert!(network.contains("::ffff:10.1.2.3".parse()?));
/// assert!(!network.contains("11.0.0.0".parse()?));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IpNetwork {
    /// The first address. All bits behind the prefix are zero.
    address: IpAddr,
    prefix: u8,
}

impl IpNetwork {
    /// Creates the network of `address` whose addresses agree in their first `prefix` bits.
    ///
    /// # Errors
    /// Fails if `prefix` is more than the number of bits in the address: 32 for IPv4, 128 for IPv6.
    pub fn new(address: IpAddr, prefix: u8) -> Result<Self, NetworkError> {
        if prefix > bits(address) {
            let text = format!("{address}/{prefix}");
            return Err(NetworkError::new(&text, too_long(address)));
        }

        // The network of IPv4 addresses that is written as one of IPv6 addresses.
        let canonical = address.to_canonical();
        let (address, prefix) = match prefix.checked_sub(MAPPED_PREFIX) {
            Some(rest) if canonical != address => (canonical, rest),
            _ => (address, prefix),
        };

        Ok(Self {
            address: masked(address, prefix),
            prefix,
        })
    }

    /// Returns the first address of the network.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Returns the number of leading bits that all addresses of the network share.
    #[must_use]
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Returns whether `address` belongs to the network. An IPv6 address that stands for an IPv4
    /// address counts as the IPv4 address.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && masked(address, self.prefix) == self.address
    }
}

/// Makes the network that holds one address.
impl From<IpAddr> for IpNetwork {
    fn from(address: IpAddr) -> Self {
        let address = address.to_canonical();
        Self {
            address,
            prefix: bits(address),
        }
    }
}

impl fmt::Display for IpNetwork {
    /// Writes the first address and the prefix length, which `/32` and `/128` are too.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for IpNetwork {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| {
            NetworkError::new(
                text,
                "expected an IP address or a network, for example 10.0.0.0/8 or 2001:db8::/32",
            )
        })?;

        match prefix {
            None => Ok(address.into()),
            Some(prefix) => {
                let prefix =
                    decimal(prefix).ok_or_else(|| NetworkError::new(text, too_long(address)))?;
                Self::new(address, prefix).map_err(|error| NetworkError::new(text, error.problem))
            }
        }
    }
}

/// Parses a prefix length: digits without a sign or a leading zero.
fn decimal(text: &str) -> Option<u8> {
    let is_padded = text.len() > 1 && text.starts_with('0');
    parse_digits(text).filter(|_| !is_padded)
}

fn bits(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

fn too_long(address: IpAddr) -> &'static str {
    match address {
        IpAddr::V4(_) => "expected a prefix length from 0 to 32 after the slash",
        IpAddr::V6(_) => "expected a prefix length from 0 to 128 after the slash",
    }
}

/// Clears all bits of an address behind the first `prefix`.
fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(ip) => {
            let host = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
            IpAddr::V4((ip.to_bits() & !host).into())
        }
        IpAddr::V6(ip) => {
            let host = u128::MAX.checked_shr(prefix.into()).unwrap_or(0);
            IpAddr::V6((ip.to_bits() & !host).into())
        }
    }
}

/// A list of networks, to decide which peers are trusted or admitted.
///
/// It is parsed from networks that are separated by commas, with spaces around them if you like:
/// `10.0.0.0/8, 2001:db8::/32, unix`. The word `unix` (or `unix:`, as in nginx) holds all peers on
/// Unix sockets, which have no IP address; without it the list holds none of them. In the same way `vsock`
/// holds all virtual machines and their host, and `vsock:3` the one with this context id. An empty text
/// and an empty entry are errors.
///
/// The default list is empty and holds no peer. A lookup compares with one network after the other,
/// so a list is for tens of networks, not for thousands.
///
/// ```
/// use serveloop::{Address, net::NetworkList};
/// let trusted: NetworkList = "10.0.0.0/8,2001:db8::/32".parse()?;
/// let balancer: Address = "tcp://10.0.0.7:4711".parse()?;
/// let stranger: Address = "tcp://192.0.2.1:4711".parse()?;
/// assert!(trusted.contains(&balancer));
/// assert!(!trusted.contains(&stranger));
/// assert!(!trusted.contains(&Address::Unix("/run/client".into())));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct NetworkList {
    networks: Vec<IpNetwork>,
    has_unix: bool,
    has_vsock: bool,
    /// Single virtual machines.
    cids: Vec<u32>,
}

impl NetworkList {
    /// Returns whether the list holds the peer at `address`, whatever its port or transport.
    #[must_use]
    pub fn contains(&self, address: &Address) -> bool {
        match address {
            Address::Tcp(addr) | Address::Udp(addr) => {
                self.networks.iter().any(|it| it.contains(addr.ip()))
            }
            Address::Unix(_) | Address::Unixgram(_) => self.has_unix,
            Address::Vsock(addr) => self.has_vsock || self.cids.contains(&addr.cid),
        }
    }

    /// Returns whether the list holds the peers on Unix sockets.
    #[must_use]
    pub fn has_unix(&self) -> bool {
        self.has_unix
    }

    /// Returns whether the list holds no peer at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty() && self.cids.is_empty() && !self.has_unix && !self.has_vsock
    }

    /// Adds what another list holds.
    pub fn extend(&mut self, other: &Self) {
        self.networks.extend_from_slice(&other.networks);
        self.cids.extend_from_slice(&other.cids);
        self.has_unix |= other.has_unix;
        self.has_vsock |= other.has_vsock;
    }

    /// Returns the networks in the order of the text.
    pub fn iter(&self) -> slice::Iter<'_, IpNetwork> {
        self.networks.iter()
    }
}

impl<'a> IntoIterator for &'a NetworkList {
    type Item = &'a IpNetwork;
    type IntoIter = slice::Iter<'a, IpNetwork>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Makes a list of networks, without the peers on Unix sockets and virtual machines.
impl FromIterator<IpNetwork> for NetworkList {
    fn from_iter<I: IntoIterator<Item = IpNetwork>>(networks: I) -> Self {
        Self {
            networks: networks.into_iter().collect(),
            ..Self::default()
        }
    }
}

impl fmt::Display for NetworkList {
    /// Writes the networks with commas between them, then virtual machines, and `vsock` and `unix` last.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut comma = "";
        for network in self {
            write!(f, "{comma}{network}")?;
            comma = ",";
        }
        for cid in &self.cids {
            write!(f, "{comma}vsock:{cid}")?;
            comma = ",";
        }
        for (is_there, word) in [(self.has_vsock, "vsock"), (self.has_unix, "unix")] {
            if is_there {
                write!(f, "{comma}{word}")?;
                comma = ",";
            }
        }
        Ok(())
    }
}

impl FromStr for NetworkList {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let mut list = Self::default();
        for entry in text.split(',') {
            match entry.trim_matches([' ', '\t']) {
                "" => {
                    let problem = "an empty entry, expected networks with commas between them";
                    return Err(NetworkError::new(text, problem));
                }
                "unix" | "unix:" => list.has_unix = true,
                "vsock" | "vsock:" => list.has_vsock = true,
                entry if entry.starts_with("vsock:") => list.cids.push(cid(entry)?),
                entry => list.networks.push(entry.parse()?),
            }
        }
        Ok(list)
    }
}

/// Parses a virtual machine: `vsock:` and its number.
fn cid(entry: &str) -> Result<u32, NetworkError> {
    let digits = entry.strip_prefix("vsock:").unwrap_or_default();
    parse_digits(digits)
        .ok_or_else(|| NetworkError::new(entry, "expected a context id, for example vsock:3"))
}

/// The reason why a text is not an [`IpNetwork`] or a [`NetworkList`]. The message holds the text
/// and the problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkError {
    text: String,
    problem: &'static str,
}

impl NetworkError {
    fn new(text: &str, problem: &'static str) -> Self {
        Self {
            text: text.to_owned(),
            problem,
        }
    }
}

impl fmt::Display for NetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.text, self.problem)
    }
}

impl std::error::Error for NetworkError {}
