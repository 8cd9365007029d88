//! Values of a benchmark's arguments.

use std::io;
use std::str::FromStr;
use std::time::Duration;

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
/// Fails like [`value`], or if no duration has so many seconds.
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
