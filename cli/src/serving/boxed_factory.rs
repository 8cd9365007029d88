//! A factory of protocols of any type, so that what wraps a protocol at run time is compiled only
//! once for all of them, and the models too.

use serveloop::{Ended, Factory, Peer, Protocol};

pub(super) type Boxed = Box<dyn Protocol + Send>;

/// Makes protocols whose type is not known. Its `service_actions` is not called, because that knows
/// the protocol. No factory here has one.
pub(super) trait AnyFactory: Send {
    fn build(&mut self, peer: &Peer) -> Option<Boxed>;

    fn needs_stream(&self, listener: usize) -> bool;

    fn tell(&mut self, ended: &Ended<'_>);

    fn copy(&self) -> Box<dyn AnyFactory>;
}

pub(super) struct BoxedFactory(Box<dyn AnyFactory>);

impl BoxedFactory {
    pub(super) fn new(factory: impl AnyFactory + 'static) -> Self {
        Self(Box::new(factory))
    }

    /// Hides the type of `factory`.
    pub(super) fn of<F>(factory: F) -> Self
    where
        F: Factory + Clone + Send + 'static,
        F::Protocol: Send + 'static,
    {
        Self::new(Known(factory))
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
