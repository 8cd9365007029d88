//! Proxies: the choice of the proxy for a request, from the options and the environment.

use std::net::IpAddr;
use std::{env, fmt};

use clap::Args;

use crate::failure::Failure;
use crate::fetch::authority::{split_zone, zoned};
use crate::fetch::host::{Host, unescaped};
use crate::fetch::url::{Scheme, Url, split_scheme};

/// The port of a proxy whose URL has none, as in curl.
const PORT: u16 = 1080;

/// The variables that name a proxy for http:// URLs. The first that is not empty counts. HTTP_PROXY
/// is not among them: a web server sets it for the programs that it runs, from a header of the
/// client.
const NAMES: [&str; 3] = ["http_proxy", "all_proxy", "ALL_PROXY"];

/// The variables that name a proxy for https:// URLs.
const SECURE_NAMES: [&str; 4] = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];

/// The variables that list the hosts to ask without a proxy.
const EXCEPTIONS: [&str; 2] = ["no_proxy", "NO_PROXY"];

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

#[derive(Args, Clone, Debug)]
pub(crate) struct ProxyOptions {
    /// Send requests through this proxy, http://[USER:PASSWORD@]HOST[:PORT], instead of the one that
    /// the environment names. An empty URL turns proxies off
    #[arg(long, value_name = "URL")]
    proxy: Option<String>,
    /// Hosts to ask without a proxy, instead of those that no_proxy lists: names (with all names below
    /// them), addresses and networks, separated by commas. Without HOSTS, or with *, no proxy is used
    #[arg(
        long,
        value_name = "HOSTS",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "*"
    )]
    no_proxy: Option<String>,
}

impl ProxyOptions {
    /// Returns the proxies that the options name, or else the environment.
    pub(crate) fn proxies(&self) -> Proxies {
        let hosts = self.no_proxy.clone();
        let hosts = hosts.or_else(|| environment(&EXCEPTIONS).map(|(_, hosts)| hosts));
        Proxies {
            option: self.proxy.clone().map(|url| ("--proxy", url)),
            exceptions: hosts.unwrap_or_default(),
        }
    }
}

/// Returns the name and the value of the first of these variables that is not empty.
fn environment(names: &[&'static str]) -> Option<(&'static str, String)> {
    let mut values = names.iter().map(|name| (*name, env::var_os(name)));
    values.find_map(|(name, value)| {
        let value = value.filter(|value| !value.is_empty())?;
        Some((name, value.to_string_lossy().into_owned()))
    })
}

/// The proxy, and the hosts that are asked without it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Proxies {
    /// The option that names the proxy instead of a variable, and the proxy's URL.
    option: Option<(&'static str, String)>,
    exceptions: String,
}

impl Proxies {
    /// Returns the proxy for a request for `url`, or `None` if the request goes to the host
    /// directly.
    ///
    /// # Errors
    /// Fails if the proxy's URL is invalid or its scheme is not supported.
    pub(crate) fn of(&self, url: &Url) -> Result<Option<Proxy>, Failure> {
        let variable = || match url.scheme() {
            Scheme::Http => environment(&NAMES),
            Scheme::Https => environment(&SECURE_NAMES),
        };
        let named = self.option.clone().or_else(variable);
        let Some((source, text)) = named.filter(|(_, url)| !url.is_empty()) else {
            return Ok(None);
        };
        if is_exception(url, &self.exceptions) {
            return Ok(None);
        }
        // The message must not show the proxy's password.
        let (_, shown) = text.rsplit_once('@').unwrap_or(("", &text));
        let usage = |problem| Failure::Usage(format!("{source}: {shown:?}: {problem}"));
        Proxy::parse(&text).map(Some).map_err(usage)
    }
}

/// A server that forwards requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Proxy {
    /// The host, including the zone of an IPv6 address, if there is one.
    host: String,
    port: u16,
    /// User and password, encoded in Base64.
    credentials: Option<String>,
}

impl Proxy {
    fn parse(text: &str) -> Result<Self, String> {
        let whole = if has_scheme(text) {
            text.to_owned()
        } else {
            format!("http://{text}")
        };

        let (plain, zone) = split_zone(&whole);
        let scheme = split_scheme(&plain).map(|(scheme, _)| scheme);
        if let Some(scheme) = scheme.filter(|scheme| scheme != "http") {
            return Err(format!(
                "only http:// proxies are supported, not {scheme}; --no-proxy connects without a proxy"
            ));
        }

        let url = Url::parse(&plain)?;
        let credentials = url.credentials().map(|(user, password)| {
            base64(&[&unescaped(user), &b":"[..], &unescaped(password)].concat())
        });
        Ok(Self {
            host: zoned(&url.host().to_string(), zone.as_deref()),
            port: url.port().unwrap_or(PORT),
            credentials,
        })
    }

    /// Returns the address of the proxy, in the form that the library parses.
    pub(crate) fn place(&self) -> String {
        format!("tcp://{}:{}", self.host, self.port)
    }

    /// Returns the header with the credentials, or an empty string if there are none.
    pub(crate) fn header(&self) -> String {
        let credentials = self.credentials.as_ref();
        let header = credentials.map(|base64| format!("Proxy-Authorization: Basic {base64}\r\n"));
        header.unwrap_or_default()
    }
}

impl fmt::Display for Proxy {
    /// Writes the URL of the proxy without its credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}:{}", self.host, self.port)
    }
}

/// Returns whether a proxy's URL begins with a scheme. After `http:` and `https:`, one slash is
/// enough. Anything else before a single slash is a host whose port is missing.
fn has_scheme(text: &str) -> bool {
    let is_web = |(scheme, rest): (&str, &str)| {
        let is_known = ["http", "https"]
            .iter()
            .any(|it| scheme.eq_ignore_ascii_case(it));
        is_known && rest.starts_with('/')
    };
    text.contains("://") || text.split_once(':').is_some_and(is_web)
}

/// Returns whether `hosts` lists the host of `url`.
fn is_exception(url: &Url, hosts: &str) -> bool {
    let port = url.port_in_use();
    hosts
        .split([',', ' ', '\t', '\n'])
        .map(|entry| entry.trim_end_matches('/'))
        .filter(|entry| !entry.is_empty())
        .any(|entry| entry == "*" || matches(url.host(), port, entry))
}

fn matches(host: &Host, port: u16, entry: &str) -> bool {
    match host {
        Host::Ip(ip) => is_within(*ip, port, entry),
        Host::Name(name) => is_below(name, port, entry),
    }
}

/// Returns whether `name` is `entry` or a name below it.
fn is_below(name: &str, port: u16, entry: &str) -> bool {
    let (entry, only) = split_port(entry);
    let entry = entry.trim_start_matches("*.").trim_matches('.');
    let entry = entry.to_ascii_lowercase();
    let name = name.trim_end_matches('.').to_ascii_lowercase();

    let below = name.strip_suffix(&*entry);
    let is_it = below.is_some_and(|below| below.is_empty() || below.ends_with('.'));
    !entry.is_empty() && is_it && only.is_none_or(|only| only == port)
}

/// Returns whether `ip` is `entry`, or an address of that network.
fn is_within(ip: IpAddr, port: u16, entry: &str) -> bool {
    let is_ip = |text: &str| {
        let text = text.trim_start_matches('[').trim_end_matches(']');
        // The zone is ignored: the same address in another zone is hardly meant.
        let text = text.split('%').next().unwrap_or_default();
        text.parse() == Ok(ip)
    };
    let (host, only) = split_port(entry);
    if is_ip(entry) || only == Some(port) && is_ip(host) {
        return true;
    }

    let network = entry.split_once('/').and_then(|(network, bits)| {
        let network = network.trim_start_matches('[').trim_end_matches(']');
        Some((network.parse().ok()?, bits.parse::<u32>().ok()?))
    });

    match (ip, network) {
        (IpAddr::V4(ip), Some((IpAddr::V4(network), bits @ 0..=32))) => {
            let differ = u32::from(ip) ^ u32::from(network);
            differ.leading_zeros() >= bits
        }
        (IpAddr::V6(ip), Some((IpAddr::V6(network), bits @ 0..=128))) => {
            let differ = u128::from(ip) ^ u128::from(network);
            differ.leading_zeros() >= bits
        }
        _ => false,
    }
}

/// Splits an entry into its host and its port, if it has one.
fn split_port(entry: &str) -> (&str, Option<u16>) {
    let split = entry.rsplit_once(':');
    let split = split.filter(|(host, _)| !host.contains(':') || host.ends_with(']'));
    match split.map(|(host, port)| (host, port.parse().ok())) {
        Some((host, Some(port))) => (host, Some(port)),
        _ => (entry, None),
    }
}

fn base64(bytes: &[u8]) -> String {
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);

        for digit in 0..4 {
            let value = bits >> (18 - 6 * digit) & 0x3f;
            let is_there = digit <= group.len();
            text.push(if is_there {
                char::from(BASE64[value as usize])
            } else {
                '='
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_padded() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("Aladdin:open sesame", "QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn proxies_are_written_in_several_ways() {
        for (text, place) in [
            ("http://proxy:3128", "tcp://proxy:3128"),
            ("http://proxy:3128/", "tcp://proxy:3128"),
            ("proxy:3128", "tcp://proxy:3128"),
            ("127.0.0.1:80", "tcp://127.0.0.1:80"),
            ("http://[::1]:80/", "tcp://[::1]:80"),
            ("proxy", "tcp://proxy:1080"),
            ("http://me:80@proxy", "tcp://proxy:1080"),
            ("http://[::1]", "tcp://[::1]:1080"),
            ("proxy:080", "tcp://proxy:80"),
            ("http://proxy:00080", "tcp://proxy:80"),
            ("http://proxy:80?", "tcp://proxy:80"),
            ("http://proxy:80#", "tcp://proxy:80"),
            ("http://proxy:80\\", "tcp://proxy:80"),
            ("proxy:80?a", "tcp://proxy:80"),
            ("http:/proxy:3128", "tcp://proxy:3128"),
            ("HTTP:/proxy:80/", "tcp://proxy:80"),
            ("http:///proxy:80", "tcp://proxy:80"),
            ("http://[fe80::1%25lo]:80", "tcp://[fe80::1%lo]:80"),
            ("http:/[fe80::1%lo]", "tcp://[fe80::1%lo]:1080"),
            ("[fe80::1%25lo]:3128/", "tcp://[fe80::1%lo]:3128"),
        ] {
            let proxy = Proxy::parse(text).unwrap();
            assert_eq!(proxy.place(), place, "{text}");
        }

        let proxy = Proxy::parse("http://Al%61ddin:open%20sesame@proxy:1").unwrap();
        assert_eq!(proxy.to_string(), "http://proxy:1");
        let header = "Proxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n";
        assert_eq!(proxy.header(), header);

        for text in [
            "socks5://proxy:1",
            "https://proxy",
            "https:/proxy",
            "http://",
            "proxy:99999",
        ] {
            assert!(Proxy::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn exceptions_are_names_addresses_and_networks() {
        let is_exception = |url: &str, hosts: &str| is_exception(&Url::parse(url).unwrap(), hosts);
        for (url, hosts) in [
            ("http://example.com/", "example.com"),
            ("http://www.EXAMPLE.com./", "a.org, .example.COM"),
            ("http://www.example.com/", "*.example.com"),
            ("http://www.example.com/", "b,example.com. c"),
            ("http://example.com:81/", "example.com:81"),
            ("http://anything/", "a *"),
            ("http://127.0.0.1/", "localhost,127.0.0.1"),
            ("http://127.0.0.1/", "127.0.0.1/"),
            ("http://127.0.0.1:81/", "127.0.0.1:81/"),
            ("http://www.example.com/", "example.com/"),
            ("http://[fe80::1]/", "[fe80::1%25lo], fe80::2"),
            ("http://[fe80::1]/", "fe80::1%lo"),
            ("http://[fd00::1]/", "[fd00::1]/"),
            ("http://10.9.8.7/", "10.0.0.0/8"),
            ("http://10.9.8.7/", "0.0.0.0/0"),
            ("http://10.9.8.7:80/", "10.9.8.7:80"),
            ("http://[fd00::1]/", "fd00::1"),
            ("http://[fd00::1]:81/", "[fd00::1]:81"),
            ("http://[fd00::1]/", "fd00::/8"),
        ] {
            assert!(is_exception(url, hosts), "{url} {hosts}");
        }

        for (url, hosts) in [
            ("http://example.com/", ""),
            ("http://example.com/", "www.example.com"),
            ("http://notexample.com/", "example.com"),
            ("http://example.com/", "example.com:81"),
            ("http://example.com/", ". ,,"),
            ("http://11.9.8.7/", "10.0.0.0/8"),
            ("http://10.9.8.7/", "10.0.0.0/33"),
            ("http://10.9.8.7/", "8.7"),
            ("http://[fe00::1]/", "fd00::/8"),
        ] {
            assert!(!is_exception(url, hosts), "{url} {hosts}");
        }
    }
}
