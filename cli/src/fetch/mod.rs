//! `serveloop fetch`: downloads the resource at a URL to a file or to standard output.
//!
//! This room holds what HTTP and downloads need: the request, the head and the body of a response,
//! proxies, and a file that is replaced only when it is complete. The connection itself is in
//! `outbound`.

mod authority;
mod body;
mod download;
mod head;
mod host;
mod http;
mod lines;
mod proxy;
mod resource;
mod url;

use std::cell::RefCell;
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use clap::Args;
use serveloop::Config;

use crate::destination::Target;
use crate::failure::Failure;
use crate::fetch::download::Download;
use crate::fetch::http::Get;
use crate::fetch::proxy::{Proxies, ProxyOptions};
use crate::fetch::resource::Resource;
use crate::interrupt::Leftover;
use crate::logger::TARGET;
use crate::outbound::{resolve, visit};
use crate::units::{KeepAlive, Size, Timeout};

/// Downloads a URL by HTTP/1.1, without encryption.
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
/// The body is written byte for byte. On a terminal, control characters other than line ends and tabs,
/// and bytes that are not UTF-8, are shown as \u{1b} or \xff, so that no server controls the terminal.
///
/// Requests go through the proxy that the environment names in http_proxy, or else in all_proxy or
/// ALL_PROXY, unless no_proxy or NO_PROXY lists the host. HTTP_PROXY in capitals is ignored, because in
/// a program that a web server runs, its clients can set this variable. Only http:// proxies are
/// supported:
///
///   $ http_proxy=http://127.0.0.1:3128 serveloop fetch http://example.com/
///
/// Redirections to other http:// URLs are followed. Any status other than 2xx, a partial response
/// (206), and a body that is cut off or does not match its head are failures with exit status 1. Bytes
/// that arrived before a failure have gone to standard output, but never into FILE. An invalid URL has
/// the exit status 2, Ctrl-C 130.
///
///   $ serveloop fetch http://127.0.0.1:8000/nothing
///   serveloop: http://127.0.0.1:8000/nothing: 404 File not found
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(crate) struct Fetch {
    /// What to download: http://HOST[:PORT][/PATH][?QUERY]
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
    /// How long to wait for the connection, for any next byte, or for a reader if FILE is a named
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
}

impl Fetch {
    /// Downloads the resource. Returns the exit status.
    pub(crate) fn run(self, is_quiet: bool) -> Result<ExitCode, Failure> {
        let resource = Resource::parse(&self.url)?;
        let proxies = self.proxy.proxies();
        proxies.of(resource.url())?;
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

        let outcome = self.follow(resource, &proxies, &download);
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
    fn follow(
        &self,
        mut resource: Resource,
        proxies: &Proxies,
        download: &Rc<RefCell<Download>>,
    ) -> Result<(), Failure> {
        let limit = Option::from(self.max_time);
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));

        for _ in 0..=self.max_redirects {
            self.get(&resource, proxies, deadline, download)?;
            let Some(location) = download.borrow_mut().take_redirect() else {
                return Ok(());
            };
            resource = resource.redirect(&location)?;
            log::info!(target: TARGET, "redirected to {resource}");
        }

        let problem = format!(
            "{}: more than {} redirections",
            self.url, self.max_redirects
        );
        Err(io::Error::other(problem).into())
    }

    fn get(
        &self,
        resource: &Resource,
        proxies: &Proxies,
        deadline: Option<Instant>,
        download: &Rc<RefCell<Download>>,
    ) -> Result<(), Failure> {
        let proxy = proxies.of(resource.url())?;
        let (place, name) = match &proxy {
            Some(proxy) => (proxy.place(), format!("{resource} through {proxy}")),
            None => (resource.place(), resource.to_string()),
        };

        let (request, config) = (resource.request(proxy.as_ref()), self.config());
        let addresses = resolve(&place, config.connect_timeout)
            .map_err(|error| io::Error::new(error.kind(), format!("{name}: {error}")))?;
        visit(&name, addresses, &config, |ending| {
            Get::new(request.clone(), deadline, Rc::clone(download), ending)
        })
    }

    fn config(&self) -> Config {
        let patience = Option::<Duration>::from(self.timeout);
        let limit = Option::<Duration>::from(self.max_time);
        Config {
            connect_timeout: patience.into_iter().chain(limit).min(),
            message_timeout: None,
            idle_timeout: patience,
            write_timeout: patience,
            keepalive: self.keepalive.into(),
            // The server has answered the request, so everything sent has arrived.
            linger_timeout: None,
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
