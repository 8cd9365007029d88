//! What is tried with each program: the server's options, and what the client does.

use std::fs;
use std::net::SocketAddr;

use crate::serving::judges::talk::Act;
use crate::serving::judges::tunnel::{NGINX_STREAM, Tunnel};
use crate::serving::judges::{listener, pair, programs};
use crate::support::outside::{require, require_file};
use crate::support::secure::certificate;
use crate::support::sockets::Directory;

/// A program by others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judge {
    Openssl,
    Curl,
    Python,
    Stunnel,
    Haproxy,
    Nginx,
}

impl Judge {
    pub(super) const ALL: [Self; 6] = [
        Self::Openssl,
        Self::Curl,
        Self::Python,
        Self::Stunnel,
        Self::Haproxy,
        Self::Nginx,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Openssl => "openssl",
            Self::Curl => "curl",
            Self::Python => "python",
            Self::Stunnel => "stunnel",
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
        }
    }

    /// Whether the program is there. If not, a test is skipped, or fails.
    #[track_caller]
    pub(super) fn is_there(self) -> bool {
        match self {
            Self::Openssl => require("openssl") && require("timeout"),
            Self::Python => require("python3") && require("timeout"),
            Self::Nginx => require("nginx") && require_file(NGINX_STREAM),
            _ => require(self.name()),
        }
    }

    /// Does what is ordered. Returns what came of it, and a program that still runs.
    pub(super) fn act(self, order: &Order) -> (String, Option<Tunnel>) {
        let mut tunnel = match self {
            Self::Openssl => return (programs::openssl(order), None),
            Self::Curl => return (programs::curl(order), None),
            Self::Python => return (programs::python(order), None),
            Self::Stunnel => Tunnel::stunnel(order),
            Self::Haproxy => Tunnel::haproxy(order),
            Self::Nginx => Tunnel::nginx(order),
        };
        (tunnel.act(order.act), Some(tunnel))
    }
}

/// A case of the table.
pub(super) struct Case {
    pub(super) name: &'static str,
    /// The protocol and its options.
    pub(super) protocol: &'static [&'static str],
    /// What the listener wants of its clients.
    wants: Wants,
    /// What the client shows.
    certificate: Option<&'static str>,
    alpn: Option<&'static str>,
    pub(super) act: Act,
}

#[derive(Clone, Copy)]
enum Wants {
    Nothing,
    Certificate,
    /// An application protocol that no client here has.
    Protocol,
}

const ECHO: Case = Case {
    name: "echo",
    protocol: &["echo"],
    wants: Wants::Nothing,
    certificate: None,
    alpn: None,
    act: Act::Echo,
};

const CERTIFICATE: Case = Case {
    wants: Wants::Certificate,
    ..ECHO
};

pub(super) const CASES: [Case; 10] = [
    ECHO,
    Case {
        name: "frames",
        protocol: &["hello", "--delay", "0", "--framing", "line"],
        act: Act::Frames,
        ..ECHO
    },
    Case {
        name: "half-close",
        act: Act::HalfClose,
        ..ECHO
    },
    Case {
        name: "16 MiB each way, read slowly",
        act: Act::Bulk,
        ..ECHO
    },
    Case {
        name: "client certificate",
        certificate: Some("alice"),
        ..CERTIFICATE
    },
    Case {
        name: "client certificate of a stranger",
        certificate: Some("stranger"),
        ..CERTIFICATE
    },
    Case {
        name: "client certificate expired",
        certificate: Some("expired-client"),
        ..CERTIFICATE
    },
    Case {
        name: "client certificate missing",
        ..CERTIFICATE
    },
    Case {
        name: "ALPN not in common",
        wants: Wants::Protocol,
        alpn: Some("http/1.1"),
        ..ECHO
    },
    Case {
        name: "resumption",
        act: Act::Resume,
        ..ECHO
    },
];

impl Case {
    pub(super) fn listener(&self) -> String {
        listener(&match self.wants {
            Wants::Nothing => String::new(),
            Wants::Certificate => format!("&client-ca={}", certificate("authority.pem")),
            Wants::Protocol => "&alpn=spdy".to_owned(),
        })
    }

    pub(super) fn order(&self, to: SocketAddr, version: &'static str) -> Order {
        Order {
            to,
            version,
            certificate: self.certificate,
            alpn: self.alpn,
            act: self.act,
            directory: Directory::new(),
        }
    }

    /// How many connections the client makes.
    pub(super) fn connections(&self) -> usize {
        match self.act {
            Act::Resume => 2,
            _ => 1,
        }
    }
}

/// What a program is to do, and where.
pub(super) struct Order {
    pub(super) to: SocketAddr,
    /// `1.2` or `1.3`, and no other.
    pub(super) version: &'static str,
    pub(super) certificate: Option<&'static str>,
    pub(super) alpn: Option<&'static str>,
    pub(super) act: Act,
    directory: Directory,
}

impl Order {
    /// A file for this order alone.
    pub(super) fn path(&self, name: &str) -> String {
        self.directory.path(name).display().to_string()
    }

    /// A file with the certificate of this name and its key.
    pub(super) fn bundle(&self, name: &str) -> String {
        let (chain, key) = pair(name);
        let read = |path| fs::read_to_string(path).expect("a certificate");
        let path = self.path("bundle.pem");
        fs::write(&path, read(chain) + &read(key)).expect("a directory");
        path
    }
}
