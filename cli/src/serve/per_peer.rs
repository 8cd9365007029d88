//! The warning about the connection limit per peer, which matters behind a load balancer.

use clap::error::Result;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command, FromArgMatches};
use serveloop::protocols::counted;
use serveloop::{Address, Config};

/// The field of the limits that this warning is about.
const OPTION: &str = "max_per_peer";

/// Whether the limit was set on the command line, so that the user knows about it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct GivenPerPeer(bool);

impl GivenPerPeer {
    /// Returns a warning if clients that share an address may be refused by a limit that the user
    /// did not choose. Loopback is exempt from the limit, so a first trial on one machine does not
    /// show it. `places` is the number of connections that the server allows in all.
    pub(crate) fn warning(
        self,
        addresses: &[Address],
        config: &Config,
        places: usize,
    ) -> Option<String> {
        let most = config.max_per_peer;
        if self.0 || most >= places {
            return None;
        }

        let address = addresses.iter().find(|address| is_remote(address))?;
        let most = counted(most, "connection", "connections");
        Some(format!(
            "{address}: at most {most} from one address can be open at a time, and clients \
             behind a load balancer, a proxy or NAT share one address: --max-per-peer allows more, and \
             --proxy tells clients behind a load balancer apart"
        ))
    }
}

/// Returns whether other machines can connect to `address`.
fn is_remote(address: &Address) -> bool {
    let ip = address.socket_addr().map(|addr| addr.ip().to_canonical());
    !address.is_datagram() && ip.is_some_and(|ip| !ip.is_loopback())
}

impl FromArgMatches for GivenPerPeer {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self> {
        let source = matches.value_source(OPTION);
        Ok(Self(source == Some(ValueSource::CommandLine)))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<()> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for GivenPerPeer {
    /// Adds no option. The one that it looks at belongs to the limits.
    fn augment_args(command: Command) -> Command {
        command
    }

    fn augment_args_for_update(command: Command) -> Command {
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_warned(uri: &str, given: bool, config: &Config, places: usize) -> bool {
        let addresses = Address::resolve(uri).unwrap();
        let warning = GivenPerPeer(given).warning(&addresses, config, places);
        warning.is_some_and(|text| text.contains(uri) && text.contains("256"))
    }

    #[test]
    fn who_may_be_behind_one_address_is_warned_of_the_limit() {
        let config = Config::default();
        for uri in ["tcp://0.0.0.0:1", "tcp://[::]:1", "tcp://192.0.2.1:1"] {
            assert!(is_warned(uri, false, &config, 1_000), "{uri}");
            assert!(!is_warned(uri, true, &config, 1_000), "{uri}");
            assert!(!is_warned(uri, false, &config, 256), "{uri}");
        }
        for uri in [
            "tcp://127.0.0.2:1",
            "tcp://[::1]:1",
            "tcp://[::ffff:127.0.0.1]:1",
            "unix:///s",
            "udp://0.0.0.0:1",
        ] {
            assert!(!is_warned(uri, false, &config, 1_000), "{uri}");
        }
    }
}
