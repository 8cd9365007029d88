//! The state that all connections of a server share: the allowed programs, and the pool that runs
//! them.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serveloop::Peer;

use crate::escaped::Quoted;
use crate::protocols::command::allowed::Allowed;
use crate::protocols::command::outcome::{Outcome, Report};
use crate::protocols::command::pool::Pool;
use crate::protocols::command::shlex;
use crate::protocols::command::tally::Tally;
use crate::protocols::command::wire::Wire;
use crate::protocols::foreign::{Alarm, Foreign};
use crate::serving::AccessLog;

/// What a connection needs to know about its server.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) wire: Wire,
    pub(super) allowed: Vec<Allowed>,
    pub(super) pool: Arc<Pool>,
    pub(super) access_log: AccessLog,
    pub(super) alarm: Alarm,
    pub(super) tally: Arc<Tally>,
    /// The longest request, in bytes.
    pub(super) max_request: usize,
    /// How long a program may keep running after the client's stream has ended.
    pub(super) grace: Duration,
    /// How often to reset the idle deadline of a connection whose program runs.
    pub(super) beat: Option<Duration>,
}

impl Service {
    /// Returns the program that a request names.
    pub(super) fn choose(&self, request: &[u8]) -> Result<PathBuf, Outcome> {
        let words = shlex::split(request).map_err(Outcome::Malformed)?;
        let mut allowed = self.allowed.iter();
        match allowed.find(|allowed| allowed.is_called(&words[0])) {
            Some(allowed) => Ok(allowed.path().to_owned()),
            None => Err(Outcome::NotAllowed(words[0].as_bytes().to_vec())),
        }
    }

    /// Recognises a foreign protocol in a line that came in place of a request, anywhere in a
    /// stream. Browsers only begin streams this way, but proxies may send it later.
    pub(super) fn foreign(&self, line: &[u8]) -> Option<Foreign> {
        if self.wire == Wire::Framed {
            return None;
        }
        let is_header = |foreign: &Foreign| *foreign == Foreign::Header;
        // A program's name may contain a colon.
        Foreign::of_line(line).filter(|it| !is_header(it) || self.choose(line).is_err())
    }

    /// Counts a request by its outcome, and logs both on one line.
    pub(super) fn note(&self, peer: &Peer, request: &[u8], report: &Report) {
        self.tally.count(report);
        let (request, outcome) = (Quoted(request), &report.outcome);
        let Some(took) = report.took else {
            return self
                .access_log
                .note(format_args!("{peer}: {request}: {outcome}"));
        };

        let (bytes, took) = (report.output.len(), took.as_millis());
        self.access_log.note(format_args!(
            "{peer}: {request}: {outcome}, {bytes} bytes of output, {took} ms"
        ));
    }
}
