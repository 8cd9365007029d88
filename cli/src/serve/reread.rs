//! The file of `--config`: its check before anything is served, and its second reading at SIGHUP.

use std::ffi::OsString;

use crate::failure::Failure;
use crate::logger::{TARGET, configure_level};
use crate::serve::Serve;
use crate::serve::manager::Manager;
use crate::serving::Access;
use crate::settings::{Expanded, Problems, Settings};
use crate::verbosity::Verbosity;

/// Parses a command line that serves something.
pub(crate) type Parse = fn(&[OsString]) -> Result<(Serve, Verbosity), clap::Error>;

/// Options that SIGHUP puts into effect. The others need a new start.
const EFFECTIVE: [&str; 5] = ["allow", "deny", "verbose", "quiet", "log-level"];

/// A file of options that can be read again.
#[derive(Clone, Debug)]
pub(crate) struct Reread {
    settings: Settings,
    parse: Parse,
}

impl Reread {
    pub(crate) fn new(settings: Settings, parse: Parse) -> Self {
        Self { settings, parse }
    }

    /// Reads the file and checks that it can be served.
    ///
    /// # Errors
    /// Returns everything that is wrong.
    pub(crate) fn check(&self) -> Result<(), Problems> {
        let expanded = self.settings.expand()?;
        let (serve, _) = self.parse(&expanded)?;
        serve
            .check(Manager::elsewhere())
            .map_err(|failure| expanded.blame(&failure.problem()).into())
    }

    /// Reads the file again, and puts into effect what can be changed: the lists of `access`, and the log
    /// level. A file that is not valid changes nothing.
    pub(super) fn apply(&self, before: &Expanded, access: Option<&Access>) {
        let read = || {
            let expanded = self.settings.expand()?;
            let (serve, verbosity) = self.parse(&expanded)?;
            let blame = |failure: Failure| expanded.blame(&failure.problem());
            // The loop waits, and listeners stay as they are until a new start.
            serve.check(Manager::at_once()).map_err(blame)?;

            let (allow, deny) = serve.entry.rules();
            let replaced = access.map(|access| access.replace(allow, deny));
            let replaced = replaced.transpose().map_err(Failure::from);
            replaced.map_err(blame)?;
            configure_level(verbosity.level());
            Ok::<_, Problems>(expanded)
        };
        match read() {
            Ok(expanded) => tell_changes(&before.changed(&expanded)),
            Err(problems) => {
                for problem in problems.to_string().lines() {
                    log::error!(target: TARGET, "{problem}");
                }
                log::error!(target: TARGET, "the file is not valid: what was read before stays in use");
            }
        }
    }

    /// Parses what a file has become.
    fn parse(&self, expanded: &Expanded) -> Result<(Serve, Verbosity), Problems> {
        let parsed = (self.parse)(&expanded.arguments);
        parsed.map_err(|error| expanded.blame(&error.to_string()).into())
    }
}

/// Logs what has been read, and which changes have no effect.
fn tell_changes(changed: &[String]) {
    let waiting: Vec<_> = changed
        .iter()
        .filter(|name| !EFFECTIVE.contains(&name.as_str()))
        .cloned()
        .collect();
    log::info!(target: TARGET, "the file of --config was read again");
    if !waiting.is_empty() {
        let names = waiting.join(", ");
        log::warn!(target: TARGET, "the file of --config has changes that need a new start: {names}");
    }
}

impl Serve {
    /// Checks everything that can be checked without listening, as far as the `manager` of another process
    /// shows it.
    fn check(&self, mut manager: Manager) -> Result<(), Failure> {
        let access = self.entry.access()?;
        let planned = self.plan(&self.listen, access.as_ref(), &mut manager);
        planned.map(drop)
    }
}
