//! The options of a listener, and how they are written in the query of a URI.

use std::fmt;
use std::time::Duration;

use super::percent::{Encoded, decode};
use super::units::{Size, Span, parse_bool, parse_duration, parse_mode, parse_number, parse_size};
use super::{Address, is_name};

/// The longest idle time before keepalive probes that every system accepts.
pub(crate) const KEEPALIVE_MOST: Duration = Duration::from_secs(32_767);

/// All permissions that the file of a socket can have.
pub(crate) const MODE_MOST: u32 = 0o777;

/// The options of one listener. What is `None` is as in the server's [`Config`](crate::Config),
/// whose field has the same name or the one that is given here.
///
/// In a URI, an option is written like its field, with hyphens: `receive-buffer=64KiB`.
///
/// ```
/// use serveloop::Listen;
/// use serveloop::net::ListenOptions;
///
/// let options = ListenOptions { backlog: Some(4_096), ..ListenOptions::default() };
/// let listen = Listen::new("tcp://127.0.0.1:9999".parse()?, options);
/// assert_eq!(listen.to_string(), "tcp://127.0.0.1:9999?backlog=4096");
/// # Ok::<(), serveloop::net::AddressError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ListenOptions {
    /// Accepts IPv4 clients too, at an address `[::]` of TCP or UDP. A URI has `true` or `false`.
    pub dual_stack: Option<bool>,
    /// How long a TCP connection may be silent before the system probes whether its peer is still
    /// there. `Duration::ZERO` turns the probes off. A URI has a duration such as `60s`, `5m`,
    /// `1h30m`, or `0`.
    pub keepalive: Option<Duration>,
    /// The most connections that the system queues before they are accepted, on TCP and Unix
    /// streams.
    pub backlog: Option<i32>,
    /// Sends small writes at once, on TCP. A URI has `true` or `false`.
    pub nodelay: Option<bool>,
    /// Binds a TCP port even if earlier connections on it still linger. A URI has `true` or
    /// `false`.
    pub reuse_address: Option<bool>,
    /// Shares a TCP or UDP port with other sockets that have this option set too. A URI has `true`
    /// or `false`.
    pub reuse_port: Option<bool>,
    /// The size of the system's send buffer, in bytes. A URI has bytes such as `65536`, `64KiB`,
    /// `1MiB`.
    pub send_buffer: Option<usize>,
    /// The size of the system's receive buffer, in bytes, written like `send_buffer`.
    pub receive_buffer: Option<usize>,
    /// The permissions of the file of a Unix socket, as
    /// [`socket_mode`](crate::Config::socket_mode). A URI has octal digits such as `0660`, under
    /// the name `mode` or `socket-mode`.
    pub mode: Option<u32>,
    /// The group of the file of a Unix socket, as [`socket_group`](crate::Config::socket_group). In
    /// a URI its name is `group` or `socket-group`.
    pub group: Option<String>,
}

impl ListenOptions {
    /// Reads the query of a URI, without the question mark. Gives the options whose names are among
    /// `others` to the caller, with their values. Only those may be given several times.
    pub(super) fn parse(query: &str, others: &[&str]) -> Result<(Self, OtherOptions), String> {
        let (mut options, mut given) = (Self::default(), OtherOptions::new());
        let mut seen = Vec::new();
        if query.is_empty() {
            return Ok((options, given));
        }

        for piece in query.split('&') {
            let (name, value) = piece
                .split_once('=')
                .ok_or_else(|| format!("{piece:?}: expected OPTION=VALUE"))?;
            let about = |problem| format!("{name}: {problem}");
            if others.contains(&name) {
                let value = decode(value).map_err(|problem| about(problem.to_owned()))?;
                given.push((name.to_owned(), value));
                continue;
            }

            let key = Key::of(name, others)?;
            if seen.contains(&key.name) {
                return Err(format!("{} is given twice", key.name));
            }
            seen.push(key.name);
            let value = decode(value).map_err(|problem| about(problem.to_owned()))?;
            (key.set)(&mut options, &value).map_err(about)?;
        }
        Ok((options, given))
    }

    /// Returns an error if an option does not fit `address`, or has a value that no system accepts.
    pub(super) fn check(&self, address: &Address) -> Result<(), String> {
        for key in &KEYS {
            if (key.show)(self).is_some() && !key.fits.includes(address) {
                return Err(format!("{} is for {}", key.name, key.fits.text()));
            }
        }

        let fits = |size: Option<usize>| size.is_none_or(|size| i32::try_from(size).is_ok());
        let problem = if self.dual_stack == Some(true) && !is_every_v6(address) {
            "dual-stack is for the address [::], for example tcp://[::]:9999"
        } else if self.backlog.is_some_and(|backlog| backlog < 1) {
            "backlog must be at least 1"
        } else if self.keepalive.is_some_and(|idle| idle > KEEPALIVE_MOST) {
            "keepalive must be at most 32767s"
        } else if !fits(self.send_buffer) {
            "send-buffer must be less than 2 GiB"
        } else if !fits(self.receive_buffer) {
            "receive-buffer must be less than 2 GiB"
        } else if self.mode.is_some_and(|mode| mode > MODE_MOST) {
            "mode must be at most 0777"
        } else if self.group.as_ref().is_some_and(|group| !is_group(group)) {
            "group must be a name or a number"
        } else {
            return Ok(());
        };
        Err(problem.to_owned())
    }

    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Options in the query of a URI that are a program's own, in the order of the text: the name and
/// the decoded value of each. [`Listen::resolve_with`](crate::Listen::resolve_with) returns them.
///
/// ```
/// use serveloop::Listen;
/// use serveloop::net::OtherOptions;
///
/// let text = "unix:///run/x.sock?mode=0660&realm=inside";
/// let (_, others): (_, OtherOptions) = Listen::resolve_with(text, &["realm"])?;
/// assert_eq!(others, [("realm".to_owned(), "inside".to_owned())]);
/// # Ok::<(), std::io::Error>(())
/// ```
pub type OtherOptions = Vec<(String, String)>;

/// Returns whether a text can name a group.
pub(crate) fn is_group(text: &str) -> bool {
    !text.is_empty() && !text.contains('\0')
}

impl fmt::Display for ListenOptions {
    /// Writes the query of a URI, without the question mark.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = KEYS
            .iter()
            .filter_map(|key| (key.show)(self).map(|value| (key.name, value)));

        for (number, (name, value)) in shown.enumerate() {
            let separator = if number == 0 { "" } else { "&" };
            write!(f, "{separator}{name}={}", Encoded(value.as_bytes()))?;
        }
        Ok(())
    }
}

fn is_every_v6(address: &Address) -> bool {
    let ip = address.socket_addr().map(|addr| addr.ip());
    ip.is_some_and(|ip| ip.is_ipv6() && ip.is_unspecified())
}

/// An option in a URI.
struct Key {
    name: &'static str,
    /// What else it is called.
    alias: &'static str,
    fits: Fits,
    set: fn(&mut ListenOptions, &str) -> Result<(), String>,
    show: fn(&ListenOptions) -> Option<String>,
}

impl Key {
    /// Returns the option with this name.
    ///
    /// # Errors
    /// There is none; the message names the nearest of these and the `others`.
    fn of(name: &str, others: &[&str]) -> Result<&'static Self, String> {
        let is_it = |key: &&Self| !name.is_empty() && (key.name == name || key.alias == name);
        KEYS.iter().find(is_it).ok_or_else(|| {
            let names = KEYS.iter().flat_map(|key| [key.name, key.alias]);
            let names = names.chain(others.iter().copied());
            let names = names.filter(|known| !known.is_empty());
            let nearest = names.min_by_key(|known| distance(known, name));
            let nearest = nearest.unwrap_or_default();
            format!("there is no option {name:?}, the nearest is {nearest}")
        })
    }
}

/// The addresses that an option is for.
#[derive(Clone, Copy)]
enum Fits {
    Ip,
    Tcp,
    Stream,
    /// A Unix socket with a path.
    File,
    All,
}

impl Fits {
    fn includes(self, address: &Address) -> bool {
        match self {
            Self::Ip => address.socket_addr().is_some(),
            Self::Tcp => matches!(address, Address::Tcp(_)),
            Self::Stream => !address.is_datagram(),
            Self::File => address.path().is_some_and(|path| !is_name(path)),
            Self::All => true,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Ip => "tcp and udp",
            Self::Tcp => "tcp",
            Self::Stream => "tcp and unix",
            Self::File => "unix and unixgram sockets with a path",
            Self::All => "all",
        }
    }
}

/// All options, in the order in which they are displayed.
const KEYS: [Key; 10] = [
    Key {
        name: "dual-stack",
        alias: "",
        fits: Fits::Ip,
        set: |to, text| parse_bool(text).map(|value| to.dual_stack = Some(value)),
        show: |of| of.dual_stack.map(|value| value.to_string()),
    },
    Key {
        name: "keepalive",
        alias: "",
        fits: Fits::Tcp,
        set: |to, text| parse_duration(text).map(|value| to.keepalive = Some(value)),
        show: |of| of.keepalive.map(|value| Span(value).to_string()),
    },
    Key {
        name: "backlog",
        alias: "",
        fits: Fits::Stream,
        set: |to, text| parse_number(text).map(|value| to.backlog = Some(value)),
        show: |of| of.backlog.map(|value| value.to_string()),
    },
    Key {
        name: "nodelay",
        alias: "",
        fits: Fits::Tcp,
        set: |to, text| parse_bool(text).map(|value| to.nodelay = Some(value)),
        show: |of| of.nodelay.map(|value| value.to_string()),
    },
    Key {
        name: "reuse-address",
        alias: "",
        fits: Fits::Tcp,
        set: |to, text| parse_bool(text).map(|value| to.reuse_address = Some(value)),
        show: |of| of.reuse_address.map(|value| value.to_string()),
    },
    Key {
        name: "reuse-port",
        alias: "",
        fits: Fits::Ip,
        set: |to, text| parse_bool(text).map(|value| to.reuse_port = Some(value)),
        show: |of| of.reuse_port.map(|value| value.to_string()),
    },
    Key {
        name: "send-buffer",
        alias: "",
        fits: Fits::All,
        set: |to, text| parse_size(text).map(|value| to.send_buffer = Some(value)),
        show: |of| of.send_buffer.map(|value| Size(value).to_string()),
    },
    Key {
        name: "receive-buffer",
        alias: "",
        fits: Fits::All,
        set: |to, text| parse_size(text).map(|value| to.receive_buffer = Some(value)),
        show: |of| of.receive_buffer.map(|value| Size(value).to_string()),
    },
    Key {
        name: "mode",
        alias: "socket-mode",
        fits: Fits::File,
        set: |to, text| parse_mode(text).map(|value| to.mode = Some(value)),
        show: |of| of.mode.map(|value| format!("{value:04o}")),
    },
    Key {
        name: "group",
        alias: "socket-group",
        fits: Fits::File,
        set: |to, text| {
            to.group = Some(text.to_owned());
            Ok(())
        },
        show: |of| of.group.clone(),
    },
];

/// Returns how many letters have to be added, removed or replaced to turn one text into the other.
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.chars().count()).collect();
    for (number, letter) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = number + 1;
        for (at, next) in other.chars().enumerate() {
            let replaced = diagonal + usize::from(letter != next);
            diagonal = row[at + 1];
            row[at + 1] = replaced.min(diagonal + 1).min(row[at] + 1);
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distance_counts_letters() {
        for (one, other, expected) in [
            ("", "", 0),
            ("backlog", "", 7),
            ("backlog", "backlog", 0),
            ("backlog", "backlogs", 1),
            ("backlog", "baklog", 1),
            ("keepalive", "keep-alive", 1),
            ("mode", "node", 1),
        ] {
            assert_eq!(distance(one, other), expected, "{one} {other}");
            assert_eq!(distance(other, one), expected, "{other} {one}");
        }
    }

    #[test]
    fn every_option_has_one_name_and_is_shown_under_it() {
        let query = "dual-stack=true&keepalive=60s&backlog=4096&nodelay=false&reuse-address=true&\
                     reuse-port=false&send-buffer=64KiB&receive-buffer=100&mode=0660&group=www";
        let (options, _) = ListenOptions::parse(query, &[]).unwrap();
        assert_eq!(options.to_string(), query);
        assert_eq!(query.split('&').count(), KEYS.len());
    }
}
