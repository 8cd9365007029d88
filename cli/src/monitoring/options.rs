//! The options `--metrics` and `--admin`.

use std::io;

use clap::Args;
use serveloop::{Address, Listen};

use crate::failure::Failure;
use crate::monitoring::is_local;

#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Monitoring")]
pub(crate) struct MonitoringOptions {
    /// Where to serve pages about this server, in every model: / shows it live in a browser, /metrics is
    /// for Prometheus, /healthz and /readyz are for load balancers and Kubernetes. tcp://HOST:PORT or
    /// unix:///PATH
    #[arg(long, global = true, value_name = "URI")]
    metrics: Option<String>,
    /// Let the page at / end connections. Only for an address of --metrics that other machines cannot
    /// reach, since no password protects it
    #[arg(long, global = true, hide_short_help = true, requires = "metrics")]
    metrics_control: bool,
    /// Where `serveloop ctl` and `serveloop top` reach this server: unix:///PATH, whose file only its
    /// owner may use, or tcp://HOST:PORT with a loopback address
    #[arg(long, global = true, hide_short_help = true, value_name = "URI")]
    admin: Option<String>,
}

/// What is to be listened on for monitoring.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// Pages, and whether they may end connections.
    pub(super) metrics: Vec<Listen>,
    pub(super) controls: bool,
    pub(super) admin: Vec<Listen>,
    /// The URIs of both, as they were given.
    pub(super) uris: [String; 2],
}

/// Finds the sockets that a former process listened on at a URI, if this one replaces it.
pub(crate) type Inherit<'a> = &'a mut dyn FnMut(&str) -> io::Result<Vec<Listen>>;

impl MonitoringOptions {
    /// Returns whether there is anything to serve.
    pub(crate) fn is_given(&self) -> bool {
        self.metrics.is_some() || self.admin.is_some()
    }

    /// Returns the URIs of both.
    pub(crate) fn uris(&self) -> impl Iterator<Item = &str> {
        [&self.metrics, &self.admin]
            .into_iter()
            .flatten()
            .map(String::as_str)
    }

    /// Reads the addresses.
    ///
    /// # Errors
    /// Returns a usage error for an address that is none, or that would be open to others.
    pub(super) fn places(&self, inherit: Inherit<'_>) -> Result<Places, Failure> {
        let metrics = self.metrics.as_deref();
        let metrics = metrics.map(|uri| resolve("--metrics", uri, inherit));
        let admin = self.admin.as_deref();
        let admin = admin.map(|uri| resolve("--admin", uri, inherit));
        let places = Places {
            metrics: metrics.transpose()?.unwrap_or_default(),
            controls: self.metrics_control,
            admin: admin.transpose()?.unwrap_or_default(),
            uris: [&self.metrics, &self.admin].map(|uri| uri.clone().unwrap_or_default()),
        };

        let is_open = |listen: &&Listen| !is_local(listen.address());
        let open = places.metrics.iter().find(is_open);
        if let Some(open) = open.filter(|_| places.controls) {
            let problem = "--metrics-control lets everybody who can connect end connections, since no password \
                           protects it: --metrics needs a loopback address or a Unix socket for that";
            return Err(Failure::Usage(format!("{open}: {problem}")));
        }
        if let Some(open) = places.admin.iter().find(is_open) {
            let problem = "--admin lets everybody who can connect end this server, since no password protects \
                           it: use unix:///PATH or a loopback address";
            return Err(Failure::Usage(format!("{open}: {problem}")));
        }
        if let Some(name) = places.admin.iter().find(|listen| has_no_file(listen)) {
            let problem =
                "--admin needs a Unix socket with a file, whose permissions keep others out";
            return Err(Failure::Usage(format!("{name}: {problem}")));
        }
        if let Some(open) = places.admin.iter().find(|listen| is_for_all(listen)) {
            let problem = "--admin lets everybody who can connect end this server: its mode must not end in \
                           another digit than 0";
            return Err(Failure::Usage(format!("{open}: {problem}")));
        }
        Ok(places)
    }
}

/// Returns whether a listener is a name outside the file system, which any user may connect to.
fn has_no_file(listen: &Listen) -> bool {
    let path = listen.address().path();
    path.is_some_and(|path| path.as_os_str().as_encoded_bytes().starts_with(b"\0"))
}

/// Returns whether the file of a listener lets every user connect.
fn is_for_all(listen: &Listen) -> bool {
    listen.options().mode.is_some_and(|mode| mode & 0o007 != 0)
}

/// Returns the listeners of a URI. A Unix socket's file is its owner's alone unless the URI says
/// otherwise.
fn resolve(option: &str, uri: &str, inherit: Inherit<'_>) -> Result<Vec<Listen>, Failure> {
    let bad = |problem: &str| Failure::Usage(format!("{option} {uri:?}: {problem}"));
    let inherited = inherit(uri)?;
    if !inherited.is_empty() {
        return Ok(inherited);
    }
    let mut all = Listen::resolve(uri).map_err(|error| bad(&error.to_string()))?;
    for listen in &mut all {
        if listen.address().is_datagram() {
            return Err(bad("expected tcp://HOST:PORT or unix:///PATH"));
        }
        let is_unix = matches!(listen.address(), Address::Unix(_));
        if is_unix && !has_no_file(listen) {
            listen.options_mut().mode.get_or_insert(0o600);
        }
    }
    Ok(all)
}
