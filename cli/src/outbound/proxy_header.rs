//! The option `--proxy-header`: what a proxy would send first.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use serveloop::layer::proxy::Header;
use serveloop::{Address, ProtocolError, Transport};

/// A PROXY header that a connection begins with: `v1` or `v2`, and perhaps whom it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProxyHeader {
    version: Version,
    names: Named,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Named {
    /// Our own end of the connection.
    Ourselves,
    /// Nobody, as in the health check of a proxy.
    Nobody,
    /// A client that we stand for.
    Client(SocketAddr),
}

impl FromStr for ProxyHeader {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (version, client) = match text.split_once(',') {
            Some((version, client)) => (version, Some(client)),
            None => (text, None),
        };
        let version = match version {
            "v1" => Version::V1,
            "v2" => Version::V2,
            _ => return Err("expected v1 or v2, for example v2 or v2,192.0.2.1:4711"),
        };

        let names = match client {
            None => Named::Ourselves,
            Some("local") => Named::Nobody,
            Some(client) => {
                let addr = client.parse();
                let addr = addr.or_else(|_| client.parse::<IpAddr>().map(|ip| (ip, 0).into()));
                let addr = addr.map_err(
                    |_| "expected local, an IP address, or one with a port after the comma",
                )?;
                Named::Client(addr)
            }
        };
        Ok(Self { version, names })
    }
}

impl ProxyHeader {
    /// Writes the header. Call this before anything else is written.
    pub(super) fn write(self, transport: &mut Transport<'_>) -> Result<(), ProtocolError> {
        let remote = transport.peer().address().clone();
        let bytes = self.encode(transport.local_address(), &remote);
        transport.write(&bytes.map_err(ProtocolError::other)?);
        Ok(())
    }

    /// Returns the header of a connection between these addresses. The system may not tell the local
    /// one.
    fn encode(
        self,
        local: Option<Address>,
        remote: &Address,
    ) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
        let header = match (self.names, local) {
            (Named::Nobody, _) => Header::local(),
            (Named::Ourselves, None) => Header::unknown(),
            (Named::Ourselves, Some(local)) => Header::proxied(local, remote.clone())?,
            (Named::Client(client), _) => {
                let (client, server) = of_one_family(client, remote.socket_addr());
                Header::proxied(Address::Tcp(client), Address::Tcp(server))?
            }
        };

        let mut bytes = Vec::new();
        match self.version {
            Version::V1 => header.encode_v1(&mut bytes)?,
            Version::V2 => header.encode_v2(&mut bytes),
        }
        Ok(bytes)
    }
}

/// Returns both addresses as a header holds them: if only one is IPv6, the other
/// is written as IPv6 too. A server on a Unix socket gets the address of which every bit is zero.
fn of_one_family(client: SocketAddr, server: Option<SocketAddr>) -> (SocketAddr, SocketAddr) {
    let nowhere = if client.is_ipv4() {
        ([0; 4], 0).into()
    } else {
        (Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let server: SocketAddr = server.unwrap_or(nowhere);
    if client.is_ipv4() == server.is_ipv4() {
        return (client, server);
    }

    let mapped = |addr: SocketAddr| {
        let ip = match addr.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        SocketAddr::from((ip, addr.port()))
    };
    (mapped(client), mapped(server))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(option: &str, local: Option<&str>, remote: &str) -> String {
        let header: ProxyHeader = option.parse().unwrap();
        let local = local.map(|uri| uri.parse().unwrap());
        let bytes = header.encode(local, &remote.parse().unwrap()).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn the_line_names_both_ends() {
        let (one, other) = ("tcp://127.0.0.1:5", "tcp://127.0.0.1:6");
        let six = "tcp://[::1]:6";
        for (option, local, remote, expected) in [
            ("v1", Some(one), other, "TCP4 127.0.0.1 127.0.0.1 5 6"),
            ("v1", None, other, "UNKNOWN"),
            ("v1", Some("unix:///x"), "unix:///y", "UNKNOWN"),
            ("v1,local", Some(one), other, "UNKNOWN"),
            (
                "v1,192.0.2.1",
                Some(one),
                other,
                "TCP4 192.0.2.1 127.0.0.1 0 6",
            ),
            (
                "v1,192.0.2.1:7",
                None,
                "unix:///y",
                "TCP4 192.0.2.1 0.0.0.0 7 0",
            ),
            (
                "v1,2001:db8::1",
                None,
                "unix:///y",
                "TCP6 2001:db8::1 :: 0 0",
            ),
            ("v1,[2001:db8::1]:7", None, six, "TCP6 2001:db8::1 ::1 7 6"),
            ("v1,192.0.2.1", None, six, "TCP6 ::ffff:192.0.2.1 ::1 0 6"),
            ("v1,::1", None, other, "TCP6 ::1 ::ffff:127.0.0.1 0 6"),
        ] {
            let found = line(option, local, remote);
            assert_eq!(found, format!("PROXY {expected}\r\n"), "{option}");
        }
    }

    #[test]
    fn the_other_version_says_the_same() {
        let header: ProxyHeader = "v2,192.0.2.1:7".parse().unwrap();
        let bytes = header
            .encode(None, &"tcp://127.0.0.1:6".parse().unwrap())
            .unwrap();
        let (read, length) = Header::parse(&bytes).unwrap().unwrap();
        assert_eq!(length, bytes.len());
        assert_eq!(read.source().unwrap().to_string(), "tcp://192.0.2.1:7");

        let header: ProxyHeader = "v2,local".parse().unwrap();
        let bytes = header
            .encode(None, &"tcp://127.0.0.1:6".parse().unwrap())
            .unwrap();
        assert_eq!(bytes[12], 0x20);
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "v3",
            "V1",
            "1",
            "v1,",
            "v1,example.com",
            "v2,1.2.3.4:99999",
            "v2,local,1.1.1.1",
        ] {
            assert!(text.parse::<ProxyHeader>().is_err(), "{text:?}");
        }
    }
}
