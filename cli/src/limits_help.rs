//! `serveloop help limits`: the options that every protocol of `serve` has and that would bury the rest of its
//! help.
//!
//! The rule: an option of `serve` that both kinds of its help hide (`hide_short_help`, `hide_long_help`) is a
//! limit, and is shown here. Completions know it like any other, and it has its page in the manual.

use std::ffi::{OsStr, OsString};
use std::process::ExitCode;

use clap::{Arg, ArgAction, Command};

use crate::completions::print;
use crate::failure::Failure;

/// The words after which the limits are shown.
pub(crate) const WORDS: [&str; 2] = ["help", "limits"];

const ABOUT: &str = "Limits of a server, as options of every protocol";

const LONG_ABOUT: &str = "\
Limits of a server, as options of every protocol. They are on from the start, with the defaults below;
a default of 0 or none is no limit.

  $ serveloop serve echo --max-connections 12000 --idle-timeout 5m --high-water 128KiB

Words after `limits` show only the options in which all of them occur:

  $ serveloop help limits timeout
  $ serveloop help limits buffer peer

Sizes are written as 4096, 64KiB or 1MiB, durations as 250ms, 10s or 5m. Those of single connections can
also be set for one listener, in the query of its URI:

  $ serveloop serve echo --listen 'tcp://:9999?idle-timeout=0&max-line=1KiB'";

/// What the help of each protocol says in place of the limits.
const HINT: &str = "Limits, such as --max-connections and --idle-timeout, are options too:\n  \
                    serveloop help limits           shows them all\n  \
                    serveloop help limits WORD      shows those about a word, such as timeout";

/// Adds where to find the limits to the help of `serve` and of its protocols, and of the command itself.
pub(crate) fn with_hint(command: Command) -> Command {
    let of_all = command.after_help("`serveloop help limits` shows every limit of a server.");
    of_all.mut_subcommand("serve", |serve| {
        let hinted = |protocol: Command| protocol.after_help(HINT);
        hinted(serve.mut_subcommands(hinted))
    })
}

/// Makes `help limits` known to shells, among the other topics of `help`.
pub(crate) fn with_topic(mut command: Command) -> Command {
    // `build` makes the subcommand `help`.
    command.build();
    let name = command.get_name().to_owned();
    let mut topic = topic(&command)
        .bin_name(format!("{name} help limits"))
        .display_name(format!("{name}-help-limits"));
    topic.build();
    command.mut_subcommand(WORDS[0], |help| help.subcommand(topic))
}

/// Returns the words to look for, if the limits are asked for. Options of the log may come first.
pub(crate) fn asked(arguments: impl Iterator<Item = OsString>) -> Option<Vec<OsString>> {
    let is_option = |argument: &OsString| argument.as_encoded_bytes().starts_with(b"-");
    let mut arguments = arguments.skip(1).skip_while(is_option);
    let words = WORDS.map(|word| arguments.next().is_some_and(|it| it == OsStr::new(word)));
    words
        .iter()
        .all(|is_there| *is_there)
        .then(|| arguments.collect())
}

/// Prints the limits in which all words occur. `command` is the whole command line.
pub(crate) fn show(command: &Command, words: Vec<OsString>) -> Result<ExitCode, Failure> {
    let name = format!("{} {}", command.get_name(), WORDS.join(" "));
    let matched = topic(command)
        .no_binary_name(true)
        .bin_name(name)
        .try_get_matches_from(words);
    let words: Vec<String> = match matched {
        Ok(matches) => matches
            .get_many("word")
            .into_iter()
            .flatten()
            .cloned()
            .collect(),
        Err(error) if !error.use_stderr() => Vec::new(),
        Err(error) => return Err(Failure::Usage(first_line(&error))),
    };

    let limits: Vec<_> = limits(command).filter(|it| has_all(it, &words)).collect();
    if limits.is_empty() {
        let problem = format!("no limit is about {:?}", words.join(" "));
        return Err(Failure::Usage(problem));
    }
    print(page(&limits, words.is_empty()).as_bytes())
}

/// Returns the page of the manual.
pub(crate) fn manual(command: &Command) -> Command {
    let name = command.get_name().to_owned();
    let mut page = Command::new("limits")
        .about(ABOUT)
        .long_about(LONG_ABOUT)
        .disable_help_flag(true)
        .args(limits(command))
        .bin_name(format!("{name} serve PROTOCOL"))
        .display_name(format!("{name}-{}", WORDS.join("-")));
    page.build();
    page
}

/// Hides the limits from pages of the manual other than their own.
pub(crate) fn without_limits(command: Command) -> Command {
    let hidden = |option: Arg| {
        let is_limit = is_limit(&option);
        option.hide(is_limit)
    };
    command.mut_args(hidden).mut_subcommands(without_limits)
}

fn topic(command: &Command) -> Command {
    let known: Vec<_> = limits(command)
        .filter_map(|it| it.get_long().map(str::to_owned))
        .collect();
    let word = Arg::new("word")
        .help("Show only limits in which this word occurs")
        .long_help(format!(
            "Show only limits in which this word occurs, such as timeout. There are {} limits",
            known.len()
        ))
        .value_name("WORD")
        .action(ArgAction::Append);
    Command::new("limits").about(ABOUT).arg(word)
}

fn is_limit(option: &Arg) -> bool {
    option.is_hide_short_help_set() && option.is_hide_long_help_set() && !option.is_hide_set()
}

/// Returns the limits, as options that are shown.
fn limits(command: &Command) -> impl Iterator<Item = Arg> {
    let serve = command.find_subcommand("serve");
    let options = serve.into_iter().flat_map(Command::get_arguments);
    options.filter(|it| is_limit(it)).map(|option| {
        let shown = option.clone().hide_short_help(false).hide_long_help(false);
        shown.global(false)
    })
}

/// Returns whether all words occur in the name, the help or the heading of an option, in capitals or not.
fn has_all(option: &Arg, words: &[String]) -> bool {
    let parts = [
        option.get_long().map(|name| format!("--{name}")),
        option.get_help().map(ToString::to_string),
        option.get_help_heading().map(str::to_owned),
    ];
    let text = parts.into_iter().flatten().collect::<Vec<_>>().join("\n");
    let text = text.to_lowercase();
    words.iter().all(|word| text.contains(&word.to_lowercase()))
}

/// Returns the help of these limits, with the introduction if they are all.
fn page(limits: &[Arg], are_all: bool) -> String {
    let template = match are_all {
        true => "{about-with-newline}\n{all-args}\n",
        false => "{all-args}\n",
    };
    let mut command = Command::new("limits")
        .about(LONG_ABOUT)
        .disable_help_flag(true)
        .disable_version_flag(true)
        .help_template(template)
        .args(limits.iter().cloned());
    command.render_long_help().to_string()
}

fn first_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    line.trim_start_matches("error: ").to_owned()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::Cli;

    fn arguments(line: &str) -> Option<Vec<OsString>> {
        asked(line.split(' ').map(OsString::from))
    }

    #[test]
    fn the_limits_are_asked_for_by_two_words() {
        assert_eq!(arguments("serveloop help limits"), Some(vec![]));
        assert_eq!(
            arguments("serveloop -v help limits idle"),
            Some(vec!["idle".into()])
        );
        for other in [
            "serveloop",
            "serveloop help",
            "serveloop help serve",
            "serveloop limits",
        ] {
            assert_eq!(arguments(other), None, "{other}");
        }
    }

    #[test]
    fn every_hidden_option_of_serve_is_a_limit() {
        let command = Cli::command();
        let names: Vec<_> = limits(&command)
            .map(|it| it.get_long().unwrap().to_owned())
            .collect();
        assert!(names.len() > 45, "{names:?}");
        for name in [
            "max-connections",
            "idle-timeout",
            "connects-per-second",
            "rate-burst",
        ] {
            assert!(names.iter().any(|it| it == name), "{name}");
        }
        for name in ["listen", "model", "proxy"] {
            assert!(!names.iter().any(|it| it == name), "{name}");
        }
    }

    #[test]
    fn words_are_looked_for_in_names_help_and_headings() {
        let command = Cli::command();
        let found = |words: &[&str]| {
            let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
            limits(&command).filter(|it| has_all(it, &words)).count()
        };
        assert_eq!(found(&["--idle-timeout"]), 1);
        assert!(found(&["DEADLINES"]) > 8);
        assert!(found(&["so_sndbuf"]) == 1);
        assert_eq!(found(&["idle", "backlog"]), 0);
    }
}
