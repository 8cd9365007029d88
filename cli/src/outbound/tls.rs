//! TLS around the protocol of an outbound connection, and what its failures mean.

use std::io;

use jiff::Timestamp;
use serveloop::layer::tls::rustls::client::Resumption;
use serveloop::layer::tls::rustls::pki_types::UnixTime;
use serveloop::layer::tls::rustls::{AlertDescription, CertificateError, Error, HandshakeType};
use serveloop::layer::tls::{ClientTls, ClientTlsBuilder, Tls, TlsError};
use serveloop::layer::{Event, Layered, Observe, Observed};
use serveloop::{CloseReason, Deadline, Protocol, ProtocolError};
use serveloop_measure::{Stage, Tickets};

use crate::failure::Failure;
use crate::outbound::Ending;
use crate::outbound::tls_options::{Sessions, TlsOptions};

/// What to do about a server that is not trusted.
const TRUST: &str = "--ca FILE trusts what is in FILE, --insecure trusts every server";

/// How to show a certificate.
const SHOW: &str = "--cert FILE --key FILE";

const NOT_COMPLETE: &str = "the TLS handshake was not complete";

/// The servers that are trusted, and our own certificate.
#[derive(Clone, Debug)]
pub(crate) struct Trust(ClientTls);

/// TLS for connections to one server.
#[derive(Clone, Debug)]
pub(crate) struct Secured {
    tls: ClientTls,
    name: String,
}

impl Trust {
    /// Reads the files that `options` name, or the system's. `alpn` is the application protocol to
    /// offer.
    ///
    /// # Errors
    /// Fails if a file cannot be read, or does not hold what it should.
    pub(crate) fn new(options: &TlsOptions, alpn: Option<&str>) -> Result<Self, Failure> {
        let mut builder = Self::builder(options);
        if let Some(alpn) = alpn {
            builder = builder.alpn(alpn);
        }
        builder.build().map(Self).map_err(unusable)
    }

    fn builder(options: &TlsOptions) -> ClientTlsBuilder {
        let mut builder = ClientTls::builder();
        for file in &options.ca {
            builder = builder.roots(file.clone());
        }
        if options.insecure {
            builder = builder.insecure();
        }
        if let Some(chain) = &options.cert {
            let key = options.key.as_ref().unwrap_or(chain);
            builder = builder.certificate(chain.clone(), key.clone());
        }
        builder
    }

    /// Returns TLS for connections to the server `name`, a host name or an IP address.
    ///
    /// # Errors
    /// Fails if it is neither.
    pub(crate) fn server(&self, name: &str) -> Result<Secured, Failure> {
        let name = as_certified(name);
        Tls::client(&self.0, name).map_err(no_name)?;
        Ok(Secured {
            tls: self.0.clone(),
            name: name.to_owned(),
        })
    }
}

/// Returns TLS for the connections of a load to the server `name`, a host name or an IP address.
///
/// # Errors
/// Fails if it is neither, or like [`Trust::new`].
pub(crate) fn secured_load(
    options: &TlsOptions,
    name: &str,
    sessions: Sessions,
) -> Result<serveloop_measure::Secured, Failure> {
    let tickets = match sessions {
        Sessions::New => None,
        Sessions::Resumed(most) => Some(Tickets::new(most)),
    };
    let resumption = tickets
        .as_ref()
        .map_or_else(Resumption::disabled, Tickets::resumption);
    let tls = Trust::builder(options).resumption(resumption);
    let tls = tls.build().map_err(unusable)?;

    let secured = serveloop_measure::Secured::new(tls, as_certified(name)).map_err(no_name)?;
    let secured = secured.explained_by(|reason, name, stage| {
        let progress = match stage {
            Stage::Handshake => Progress::Handshake,
            Stage::Open => Progress::Open,
            Stage::Answered => Progress::Answered,
        };
        problem(reason, name, progress)
    });
    Ok(match tickets {
        Some(tickets) => secured.resuming(tickets),
        None => secured,
    })
}

/// Returns a host as a certificate names it: without the dot that ends a complete name.
fn as_certified(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

fn unusable(error: TlsError) -> Failure {
    Failure::from(io::Error::other(error))
}

fn no_name(error: TlsError) -> Failure {
    Failure::Usage(format!("{error}: --server-name NAME gives one for TLS"))
}

impl Secured {
    /// Puts `protocol`, which reports to `ending`, into TLS. A failure of TLS is reported first.
    pub(crate) fn around<P: Protocol>(
        &self,
        protocol: P,
        ending: Ending,
    ) -> impl Protocol + use<P> {
        let tls = Tls::client(&self.tls, &self.name).expect("the name was tried before");
        let watch = Watch {
            name: self.name.clone(),
            ending,
            progress: Progress::Handshake,
        };
        Layered::around(tls, Observed::new(protocol, watch))
    }
}

/// Observes the protocol inside TLS: whether the handshake was completed, and how the connection
/// ended.
#[derive(Debug)]
struct Watch {
    name: String,
    ending: Ending,
    progress: Progress,
}

/// How far a TLS connection came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Handshake,
    /// The handshake is complete.
    Open,
    /// The server has sent something for the protocol.
    Answered,
}

impl Observe for Watch {
    fn observe(&mut self, event: Event<'_>) {
        match event {
            Event::ConnectionMade => self.progress = Progress::Open,
            Event::DataReceived(_) => self.progress = Progress::Answered,
            Event::ConnectionLost(ended) => {
                if let Some(problem) = problem(ended.reason(), &self.name, self.progress) {
                    self.ending.fail(problem);
                }
            }
            _ => {}
        }
    }
}

/// Returns what went wrong on a connection to the server `name`, if it is a matter of TLS.
fn problem(reason: &CloseReason, name: &str, progress: Progress) -> Option<String> {
    match reason {
        CloseReason::Protocol(ProtocolError::Other(error)) => {
            let error = error.downcast_ref::<TlsError>()?;
            Some(described(error, name))
        }
        CloseReason::Truncated if progress != Progress::Handshake => {
            let problem = "the server ended the connection without TLS's end mark \
                           (close_notify), so the end may be missing";
            Some(problem.to_owned())
        }
        // The reset may have overtaken an alert, which follows the handshake in TLS 1.3.
        CloseReason::Io(_) if progress == Progress::Open => Some(format!(
            "{reason}: perhaps the server requires a client's certificate ({SHOW})"
        )),
        _ if progress != Progress::Handshake => None,
        CloseReason::Truncated | CloseReason::Closed | CloseReason::PeerClosed => Some(
            "the server closed the connection before the TLS handshake was complete".to_owned(),
        ),
        CloseReason::TimedOut(Deadline::Handshake | Deadline::Idle | Deadline::Write) => {
            Some(format!("timed out: {NOT_COMPLETE} in time"))
        }
        CloseReason::Io(error) => Some(format!("{NOT_COMPLETE}: {error}")),
        _ => None,
    }
}

/// Returns an error of TLS with the server `name` in words for those who run a client.
fn described(error: &TlsError, name: &str) -> String {
    match error.rustls() {
        Some(Error::InvalidCertificate(problem)) => of_certificate(problem, name),
        Some(Error::AlertReceived(alert)) => of_alert(*alert, name),
        Some(Error::InappropriateHandshakeMessage {
            got_type: HandshakeType::ClientHello,
            ..
        }) => "not TLS: the server sent back what it received".to_owned(),
        _ => error.to_string(),
    }
}

fn of_certificate(problem: &CertificateError, name: &str) -> String {
    match problem {
        CertificateError::UnknownIssuer => {
            format!("the server's certificate comes from an unknown authority: {TRUST}")
        }
        CertificateError::Expired => "the server's certificate has expired".to_owned(),
        CertificateError::ExpiredContext { not_after, .. } => {
            format!("the server's certificate expired on {}", date(*not_after))
        }
        CertificateError::NotValidYet => "the server's certificate is not valid yet".to_owned(),
        CertificateError::NotValidYetContext { not_before, .. } => format!(
            "the server's certificate is not valid before {}",
            date(*not_before)
        ),
        CertificateError::NotValidForName => of_name(name, &[]),
        CertificateError::NotValidForNameContext { presented, .. } => of_name(name, presented),
        // This error has no name of its own in rustls.
        other if other.to_string().contains("CaUsedAsEndEntity") => {
            format!(
                "the server's certificate is self-signed, or of an authority, and not known: {TRUST}"
            )
        }
        other => format!("the server's certificate is invalid: {other}"),
    }
}

/// Says that a certificate is not valid for `name`, but for `presented`.
fn of_name(name: &str, presented: &[String]) -> String {
    // They are written like DnsName("example.org").
    let names = presented.iter().map(|shown| {
        let inner = shown.split_once('(').map(|(_, inner)| inner);
        let inner = inner.and_then(|inner| inner.strip_suffix(')'));
        inner.unwrap_or(shown).trim_matches('"').to_owned()
    });
    let names: Vec<_> = names.collect();
    let others = match &*names {
        [] => String::new(),
        names => format!(", but for {}", names.join(", ")),
    };
    format!(
        "the server's certificate is not valid for {name}{others}: --server-name NAME asks for another name"
    )
}

fn of_alert(alert: AlertDescription, name: &str) -> String {
    let sent = format!("it sent the alert {alert:?}");
    match alert {
        AlertDescription::CertificateRequired => {
            format!("the server requires a client's certificate ({SHOW}): {sent}")
        }
        AlertDescription::HandshakeFailure => format!(
            "the server has no algorithm in common with us, or requires a client's certificate ({SHOW}): {sent}"
        ),
        AlertDescription::ProtocolVersion => {
            format!("the server speaks neither TLS 1.2 nor TLS 1.3: {sent}")
        }
        AlertDescription::UnrecognisedName => {
            format!("the server has no certificate for {name}: {sent}")
        }
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnknownCA
        | AlertDescription::AccessDenied => {
            format!("the server refused the client's certificate ({SHOW}): {sent}")
        }
        _ => format!("the server refused the connection: {sent}"),
    }
}

fn date(time: UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    Timestamp::from_second(seconds)
        .map_or_else(|_| "a day far away".to_owned(), |it| it.to_string())
}
