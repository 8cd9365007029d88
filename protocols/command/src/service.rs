//! The state that all connections of a server share: the allowed programs, and the pool that runs
//! them.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serveloop::layer::{Alarm, Foreign};
use serveloop::protocols::counted;
use serveloop::{Config, Peer, ProtocolError};

use crate::LOG_TARGET;
use crate::outcome::{Outcome, Report};
use crate::pool::Pool;
use crate::quoted::Quoted;
use crate::settings::{NEVER, Settings};
use crate::shlex;
use crate::tally::Tally;
use crate::wire::Wire;

/// What a connection needs to know about its server.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) settings: Arc<Settings>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) alarm: Alarm,
    pub(crate) tally: Tally,
    /// How often to reset the idle deadline of a connection whose program runs.
    pub(crate) beat: Option<Duration>,
}

impl Service {
    /// Makes the state of a server with these limits on its connections.
    pub(crate) fn new(settings: Settings, config: &Config) -> Self {
        let settings = Arc::new(settings.with_times_that_end());
        Self {
            pool: Pool::new(Arc::clone(&settings), config.max_buffered),
            settings,
            alarm: Alarm::default(),
            tally: Tally::default(),
            beat: config
                .limits
                .idle_timeout
                .map(|timeout| timeout.min(NEVER) / 2),
        }
    }

    /// Returns the program that a request names.
    pub(crate) fn choose(&self, request: &[u8]) -> Result<PathBuf, Outcome> {
        let words = shlex::split(request).map_err(Outcome::Malformed)?;
        let mut allowed = self.settings.allowed.iter();
        match allowed.find(|allowed| allowed.is_called(&words[0])) {
            Some(allowed) => Ok(allowed.path().to_owned()),
            None => Err(Outcome::NotAllowed(words[0].as_bytes().to_vec())),
        }
    }

    /// Recognises a foreign protocol in a line that came in place of a request, anywhere in a
    /// stream.
    pub(crate) fn foreign(&self, line: &[u8]) -> Option<Foreign> {
        if self.settings.wire == Wire::Framed {
            return None;
        }
        let is_header = |foreign: &Foreign| *foreign == Foreign::Header;
        // A program's name may contain a colon.
        Foreign::of_line(line).filter(|it| !is_header(it) || self.choose(line).is_err())
    }

    /// Logs that a client's stream has ended within a request, where earlier ones are still answered.
    pub(crate) fn note_end(&self, peer: &Peer, truncated: &ProtocolError) {
        log::debug!(
            target: LOG_TARGET, event = "noted", id = peer.id();
            "{peer}: {truncated}; earlier requests get their replies"
        );
    }

    /// Counts a request by its outcome, and logs both on one line.
    pub(crate) fn note(&self, peer: &Peer, request: &[u8], report: &Report) {
        self.tally.count(report);
        let (request, outcome) = (Quoted(request), &report.outcome);
        let Some(took) = report.took else {
            log::debug!(
                target: LOG_TARGET, event = "noted", id = peer.id();
                "{peer}: {request}: {outcome}"
            );
            return;
        };

        let bytes = counted(report.output.len(), "byte", "bytes");
        let took = took.as_millis();
        log::debug!(
            target: LOG_TARGET, event = "noted", id = peer.id();
            "{peer}: {request}: {outcome}, {bytes} of output, {took} ms"
        );
    }
}
