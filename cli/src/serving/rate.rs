//! The maximum rate of each client: the options `--max-bytes-per-second` and `--max-messages-per-second`.

use std::time::Duration;

use clap::Args;
use serveloop::layer::{RateLimit, RateLimited};
use serveloop::{Ended, Factory, Peer, Protocol};

use crate::units::{Size, Span};

type AnyProtocol = Box<dyn Protocol + Send>;

#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Connections")]
pub(crate) struct Rate {
    /// The most bytes to take from one connection in a second; one that sends more waits; 0: no limit
    #[arg(
        long,
        global = true,
        hide_short_help = true,
        value_name = "SIZE",
        default_value_t = Size::from(0)
    )]
    max_bytes_per_second: Size,
    /// The most messages to take from one connection in a second; one that sends more waits; 0: no
    /// limit. In a protocol without messages, such as echo, each piece of data counts as one
    #[arg(
        long,
        global = true,
        hide_short_help = true,
        value_name = "NUMBER",
        default_value_t = 0
    )]
    max_messages_per_second: u64,
    /// The longest time whose unused rate a connection may use later
    #[arg(
        long,
        global = true,
        hide_short_help = true,
        value_name = "DURATION",
        default_value_t = Duration::from_secs(1).into()
    )]
    rate_burst: Span,
}

impl Rate {
    pub(crate) fn limit(self) -> RateLimit {
        let bytes = usize::from(self.max_bytes_per_second);
        RateLimit::new()
            .with_bytes(bytes as u64)
            .with_messages(self.max_messages_per_second)
            .with_burst(self.rate_burst.into())
    }
}

/// A factory whose protocols are within a rate limit. It hides their type, so that the models are
/// compiled once for all limited protocols. It has no `service_actions`, which no protocol of the
/// command uses.
pub(super) struct Limited {
    factory: Box<dyn AnyFactory>,
    limit: RateLimit,
}

impl Limited {
    pub(super) fn new<F>(factory: F, limit: RateLimit) -> Self
    where
        F: Factory + Clone + Send + 'static,
        F::Protocol: Send + 'static,
    {
        let factory = Box::new(factory);
        Self { factory, limit }
    }
}

impl Clone for Limited {
    fn clone(&self) -> Self {
        Self {
            factory: self.factory.copy(),
            limit: self.limit,
        }
    }
}

impl Factory for Limited {
    type Protocol = RateLimited<AnyProtocol>;

    fn build_protocol(&mut self, peer: &Peer) -> Option<Self::Protocol> {
        let protocol = self.factory.build(peer)?;
        Some(RateLimited::new(protocol, self.limit))
    }

    fn handle_error(&mut self, ended: &Ended<'_>) {
        self.factory.tell(ended);
    }
}

/// A factory of protocols of any type.
trait AnyFactory: Send {
    fn build(&mut self, peer: &Peer) -> Option<AnyProtocol>;

    fn tell(&mut self, ended: &Ended<'_>);

    fn copy(&self) -> Box<dyn AnyFactory>;
}

impl<F> AnyFactory for F
where
    F: Factory + Clone + Send + 'static,
    F::Protocol: Send + 'static,
{
    fn build(&mut self, peer: &Peer) -> Option<AnyProtocol> {
        Some(Box::new(self.build_protocol(peer)?))
    }

    fn tell(&mut self, ended: &Ended<'_>) {
        self.handle_error(ended);
    }

    fn copy(&self) -> Box<dyn AnyFactory> {
        Box::new(self.clone())
    }
}
