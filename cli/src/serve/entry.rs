//! Who may connect, how often and for how long: options for all listeners, and the lists of a single
//! one.

use std::time::Duration;

use clap::{Args, value_parser};
use serveloop::Config;
use serveloop::net::OtherOptions;

use crate::failure::Failure;
use crate::serving::{Access, Allow, ConnectRate, Lifetime, RATE_MOST, Rule};
use crate::units::Span;

/// The options in the query of a listener. Each may be given several times.
pub(super) const KEYS: [&str; 2] = ["allow", "deny"];

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Connections")]
pub(crate) struct EntryOptions {
    /// Who may connect: networks such as 10.0.0.0/8,2001:db8::/32, unix for all peers on Unix sockets,
    /// and vsock or vsock:CID for virtual machines; or @FILE, which has them on its lines and is read again at SIGHUP. Can be given
    /// several times. Others are refused
    #[arg(long, global = true, value_name = "NETWORKS", value_parser = Allow::parse)]
    allow: Vec<Allow>,
    /// Who may not connect, even if --allow lists it; written like --allow
    #[arg(long, global = true, value_name = "NETWORKS", value_parser = Rule::parse)]
    deny: Vec<Rule>,
    /// The most connections that one address may begin in a second, or one IPv6 network of 64 bits; one
    /// more is refused; 0: no limit. Loopback counts
    #[arg(
        long,
        global = true,
        hide_short_help = true,
        hide_long_help = true,
        value_name = "NUMBER",
        default_value_t = 0,
        value_parser = value_parser!(u32).range(0..=i64::from(RATE_MOST))
    )]
    connects_per_second: u32,
    /// The longest time that a connection may last, up to a tenth less so that not all end together;
    /// then it is asked to finish, as in a shutdown, and closed after --drain-timeout; 0: no limit
    #[arg(
        long,
        global = true,
        hide_short_help = true,
        hide_long_help = true,
        value_name = "DURATION",
        default_value_t = Duration::ZERO.into()
    )]
    max_lifetime: Span,
}

impl EntryOptions {
    /// Reads the lists for all listeners that have none of their own.
    pub(super) fn access(&self) -> Result<Option<Access>, Failure> {
        let (allow, deny) = self.rules();
        Ok(Access::load(allow, deny)?)
    }

    /// Works like [`access`](Self::access), for lists that may be replaced later, if there are any.
    pub(super) fn changeable_access(&self) -> Result<Access, Failure> {
        let (allow, deny) = self.rules();
        Ok(Access::read(allow, deny)?)
    }

    /// Returns the rules of both lists.
    pub(super) fn rules(&self) -> (Vec<Rule>, Vec<Rule>) {
        let allow = self.allow.iter().filter_map(Allow::peers).cloned();
        (allow.collect(), self.deny.clone())
    }

    pub(super) fn rate(&self) -> Option<ConnectRate> {
        ConnectRate::new(self.connects_per_second)
    }

    pub(super) fn lifetime(&self, config: &Config) -> Option<Lifetime> {
        Lifetime::new(self.max_lifetime.into(), config.drain_timeout)
    }
}

/// Reads the lists in the query of a listener. Returns `None` if it has none.
pub(super) fn own_access(uri: &str, given: &OtherOptions) -> Result<Option<Access>, Failure> {
    let rules = |key: &str| {
        let values = given.iter().filter(|(name, _)| name == key);
        let rules = values.map(|(name, value)| {
            let about = |problem| Failure::Usage(format!("{uri:?}: {name}: {problem}"));
            Rule::parse(value).map_err(about)
        });
        rules.collect::<Result<Vec<_>, _>>()
    };
    let [allow, deny] = KEYS.map(rules);
    Ok(Access::load(allow?, deny?)?)
}
