//! A simulated server whose connections begin with a preface.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

use crate::address::Peer;
use crate::layer::{Preface, Prefaced};
use crate::session::{Actions, Factory, Protocol};
use crate::testing::Simulation;
use crate::testing::simulation::exchange::Exchange;
use crate::testing::simulation::hooks::pass_on_hooks;
use crate::testing::simulation::network::Question;

/// A factory whose protocols are made when a preface has been read. Connections that the server
/// opens have none.
pub struct Behind<F, G> {
    factory: Rc<RefCell<F>>,
    preface: G,
}

impl<F, G, H> Factory for Behind<F, G>
where
    F: Factory + 'static,
    F::Protocol: 'static,
    G: FnMut(&Peer) -> Option<H>,
    H: Preface + 'static,
{
    type Protocol = Box<dyn Protocol>;

    fn build_protocol(&mut self, peer: &Peer) -> Option<Self::Protocol> {
        let preface = (self.preface)(peer)?;
        let factory = Rc::clone(&self.factory);
        let build = move |peer: &Peer, _: &H::Info| factory.borrow_mut().build_protocol(peer);
        Some(Box::new(Prefaced::new(preface, build)))
    }

    pass_on_hooks!(self, self.factory.borrow_mut());
}

impl<F, G> Behind<F, G>
where
    F: Factory,
    F::Protocol: 'static,
{
    fn act(
        &self,
        actions: &mut Actions<'_, Box<dyn Protocol>>,
        hook: fn(&mut F, &mut Actions<'_, F::Protocol>),
    ) {
        let asked = actions.inside(&mut *self.factory.borrow_mut(), hook);
        for connect in asked {
            actions.ask(connect.map(|protocol| Box::new(protocol) as Box<dyn Protocol>));
        }
    }
}

impl<F, G> fmt::Debug for Behind<F, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Behind").finish_non_exhaustive()
    }
}

impl<M, F> Simulation<M>
where
    M: FnMut() -> F,
    F: Factory + 'static,
    F::Protocol: 'static,
{
    /// Puts a [`Preface`] before every connection and datagram that the server receives. `preface`
    /// returns its reader for a peer, or `None` to refuse the peer. Each client and datagram that was
    /// added before is there once for each of `begins`, with which it begins. In a
    /// [layer that talks](Self::within) that was added before, the preface comes before the layer's
    /// first byte.
    ///
    /// ```
    /// use serveloop::layer::proxy::Proxy;
    /// use serveloop::testing::{Exchange, Simulation};
    /// use serveloop::{Peer, protocols::Echo};
    ///
    /// let proxy = Proxy::required("10.0.0.0/8,unix".parse()?);
    /// Simulation::new(|| |_: &Peer| Some(Echo))
    ///     .client(Exchange::new("good morning", "good morning"))
    ///     .behind(
    ///         move |peer: &Peer| proxy.reader(peer),
    ///         &[b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n"],
    ///     )
    ///     .run(0..100);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn behind<G, H>(
        mut self,
        preface: G,
        begins: &[&[u8]],
    ) -> Simulation<impl FnMut() -> Behind<F, G> + use<M, F, G, H>>
    where
        G: FnMut(&Peer) -> Option<H> + Clone,
        H: Preface + 'static,
    {
        let is_layered = self.far_ends.is_some();
        let clients = self.clients.iter().flat_map(|exchange| {
            let after = |begin: &&[u8]| Rc::new(Exchange::after(exchange, begin, is_layered));
            begins.iter().map(after).collect::<Vec<_>>()
        });
        let datagrams = self.datagrams.iter().flat_map(|question| {
            let after = |begin: &&[u8]| {
                Rc::new(Question {
                    request: [*begin, &question.request].concat(),
                    reply: question.reply.clone(),
                })
            };
            begins.iter().map(after).collect::<Vec<_>>()
        });

        Simulation {
            config: self.config,
            faults: self.faults,
            clients_most: self.clients_most,
            clients: clients.collect(),
            remotes: self.remotes,
            datagrams: datagrams.collect(),
            far_peers: self.far_peers,
            current: self.current,
            driver: self.driver,
            far_ends: self.far_ends,
            make: move || Behind {
                factory: Rc::new(RefCell::new((self.make)())),
                preface: preface.clone(),
            },
        }
    }
}
