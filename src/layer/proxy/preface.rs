//! The header as the preface of a connection, and which peers it is believed from.

use std::sync::Arc;

use crate::address::{NetworkList, Peer};
use crate::error::ProtocolError;
use crate::layer::proxy::Header;
use crate::layer::{Preface, Prefaced, Prelude};
use crate::session::{Factory, Protocol};

/// Which connections begin with a header, and from whom it is believed.
///
/// Trusted proxies always send a header: their connections end without one, and after a header that
/// breaks a rule. What the others do depends on the constructor. A clone shares the list.
///
/// [`factory`](Self::factory) is all that a server behind proxies needs:
///
/// ```
/// use serveloop::layer::proxy::Proxy;
/// use serveloop::{Config, Peer, Server, protocols::Echo};
///
/// let server = Server::bind(&["tcp://127.0.0.1:0".parse()?], Config::default())?;
/// server.shutdown_handle().shutdown();
///
/// let proxy = Proxy::required("10.0.0.0/8,unix".parse()?);
/// let factory = proxy.factory(|client: &Peer, _: &Option<_>| {
///     println!("{client} by {:?}", client.via());
///     Some(Echo)
/// });
/// server.with(factory).serve_forever()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Proxy {
    trusted: Arc<NetworkList>,
    others: Others,
}

/// What is done with peers that are not trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Others {
    Refused,
    Direct,
}

impl Proxy {
    /// Serves the `trusted` proxies only. Other peers are refused when they connect.
    ///
    /// A connection that the proxy opens for itself, such as a health check (`LOCAL` in version 2),
    /// names no client: it is served like any other, its peer is the proxy, and [`Peer::via`] is
    /// `None`.
    #[must_use]
    pub fn required(trusted: NetworkList) -> Self {
        Self {
            trusted: Arc::new(trusted),
            others: Others::Refused,
        }
    }

    /// Serves the `trusted` proxies, and clients that come directly from elsewhere. Those send no
    /// header, and their protocol begins at once: a server that speaks first greets them. If one of
    /// them begins with a header, its connection ends with an error, so that it is clear that
    /// the header was not believed.
    ///
    /// The address decides, and not the first bytes, so that no client waits for a greeting that does
    /// not come.
    /// HAProxy's `expect-proxy` for certain sources does the same; nginx has no such mode. A client on
    /// the same address as a trusted proxy cannot come directly.
    #[must_use]
    pub fn optional(trusted: NetworkList) -> Self {
        Self {
            trusted: Arc::new(trusted),
            others: Others::Direct,
        }
    }

    /// Returns the factory of a server behind these proxies, for [`Server::with`](crate::Server::with).
    /// `build` returns the protocol of a client, from the peer that the header names and from the header, which is `None` for a
    /// client that came directly; or `None` to refuse the client.
    ///
    /// It also exempts the proxies from `max_per_peer`, which then counts their clients, unless
    /// [`Config::trusted_proxies`](crate::Config::trusted_proxies) or the
    /// [listener's](crate::net::ListenOptions::trusted_proxies) names others. With a factory of your own around
    /// [`prefaced`](crate::layer::prefaced) and [`reader`](Self::reader), set one of those, or return the list from
    /// [`Factory::trusted_proxies`]: otherwise all clients behind a proxy count as one peer until their header
    /// has arrived, and the proxy soon has as many connections as `max_per_peer` allows.
    pub fn factory<B, P>(
        &self,
        build: B,
    ) -> impl Factory<Protocol = Prefaced<Reader, B, P>> + Clone + use<B, P>
    where
        B: FnMut(&Peer, &Option<Header<'static>>) -> Option<P> + Clone,
        P: Protocol,
    {
        BehindProxies {
            proxy: self.clone(),
            build,
        }
    }

    /// Returns the proxies that are trusted.
    #[must_use]
    pub fn trusted(&self) -> &NetworkList {
        &self.trusted
    }

    /// Returns the reader for a connection from `peer`, or `None` if the peer is refused.
    #[must_use]
    pub fn reader(&self, peer: &Peer) -> Option<Reader> {
        let is_trusted = self.trusted.contains(peer.address());
        (is_trusted || self.others == Others::Direct).then_some(Reader { is_trusted })
    }
}

/// What [`Proxy::factory`] returns.
#[derive(Clone, Debug)]
struct BehindProxies<B> {
    proxy: Proxy,
    build: B,
}

impl<B, P> Factory for BehindProxies<B>
where
    B: FnMut(&Peer, &Option<Header<'static>>) -> Option<P> + Clone,
    P: Protocol,
{
    type Protocol = Prefaced<Reader, B, P>;

    fn build_protocol(&mut self, peer: &Peer) -> Option<Self::Protocol> {
        let reader = self.proxy.reader(peer)?;
        Some(Prefaced::new(reader, self.build.clone()))
    }

    fn trusted_proxies(&self, _: usize) -> Option<NetworkList> {
        Some(self.proxy.trusted().clone())
    }
}

/// Reads the header of one connection, or sees that there is none.
///
/// What the protocol is made from is the header, of which the TLVs can be read, or `None` for a
/// client that came directly. The protocol's peer has the client's address if the header states it.
/// With the command LOCAL, or UNKNOWN, or if the header is about datagrams, the peer stays the proxy.
#[derive(Clone, Copy, Debug)]
pub struct Reader {
    is_trusted: bool,
}

impl Preface for Reader {
    type Info = Option<Header<'static>>;

    /// As many bytes show whether a stream begins like a header.
    const CHECKED: usize = 16;

    fn absent(&mut self, _: &Peer) -> Option<Self::Info> {
        (!self.is_trusted).then_some(None)
    }

    fn check(&mut self, beginning: &[u8], peer: &Peer) -> Result<(), ProtocolError> {
        if BEGINNINGS.iter().any(|begin| beginning.starts_with(begin)) {
            return Err(format!("{peer} is no trusted proxy and sent a PROXY header").into());
        }
        Ok(())
    }

    fn read(
        &mut self,
        data: &[u8],
        peer: &Peer,
    ) -> Result<Option<Prelude<Self::Info>>, ProtocolError> {
        if !self.is_trusted {
            self.check(data, peer)?;
            return Ok(Some(Prelude {
                length: 0,
                client: None,
                info: None,
            }));
        }

        let Some((header, length)) = Header::parse(data)? else {
            return Ok(None);
        };
        // A peer with the address of datagrams would count as one datagram, and not as a stream.
        let client = header.source().filter(|source| !source.is_datagram());
        Ok(Some(Prelude {
            length,
            client: client.cloned(),
            info: Some(header.into_owned()),
        }))
    }
}

/// The beginnings of headers, which no client sends that comes directly.
const BEGINNINGS: [&[u8]; 4] = [
    b"PROXY TCP4 ",
    b"PROXY TCP6 ",
    b"PROXY UNKNOWN",
    b"\r\n\r\n\0\r\nQUIT\n",
];
