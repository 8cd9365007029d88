//! Whether the user said where to listen.

use clap::error::Result;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command, FromArgMatches};

/// The field of the options that this is about.
const OPTION: &str = "listen";

/// Whether `--listen` was on the command line. Its default is for servers to which nothing was passed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct GivenListen(bool);

impl GivenListen {
    pub(super) fn is_given(self) -> bool {
        self.0
    }
}

impl FromArgMatches for GivenListen {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self> {
        let source = matches.value_source(OPTION);
        Ok(Self(source == Some(ValueSource::CommandLine)))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<()> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for GivenListen {
    /// Adds no option. The one that it looks at is that of `serve`.
    fn augment_args(command: Command) -> Command {
        command
    }

    fn augment_args_for_update(command: Command) -> Command {
        command
    }
}
