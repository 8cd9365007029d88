//! What to listen on: an address with options.

use std::str::FromStr;
use std::{fmt, io, mem};

use super::listen_options::OtherOptions;
use super::passed_socket::PassedSocket;
use super::percent::{Encoded, decode};
use super::{Address, AddressError, ListenOptions, check_path, is_name, parse_path, split_scheme};

/// What to listen on: an [`Address`] with [options](ListenOptions) of this listener alone.
///
/// It is parsed from a URI with a query, and displayed as one:
///
/// - `tcp://[::]:9999?dual-stack=true&keepalive=60s&backlog=4096`
/// - `unix:///run/x.sock?mode=0660&group=www`
/// - `unix://@name?backlog=16`, a name outside the file system, on Linux
/// - `vsock://:9999?backlog=16`, for all virtual machines and their host, on Linux
/// - `tcp://:9999` or `tcp://*:9999`: all addresses of both families. On a system without IPv6 it is
///   all IPv4 addresses. The same goes for `udp`.
///
/// A `Listen` that is made [from](From) an address has no options, so everything is as in the
/// server's [`Config`](crate::Config).
///
/// # Question marks and percent signs
/// The query begins at the first question mark. Without a query, the text is parsed like an
/// [`Address`]: a percent sign in a path has no special meaning. With a query, even an empty one,
/// `%3F` in the path of a Unix socket is a question mark, `%25` is a percent sign, and every other
/// `%XX` is the byte with that number. So the path `/run/what?` is written `unix:///run/what%3F?`.
/// Values of options are percent-encoded in the same way. A plus sign is a plus sign.
///
/// ```
/// use serveloop::Listen;
///
/// let listen: Listen = "tcp://[::]:9999?dual-stack=true&keepalive=60s".parse()?;
/// assert_eq!(listen.address().to_string(), "tcp://[::]:9999");
/// assert_eq!(listen.options().dual_stack, Some(true));
/// assert_eq!(listen.to_string(), "tcp://[::]:9999?dual-stack=true&keepalive=60s");
///
/// let error = "tcp://[::]:9999?backlogs=5".parse::<Listen>().unwrap_err();
/// assert!(error.to_string().contains("the nearest is backlog"));
/// # Ok::<(), serveloop::net::AddressError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Listen {
    address: Address,
    /// Whether the text had no host, which means all addresses of the families that there are.
    is_every: bool,
    options: ListenOptions,
    /// The socket, if another program has bound it.
    socket: Option<PassedSocket>,
}

impl Listen {
    /// Creates a listener at `address`. Whether the options fit the address is checked when it is
    /// bound.
    #[must_use]
    pub fn new(address: Address, options: ListenOptions) -> Self {
        Self {
            address,
            is_every: false,
            options,
            socket: None,
        }
    }

    /// Creates a listener on a socket that is bound to `address` already.
    pub(crate) fn on_socket(
        address: Address,
        options: ListenOptions,
        socket: PassedSocket,
    ) -> Self {
        Self {
            socket: Some(socket),
            ..Self::new(address, options)
        }
    }

    /// Returns the socket that another program has bound, if there is one.
    pub(crate) fn socket(&self) -> Option<&PassedSocket> {
        self.socket.as_ref()
    }

    /// Parses a text and, if the host is a name, looks it up like [`Address::resolve`]. An interface
    /// may have a name too, as in `tcp://[fe80::1%eth0]:9999`. All results have the same options.
    ///
    /// ```
    /// use serveloop::Listen;
    ///
    /// for listen in Listen::resolve("tcp://localhost:9999?keepalive=5m")? {
    ///     assert!(listen.to_string().ends_with(":9999?keepalive=300s"));
    /// }
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// Returns `InvalidInput` if the text is not a `Listen`, `NotFound` if the name has no address,
    /// and the resolver's error if the lookup fails.
    pub fn resolve(text: &str) -> io::Result<Vec<Self>> {
        Self::resolve_with(text, &[]).map(|(listens, _)| listens)
    }

    /// Works like [`resolve`](Self::resolve) for a program that has options of its own in the
    /// query. Those with a name among `others` are returned with their decoded values, in the order
    /// of the text. They are part of no `Listen`.
    ///
    /// ```
    /// use serveloop::Listen;
    ///
    /// let text = "tcp://127.0.0.1:9999?backlog=16&greeting=good%20day";
    /// let (listens, others) = Listen::resolve_with(text, &["greeting"])?;
    /// assert_eq!(listens[0].to_string(), "tcp://127.0.0.1:9999?backlog=16");
    /// assert_eq!(others, [("greeting".to_owned(), "good day".to_owned())]);
    ///
    /// let error = Listen::resolve_with("tcp://127.0.0.1:9999?greting=hi", &["greeting"]);
    /// assert!(error.unwrap_err().to_string().contains("the nearest is greeting"));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// Fails like [`resolve`](Self::resolve). An option of the `others` may be given several times,
    /// unless the program says otherwise.
    pub fn resolve_with(text: &str, others: &[&str]) -> io::Result<(Vec<Self>, OtherOptions)> {
        let mut written = Written::of(text, others)?;
        let given = mem::take(&mut written.others);
        written.resolve().map(|listens| (listens, given))
    }

    /// Returns the address. For all addresses of both families it is `[::]`.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Returns the options that differ from the server's configuration.
    #[must_use]
    pub fn options(&self) -> &ListenOptions {
        &self.options
    }

    /// Returns the options, to change them.
    ///
    /// ```
    /// use serveloop::Listen;
    ///
    /// let mut listen: Listen = "tcp://127.0.0.1:9999".parse()?;
    /// listen.options_mut().trusted_proxies = Some("10.0.0.0/8".parse().unwrap());
    /// assert_eq!(listen.to_string(), "tcp://127.0.0.1:9999?trusted-proxies=10.0.0.0/8");
    /// # Ok::<(), serveloop::net::AddressError>(())
    /// ```
    pub fn options_mut(&mut self) -> &mut ListenOptions {
        &mut self.options
    }

    /// Returns whether the families are those that the system has.
    pub(crate) fn is_every(&self) -> bool {
        self.is_every
    }

    /// Returns an error if the options do not fit the address.
    pub(crate) fn check(&self) -> Result<(), AddressError> {
        self.problem()
            .map_err(|problem| AddressError::new(&self.to_string(), problem))
    }

    /// Returns an error if an option does not fit a listener of datagrams that has no sessions.
    pub(crate) fn check_lasting(&self) -> Result<(), AddressError> {
        self.options
            .check_lasting()
            .map_err(|problem| AddressError::new(&self.to_string(), problem))
    }

    fn problem(&self) -> Result<(), String> {
        if self.is_every && self.options.dual_stack == Some(false) {
            let problem = "dual-stack=false needs an address, [::] or 0.0.0.0";
            return Err(problem.to_owned());
        }
        // A former process of this server has bound its sockets with these options.
        if self.socket.as_ref().is_some_and(|it| it.former.is_none()) {
            self.options.check_bound()?;
        }
        self.options.check(&self.address)
    }
}

impl From<Address> for Listen {
    fn from(address: Address) -> Self {
        Self::new(address, ListenOptions::default())
    }
}

impl FromStr for Listen {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let written = Written::of(text, &[])?;
        let (address, is_every) = written.address()?;
        written.listen(address, is_every)
    }
}

impl fmt::Display for Listen {
    /// Writes the URI. A path is escaped so that it stays on one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let has_query = !self.options.is_empty();
        match &self.address {
            Address::Tcp(addr) if self.is_every => write!(f, "tcp://:{}", addr.port())?,
            Address::Udp(addr) if self.is_every => write!(f, "udp://:{}", addr.port())?,
            Address::Tcp(_) | Address::Udp(_) | Address::Vsock(_) => self.address.fmt(f)?,
            Address::Unix(_) | Address::Unixgram(_) => {
                let shown = self.address.to_string();
                let is_read_back = shown.parse().as_ref() == Ok(&self.address);
                if !has_query && is_read_back && !shown.contains('?') {
                    return f.write_str(&shown);
                }
                encode_place(&self.address, f)?;
                f.write_str("?")?;
                return self.options.fmt(f);
            }
        }

        if has_query {
            write!(f, "?{}", self.options)?;
        }
        Ok(())
    }
}

/// A text whose query has been read.
struct Written<'a> {
    text: &'a str,
    /// What is before the query.
    place: &'a str,
    has_query: bool,
    options: ListenOptions,
    /// The options that are the caller's.
    others: OtherOptions,
}

impl<'a> Written<'a> {
    fn of(text: &'a str, others: &[&str]) -> Result<Self, AddressError> {
        let (place, query) = match text.split_once('?') {
            Some((place, query)) => (place, Some(query)),
            None => (text, None),
        };

        let (scheme, _) = split_scheme(place).map_err(|error| error.of(text))?;
        let query_options = ListenOptions::parse(query.unwrap_or_default(), others);
        let (options, others) = query_options.map_err(|mut problem| {
            // The question mark may have been meant as a part of the path.
            if matches!(scheme, "unix" | "unixgram") {
                problem += "; a question mark in a path is written %3F, with a ? at the end";
            }
            AddressError::new(text, problem)
        })?;

        Ok(Self {
            text,
            place,
            has_query: query.is_some(),
            options,
            others,
        })
    }

    /// Looks the host up if it is a name.
    fn resolve(&self) -> io::Result<Vec<Listen>> {
        let error = match self.address() {
            Ok((address, is_every)) => return Ok(vec![self.listen(address, is_every)?]),
            Err(error) => error,
        };

        if !matches!(split_scheme(self.place), Ok(("tcp" | "udp", _))) {
            return Err(error.into());
        }
        let found = Address::resolve(self.place)?;
        let listens = found.into_iter().map(|address| self.listen(address, false));
        Ok(listens.collect::<Result<_, _>>()?)
    }

    /// Returns the address, if its host is no name, and whether it is that of all families.
    fn address(&self) -> Result<(Address, bool), AddressError> {
        if let Some(address) = every(self.place) {
            return Ok((address, true));
        }
        let address = if self.has_query {
            parse_place(self.place)
        } else {
            self.place.parse()
        };
        let address = address.map_err(|error| error.of(self.text))?;
        Ok((address, false))
    }

    fn listen(&self, address: Address, is_every: bool) -> Result<Listen, AddressError> {
        let listen = Listen {
            address,
            is_every,
            options: self.options.clone(),
            socket: None,
        };
        match listen.problem() {
            Ok(()) => Ok(listen),
            Err(problem) => Err(AddressError::new(self.text, problem)),
        }
    }
}

/// Returns the address `[::]` for a URI without a host, or with `*` for one.
fn every(place: &str) -> Option<Address> {
    let (scheme, rest) = place.split_once("://")?;
    let port = rest.strip_prefix('*').unwrap_or(rest).strip_prefix(':')?;
    let has_families = matches!(scheme, "tcp" | "udp");
    let address = format!("{scheme}://[::]:{port}").parse().ok();
    address.filter(|_| has_families)
}

/// Parses a URI whose query was split off. A path is percent-encoded.
fn parse_place(place: &str) -> Result<Address, AddressError> {
    let (scheme, rest) = split_scheme(place)?;
    let make = match scheme {
        "unix" => Address::Unix,
        "unixgram" => Address::Unixgram,
        _ => return place.parse(),
    };

    let path = decode(rest).map_err(|problem| AddressError::new(place, problem))?;
    // An encoded `@` is part of a path, and does not make a name of it.
    if rest.starts_with('@') {
        return parse_path(place, &path).map(make);
    }
    check_path(place, &path)?;
    Ok(make(path.into()))
}

/// Writes an address of a Unix socket in the way that [`parse_place`] reads.
fn encode_place(address: &Address, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let scheme = if address.is_datagram() {
        "unixgram"
    } else {
        "unix"
    };
    let Some(path) = address.path() else {
        return Ok(());
    };

    let bytes = path.as_os_str().as_encoded_bytes();
    let (mark, bytes) = match bytes {
        [0, name @ ..] if is_name(path) => ("@", name),
        [b'@', rest @ ..] => ("%40", rest),
        _ => ("", bytes),
    };
    write!(f, "{scheme}://{mark}{}", Encoded(bytes))
}
