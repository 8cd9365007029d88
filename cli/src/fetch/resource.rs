//! A resource: a URL that can be fetched, and the request for it.

use std::{fmt, io};

use crate::escaped::Quoted;
use crate::failure::Failure;
use crate::fetch::authority::{split_zone, zoned};
use crate::fetch::host::Host;
use crate::fetch::proxy::Proxy;
use crate::fetch::url::{Scheme, Url};

/// The resource at a URL.
#[derive(Clone, Debug)]
pub(crate) struct Resource {
    url: Url,
    /// The zone of an IPv6 address, if it has one. It is meaningful only on this machine and is
    /// never sent.
    zone: Option<String>,
}

impl Resource {
    /// Parses the URL of a resource.
    ///
    /// # Errors
    /// Fails if it is not a URL, or cannot be fetched.
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        let usage = |problem: &str| Failure::Usage(format!("{text}: {problem}"));
        let (plain, zone) = split_zone(text);
        let url = Url::parse(&plain).map_err(usage)?;
        check(&url).map_err(usage)?;
        Ok(Self { url, zone })
    }

    /// Returns the resource at `location`, to which this one redirects.
    ///
    /// # Errors
    /// Fails if that resource cannot be fetched.
    pub(crate) fn redirect(&self, location: &str) -> Result<Self, Failure> {
        let failed = |problem: &str| {
            let location = Quoted(location.as_bytes());
            let problem = format!("{self}: redirected to {location}: {problem}");
            Failure::from(io::Error::other(problem))
        };
        // With one slash, it would be a path.
        let (plain, zone) = match location.contains("//") {
            true => split_zone(location),
            false => (location.to_owned(), None),
        };
        let url = self.url.join(&plain).map_err(failed)?;
        check(&url).map_err(failed)?;

        let is_same_host = url.host() == self.url.host();
        let own = || self.zone.clone().filter(|_| is_same_host);
        Ok(Self {
            url,
            zone: zone.or_else(own),
        })
    }

    pub(crate) fn url(&self) -> &Url {
        &self.url
    }

    /// Returns whether the connection to the server is encrypted.
    pub(crate) fn is_secure(&self) -> bool {
        self.url.scheme() == Scheme::Https
    }

    /// Returns the name of the server, for which its certificate has to be valid.
    pub(crate) fn server_name(&self) -> String {
        match self.url.host() {
            Host::Name(name) => name.clone(),
            Host::Ip(ip) => ip.to_string(),
        }
    }

    /// Returns the request to a proxy for a connection to the server.
    pub(crate) fn tunnel_request(&self, proxy: &Proxy) -> Vec<u8> {
        format!(
            "CONNECT {place} HTTP/1.1\r\nHost: {place}\r\nUser-Agent: serveloop/{version}\r\n{credentials}\r\n",
            place = format_args!("{}:{}", self.url.host(), self.url.port_in_use()),
            version = env!("CARGO_PKG_VERSION"),
            credentials = proxy.header(),
        )
        .into_bytes()
    }

    /// Returns the address of the server, in the form that the library parses.
    pub(crate) fn place(&self) -> String {
        let host = self.url.host().to_string();
        let port = self.url.port_in_use();
        format!("tcp://{}:{port}", zoned(&host, self.zone.as_deref()))
    }

    /// Returns the request, for the server or for a proxy that forwards it. It is safe to insert the URL, since parsing leaves no line end and no
    /// space in it.
    pub(crate) fn request(&self, proxy: Option<&Proxy>) -> Vec<u8> {
        let host = self.url.authority();
        // A proxy needs the absolute URL of the resource.
        let (whom, credentials) = match proxy {
            Some(proxy) => (format!("http://{host}"), proxy.header()),
            None => (String::new(), String::new()),
        };

        format!(
            "GET {whom}{target} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: serveloop/{version}\r\nAccept: */*\r\n{credentials}Connection: close\r\n\r\n",
            target = self.url.target(),
            version = env!("CARGO_PKG_VERSION"),
        )
        .into_bytes()
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.url.fmt(f)
    }
}

fn check(url: &Url) -> Result<(), &'static str> {
    if url.credentials().is_some() {
        return Err("a user name and password in a URL are not supported");
    }
    if url.scheme() == Scheme::Https && !cfg!(feature = "tls") {
        return Err("https is not supported, because this command was built without TLS");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Resource {
        Resource::parse(url).unwrap()
    }

    fn first_lines(url: &str) -> String {
        let text = String::from_utf8(parse(url).request(None)).unwrap();
        assert!(text.ends_with("\r\nAccept: */*\r\nConnection: close\r\n\r\n"));
        text.lines().take(2).collect::<Vec<_>>().join("|")
    }

    #[test]
    fn requests_name_host_path_and_query() {
        let cases = [
            ("http://example.com", "GET / HTTP/1.1|Host: example.com"),
            ("http://h:80/a?b=c#d", "GET /a?b=c HTTP/1.1|Host: h"),
            ("http://h:8080/a b", "GET /a%20b HTTP/1.1|Host: h:8080"),
            ("http://[::1]:8080/", "GET / HTTP/1.1|Host: [::1]:8080"),
            ("HTTP://h/a\r\nX: y", "GET /aX:%20y HTTP/1.1|Host: h"),
            ("http://[fe80::1%25lo]/a", "GET /a HTTP/1.1|Host: [fe80::1]"),
        ];
        for (url, expected) in cases {
            assert_eq!(first_lines(url), expected);
        }
    }

    #[test]
    fn addresses_are_looked_up_with_their_port_and_zone() {
        for (url, place) in [
            ("http://127.0.0.1/", "tcp://127.0.0.1:80"),
            ("http://[::1]:8080/", "tcp://[::1]:8080"),
            ("http://[fe80::1%25eth0]/a%25b", "tcp://[fe80::1%eth0]:80"),
            ("http://[fe80::1%eth0]:81?%", "tcp://[fe80::1%eth0]:81"),
            ("http:/[fe80::1%25eth0]#[%]", "tcp://[fe80::1%eth0]:80"),
            ("http:///[fe80::1%25eth0]/", "tcp://[fe80::1%eth0]:80"),
        ] {
            assert_eq!(parse(url).place(), place);
        }
    }

    #[test]
    fn what_cannot_be_fetched_is_refused() {
        for url in [
            "https://",
            "ftp://h/",
            "h/a",
            "http://",
            "http://u:p@h/",
            "http://h:99999/",
            "http://[fe80::1%]/",
            "http://[fe80::1%25]/",
        ] {
            let refused = Resource::parse(url);
            assert!(matches!(refused, Err(Failure::Usage(_))), "{url}");
        }
    }

    #[test]
    fn redirections_are_relative_to_where_they_come_from() {
        let from = parse("http://h:81/a/b");
        let to = |location| from.redirect(location).unwrap().to_string();
        assert_eq!(to("c"), "http://h:81/a/c");
        assert_eq!(to("//i/d"), "http://i/d");
        assert!(from.redirect("https://").is_err());
        assert!(from.redirect("file:///etc/passwd").is_err());
        let from = parse("http://[fe80::1%25lo]/a");
        assert_eq!(
            from.redirect("/b").unwrap().place(),
            "tcp://[fe80::1%lo]:80"
        );
        let other = from.redirect("http://[fe80::2]/").unwrap();
        assert_eq!(other.place(), "tcp://[fe80::2]:80");
        for location in ["http://[fe80::2%25eth0]/", "//[fe80::2%eth0]"] {
            let other = from.redirect(location).unwrap();
            assert_eq!(other.place(), "tcp://[fe80::2%eth0]:80", "{location}");
        }
        for location in [
            "http:/[fe80::2%25eth0]",
            "/a:[%25b]",
            "a[b%c]d",
            "?http://[::1%25lo]/",
        ] {
            let same = from.redirect(location).unwrap();
            assert_eq!(same.place(), "tcp://[fe80::1%lo]:80", "{location}");
        }
    }
}
