//! The maximum rate of each client: the options `--max-bytes-per-second` and `--max-messages-per-second`.

use std::time::Duration;

use clap::Args;
use serveloop::layer::{RateLimit, RateLimited};
use serveloop::{Factory, Peer};

use crate::serving::boxed_factory::{Boxed, BoxedFactory, Surrounding};
use crate::units::{Size, Span};

#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Connections")]
pub(crate) struct Rate {
    /// The most bytes to take from one connection in a second; one that sends more waits; 0: no limit
    #[arg(
        long,
        global = true,
        hide_short_help = true,
        hide_long_help = true,
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
        hide_long_help = true,
        value_name = "NUMBER",
        default_value_t = 0
    )]
    max_messages_per_second: u64,
    /// For how long a connection may save up a rate that it does not use, for a later burst
    #[arg(
        long,
        global = true,
        hide_short_help = true,
        hide_long_help = true,
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

/// Puts protocols within a rate limit.
#[derive(Clone)]
pub(super) struct Limited(pub(super) RateLimit);

impl Surrounding for Limited {
    fn build(&mut self, factory: &mut BoxedFactory, peer: &Peer) -> Option<Boxed> {
        let protocol = factory.build_protocol(peer)?;
        Some(Box::new(RateLimited::new(protocol, self.0)))
    }
}
