//! The options of connections by TLS.

use std::path::PathBuf;

use clap::Args;

#[derive(Args, Clone, Debug, Default)]
pub(crate) struct TlsOptions {
    /// Over TLS, trust servers whose certificate comes from an authority in FILE (PEM), or is itself in
    /// FILE, instead of those that the system trusts; may be given several times
    #[arg(long, value_name = "FILE", conflicts_with = "insecure")]
    pub(super) ca: Vec<PathBuf>,
    /// Over TLS, trust every server, whatever its certificate says. Nobody can read along, except a
    /// machine that stands in for the server
    #[arg(long)]
    pub(super) insecure: bool,
    /// Over TLS, show the certificate in FILE (PEM, with its chain) to a server that asks for one
    #[arg(long, value_name = "FILE")]
    pub(super) cert: Option<PathBuf>,
    /// The private key of --cert [default: it is in the same file]
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub(super) key: Option<PathBuf>,
    /// Over TLS, ask for the server of this name, for which its certificate has to be valid [default:
    /// the host]
    #[arg(long, value_name = "NAME")]
    server_name: Option<String>,
}

/// What the connections of a load do with TLS sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sessions {
    /// Each begins a new one.
    New,
    /// Each resumes one, of which as many as this are kept.
    Resumed(usize),
}

impl TlsOptions {
    /// Returns the first of these options that was given.
    pub(crate) fn given(&self) -> Option<&'static str> {
        let options = [
            ("--ca", !self.ca.is_empty()),
            ("--insecure", self.insecure),
            ("--cert", self.cert.is_some()),
            ("--server-name", self.server_name.is_some()),
        ];
        let mut given = options.into_iter().filter(|(_, is_given)| *is_given);
        given.next().map(|(name, _)| name)
    }

    /// Returns the name of the server, if it is not the host's.
    pub(crate) fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }
}
