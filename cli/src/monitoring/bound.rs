//! The sockets of pages and of administrators, and the limits of their clients.

use std::io;
use std::time::Duration;

use serveloop::{Address, Config, Limits, Server};

use crate::failure::Failure;
use crate::monitoring::clients::{ACCEPTS, CLIENTS_MOST};
use crate::monitoring::options::Places;

/// How many descriptors the side server needs, with those of its loop and its listeners.
pub(super) const DESCRIPTORS: usize = CLIENTS_MOST + 16;

/// How long clients may take, at the end, to ask what they have connected for, and to take the answer.
const ENDS_WITHIN: Duration = Duration::from_secs(1);

/// The longest answer: a list of some hundred thousand connections.
const ANSWER_MOST: usize = 128 << 20;

/// A server that is bound, and which of its addresses are for pages and for administrators.
pub(super) struct Bound {
    pub(super) server: Server,
    pub(super) metrics: Vec<Address>,
    pub(super) admin: Vec<Address>,
}

/// Checks the places without listening.
///
/// # Errors
/// A listener's options do not fit; the message has its URI.
pub(super) fn check(places: &Places) -> Result<(), Failure> {
    let all = [&places.metrics, &places.admin];
    for (uri, listens) in places.uris.iter().zip(all) {
        Server::check(listens, &side_config()).map_err(|error| {
            let problem = format!("{uri:?}: {error}");
            Failure::System(io::Error::new(error.kind(), problem))
        })?;
    }
    Ok(())
}

/// Binds the places of pages and of administrators.
pub(super) fn bind(places: Places) -> io::Result<Bound> {
    let has_metrics = !places.metrics.is_empty();
    let all = [places.metrics, places.admin];
    let given: Vec<_> = all.into_iter().filter(|it| !it.is_empty()).collect();
    let server = Server::bind_places_with(&given, side_config())?;

    // A place that is not given has no number.
    let numbered = server.addresses().iter().zip(server.places());
    let (metrics, admin): (Vec<_>, Vec<_>) =
        numbered.partition(|(_, place)| has_metrics && **place == 0);
    let addresses = |all: Vec<(&Address, _)>| all.into_iter().map(|(it, _)| it.clone()).collect();
    let (metrics, admin) = (addresses(metrics), addresses(admin));
    Ok(Bound {
        server,
        metrics,
        admin,
    })
}

/// Returns the limits of a server that few clients use.
fn side_config() -> Config {
    Config {
        max_connections: CLIENTS_MOST,
        accepts_per_turn: ACCEPTS,
        max_buffered: 2 * ANSWER_MOST,
        raise_descriptor_limit: false,
        drain_timeout: Some(ENDS_WITHIN),
        drain_grace: ENDS_WITHIN,
        limits: Limits {
            first_message_timeout: Some(Duration::from_secs(10)),
            message_timeout: Some(Duration::from_secs(10)),
            idle_timeout: Some(Duration::from_secs(60)),
            max_output: ANSWER_MOST,
            max_reply: ANSWER_MOST,
            max_frame: 64 * 1024,
            ..Limits::default()
        },
        ..Config::default()
    }
}
