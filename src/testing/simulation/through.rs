//! A simulated server whose connections go through a layer.

use std::rc::Rc;

use crate::address::Peer;
use crate::layer::{Layer, Layered};
use crate::session::{Actions, Factory};
use crate::testing::Simulation;
use crate::testing::simulation::exchange::Exchange;
use crate::testing::simulation::hooks::pass_on_hooks;
use crate::testing::simulation::network::Question;

type Inside<L, P> = Layered<L, fn(&Peer, &<L as Layer>::Info) -> Option<P>, P>;

/// A factory whose protocols are each inside a layer of their own.
#[derive(Debug)]
pub struct Through<F, M> {
    factory: F,
    layer: M,
}

impl<F, M, L> Factory for Through<F, M>
where
    F: Factory,
    M: FnMut() -> L,
    L: Layer,
{
    type Protocol = Inside<L, F::Protocol>;

    fn build_protocol(&mut self, peer: &Peer) -> Option<Self::Protocol> {
        let protocol = self.factory.build_protocol(peer)?;
        Some(Layered::around((self.layer)(), protocol))
    }

    pass_on_hooks!(self, self.factory);
}

impl<F, M, L> Through<F, M>
where
    F: Factory,
    M: FnMut() -> L,
    L: Layer,
{
    fn act(
        &mut self,
        actions: &mut Actions<'_, Inside<L, F::Protocol>>,
        hook: fn(&mut F, &mut Actions<'_, F::Protocol>),
    ) {
        for connect in actions.inside(&mut self.factory, hook) {
            actions.ask(connect.map(|protocol| Layered::around((self.layer)(), protocol)));
        }
    }
}

impl<M, F> Simulation<M>
where
    M: FnMut() -> F,
    F: Factory,
{
    /// Puts every connection into a layer that `layer` returns. The clients that were added before
    /// keep their plain bytes: `seal` returns what goes over the wire for a part of what a client
    /// sends, and `expect` what must arrive for the beginning of what it expects. That may depend
    /// on the bytes and their position, and not on how the server happens to cut its output.
    #[must_use]
    pub fn through<L: Layer, G: FnMut() -> L + Clone>(
        mut self,
        layer: G,
        seal: impl Fn(&[u8]) -> Vec<u8>,
        expect: impl Fn(&[u8]) -> Vec<u8>,
    ) -> Simulation<impl FnMut() -> Through<F, G>> {
        let wire = |exchange: &Exchange| Rc::new(exchange.on_wire(&seal, &expect));
        let clients = self.clients.iter().map(|exchange| wire(exchange));
        let remotes = self.remotes.iter();
        let datagrams = self.datagrams.iter().map(|question| {
            Rc::new(Question {
                request: seal(&question.request),
                reply: question.reply.as_deref().map(&expect),
            })
        });

        Simulation {
            config: self.config,
            faults: self.faults,
            clients_most: self.clients_most,
            clients: clients.collect(),
            remotes: remotes
                .map(|(address, exchange)| (address.clone(), wire(exchange)))
                .collect(),
            datagrams: datagrams.collect(),
            far_peers: self.far_peers,
            current: self.current,
            far_ends: self.far_ends,
            driver: self.driver,
            make: move || Through {
                factory: (self.make)(),
                layer: layer.clone(),
            },
        }
    }
}
