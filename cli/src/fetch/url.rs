//! URLs with the scheme http or https, as far as a client needs to understand them: which host to ask, and
//! for what.
//!
//! Targets are escaped where needed, as browsers do it (the WHATWG URL standard).

use std::fmt;

use crate::fetch::host::Host;

/// What is said of every other scheme.
const OTHER_SCHEME: &str = "only http:// and https:// URLs can be fetched";

/// How a URL's server is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    Http,
    /// HTTP within TLS.
    Https,
}

impl Scheme {
    fn parse(name: &str) -> Option<Self> {
        match name {
            "http" => Some(Self::Http),
            "https" => Some(Self::Https),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// Returns the port of a URL that has none.
    fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// An http:// or https:// URL without its fragment, which is never sent.
#[derive(Clone, Debug)]
pub(crate) struct Url {
    scheme: Scheme,
    credentials: Option<(String, String)>,
    host: Host,
    port: Option<u16>,
    path: String,
    query: Option<String>,
}

impl Url {
    /// Parses a URL. Blanks around it, and line ends and tabs within it, are ignored.
    ///
    /// # Errors
    /// Fails if `text` is not a valid URL with the scheme http or https.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let text = trimmed(text);
        let expected = "expected a URL that begins with http:// or https://";
        let (scheme, rest) = split_scheme(&text).ok_or(expected)?;
        match Scheme::parse(&scheme) {
            Some(scheme) => Self::after_scheme(scheme, rest),
            None if rest.starts_with("//") => Err(OTHER_SCHEME),
            None => Err(expected),
        }
    }

    /// Resolves `text`, an absolute or relative reference, against this URL.
    ///
    /// # Errors
    /// Fails if the result is not a valid URL with the scheme http or https.
    pub(crate) fn join(&self, text: &str) -> Result<Self, &'static str> {
        let text = trimmed(text);
        let rest = match split_scheme(&text) {
            None => &text,
            Some((scheme, rest)) => match Scheme::parse(&scheme) {
                None => return Err(OTHER_SCHEME),
                Some(scheme) if scheme == self.scheme && !has_slashes(rest, 2) => rest,
                Some(scheme) => return Self::after_scheme(scheme, rest),
            },
        };
        if has_slashes(rest, 2) {
            return Self::after_scheme(self.scheme, rest);
        }

        let mut joined = self.clone();
        let (path, query) = split_query(rest);
        if !path.is_empty() {
            let folder = self.path.rsplit_once('/').map_or("", |(folder, _)| folder);
            joined.path = match has_slashes(path, 1) {
                true => to_path(path),
                false => to_path(&format!("{folder}/{path}")),
            };
        }
        if !path.is_empty() || query.is_some() {
            joined.query = query.map(to_query);
        }
        Ok(joined)
    }

    fn after_scheme(scheme: Scheme, rest: &str) -> Result<Self, &'static str> {
        let rest = rest.trim_start_matches(['/', '\\']);
        let end = rest.find(['/', '\\', '?', '#']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        let (credentials, place) = match authority.rsplit_once('@') {
            Some((credentials, place)) => (credentials, place),
            None => ("", authority),
        };

        let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));

        let (host, port) = split_port(place)?;
        let (path, query) = split_query(rest);
        Ok(Self {
            scheme,
            credentials: (!credentials.is_empty()).then(|| (user.to_owned(), password.to_owned())),
            host: Host::parse(host)?,
            port,
            path: to_path(path),
            query: query.map(to_query),
        })
    }

    /// Returns user and password as they are written, without decoding percent signs.
    pub(crate) fn credentials(&self) -> Option<(&str, &str)> {
        let credentials = self.credentials.as_ref();
        credentials.map(|(user, password)| (&**user, &**password))
    }

    pub(crate) fn scheme(&self) -> Scheme {
        self.scheme
    }

    pub(crate) fn host(&self) -> &Host {
        &self.host
    }

    /// Returns the port, if the URL has one.
    pub(crate) fn port(&self) -> Option<u16> {
        self.port
    }

    /// Returns the port to connect to.
    pub(crate) fn port_in_use(&self) -> u16 {
        self.port.unwrap_or(self.scheme.port())
    }

    /// Returns host and port as a request names them, without the default port.
    pub(crate) fn authority(&self) -> String {
        match self.port {
            Some(port) if port != self.scheme.port() => format!("{}:{port}", self.host),
            _ => self.host.to_string(),
        }
    }

    /// Returns path and query, as a request names them.
    pub(crate) fn target(&self) -> String {
        match &self.query {
            Some(query) => format!("{}?{query}", self.path),
            None => self.path.clone(),
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.scheme.name();
        write!(f, "{scheme}://{}{}", self.authority(), self.target())
    }
}

fn trimmed(text: &str) -> String {
    let text = text.trim_matches(|c| c <= ' ');
    text.replace(['\t', '\n', '\r'], "")
}

/// Splits a URL into its scheme, in lower case, and what follows the colon.
pub(crate) fn split_scheme(text: &str) -> Option<(String, &str)> {
    let (scheme, rest) = text.split_once(':')?;
    let is_scheme = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    let begins = scheme.starts_with(|c: char| c.is_ascii_alphabetic());
    (begins && scheme.chars().all(is_scheme)).then(|| (scheme.to_ascii_lowercase(), rest))
}

/// Returns whether `text` begins with at least `count` slashes. A backslash counts as a slash.
fn has_slashes(text: &str, count: usize) -> bool {
    let slashes = text.bytes().take_while(|byte| matches!(byte, b'/' | b'\\'));
    slashes.count() >= count
}

fn split_port(place: &str) -> Result<(&str, Option<u16>), &'static str> {
    // Colons within brackets belong to an IPv6 address.
    let address = if place.starts_with('[') {
        place.rfind(']').unwrap_or(place.len())
    } else {
        0
    };

    let Some(colon) = place[address..].find(':').map(|at| address + at) else {
        return Ok((place, None));
    };

    let (host, port) = (&place[..colon], &place[colon + 1..]);
    let port = match port {
        "" => None,
        _ if !port.bytes().all(|byte| byte.is_ascii_digit()) => return Err("invalid port number"),
        _ => Some(port.parse().map_err(|_| "invalid port number")?),
    };
    Ok((host, port))
}

/// Splits into the path and the query, if there is one. The fragment is dropped.
fn split_query(text: &str) -> (&str, Option<&str>) {
    let text = text.split('#').next().unwrap_or_default();
    match text.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (text, None),
    }
}

/// Normalizes a path: it begins with a slash, and `.` and `..` are resolved.
fn to_path(text: &str) -> String {
    let mut names: Vec<&str> = Vec::new();
    let text = text.strip_prefix(['/', '\\']).unwrap_or(text);

    let mut parts = text.split(['/', '\\']).peekable();
    while let Some(part) = parts.next() {
        let is_last = parts.peek().is_none();
        let plain = part.to_ascii_lowercase().replace("%2e", ".");
        match &*plain {
            ".." => drop(names.pop()),
            "." => {}
            _ => {
                names.push(part);
                continue;
            }
        }
        if is_last {
            names.push("");
        }
    }

    escaped(&format!("/{}", names.join("/")), b" \"#<>?`{}^")
}

fn to_query(text: &str) -> String {
    escaped(text, b" \"#<>'")
}

/// Percent-encodes the bytes of `text` that are not ASCII, are control characters, or are in
/// `special`.
fn escaped(text: &str, special: &[u8]) -> String {
    text.bytes().fold(String::new(), |mut escaped, byte| {
        if byte.is_ascii() && !byte.is_ascii_control() && !special.contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
        escaped
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        Url::parse(text).map_or_else(str::to_owned, |url| url.to_string())
    }

    #[test]
    fn urls_are_brought_into_one_form() {
        for (text, url) in [
            ("http://h", "http://h/"),
            (" HTTP://H:80/A \n", "http://h/A"),
            ("http:h/a", "http://h/a"),
            ("http:/h/a", "http://h/a"),
            ("http:///h/a", "http://h/a"),
            ("http:\\\\h\\a?b\\c", "http://h/a?b\\c"),
            ("http://h:/", "http://h/"),
            ("http://h:00081/", "http://h:81/"),
            ("http://h?a=b#c?d", "http://h/?a=b"),
            ("http://h#a", "http://h/"),
            ("http://h/?", "http://h/?"),
            ("http://h/a/../b/./c", "http://h/b/c"),
            ("http://h/../../a/..", "http://h/"),
            ("http://h/a/.", "http://h/a/"),
            ("http://h/a/%2E%2e/b%2e", "http://h/b%2e"),
            ("http://h//a//", "http://h//a//"),
            ("http://h/...", "http://h/..."),
            (
                "http://h/a b\"<>`{}'?a b'\"",
                "http://h/a%20b%22%3C%3E%60%7B%7D'?a%20b%27%22",
            ),
            ("http://h/%zz%?%", "http://h/%zz%?%"),
            ("http://h/ü\0\u{7f}", "http://h/%C3%BC%00%7F"),
            ("http://h/a\r\nX: y", "http://h/aX:%20y"),
            ("http://u:p@h/@", "http://h/@"),
            ("HTTPS:H:443", "https://h/"),
            ("https://h:80/a", "https://h:80/a"),
            ("http://h:443/a", "http://h:443/a"),
        ] {
            assert_eq!(shown(text), url, "{text}");
        }
    }

    #[test]
    fn what_is_no_url_says_why() {
        for (text, problem) in [
            ("", "begins with http://"),
            ("/a", "begins with http://"),
            ("1:2/a", "begins with http://"),
            ("localhost:80/a", "begins with http://"),
            ("http", "begins with http://"),
            ("http://", "empty host"),
            ("http://:80/", "empty host"),
            ("http://u@/", "empty host"),
            ("http://h:65536/", "invalid port"),
            ("http://h:+1/", "invalid port"),
            ("http://h:a/", "invalid port"),
            ("http://h:1:2/", "invalid port"),
            ("http://[::1]1/", "invalid IPv6 address"),
            ("http://[::1/", "invalid IPv6 address"),
            ("ftp://h/", "only http://"),
            ("file:///a", "only http://"),
            ("https://", "empty host"),
            ("wss://h/", "only http://"),
        ] {
            let error = Url::parse(text).unwrap_err();
            assert!(error.contains(problem), "{text}: {error}");
        }
    }

    #[test]
    fn a_reference_leaves_out_what_is_the_same() {
        let base = Url::parse("http://h:81/a/b?c").unwrap();
        for (text, url) in [
            ("", "http://h:81/a/b?c"),
            ("#d", "http://h:81/a/b?c"),
            ("d", "http://h:81/a/d"),
            ("d?e", "http://h:81/a/d?e"),
            ("?e", "http://h:81/a/b?e"),
            ("../d", "http://h:81/d"),
            (".", "http://h:81/a/"),
            ("/d:e", "http://h:81/d:e"),
            ("http:d", "http://h:81/a/d"),
            ("http:/d", "http://h:81/d"),
            ("//i/d", "http://i/d"),
            ("\\\\i/d", "http://i/d"),
            ("http://i:82", "http://i:82/"),
            (" d\r\n", "http://h:81/a/d"),
            ("https://h/", "https://h/"),
            ("https:d", "https://d/"),
        ] {
            assert_eq!(base.join(text).unwrap().to_string(), url, "{text}");
        }

        let base = Url::parse("https://h:82/a/b").unwrap();
        for (text, url) in [
            ("d", "https://h:82/a/d"),
            ("https:d", "https://h:82/a/d"),
            ("//i/d", "https://i/d"),
            ("http:d", "http://d/"),
        ] {
            assert_eq!(base.join(text).unwrap().to_string(), url, "{text}");
        }

        for text in ["https://", "ftp://h/", "mailto:d", "//", "http://a b/"] {
            assert!(base.join(text).is_err(), "{text}");
        }
    }

    #[test]
    fn users_may_have_colons_and_signs_in_their_passwords() {
        let credentials = |text| {
            let url = Url::parse(text).unwrap();
            let credentials = url.credentials();
            credentials.map(|(user, password)| format!("{user} {password}"))
        };
        assert_eq!(credentials("http://h/"), None);
        assert_eq!(credentials("http://@h/"), None);
        assert_eq!(credentials("http://u@h/").as_deref(), Some("u "));
        assert_eq!(credentials("http://u:p:q@r@h/").as_deref(), Some("u p:q@r"));
        assert_eq!(credentials("http://:p@h/").as_deref(), Some(" p"));
    }
}
