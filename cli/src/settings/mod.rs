//! `--config FILE`: a file in TOML that says what options of `serve` say.
//!
//! The file becomes arguments, which are put behind those that were typed: so its values are parsed by the
//! same code, and a typed option goes before one of the file. This room knows options only from the
//! definition of the command line, and imports only `escaped` and `regular_file`.

mod blame;
mod document;
mod keys;
mod listener;
mod nearest;
mod place;
mod value;

use std::ffi::OsString;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{ArgMatches, Command};

use crate::regular_file;
use crate::settings::document::Document;
use crate::settings::keys::Setting;

pub(crate) use self::place::{Problem, Problems};

/// The longest file that is read, in bytes.
const FILE_MOST: u64 = 1 << 20;

/// The name of the command whose options a file has, and of its option for the file.
const SERVE: &str = "serve";
const CONFIG: &str = "config";
/// The protocol with whose options values are checked if the file names none. It has no own ones.
const ANY_PROTOCOL: &str = "echo";

/// What the log is like: if one of these is typed, none of the file's counts.
const LOG_LEVELS: [&str; 3] = ["verbose", "quiet", "log_level"];

/// A file of options, together with what was typed.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    path: PathBuf,
    /// The whole command line, with the program's name.
    arguments: Vec<OsString>,
    typed: Typed,
    /// What is served if nothing says that.
    usual: Option<&'static str>,
    /// Returns the definition of the command line.
    command: fn() -> Command,
}

/// The command line that a file makes, and where its parts come from.
#[derive(Clone, Debug)]
pub(crate) struct Expanded {
    pub(crate) arguments: Vec<OsString>,
    document: Document,
}

/// What the user typed besides the file.
#[derive(Clone, Debug, Default)]
struct Typed {
    protocol: Option<String>,
    matches: ArgMatches,
}

impl Settings {
    /// Finds the file that a command line names. Returns `None` if it names none, or is not valid.
    pub(crate) fn of(arguments: &[OsString], command: fn() -> Command) -> Option<Self> {
        let is_there = |argument: &OsString| argument.to_string_lossy().starts_with("--config");
        if !arguments.iter().any(is_there) {
            return None;
        }
        let typed = Typed::parse(arguments, command)?;
        let path = typed.matches.get_one::<PathBuf>(CONFIG)?;
        Some(Self {
            path: path.clone(),
            arguments: arguments.to_vec(),
            typed,
            usual: None,
            command,
        })
    }

    /// Makes the command line that serves what a file says, and any protocol if it names none.
    pub(crate) fn alone(path: &Path, command: fn() -> Command) -> Self {
        Self {
            path: path.to_owned(),
            arguments: ["serveloop", SERVE].map(OsString::from).into(),
            typed: Typed::default(),
            usual: Some(ANY_PROTOCOL),
            command,
        }
    }

    /// Reads the file and puts what it says behind what was typed.
    ///
    /// # Errors
    /// Fails if the file cannot be read, or has a part that means nothing. All such parts are told.
    pub(crate) fn expand(&self) -> Result<Expanded, Problems> {
        let shown = self.path.display().to_string();
        let text = read(&self.path).map_err(|error| Problems::unread(&shown, &error))?;
        let document = Document::parse(&shown, text, self.command)?;
        let typed = &self.typed;
        if let Some(problem) = document.disagreement(typed.protocol.as_deref()) {
            return Err(document.problems(vec![problem]));
        }
        let named = document.protocol().or(self.usual);
        let served = typed.protocol.as_deref().or(named);
        let is_wanted = |setting: &Setting| !typed.has(&setting.id, &setting.section);
        let added = document.arguments(is_wanted, served);
        let protocol = match &typed.protocol {
            Some(_) => None,
            None => named.map(OsString::from),
        };

        let mut arguments = self.arguments.clone();
        // What follows a bare `--` is no option.
        let end = arguments.iter().position(|argument| argument == "--");
        let end = end.unwrap_or(arguments.len());
        let added = added.into_iter().map(OsString::from);
        arguments.splice(end..end, protocol.into_iter().chain(added));
        Ok(Expanded {
            arguments,
            document,
        })
    }
}

impl Expanded {
    /// Says where in the file the cause of a problem is, as far as the text of the problem shows.
    pub(crate) fn blame(&self, problem: &str) -> Problem {
        let found = self.document.blame(problem);
        found.unwrap_or_else(|| self.document.blame_all(problem))
    }

    /// Works like [`blame`](Self::blame), and returns `None` if the problem names nothing of the file.
    pub(crate) fn blame_a_place(&self, problem: &str) -> Option<Problem> {
        self.document.blame(problem)
    }

    /// Returns the options that another reading of the file has, and this one does not have, or has with
    /// another value.
    pub(crate) fn changed(&self, other: &Self) -> Vec<String> {
        self.document.changed(&other.document)
    }
}

impl Typed {
    /// Parses the command line, in which the file may say what is missing. Returns `None` if it is not
    /// valid, or serves nothing.
    fn parse(arguments: &[OsString], command: fn() -> Command) -> Option<Self> {
        let command = command().mut_subcommand(SERVE, |serve| {
            serve
                .subcommand_required(false)
                .arg_required_else_help(false)
        });
        let mut matches = command.try_get_matches_from(arguments).ok()?;
        let (_, matches) = matches
            .remove_subcommand()
            .filter(|(name, _)| name == SERVE)?;
        Some(Self {
            protocol: matches.subcommand_name().map(str::to_owned),
            matches,
        })
    }

    /// Returns whether an option was typed: one of all protocols, or of the one whose `section` has it.
    fn has(&self, id: &str, section: &Option<String>) -> bool {
        let matches = match section {
            None => Some(&self.matches),
            Some(_) => self.matches.subcommand().map(|(_, matches)| matches),
        };
        let is_typed = |id: &str| {
            let source = matches.filter(|matches| matches.try_contains_id(id).is_ok());
            let source = source.and_then(|matches| matches.value_source(id));
            source == Some(ValueSource::CommandLine)
        };
        is_typed(id) || LOG_LEVELS.contains(&id) && LOG_LEVELS.iter().any(|other| is_typed(other))
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    regular_file::open(path)?
        .take(FILE_MOST + 1)
        .read_to_end(&mut text)?;
    match text.len() as u64 > FILE_MOST {
        true => Err(io::Error::other("longer than 1 MiB")),
        false => Ok(text),
    }
}
