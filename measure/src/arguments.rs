//! The arguments of a benchmark, and what its process does with them.

use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;
use std::{env, io, slice};

use crate::launch;

/// The options of a benchmark.
pub trait Options: Default {
    /// What to print for `--help`, and after an error.
    const USAGE: &'static str;

    /// Returns options with which everything is tried once, and quickly.
    fn smoke() -> Self;

    /// Sets the option that `flag` names; its value is taken from `rest`. Returns false if there is no
    /// such option.
    ///
    /// # Errors
    /// The value is missing or wrong.
    fn set(&mut self, flag: &str, rest: &mut slice::Iter<'_, String>) -> io::Result<bool>;

    /// Checks the options against each other.
    ///
    /// # Errors
    /// They make no sense.
    fn check(&self) -> io::Result<()>;
}

/// Does what the process's arguments say: calls `measure` with the options, or `serve` with a kind of
/// server and the address at which it is to listen, or becomes the program that they name, which is
/// how a benchmark starts its own children. Returns the exit status, and prints an error.
///
/// `cargo bench` says `--bench`. Without it the benchmark is being tested, with arguments that are
/// meant for a test harness.
pub fn run<K: FromStr, O: Options>(
    serve: impl FnOnce(K, Ipv4Addr) -> io::Result<()>,
    measure: impl FnOnce(O) -> io::Result<()>,
) -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let outcome = parse(&arguments).and_then(|command| match command {
        Command::Launch(options, server) => Err(launch::launch(&options, &server)),
        Command::Serve(kind, host) => serve(kind, host),
        Command::Measure(options) => measure(options),
        Command::Help => {
            println!("{}", O::USAGE);
            Ok(())
        }
        Command::Nothing => Ok(()),
    });

    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// What this process is to do.
enum Command<K, O> {
    Measure(O),
    /// Prepare this process and become the program that follows.
    Launch(Vec<String>, Vec<String>),
    /// Be the server, at this address.
    Serve(K, Ipv4Addr),
    Help,
    Nothing,
}

fn parse<K: FromStr, O: Options>(arguments: &[String]) -> io::Result<Command<K, O>> {
    match arguments {
        [flag, name, host] if flag == "--serve" => {
            let (kind, host) = (value(flag, Some(name))?, value(flag, Some(host))?);
            return Ok(Command::Serve(kind, host));
        }
        [flag, process, cores, _, server @ ..] if flag == "--launch" => {
            let options = vec![process.clone(), cores.clone()];
            return Ok(Command::Launch(options, server.to_vec()));
        }
        _ => {}
    }
    if arguments.iter().any(|argument| argument == "--list") {
        return Ok(Command::Nothing);
    }
    if !arguments.iter().any(|argument| argument == "--bench") {
        return Ok(Command::Measure(O::smoke()));
    }

    let mut options = O::default();
    let mut rest = arguments.iter();
    while let Some(flag) = rest.next() {
        match flag.as_str() {
            "--bench" => {}
            "--help" | "-h" => return Ok(Command::Help),
            flag if options.set(flag, &mut rest)? => {}
            _ => return Err(invalid(format!("unknown option {flag}\n\n{}", O::USAGE))),
        }
    }
    options.check()?;
    Ok(Command::Measure(options))
}

/// Parses a list whose items are separated by commas, which follows `flag`.
///
/// # Errors
/// There is no `text`, or one of the items is unknown. The message names the flag.
///
/// ```
/// use serveloop_measure::arguments::list;
///
/// let text = "1,16,256".to_owned();
/// assert_eq!(list::<usize>("--connections", Some(&text))?, [1, 16, 256]);
///
/// let error = list::<usize>("--connections", None).unwrap_err();
/// assert_eq!(error.to_string(), "--connections needs a value");
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn list<T: FromStr>(flag: &str, text: Option<&String>) -> io::Result<Vec<T>> {
    let text = text.ok_or_else(|| invalid(format!("{flag} needs a value")))?;
    text.split(',')
        .map(|item| {
            item.parse()
                .map_err(|_| invalid(format!("{flag} does not know {item:?}")))
        })
        .collect()
}

/// Parses the one value that follows `flag`.
///
/// # Errors
/// Fails like [`list`], or if there are several values.
///
/// ```
/// use serveloop_measure::arguments::value;
///
/// assert_eq!(value::<usize>("--rounds", Some(&"5".to_owned()))?, 5);
/// assert!(value::<usize>("--rounds", Some(&"5,6".to_owned())).is_err());
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn value<T: FromStr>(flag: &str, text: Option<&String>) -> io::Result<T> {
    let mut values = list(flag, text)?;
    match values.pop() {
        Some(value) if values.is_empty() => Ok(value),
        _ => Err(invalid(format!("{flag} takes one value"))),
    }
}

/// Parses a number of seconds, which may have a fraction.
///
/// # Errors
/// Fails like [`value`], or if no duration has this many seconds.
///
/// ```
/// use serveloop_measure::arguments::seconds;
///
/// let half = seconds("--seconds", Some(&"0.5".to_owned()))?;
/// assert_eq!(half.as_millis(), 500);
/// assert!(seconds("--seconds", Some(&"-1".to_owned())).is_err());
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn seconds(flag: &str, text: Option<&String>) -> io::Result<Duration> {
    let seconds = value(flag, text)?;
    Duration::try_from_secs_f64(seconds).map_err(|error| invalid(format!("{flag}: {error}")))
}

/// Returns an error about an argument.
#[must_use]
pub fn invalid(problem: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, problem)
}
