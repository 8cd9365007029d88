//! The table of commands.

use std::collections::HashMap;
use std::fmt;

use crate::error_reply::ErrorReply;
use crate::reply::Reply;
use crate::request::{Arguments, Request};

/// The most bytes of a command's name.
const NAME_MOST: usize = 32;

/// What a table and its clients know about a command: its name, how many arguments it has, and what
/// `COMMAND` tells of it.
///
/// ```
/// use serveloop_resp::Command;
///
/// let command = Command::new("vote", 1..=2)
///     .summary("Counts a vote, or several.")
///     .flags(&["write", "fast"])
///     .keys(1, 1, 1);
/// assert_eq!(command.name(), "vote");
/// ```
#[derive(Clone, Debug)]
pub struct Command {
    name: &'static str,
    least: usize,
    most: usize,
    flags: &'static [&'static str],
    keys: (i64, i64, i64),
    group: &'static str,
    summary: &'static str,
}

impl Command {
    /// Creates the description of a command with that many arguments, its name not counted. `1..` is
    /// `1..=usize::MAX`.
    ///
    /// # Panics
    /// Panics if the name is empty, has capital letters, or has more than 32 bytes.
    #[must_use]
    pub fn new(name: &'static str, arguments: std::ops::RangeInclusive<usize>) -> Self {
        assert!(
            (1..=NAME_MOST).contains(&name.len()),
            "{name:?}: a name has 1 to {NAME_MOST} bytes"
        );
        assert!(
            !name.bytes().any(|byte| byte.is_ascii_uppercase()),
            "{name:?}: a name has no capital letters"
        );
        let (least, most) = arguments.into_inner();
        Self {
            name,
            least,
            most,
            flags: &[],
            keys: (0, 0, 0),
            group: "generic",
            summary: "",
        }
    }

    /// Sets what the command does, as a sentence.
    #[must_use]
    pub fn summary(self, summary: &'static str) -> Self {
        Self { summary, ..self }
    }

    /// Sets the group of commands that it belongs to. The default is `generic`.
    #[must_use]
    pub fn group(self, group: &'static str) -> Self {
        Self { group, ..self }
    }

    /// Sets the words that clients know it by, such as `readonly`, `write` and `fast`.
    #[must_use]
    pub fn flags(self, flags: &'static [&'static str]) -> Self {
        Self { flags, ..self }
    }

    /// Sets which arguments are keys: the first, the last (negative: from the end), and how many
    /// arguments it is from one to the next. By default there are none.
    #[must_use]
    pub fn keys(self, first: i64, last: i64, step: i64) -> Self {
        Self {
            keys: (first, last, step),
            ..self
        }
    }

    /// Returns the name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Returns whether clients know it by this word.
    pub(crate) fn has_flag(&self, flag: &str) -> bool {
        self.flags.contains(&flag)
    }

    /// Returns how many words a request has, as `COMMAND` tells it: negative if that is the least.
    fn arity(&self) -> i64 {
        let words = i64::try_from(self.least + 1).unwrap_or(i64::MAX);
        if self.least == self.most {
            words
        } else {
            -words
        }
    }

    fn write_info(&self, reply: &mut Reply) {
        reply.array(10);
        reply.bulk(self.name.as_bytes());
        reply.integer(self.arity());
        reply.set(self.flags.len());
        self.flags.iter().for_each(|flag| reply.simple(flag));
        let (first, last, step) = self.keys;
        [first, last, step]
            .iter()
            .for_each(|number| reply.integer(*number));
        // Categories of access lists, tips, places of keys, subcommands.
        reply.set(0);
        [0; 3].iter().for_each(|none| reply.array(*none));
    }

    fn write_docs(&self, reply: &mut Reply) {
        reply.bulk(self.name.as_bytes());
        reply.map(3);
        for (key, value) in [
            ("summary", self.summary),
            ("since", "1.0.0"),
            ("group", self.group),
        ] {
            reply.bulk(key.as_bytes());
            reply.bulk(value.as_bytes());
        }
    }
}

/// A table of commands, each with a handler of the type `H`, usually a function pointer. All
/// connections of a server share one.
///
/// The documentation of the crate shows a server with a table.
pub struct Commands<H> {
    all: Vec<(Command, H)>,
    by_name: HashMap<&'static [u8], usize, Folded>,
}

impl<H> Commands<H> {
    /// Creates a table without commands.
    #[must_use]
    pub fn new() -> Self {
        Self {
            all: Vec::new(),
            by_name: HashMap::default(),
        }
    }

    /// Adds a command.
    ///
    /// # Panics
    /// Panics if there is already a command of that name.
    #[must_use]
    pub fn with(mut self, command: Command, handler: H) -> Self {
        let name = command.name;
        let earlier = self.by_name.insert(name.as_bytes(), self.all.len());
        assert!(earlier.is_none(), "there is already a command {name:?}");
        self.all.push((command, handler));
        self
    }

    /// Returns the command that a request calls, and its handler. Names are the same in capital and
    /// small letters.
    ///
    /// # Errors
    /// Returns what the client is told if there is no such command, or if it does not have that many
    /// arguments.
    #[inline]
    pub fn find(&self, request: Request<'_>) -> Result<(&Command, &H), ErrorReply> {
        self.callable(request).ok_or_else(|| self.refusal(request))
    }

    /// Returns the same, or `None` instead of an error.
    #[inline]
    pub(crate) fn callable(&self, request: Request<'_>) -> Option<(&Command, &H)> {
        let (command, handler) = self.get(request.name())?;
        let counts = command.least..=command.most;
        counts
            .contains(&request.arguments().len())
            .then_some((command, handler))
    }

    #[cold]
    fn refusal(&self, request: Request<'_>) -> ErrorReply {
        match self.get(request.name()) {
            Some((command, _)) => ErrorReply::wrong_number_of_arguments(command.name),
            None => ErrorReply::unknown_command(request.name(), request.arguments()),
        }
    }

    /// Answers `COMMAND` with these arguments: all commands, or what a subcommand asks for, `COUNT`,
    /// `LIST`, `INFO`, `DOCS` or `HELP`.
    ///
    /// # Errors
    /// Returns what the client is told if there is no such subcommand.
    pub fn describe(
        &self,
        arguments: &mut Arguments<'_>,
        reply: &mut Reply,
    ) -> Result<(), ErrorReply> {
        let all = || self.iter();
        let Some(subcommand) = arguments.next() else {
            reply.array(self.all.len());
            all().for_each(|command| command.write_info(reply));
            return Ok(());
        };

        match subcommand.to_ascii_lowercase().as_slice() {
            b"count" if arguments.len() == 0 => reply.count(self.all.len()),
            b"count" => return Err(ErrorReply::wrong_number_of_arguments("command|count")),
            b"list" if arguments.len() == 0 => {
                reply.set(self.all.len());
                all().for_each(|command| reply.bulk(command.name.as_bytes()));
            }
            b"info" if arguments.len() == 0 => {
                reply.array(self.all.len());
                all().for_each(|command| command.write_info(reply));
            }
            b"info" => {
                reply.array(arguments.len());
                for name in arguments {
                    match self.get(name) {
                        Some((command, _)) => command.write_info(reply),
                        None => reply.null(),
                    }
                }
            }
            b"docs" => {
                let asked: Vec<_> = match arguments.len() {
                    0 => all().collect(),
                    _ => arguments
                        .filter_map(|name| Some(&self.get(name)?.0))
                        .collect(),
                };
                reply.map(asked.len());
                asked.iter().for_each(|command| command.write_docs(reply));
            }
            b"help" => reply.lines(&[
                "COMMAND <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
                "(no subcommand)",
                "    Return details of all commands.",
                "COUNT",
                "    Return the number of commands.",
                "DOCS [<command> ...]",
                "    Return what commands do.",
                "INFO [<command> ...]",
                "    Return details of commands.",
                "LIST",
                "    Return the names of all commands.",
                "HELP",
                "    Print this help.",
            ]),
            _ => return Err(ErrorReply::unknown_subcommand("command", subcommand)),
        }
        Ok(())
    }

    /// Returns all commands, in the order in which they were added.
    pub fn iter(&self) -> impl Iterator<Item = &Command> {
        self.all.iter().map(|(command, _)| command)
    }

    #[inline]
    pub(crate) fn get(&self, name: &[u8]) -> Option<&(Command, H)> {
        let mut folded = [0; NAME_MOST];
        let folded = folded.get_mut(..name.len())?;
        for (to, from) in folded.iter_mut().zip(name) {
            *to = from.to_ascii_lowercase();
        }
        let at = self.by_name.get(&*folded)?;
        Some(&self.all[*at])
    }
}

impl<H> Default for Commands<H> {
    fn default() -> Self {
        Self::new()
    }
}

impl<H> fmt::Debug for Commands<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.iter().map(Command::name))
            .finish()
    }
}

type Folded = std::hash::BuildHasherDefault<NameHasher>;

/// Hashes names. The table's keys are its author's, so nobody can choose them to collide.
#[derive(Default)]
struct NameHasher(u64);

impl std::hash::Hasher for NameHasher {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0.rotate_left(5) ^ u64::from(*byte)).wrapping_mul(0x517c_c1b7_2722_0a95);
        }
    }

    #[inline]
    fn write_usize(&mut self, _: usize) {}

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parser::{Most, Parser};
    use crate::reply::Version;

    fn table() -> Commands<u8> {
        Commands::new()
            .with(
                Command::new("get", 1..=1)
                    .group("string")
                    .summary("Returns it.")
                    .flags(&["readonly"])
                    .keys(1, 1, 1),
                1,
            )
            .with(Command::new("mget", 1..=usize::MAX), 2)
            .with(Command::new("ping", 0..=1), 3)
    }

    /// Parses a line, and passes the request on.
    fn parsed<T>(line: &str, then: impl FnOnce(Request<'_>) -> T) -> T {
        let mut parser = Parser::default();
        let most = Most {
            request: 1_000,
            line: 1_000,
        };
        let line = format!("{line}\n");
        parser.parse(line.as_bytes(), most).unwrap();
        then(parser.request(line.as_bytes()).unwrap())
    }

    fn found(line: &str) -> Result<u8, String> {
        parsed(line, |request| {
            let found = table().find(request).map(|(_, handler)| *handler);
            found.map_err(|error| error.to_string())
        })
    }

    fn described(line: &str) -> String {
        parsed(line, |request| {
            let mut reply = Reply::new(Version::Resp2, 10_000);
            reply.begin();
            let outcome = table().describe(&mut request.arguments(), &mut reply);
            reply.finish(outcome);
            String::from_utf8(reply.as_slice().to_vec()).unwrap()
        })
    }

    #[test]
    fn commands_are_found_in_any_case() {
        assert_eq!(found("get a"), Ok(1));
        assert_eq!(found("MGet a b c"), Ok(2));
        assert_eq!(found("PING"), Ok(3));
    }

    #[test]
    fn what_is_not_found_is_named() {
        let wrong = |name| {
            Err(format!(
                "ERR wrong number of arguments for '{name}' command"
            ))
        };
        assert_eq!(found("get"), wrong("get"));
        assert_eq!(found("get a b"), wrong("get"));
        assert_eq!(found("mget"), wrong("mget"));
        assert_eq!(found("ping a b"), wrong("ping"));

        let unknown = |rest: &str| Err(format!("ERR unknown command {rest}"));
        assert_eq!(found("Foo"), unknown("'Foo', with args beginning with: "));
        assert_eq!(
            found("foo a 'b c'"),
            unknown("'foo', with args beginning with: 'a' 'b c' ")
        );
        let long = "x".repeat(200);
        let shown = "x".repeat(128);
        assert_eq!(
            found(&format!("{long} {long} {long}")),
            unknown(&format!("'{shown}', with args beginning with: '{shown}' "))
        );
    }

    #[test]
    fn the_table_describes_itself() {
        assert_eq!(described("command count"), ":3\r\n");
        assert_eq!(
            described("command list"),
            "*3\r\n$3\r\nget\r\n$4\r\nmget\r\n$4\r\nping\r\n"
        );
        let info = "*10\r\n$3\r\nget\r\n:2\r\n*1\r\n+readonly\r\n:1\r\n:1\r\n:1\r\n*0\r\n*0\r\n*0\r\n*0\r\n";
        assert_eq!(
            described("command info GET none"),
            format!("*2\r\n{info}$-1\r\n")
        );
        assert!(described("command").starts_with(&format!("*3\r\n{info}")));
        let docs = "*2\r\n$3\r\nget\r\n*6\r\n$7\r\nsummary\r\n$11\r\nReturns it.\r\n$5\r\nsince\r\n$5\r\n1.0.0\r\n$5\r\ngroup\r\n$6\r\nstring\r\n";
        assert_eq!(described("command docs get none"), docs);
        assert_eq!(
            described("command frob"),
            "-ERR unknown subcommand 'frob'. Try COMMAND HELP.\r\n"
        );
    }
}
