//! TLS on a listener: its options, and the layer around the protocols of its clients.

use std::{fmt, io};

use serveloop::Peer;
use serveloop::layer::Layered;
use serveloop::layer::tls::{ClientCertificates, ServerTls, ServerTlsBuilder, Tls, TlsInfo};
use serveloop::protocols::counted;

use crate::escaped::{Escaped, on_one_line};
use crate::failure::Failure;
use crate::logger::TARGET;
use crate::serving::AccessLog;
use crate::serving::boxed_factory::Boxed;

/// The TLS of a listener. All clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct ListenerTls {
    uri: String,
    tls: ServerTls,
}

impl ListenerTls {
    /// Reads the files that the options of the listener at `uri` name.
    pub(crate) fn load(uri: &str, given: &[(String, String)]) -> Result<Self, Failure> {
        let about = |problem| Failure::Usage(format!("{uri:?}: {problem}"));
        let mut options = Options::default();
        for (name, value) in given {
            options.set(name, value).map_err(about)?;
        }

        let builder = options.builder().map_err(about)?;
        let tls = builder.build().map_err(io::Error::other)?;
        Ok(Self {
            uri: uri.to_owned(),
            tls,
        })
    }

    /// Reads the files again. Where that fails, what was there before stays in use.
    pub(crate) fn reload(&self) {
        let uri = on_one_line(&self.uri);
        match self.tls.reload() {
            Ok(()) => log::info!(target: TARGET, "{uri}: the certificates were read again"),
            Err(error) => {
                let problem = on_one_line(&error.to_string());
                log::error!(target: TARGET, "{uri}: {problem}; what was read before stays in use");
            }
        }
    }

    /// Returns the protocol of a client that `build` makes after the handshake, inside TLS.
    pub(super) fn around(
        &self,
        mut build: impl FnMut(&Peer) -> Option<Boxed> + Send + 'static,
    ) -> Boxed {
        let build = move |peer: &Peer, info: &TlsInfo| {
            AccessLog.note(peer, format_args!("{}", Shown(info)));
            build(peer)
        };
        Box::new(Layered::new(Tls::server(&self.tls), build))
    }
}

/// The options of one listener, as they are written.
#[derive(Default)]
struct Options<'a> {
    certificates: Vec<&'a str>,
    keys: Vec<&'a str>,
    authorities: Option<&'a str>,
    wanted: Option<ClientCertificates>,
    alpn: Option<&'a str>,
}

impl<'a> Options<'a> {
    fn set(&mut self, name: &str, value: &'a str) -> Result<(), String> {
        if value.is_empty() {
            return Err(format!("{name} is empty"));
        }
        if name == "alpn" {
            check_names(value)?;
        }

        let is_new = match name {
            "cert" => {
                self.certificates.push(value);
                true
            }
            "key" => {
                self.keys.push(value);
                true
            }
            "client-ca" => self.authorities.replace(value).is_none(),
            "client-auth" => self.wanted.replace(parse(value)?).is_none(),
            _ => self.alpn.replace(value).is_none(),
        };
        match is_new {
            true => Ok(()),
            false => Err(format!("{name} is given twice")),
        }
    }

    fn builder(&self) -> Result<ServerTlsBuilder, String> {
        let (certificates, keys) = (self.certificates.len(), self.keys.len());
        let problem = if certificates == 0 && keys == 0 {
            "tls needs cert and key, for example tls://:8443?cert=cert.pem&key=key.pem".to_owned()
        } else if certificates == 0 {
            "key needs cert, the file of its certificate".to_owned()
        } else if keys == 0 {
            "cert needs key, the file of its private key".to_owned()
        } else if certificates != keys {
            format!(
                "each cert has its key, in the same order, but cert is given {} and key {}",
                counted(certificates, "time", "times"),
                counted(keys, "time", "times")
            )
        } else if self.wanted.is_some() && self.authorities.is_none() {
            "client-auth needs client-ca, the file of the authorities".to_owned()
        } else {
            return Ok(self.complete());
        };
        Err(problem)
    }

    fn complete(&self) -> ServerTlsBuilder {
        let pairs = self.certificates.iter().zip(&self.keys);
        let mut builder = pairs.fold(ServerTls::builder(), |builder, (chain, key)| {
            builder.certificate(*chain, *key)
        });
        if let Some(authorities) = self.authorities {
            let wanted = self.wanted.unwrap_or(ClientCertificates::Required);
            builder = builder.client_certificates(wanted, authorities);
        }

        let names = self.alpn.into_iter().flat_map(|names| names.split(','));
        names.fold(builder, |builder, name| builder.alpn(name))
    }
}

/// Checks the names of application protocols, whose lengths have one byte on the wire.
fn check_names(value: &str) -> Result<(), String> {
    let is_bad = |name: &&str| name.is_empty() || name.len() > 255;
    match value.split(',').find(is_bad) {
        Some(name) => Err(format!("alpn: a name has 1 to 255 bytes, not {name:?}")),
        None => Ok(()),
    }
}

fn parse(value: &str) -> Result<ClientCertificates, String> {
    match value {
        "optional" => Ok(ClientCertificates::Optional),
        "required" => Ok(ClientCertificates::Required),
        _ => Err(format!(
            "client-auth: expected optional or required, not {value:?}"
        )),
    }
}

/// Displays what a handshake has shown, for the log.
struct Shown<'a>(&'a TlsInfo);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let info = self.0;
        write!(f, "{}", info.version())?;
        if let Some(alpn) = info.alpn() {
            write!(f, ", ALPN {}", Escaped(alpn))?;
        }
        if let Some(name) = info.server_name() {
            write!(f, ", server name {}", on_one_line(name))?;
        }
        if let Some(subject) = info.peer_subject() {
            write!(f, ", client {}", on_one_line(&subject))?;
        }
        if info.is_resumed() {
            f.write_str(", resumed")?;
        }
        Ok(())
    }
}
