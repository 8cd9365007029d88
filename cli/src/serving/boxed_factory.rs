//! A factory of protocols of any type, so that what wraps a protocol at run time is compiled only
//! once for all of them, and the models too.

use serveloop::{Ended, Factory, Peer, Protocol};

pub(super) type Boxed = Box<dyn Protocol + Send>;

/// Makes protocols whose type is not known. Its `service_actions` is not called, because that knows
/// the protocol. No factory here has one.
trait AnyFactory: Send {
    fn build(&mut self, peer: &Peer) -> Option<Boxed>;

    fn needs_stream(&self, listener: usize) -> bool;

    fn tell(&mut self, ended: &Ended<'_>);

    fn copy(&self) -> Box<dyn AnyFactory>;
}

pub(super) struct BoxedFactory(Box<dyn AnyFactory>);

impl BoxedFactory {
    /// Hides the type of `factory`.
    pub(super) fn of<F>(factory: F) -> Self
    where
        F: Factory + Clone + Send + 'static,
        F::Protocol: Send + 'static,
    {
        Self(Box::new(Known(factory)))
    }

    /// Puts the protocols into something else.
    pub(super) fn within(self, surrounding: impl Surrounding + 'static) -> Self {
        Self(Box::new(Within {
            surrounding,
            factory: self,
        }))
    }
}

impl Clone for BoxedFactory {
    fn clone(&self) -> Self {
        Self(self.0.copy())
    }
}

impl Factory for BoxedFactory {
    type Protocol = Boxed;

    fn build_protocol(&mut self, peer: &Peer) -> Option<Boxed> {
        self.0.build(peer)
    }

    fn needs_stream(&self, listener: usize) -> bool {
        self.0.needs_stream(listener)
    }

    fn handle_error(&mut self, ended: &Ended<'_>) {
        self.0.tell(ended);
    }
}

/// What a factory's protocols are put into, or why a peer is refused before there is one.
pub(super) trait Surrounding: Clone + Send {
    /// Makes the protocol for a peer, by `factory` or around what it makes.
    fn build(&mut self, factory: &mut BoxedFactory, peer: &Peer) -> Option<Boxed>;

    /// Returns whether the listener with this number needs streams, whatever the protocol does.
    fn needs_stream(&self, listener: usize) -> bool {
        let _ = listener;
        false
    }
}

/// A factory within something else.
#[derive(Clone)]
struct Within<S> {
    surrounding: S,
    factory: BoxedFactory,
}

impl<S: Surrounding + 'static> AnyFactory for Within<S> {
    fn build(&mut self, peer: &Peer) -> Option<Boxed> {
        self.surrounding.build(&mut self.factory, peer)
    }

    fn needs_stream(&self, listener: usize) -> bool {
        self.surrounding.needs_stream(listener) || self.factory.needs_stream(listener)
    }

    fn tell(&mut self, ended: &Ended<'_>) {
        self.factory.handle_error(ended);
    }

    fn copy(&self) -> Box<dyn AnyFactory> {
        Box::new(self.clone())
    }
}

/// A factory whose type is known here for the last time.
#[derive(Clone)]
struct Known<F>(F);

impl<F> AnyFactory for Known<F>
where
    F: Factory + Clone + Send + 'static,
    F::Protocol: Send + 'static,
{
    fn build(&mut self, peer: &Peer) -> Option<Boxed> {
        Some(Box::new(self.0.build_protocol(peer)?))
    }

    fn needs_stream(&self, listener: usize) -> bool {
        self.0.needs_stream(listener)
    }

    fn tell(&mut self, ended: &Ended<'_>) {
        self.0.handle_error(ended);
    }

    fn copy(&self) -> Box<dyn AnyFactory> {
        Box::new(self.clone())
    }
}
