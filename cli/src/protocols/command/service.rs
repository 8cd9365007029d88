//! What all connections of a server share: what may be run, and where it is run.

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

/// What a connection has to know of its server.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) wire: Wire,
    pub(super) allowed: Vec<Allowed>,
    pub(super) pool: Arc<Pool>,
    pub(super) access_log: AccessLog,
    pub(super) alarm: Alarm,
    pub(super) tally: Arc<Tally>,
    /// In bytes.
    pub(super) max_request: usize,
    /// How long a program may go on when the client's stream has ended.
    pub(super) grace: Duration,
    /// How often to say that the connection is not idle: a program runs for it.
    pub(super) beat: Option<Duration>,
}

impl Service {
    /// The program that a request names.
    pub(super) fn choose(&self, request: &[u8]) -> Result<PathBuf, Outcome> {
        let words = shlex::split(request).map_err(Outcome::Malformed)?;
        let mut allowed = self.allowed.iter();
        match allowed.find(|allowed| allowed.is_called(&words[0])) {
            Some(allowed) => Ok(allowed.path().to_owned()),
            None => Err(Outcome::NotAllowed(words[0].as_bytes().to_vec())),
        }
    }

    /// What a line is that came in place of a request, wherever in a stream: browsers do not begin with
    /// anything else, but what hands their requests on may.
    pub(super) fn foreign(&self, line: &[u8]) -> Option<Foreign> {
        if self.wire == Wire::Framed {
            return None;
        }
        let is_header = |foreign: &Foreign| *foreign == Foreign::Header;
        // A program may have a colon in its name.
        Foreign::of_line(line).filter(|it| !is_header(it) || self.choose(line).is_err())
    }

    /// Counts a request by what came of it, and logs both on one line.
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
