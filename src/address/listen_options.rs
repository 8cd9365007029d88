//! The options of a listener, and how they are written in the query of a URI.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use super::percent::{Encoded, decode};
use super::units::{Size, Span, parse_bool, parse_duration, parse_mode, parse_number, parse_size};
use super::{Address, AddressError, NetworkList, is_name};

/// The longest idle time before keepalive probes that every system accepts.
pub(crate) const KEEPALIVE_MOST: Duration = Duration::from_secs(32_767);

/// All permissions that the file of a socket can have.
pub(crate) const MODE_MOST: u32 = 0o777;

/// The most routers that a datagram can pass, plus one.
pub(crate) const TTL_MOST: u32 = 255;

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
    /// Gives each peer of a datagram socket a session that lasts. A URI has `true` or `false`. With
    /// it, `first_message_timeout`, `idle_timeout` and `write_timeout` are for datagrams too.
    pub sessions: Option<bool>,
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
    /// The proxies whose connections `max_per_peer` does not count, on TCP and Unix streams, as
    /// [`trusted_proxies`](crate::Config::trusted_proxies). The clients that they name count. A URI
    /// has networks such as `10.0.0.0/8,unix`, or nothing for no proxies.
    pub trusted_proxies: Option<NetworkList>,
    /// The interface by which the group is joined, at a multicast address of UDP, as
    /// [`UdpOptions::interface`](crate::net::UdpOptions::interface). A URI has the name of the
    /// interface, or one of its addresses.
    pub interface: Option<String>,
    /// The one sender that the group is joined for, at a multicast address of UDP, as
    /// [`UdpOptions::source`](crate::net::UdpOptions::source). A URI has an address of IP, without
    /// brackets.
    pub source: Option<IpAddr>,
    /// How many routers a datagram of UDP can pass, plus one, as
    /// [`UdpOptions::ttl`](crate::net::UdpOptions::ttl).
    pub ttl: Option<u32>,
    /// Whether this machine too receives what is sent to the group from here, at a multicast address
    /// of UDP, as [`UdpOptions::loopback`](crate::net::UdpOptions::loopback). A URI has `true` or
    /// `false`.
    pub loopback: Option<bool>,
    /// Whether datagrams can be sent to addresses of broadcast, at an address of IPv4 or `[::]` of
    /// UDP, as [`UdpOptions::broadcast`](crate::net::UdpOptions::broadcast). A URI has `true` or
    /// `false`.
    pub broadcast: Option<bool>,
    /// Whether protocols are told the ECN mark and the hop limit of datagrams of UDP, as
    /// [`UdpOptions::packet_info`](crate::net::UdpOptions::packet_info). A URI has `true` or `false`.
    pub packet_info: Option<bool>,
    /// Whether the system puts datagrams of one peer together that come at once, at addresses of UDP, as
    /// [`UdpOptions::gro`](crate::net::UdpOptions::gro). A URI has `true` or `false`.
    pub gro: Option<bool>,

    /// As [`Limits::high_water`](crate::Limits::high_water), for this listener's connections. A URI
    /// has bytes such as `65536`, `64KiB`, `1MiB`, like for all sizes here.
    pub high_water: Option<usize>,
    /// As [`Limits::low_water`](crate::Limits::low_water).
    pub low_water: Option<usize>,
    /// As [`Limits::max_output`](crate::Limits::max_output).
    pub max_output: Option<usize>,
    /// As [`Limits::max_reply`](crate::Limits::max_reply).
    pub max_reply: Option<usize>,
    /// As [`Limits::max_posted`](crate::Limits::max_posted).
    pub max_posted: Option<usize>,
    /// As [`Limits::max_frame`](crate::Limits::max_frame).
    pub max_frame: Option<usize>,
    /// As [`Limits::max_line`](crate::Limits::max_line).
    pub max_line: Option<usize>,
    /// As [`Limits::handshake_timeout`](crate::Limits::handshake_timeout). `Duration::ZERO` turns
    /// the deadline off, like for all deadlines here. A URI has a duration such as `60s`, `5m`,
    /// `1h30m`, or `0`.
    pub handshake_timeout: Option<Duration>,
    /// As [`Limits::first_message_timeout`](crate::Limits::first_message_timeout).
    pub first_message_timeout: Option<Duration>,
    /// As [`Limits::message_timeout`](crate::Limits::message_timeout).
    pub message_timeout: Option<Duration>,
    /// As [`Limits::idle_timeout`](crate::Limits::idle_timeout).
    pub idle_timeout: Option<Duration>,
    /// As [`Limits::write_timeout`](crate::Limits::write_timeout).
    pub write_timeout: Option<Duration>,
    /// As [`Limits::min_bytes_per_second`](crate::Limits::min_bytes_per_second).
    pub min_bytes_per_second: Option<usize>,
    /// As [`Limits::min_rate_grace`](crate::Limits::min_rate_grace), more than 0.
    pub min_rate_grace: Option<Duration>,
    /// As [`Limits::linger_timeout`](crate::Limits::linger_timeout).
    pub linger_timeout: Option<Duration>,
    /// As [`Limits::linger_limit`](crate::Limits::linger_limit). `Duration::ZERO` is a limit of 0.
    pub linger_limit: Option<Duration>,
    /// As [`Limits::linger_draining`](crate::Limits::linger_draining). `Duration::ZERO` is a limit
    /// of 0.
    pub linger_draining: Option<Duration>,
    /// As [`Limits::linger_bytes`](crate::Limits::linger_bytes).
    pub linger_bytes: Option<usize>,
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
            // Whether there are sessions may be said elsewhere, for all listeners.
            let may_last = address.is_datagram() && self.sessions != Some(false);
            let lasts = may_last && LASTING.contains(&key.name);
            if (key.show)(self).is_some() && !(key.fits.includes(address) || lasts) {
                return Err(key.misfit());
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
        } else if self.ttl.is_some_and(|ttl| ttl == 0 || ttl > TTL_MOST) {
            "ttl must be from 1 to 255"
        } else if self.interface.as_ref().is_some_and(|it| !is_group(it)) {
            "interface must be a name or an address"
        } else if self
            .source
            .is_some_and(|source| !is_source(source, address))
        {
            "source must be the address of one machine, of the same family as the group"
        } else {
            return Ok(());
        };
        Err(problem.to_owned())
    }

    /// Checks the options of a listener on a socket that another program has bound and
    /// [passes](crate::service::activation) to the one that serves. A server checks them itself when it has
    /// the socket; this is for a program that reads what another one will serve.
    ///
    /// ```
    /// use serveloop::net::ListenOptions;
    ///
    /// let (options, _) = ListenOptions::parse_query("backlog=16", &[])?;
    /// assert!(options.check_passed().is_ok());
    /// let (options, _) = ListenOptions::parse_query("mode=0660", &[])?;
    /// assert!(options.check_passed().is_err());
    /// # Ok::<(), serveloop::net::AddressError>(())
    /// ```
    ///
    /// # Errors
    /// An option takes effect when a socket is bound.
    pub fn check_passed(&self) -> Result<(), AddressError> {
        let checked = self.check_bound();
        checked.map_err(|problem| AddressError::new(&self.to_string(), problem))
    }

    /// Returns an error if an option is for sessions, and the listener of datagrams has none.
    pub(super) fn check_lasting(&self) -> Result<(), String> {
        let is_given = |key: &&Key| LASTING.contains(&key.name) && (key.show)(self).is_some();
        KEYS.iter()
            .find(is_given)
            .map_or(Ok(()), |key| Err(key.misfit()))
    }

    /// Returns an error if an option concerns how a socket is bound, for one that is bound already.
    pub(super) fn check_bound(&self) -> Result<(), String> {
        let is_given = |key: &&Key| BINDING.contains(&key.name) && (key.show)(self).is_some();
        match KEYS.iter().find(is_given) {
            Some(key) => Err(format!(
                "{} is for sockets that the server binds itself, and this one was passed to it",
                key.name
            )),
            None => Ok(()),
        }
    }

    /// Parses options as they are in the query of a URI, without its question mark. Options of the
    /// program's own, whose names are `others`, are returned with their decoded values, as
    /// [`Listen::resolve_with`](crate::Listen::resolve_with) does. Whether the options fit an
    /// address is checked when it is bound.
    ///
    /// ```
    /// use serveloop::net::ListenOptions;
    ///
    /// let (options, others) = ListenOptions::parse_query("idle-timeout=5m&realm=in", &["realm"])?;
    /// assert_eq!(options.to_string(), "idle-timeout=300s");
    /// assert_eq!(others, [("realm".to_owned(), "in".to_owned())]);
    /// # Ok::<(), serveloop::net::AddressError>(())
    /// ```
    ///
    /// # Errors
    /// The text is not a query, or an option does not exist, has a value that cannot be parsed, or
    /// is given twice.
    pub fn parse_query(query: &str, others: &[&str]) -> Result<(Self, OtherOptions), AddressError> {
        Self::parse(query, others).map_err(|problem| AddressError::new(query, problem))
    }

    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The options that take effect when a socket is bound.
const BINDING: [&str; 5] = ["dual-stack", "reuse-address", "reuse-port", "mode", "group"];

/// The options for streams that a session of datagrams has too.
const LASTING: [&str; 3] = ["first-message-timeout", "idle-timeout", "write-timeout"];

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

fn is_udp_at(address: &Address, holds: fn(IpAddr) -> bool) -> bool {
    matches!(address, Address::Udp(addr) if holds(addr.ip()))
}

/// Returns whether a machine with this address can send to a group.
fn is_source(source: IpAddr, group: &Address) -> bool {
    let is_one = !source.is_multicast() && !source.is_unspecified();
    let family = group.socket_addr().map(|addr| addr.is_ipv6());
    is_one && family == Some(source.is_ipv6())
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
    /// Returns what is wrong about this option at an address that it does not fit.
    fn misfit(&self) -> String {
        match LASTING.contains(&self.name) {
            true => format!(
                "{} is for tcp, unix, vsock and datagrams with sessions=true",
                self.name
            ),
            false => format!("{} is for {}", self.name, self.fits.text()),
        }
    }

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
    Datagram,
    /// A Unix socket with a path.
    File,
    Udp,
    /// A group of machines.
    Group,
    /// A family that has broadcasts.
    Broadcast,
    All,
}

impl Fits {
    fn includes(self, address: &Address) -> bool {
        match self {
            Self::Ip => address.socket_addr().is_some(),
            Self::Tcp => matches!(address, Address::Tcp(_)),
            Self::Stream => !address.is_datagram(),
            Self::Datagram => address.is_datagram(),
            Self::File => address.path().is_some_and(|path| !is_name(path)),
            Self::Udp => matches!(address, Address::Udp(_)),
            Self::Group => is_udp_at(address, |ip| ip.is_multicast()),
            Self::Broadcast => is_udp_at(address, |ip| ip.is_ipv4() || ip.is_unspecified()),
            Self::All => true,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Ip => "tcp and udp",
            Self::Tcp => "tcp",
            Self::Stream => "tcp, unix and vsock",
            Self::Datagram => "udp and unixgram",
            Self::File => "unix and unixgram sockets with a path",
            Self::Udp => "udp",
            Self::Group => "multicast addresses of udp, for example udp://239.1.2.3:9999",
            Self::Broadcast => "udp at addresses of IPv4 and at [::]",
            Self::All => "all",
        }
    }
}

/// Makes an option whose value is parsed by `$parse` and displayed by `$show`.
macro_rules! key {
    ($name:literal | $alias:literal, $fits:ident, $field:ident, $parse:expr, $show:expr) => {
        Key {
            name: $name,
            alias: $alias,
            fits: Fits::$fits,
            set: |to, text| $parse(text).map(|value| to.$field = Some(value)),
            show: |of| of.$field.clone().map($show),
        }
    };
    ($name:literal, $fits:ident, $field:ident, bool) => {
        key!($name | "", $fits, $field, parse_bool, |value| value
            .to_string())
    };
    ($name:literal, $fits:ident, $field:ident, size) => {
        key!($name | "", $fits, $field, parse_size, |value| Size(value)
            .to_string())
    };
    ($name:literal, $fits:ident, $field:ident, duration) => {
        key!($name | "", $fits, $field, parse_duration, |value| Span(
            value
        )
        .to_string())
    };
}

/// All options, in the order in which they are displayed.
const KEYS: [Key; 37] = [
    key!("dual-stack", Ip, dual_stack, bool),
    key!("keepalive", Tcp, keepalive, duration),
    key!("sessions", Datagram, sessions, bool),
    key!("backlog" | "", Stream, backlog, parse_number, |value| value
        .to_string()),
    key!("nodelay", Tcp, nodelay, bool),
    key!("reuse-address", Tcp, reuse_address, bool),
    key!("reuse-port", Ip, reuse_port, bool),
    key!("send-buffer", All, send_buffer, size),
    key!("receive-buffer", All, receive_buffer, size),
    key!(
        "mode" | "socket-mode",
        File,
        mode,
        parse_mode,
        |value| format!("{value:04o}")
    ),
    key!("group" | "socket-group", File, group, parse_text, |value| {
        value
    }),
    key!(
        "trusted-proxies" | "",
        Stream,
        trusted_proxies,
        parse_list,
        |value| value.to_string()
    ),
    key!("interface" | "", Group, interface, parse_text, |value| {
        value
    }),
    key!("source" | "", Group, source, parse_ip, |value| value
        .to_string()),
    key!("ttl" | "", Udp, ttl, parse_ttl, |value| value.to_string()),
    key!("loopback", Group, loopback, bool),
    key!("broadcast", Broadcast, broadcast, bool),
    key!("packet-info", Udp, packet_info, bool),
    key!("gro", Udp, gro, bool),
    key!("high-water", All, high_water, size),
    key!("low-water", All, low_water, size),
    key!("max-output", All, max_output, size),
    key!("max-reply", All, max_reply, size),
    key!("max-posted", All, max_posted, size),
    key!("max-frame", All, max_frame, size),
    key!("max-line", All, max_line, size),
    key!("handshake-timeout", Stream, handshake_timeout, duration),
    key!(
        "first-message-timeout",
        Stream,
        first_message_timeout,
        duration
    ),
    key!("message-timeout", Stream, message_timeout, duration),
    key!("idle-timeout", Stream, idle_timeout, duration),
    key!("write-timeout", Stream, write_timeout, duration),
    key!("min-bytes-per-second", Stream, min_bytes_per_second, size),
    key!("min-rate-grace", Stream, min_rate_grace, duration),
    key!("linger-timeout", Stream, linger_timeout, duration),
    key!("linger-limit", Stream, linger_limit, duration),
    key!("linger-draining", Stream, linger_draining, duration),
    key!("linger-bytes", Stream, linger_bytes, size),
];

fn parse_list(text: &str) -> Result<NetworkList, String> {
    match text {
        "" => Ok(NetworkList::default()),
        text => text.parse().map_err(|error| format!("{error}")),
    }
}

fn parse_ip(text: &str) -> Result<IpAddr, String> {
    text.parse()
        .map_err(|_| format!("{text:?}: expected an address of IP"))
}

fn parse_ttl(text: &str) -> Result<u32, String> {
    let number = parse_number(text)?;
    u32::try_from(number).map_err(|_| "ttl must be from 1 to 255".to_owned())
}

fn parse_text(text: &str) -> Result<String, String> {
    Ok(text.to_owned())
}

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
        let query = "dual-stack=true&keepalive=60s&sessions=true&backlog=4096&nodelay=false&reuse-address=true&\
                     reuse-port=false&send-buffer=64KiB&receive-buffer=100&mode=0660&group=www&\
                     trusted-proxies=10.0.0.0/8,unix&interface=eth0&source=192.0.2.1&ttl=3&loopback=false&broadcast=true&packet-info=true&gro=true&\
                     high-water=2KiB&low-water=1KiB&max-output=4KiB&max-reply=8KiB&max-posted=3KiB&max-frame=1MiB&max-line=80&\
                     handshake-timeout=1s&first-message-timeout=2s&message-timeout=3s&\
                     idle-timeout=0&write-timeout=250ms&min-bytes-per-second=1KiB&min-rate-grace=5s&linger-timeout=0&linger-limit=0&\
                     linger-draining=1ms&linger-bytes=0";
        let (options, _) = ListenOptions::parse(query, &[]).unwrap();
        assert_eq!(options.to_string(), query);
        assert_eq!(query.split('&').count(), KEYS.len());
    }
}
