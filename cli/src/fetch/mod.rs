//! `serveloop fetch`: downloads the resource at a URL to a file or to standard output.
//!
//! This room holds what HTTP and downloads need: the request, the head and the body of a response,
//! proxies and tunnels through them, and a file that is replaced only when it is complete. The connection itself is in
//! `outbound`.

mod authority;
mod body;
mod download;
mod head;
mod head_reader;
mod host;
mod http;
mod lines;
mod proxy;
mod resource;
mod tunnel;
mod url;

use std::cell::{OnceCell, RefCell};
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use clap::Args;
use serveloop::layer::Layered;
use serveloop::protocols::counted;
use serveloop::{Config, Limits};

use crate::destination::Target;
use crate::failure::Failure;
use crate::fetch::download::Download;
use crate::fetch::http::Get;
use crate::fetch::proxy::{Proxies, ProxyOptions};
use crate::fetch::resource::Resource;
use crate::fetch::tunnel::Tunnel;
use crate::interrupt::Leftover;
use crate::logger::TARGET;
use crate::outbound::{Before, Secured, TlsOptions, Trust, resolve, visit, visit_after};
use crate::units::{KeepAlive, Size, Timeout};

/// Downloads a URL by HTTP/1.1, for https:// URLs over TLS 1.2 or 1.3.
///
///   $ serveloop fetch http://127.0.0.1:8000/notes.txt
///   milk, bread, a present for Tracy
///
/// Save the body to a file. On a terminal, a bar shows the progress:
///
///   $ serveloop fetch http://127.0.0.1:8000/song.flac -o song.flac
///
/// The file gets its name, and replaces an older file, only when the download is complete. A file that
/// cannot be replaced, or that would lose its owner, its access list, its extended attributes or
/// another hard link, is overwritten instead, also once the download is complete.
///
/// Print the head of the response on standard error:
///
///   $ serveloop fetch --head http://127.0.0.1:8000/notes.txt > notes.txt
///   HTTP/1.0 200 OK
///   Content-Length: 33
///
/// A server of https:// has to prove by its certificate that it is the host. The system's authorities
/// are trusted (SSL_CERT_FILE names others), or those of --ca; a self-signed certificate is an
/// authority for itself:
///
///   $ serveloop fetch https://127.0.0.1:8443/notes.txt --ca cert.pem --server-name localhost
///   milk, bread, a present for Tracy
///
/// The body is written byte for byte. On a terminal, control characters other than line ends and tabs,
/// and bytes that are not UTF-8, are shown as \u{1b} or \xff, so that no server controls the terminal.
///
/// Requests go through the proxy that the environment names in http_proxy, or else in all_proxy or
/// ALL_PROXY, unless no_proxy or NO_PROXY lists the host. HTTP_PROXY in capitals is ignored, because in
/// a program that a web server runs, its clients can set this variable. For https:// the variables are
/// https_proxy, HTTPS_PROXY, all_proxy and ALL_PROXY, and the proxy is asked for a tunnel (CONNECT), in
/// which it cannot read. Only http:// proxies are supported:
///
///   $ http_proxy=http://127.0.0.1:3128 serveloop fetch http://example.com/
///
/// Redirections are followed, but from https:// to http:// only with --allow-downgrade. A body over TLS
/// that ends with the connection has to end with TLS's end mark (close_notify). Any status other than 2xx, a partial response
/// (206), and a body that is cut off or does not match its head are failures with exit status 1. Bytes
/// that arrived before a failure have gone to standard output, but never into FILE. An invalid URL has
/// the exit status 2, Ctrl-C 130.
///
///   $ serveloop fetch http://127.0.0.1:8000/nothing
///   serveloop: http://127.0.0.1:8000/nothing: 404 File not found
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(crate) struct Fetch {
    /// What to download: http://HOST[:PORT][/PATH][?QUERY] or https://HOST[:PORT][/PATH][?QUERY]
    url: String,
    /// Where to save the body; - is standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print the head of the response on standard error
    #[arg(short = 'i', long)]
    head: bool,
    /// The longest body to accept [default: no limit]
    #[arg(long, value_name = "SIZE")]
    max_size: Option<Size>,
    /// How many redirections to follow
    #[arg(long, value_name = "NUMBER", default_value_t = 10)]
    max_redirects: u32,
    /// Follow redirections from https:// to http:// too, whose answers are not encrypted
    #[arg(long)]
    allow_downgrade: bool,
    /// How long to wait for the connection, for the TLS handshake, for any next byte, or for a reader if FILE is a named
    /// pipe; 0: no limit. A reader that pauses is waited for until --max-time
    #[arg(long, value_name = "DURATION", default_value_t = Some(Duration::from_secs(30)).into())]
    timeout: Timeout,
    /// How long the connection may be silent before the system probes whether the server is still there;
    /// 0: no probes. For --timeout 0: a dead server ends the wait after about twice this time
    #[arg(long, value_name = "DURATION", default_value_t = None.into())]
    keepalive: KeepAlive,
    /// How long the whole download may take; 0: no limit
    #[arg(long, value_name = "DURATION", default_value_t = None.into())]
    max_time: Timeout,
    #[command(flatten)]
    proxy: ProxyOptions,
    #[command(flatten)]
    tls: TlsOptions,
}

/// What all requests of a download have in common.
struct Requests {
    proxies: Proxies,
    /// The host of the first request, which `--server-name` renames.
    host: String,
    trust: OnceCell<Trust>,
    deadline: Option<Instant>,
    download: Rc<RefCell<Download>>,
}

impl Fetch {
    /// Downloads the resource. Returns the exit status.
    pub(crate) fn run(self, is_quiet: bool) -> Result<ExitCode, Failure> {
        let resource = Resource::parse(&self.url)?;
        let proxies = self.proxy.proxies();
        proxies.of(resource.url())?;
        let trust = OnceCell::new();
        if resource.is_secure() || self.tls.given().is_some() {
            self.trust(&trust)?;
        }
        let target = self.target()?;

        let shown = io::stderr().is_terminal() && !is_quiet;
        let shown = shown && !(matches!(target, Target::Stdout) && io::stdout().is_terminal());

        let leftover = Leftover::watch()?;
        if let Some(limit) = Option::from(self.max_time) {
            let late = "the download was not complete within --max-time";
            leftover.end_after(limit, format!("{}: {late}", self.url))?;
        }

        let download = Download::new(target, leftover)
            .await_reader(self.timeout.into())
            .limit(self.max_size.map(|size| usize::from(size) as u64))
            .show(self.head, shown);
        let download = Rc::new(RefCell::new(download));

        let limit = Option::from(self.max_time);
        let requests = Requests {
            proxies,
            host: resource.server_name(),
            trust,
            deadline: limit.and_then(|limit| Instant::now().checked_add(limit)),
            download: Rc::clone(&download),
        };
        let outcome = self.follow(resource, &requests);
        let mut download = download.borrow_mut();
        if download.has_lost_reader() {
            // The reader closed standard output because it has what it wanted.
            return Ok(ExitCode::SUCCESS);
        }

        outcome?;
        download.finish().map_err(|error| self.named(error))?;
        Ok(ExitCode::SUCCESS)
    }

    /// Requests `resource` and follows redirections, up to the limit.
    fn follow(&self, mut resource: Resource, requests: &Requests) -> Result<(), Failure> {
        for _ in 0..=self.max_redirects {
            self.get(&resource, requests)?;
            let Some(location) = requests.download.borrow_mut().take_redirect() else {
                return Ok(());
            };

            let next = resource.redirect(&location)?;
            if resource.is_secure() && !next.is_secure() && !self.allow_downgrade {
                let problem = "without encryption: --allow-downgrade follows it";
                let problem = format!("{resource}: redirected to {next}, {problem}");
                return Err(io::Error::other(problem).into());
            }
            resource = next;
            log::info!(target: TARGET, "redirected to {resource}");
        }

        let problem = format!(
            "{}: more than {}",
            self.url,
            counted(self.max_redirects, "redirection", "redirections")
        );
        Err(io::Error::other(problem).into())
    }

    fn get(&self, resource: &Resource, requests: &Requests) -> Result<(), Failure> {
        let secured = self.secured(resource, requests)?;
        let proxy = requests.proxies.of(resource.url())?;
        let (place, name) = match &proxy {
            Some(proxy) => (proxy.place(), format!("{resource} through {proxy}")),
            None => (resource.place(), resource.to_string()),
        };

        let config = self.config();
        let addresses = resolve(&place, config.connect_timeout)
            .map_err(|error| io::Error::new(error.kind(), format!("{name}: {error}")))?;

        let tunnel = secured.as_ref().zip(proxy.as_ref());
        let request = resource.request(proxy.as_ref().filter(|_| tunnel.is_none()));
        let get = |ending| {
            let download = Rc::clone(&requests.download);
            Get::new(request.clone(), requests.deadline, download, ending)
        };

        let Some((secured, proxy)) = tunnel else {
            let before = Before {
                header: None,
                secured,
            };
            return visit_after(&before, &name, addresses, &config, get);
        };
        let connect = resource.tunnel_request(proxy);
        visit(&name, addresses, &config, |ending| {
            let inside = secured.around(get(ending.clone()), ending);
            Layered::around(Tunnel::new(connect.clone()), inside)
        })
    }

    /// Returns TLS for the server of `resource`, if it is one of https.
    fn secured(
        &self,
        resource: &Resource,
        requests: &Requests,
    ) -> Result<Option<Secured>, Failure> {
        if !resource.is_secure() {
            return Ok(None);
        }
        let host = resource.server_name();
        let name = self.tls.server_name().filter(|_| host == requests.host);
        let trust = self.trust(&requests.trust)?;
        trust.server(name.unwrap_or(&host)).map(Some)
    }

    /// Returns whom to trust. The files are read once, and only if they are needed.
    fn trust<'t>(&self, trust: &'t OnceCell<Trust>) -> Result<&'t Trust, Failure> {
        if let Some(trust) = trust.get() {
            return Ok(trust);
        }
        let read = Trust::new(&self.tls, Some("http/1.1"))?;
        Ok(trust.get_or_init(|| read))
    }

    fn config(&self) -> Config {
        let patience = Option::<Duration>::from(self.timeout);
        let limit = Option::<Duration>::from(self.max_time);
        Config {
            connect_timeout: patience.into_iter().chain(limit).min(),
            keepalive: self.keepalive.into(),
            limits: Limits {
                handshake_timeout: patience,
                message_timeout: None,
                idle_timeout: patience,
                write_timeout: patience,
                // The server has answered the request, so everything sent has arrived.
                linger_timeout: None,
                ..Limits::default()
            },
            ..Config::default()
        }
    }

    fn target(&self) -> Result<Target, Failure> {
        match &self.output {
            None => Ok(Target::Stdout),
            Some(path) => Target::of(path).map_err(|error| self.named(error)),
        }
    }

    /// Adds the name of the output to an error.
    fn named(&self, error: io::Error) -> Failure {
        let name = self.output.as_ref().map(|path| path.display().to_string());
        let name = name.unwrap_or_else(|| "standard output".to_owned());
        io::Error::new(error.kind(), format!("{name}: {error}")).into()
    }
}
