//! A simulated server and clients that talk through a layer with a handshake of its own.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;

use crate::address::{Address, Peer};
use crate::layer::{Layer, Layered};
use crate::session::{Actions, Factory};
use crate::testing::Simulation;
use crate::testing::simulation::far::{FarEnd, LayeredEnd};
use crate::testing::simulation::hooks::pass_on_hooks;
use crate::testing::simulation::ledger::{Place, SharedLedger};
use crate::testing::simulation::witness::Witness;

/// An end of a simulated connection, for which a [layer is made](Simulation::within).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The server's end of a connection that it accepted.
    Accepted,
    /// The server's end of a connection that it opened.
    Connected,
    /// A simulated client's end, of a connection that it opened.
    Client,
    /// A simulated remote peer's end, of a connection that it accepted.
    Remote,
}

/// Makes the clients' and remote peers' ends in one run.
pub(super) type MakeFarEnd = Box<dyn FnMut(Side) -> Box<dyn FarEnd>>;

type Inside<L, P> = Layered<L, fn(&Peer, &<L as Layer>::Info) -> Option<Witness<P>>, Witness<P>>;

/// A factory whose protocols are each inside a layer of their own, and are watched there.
pub struct Within<F, G> {
    factory: F,
    layer: G,
    ledger: SharedLedger,
}

impl<F, G, L> Within<F, G>
where
    F: Factory,
    G: FnMut(Side) -> L,
    L: Layer,
{
    fn put(&mut self, protocol: F::Protocol, side: Side) -> Inside<L, F::Protocol> {
        let witness = Witness::new(protocol, None, (&self.ledger, ()), Place::Inside);
        Layered::around((self.layer)(side), witness)
    }

    fn act(
        &mut self,
        actions: &mut Actions<'_, Inside<L, F::Protocol>>,
        hook: fn(&mut F, &mut Actions<'_, F::Protocol>),
    ) {
        for connect in actions.inside(&mut self.factory, hook) {
            actions.ask(connect.map(|protocol| self.put(protocol, Side::Connected)));
        }
    }
}

impl<F, G, L> Factory for Within<F, G>
where
    F: Factory,
    G: FnMut(Side) -> L,
    L: Layer,
{
    type Protocol = Inside<L, F::Protocol>;

    fn build_protocol(&mut self, peer: &Peer) -> Option<Self::Protocol> {
        let protocol = self.factory.build_protocol(peer)?;
        Some(self.put(protocol, Side::Accepted))
    }

    pass_on_hooks!(self, self.factory);
}

impl<F, G> fmt::Debug for Within<F, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Within").finish_non_exhaustive()
    }
}

impl<M, F> Simulation<M>
where
    M: FnMut() -> F,
    F: Factory,
{
    /// Puts both ends of every connection into a layer, for layers that talk to each other, as TLS
    /// does in its handshake. The clients keep their plain bytes.
    ///
    /// `layers` is called twice in each run, for the server and for its clients. It returns what
    /// makes the layer for each end. The lengths of what the layers send should be the same in each
    /// run, whatever is random in it, or a seed is not always the same run.
    ///
    /// The layer must have an end mark, as TLS has: a client says it when it has sent all, and the
    /// protocol inside learns of an end only by it. A client may [end its stream without
    /// it](crate::testing::Faults::truncations), and in every run a stream that was cut short is told
    /// from one that ended, on both sides. The calls of the protocol inside are checked like those
    /// outside.
    ///
    /// Datagrams that were added before are left out, because the layer needs a stream.
    ///
    /// ```
    /// use serveloop::layer::{Layer, Received, Wire, WireEnd};
    /// use serveloop::testing::{Exchange, Side, Simulation};
    /// use serveloop::{Peer, Result, protocols::Echo};
    ///
    /// /// Units of at most 255 bytes behind their length. A length of 0 is the end mark.
    /// #[derive(Default)]
    /// struct Units {
    ///     ended: bool,
    /// }
    ///
    /// impl Layer for Units {
    ///     type Info = ();
    ///
    ///     fn opened(&mut self) -> Option<()> {
    ///         Some(())
    ///     }
    ///
    ///     fn received<'a>(&mut self, data: &'a [u8], _: &mut Wire<'_>) -> Result<Received<'a>> {
    ///         let length = 1 + usize::from(data[0]);
    ///         if length == 1 {
    ///             self.ended = true;
    ///             return Ok(Received::taken(1).with_end());
    ///         }
    ///         match data.get(1..length) {
    ///             Some(plain) => Ok(Received::taken(length).with_plain(plain)),
    ///             None => Ok(Received::incomplete()),
    ///         }
    ///     }
    ///
    ///     fn send(&mut self, plain: &[u8], wire: &mut Wire<'_>) -> Result {
    ///         for unit in plain.chunks(255) {
    ///             wire.write(&[unit.len() as u8]);
    ///             wire.write(unit);
    ///         }
    ///         Ok(())
    ///     }
    ///
    ///     fn end(&mut self, wire: &mut Wire<'_>) {
    ///         wire.write(&[0]);
    ///     }
    ///
    ///     fn wire_ended(&mut self) -> WireEnd {
    ///         match self.ended {
    ///             true => WireEnd::Clean,
    ///             false => WireEnd::Truncated,
    ///         }
    ///     }
    /// }
    ///
    /// Simulation::new(|| |_: &Peer| Some(Echo))
    ///     .client(Exchange::new("good morning", "good morning"))
    ///     .within(|| |_: Side| Units::default())
    ///     .run(0..100);
    /// ```
    ///
    /// With TLS, it is `Tls::server` for the [sides](Side) that accept, and `Tls::client` for the
    /// others.
    #[must_use]
    pub fn within<H, G, L>(mut self, mut layers: H) -> Simulation<impl FnMut() -> Within<F, G>>
    where
        H: FnMut() -> G + Clone + 'static,
        G: FnMut(Side) -> L + 'static,
        L: Layer + 'static,
    {
        let mut for_clients = layers.clone();
        let current = Rc::clone(&self.current);

        Simulation {
            config: self.config,
            faults: self.faults,
            clients_most: self.clients_most,
            clients: self.clients,
            remotes: self.remotes,
            datagrams: Vec::new(),
            far_peers: self.far_peers,
            current: self.current,
            driver: self.driver,
            far_ends: Some(Box::new(move || {
                let mut layer = for_clients();
                Box::new(move |side| Box::new(LayeredEnd::new(layer(side), server())))
            })),
            make: move || Within {
                factory: (self.make)(),
                layer: layers(),
                ledger: current.borrow().clone(),
            },
        }
    }
}

/// Returns where the simulated server is, for a client that does not look.
fn server() -> Address {
    Address::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 443)))
}
