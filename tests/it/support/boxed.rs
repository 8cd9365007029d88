//! Factories whose protocols are boxed, so that the models are compiled once for all tests and not for each.

use serveloop::{Factory, Peer, Protocol};

type BuildOnOneLoop = dyn FnMut(&Peer) -> Option<Box<dyn Protocol>> + Send;

/// Makes protocols of any type for one loop.
pub(crate) struct Boxing {
    build: Box<BuildOnOneLoop>,
    needs_stream: bool,
}

impl Boxing {
    pub(crate) fn new<P: Protocol + 'static>(
        mut build: impl FnMut(&Peer) -> Option<P> + Send + 'static,
    ) -> Self {
        Self {
            build: Box::new(move |peer| Some(Box::new(build(peer)?))),
            needs_stream: P::needs_stream(),
        }
    }
}

impl Factory for Boxing {
    type Protocol = Box<dyn Protocol>;

    fn build_protocol(&mut self, peer: &Peer) -> Option<Self::Protocol> {
        (self.build)(peer)
    }

    fn needs_stream(&self, _: usize) -> bool {
        self.needs_stream
    }
}

/// The same for every model.
pub(crate) struct BoxingAnywhere {
    build: Box<dyn Build>,
    needs_stream: bool,
}

trait Build: Send {
    fn build(&mut self, peer: &Peer) -> Option<Box<dyn Protocol + Send>>;

    fn copy(&self) -> Box<dyn Build>;
}

impl BoxingAnywhere {
    pub(crate) fn new<P: Protocol + Send + 'static>(
        mut build: impl FnMut(&Peer) -> Option<P> + Clone + Send + 'static,
    ) -> Self {
        let build =
            move |peer: &Peer| -> Option<Box<dyn Protocol + Send>> { Some(Box::new(build(peer)?)) };
        Self {
            build: Box::new(build),
            needs_stream: P::needs_stream(),
        }
    }
}

impl<B> Build for B
where
    B: FnMut(&Peer) -> Option<Box<dyn Protocol + Send>> + Clone + Send + 'static,
{
    fn build(&mut self, peer: &Peer) -> Option<Box<dyn Protocol + Send>> {
        self(peer)
    }

    fn copy(&self) -> Box<dyn Build> {
        Box::new(self.clone())
    }
}

impl Clone for BoxingAnywhere {
    fn clone(&self) -> Self {
        Self {
            build: self.build.copy(),
            needs_stream: self.needs_stream,
        }
    }
}

impl Factory for BoxingAnywhere {
    type Protocol = Box<dyn Protocol + Send>;

    fn build_protocol(&mut self, peer: &Peer) -> Option<Self::Protocol> {
        self.build.build(peer)
    }

    fn needs_stream(&self, _: usize) -> bool {
        self.needs_stream
    }
}
