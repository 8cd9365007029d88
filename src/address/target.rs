//! What a connection is opened to: addresses, or a name.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;

use super::{Address, AddressError, split_port, split_scheme};

/// Where an outbound connection goes: to an address, to the first of several addresses that answers,
/// or to a host whose name is looked up for each connection.
///
/// It is parsed from a URI like an [`Address`], whose host may be a name: `tcp://example.org:80`.
/// Parsing does not look the name up. A connection that is opened to a target
/// ([`Actions::connect_to`](crate::Actions::connect_to),
/// [`Reactor::connect_to`](crate::Reactor::connect_to)) does,
/// on a thread of a pool.
///
/// Several addresses are tried as RFC 8305 says: the next one when the one before has failed, or has
/// not answered within 250 ms. The first to answer is used, and the other attempts are ended. The
/// addresses of a name alternate between IPv6 and IPv4; given addresses keep their order.
///
/// ```
/// use serveloop::Address;
/// use serveloop::net::Target;
///
/// let target: Target = "tcp://example.org:80".parse()?;
/// assert_eq!(target.name(), Some("tcp://example.org:80"));
///
/// let either: [Address; 2] = ["tcp://[::1]:80".parse()?, "tcp://127.0.0.1:80".parse()?];
/// assert_eq!(Target::from(either.to_vec()).to_string(), "tcp://[::1]:80, tcp://127.0.0.1:80");
///
/// let error = "tcp://example.org".parse::<Target>().unwrap_err();
/// assert_eq!(error.to_string(), "\"tcp://example.org\": expected HOST:PORT");
/// # Ok::<(), serveloop::net::AddressError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target(Place);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Place {
    Address(Address),
    Addresses(Vec<Address>),
    Name(Box<str>),
}

impl Target {
    /// Returns the target of a name that was looked up: `addresses` in the order of the resolver, but
    /// alternating between IPv6 and IPv4, as RFC 8305 says. If one family does not work, every second
    /// address still may.
    ///
    /// ```
    /// use serveloop::net::Target;
    ///
    /// let found = ["tcp://[::1]:80", "tcp://[::2]:80", "tcp://127.0.0.1:80"].map(|it| it.parse());
    /// let found = found.into_iter().collect::<Result<_, _>>()?;
    /// let target = Target::of_name(found).to_string();
    /// assert_eq!(target, "tcp://[::1]:80, tcp://127.0.0.1:80, tcp://[::2]:80");
    /// # Ok::<(), serveloop::net::AddressError>(())
    /// ```
    #[must_use]
    pub fn of_name(addresses: Vec<Address>) -> Self {
        interleaved(addresses).into()
    }

    /// Returns the URI whose host is to be looked up, if that is a name.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match &self.0 {
            Place::Name(name) => Some(name),
            _ => None,
        }
    }

    /// Returns the addresses in the order in which they are tried. There are none for a name.
    #[must_use]
    pub fn addresses(&self) -> &[Address] {
        match &self.0 {
            Place::Address(address) => std::slice::from_ref(address),
            Place::Addresses(addresses) => addresses,
            Place::Name(_) => &[],
        }
    }
}

impl From<Address> for Target {
    fn from(address: Address) -> Self {
        Self(Place::Address(address))
    }
}

/// A connection to no address at all fails.
impl From<Vec<Address>> for Target {
    fn from(addresses: Vec<Address>) -> Self {
        Self(Place::Addresses(addresses))
    }
}

impl FromStr for Target {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let error = match text.parse::<Address>() {
            Ok(address) => return Ok(address.into()),
            Err(error) => error,
        };

        match split_scheme(text)? {
            ("tcp" | "udp", rest) => match split_port(rest) {
                Some((host, _)) if !host.contains(|it: char| it.is_whitespace() || it == '/') => {
                    Ok(Self(Place::Name(text.into())))
                }
                _ => Err(AddressError::new(text, "expected HOST:PORT")),
            },
            _ => Err(error),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = self.name() {
            return f.write_str(name);
        }
        for (number, address) in self.addresses().iter().enumerate() {
            let comma = if number > 0 { ", " } else { "" };
            write!(f, "{comma}{address}")?;
        }
        Ok(())
    }
}

/// Orders the addresses of a name as the resolver did, but alternates between the families. If one
/// family does not work, every second address still may.
pub(crate) fn interleaved(addresses: Vec<Address>) -> Vec<Address> {
    let is_ipv6 = |address: &Address| address.socket_addr().is_some_and(|addr| addr.is_ipv6());
    let first = addresses.first().is_some_and(is_ipv6);
    let (mut one, mut other): (VecDeque<_>, VecDeque<_>) = addresses
        .into_iter()
        .partition(|address| is_ipv6(address) == first);

    let mut order = Vec::new();
    while !one.is_empty() || !other.is_empty() {
        order.extend(one.pop_front());
        order.extend(other.pop_front());
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns() {
        let order = |uris: &[&str]| {
            let addresses = uris.iter().map(|uri| uri.parse().expect("an address"));
            let order = interleaved(addresses.collect()).into_iter();
            order.map(|address| address.to_string()).collect::<Vec<_>>()
        };

        let (a, b, c) = ("tcp://[::1]:1", "tcp://[::2]:1", "tcp://[::3]:1");
        let (x, y) = ("tcp://1.0.0.1:1", "tcp://1.0.0.2:1");
        assert_eq!(order(&[a, b, c, x, y]), [a, x, b, y, c]);
        assert_eq!(order(&[x, y, a]), [x, a, y]);
        assert_eq!(order(&["unix:///s"]), ["unix:///s"]);
        assert_eq!(order(&[]), [""; 0]);
    }
}
