//! `serveloop fetch`: from a URL to its resource, in a file or on standard output.

mod body;
mod download;
mod head;
mod http;

use std::cell::RefCell;
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use clap::Args;
use serveloop::{Address, Config};
use url::{ParseError, Url};

use self::download::{Download, Target};
use self::http::Get;
use crate::escaped::Quoted;
use crate::failure::Failure;
use crate::interrupt::Leftover;
use crate::logger::TARGET;
use crate::outbound::visit;
use crate::units::{Size, Timeout};

/// Gets what is at a URL, by HTTP/1.1 without encryption.
///
///   $ serveloop fetch http://127.0.0.1:8000/notes.txt
///   milk, bread, a present for Tracy
///
/// Into a file, which is there under its name when it is complete, and never before; what was
/// there is replaced as a whole. On a terminal a bar shows how far it is:
///
///   $ serveloop fetch http://127.0.0.1:8000/song.flac -o song.flac
///
/// The head of the response goes to standard error, if you want to see it:
///
///   $ serveloop fetch --head http://127.0.0.1:8000/notes.txt > notes.txt
///   HTTP/1.0 200 OK
///   Content-Length: 33
///
/// The body is written byte for byte; on a terminal control characters other than line ends and tabs,
/// and bytes that are no UTF-8, are shown as \u{1b} or \xff, so that no server commands it.
///
/// A redirection to another http:// URL is followed. Any other status than 2xx, a mere part (206), a
/// body that is cut off or is not what its head says is a failure with exit status 1; what came until
/// then went to standard output, but never into FILE. A URL that makes no sense has exit status 2,
/// Ctrl-C 130.
///
///   $ serveloop fetch http://127.0.0.1:8000/nothing
///   serveloop: http://127.0.0.1:8000/nothing: 404 File not found
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(crate) struct Fetch {
    /// What to get: http://HOST[:PORT][/PATH][?QUERY]
    url: String,
    /// Where to save the body; - is standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print the head of the response on standard error
    #[arg(short = 'i', long)]
    head: bool,
    /// The longest body that is taken
    #[arg(long, value_name = "SIZE")]
    max_size: Option<Size>,
    /// How many redirections are followed
    #[arg(long, value_name = "NUMBER", default_value_t = 10)]
    max_redirects: u32,
    /// How long any wait may take: for the connection, or for the next byte; 0: for ever
    #[arg(long, value_name = "DURATION", default_value_t = Some(Duration::from_secs(30)).into())]
    timeout: Timeout,
    /// How long all may take together; 0: for ever
    #[arg(long, value_name = "DURATION", default_value_t = None.into())]
    max_time: Timeout,
}

impl Fetch {
    /// Gets the resource. Returns the status to exit with.
    pub(crate) fn run(self, is_quiet: bool) -> Result<ExitCode, Failure> {
        let url = parse(&self.url)?;
        let target = self.target()?;
        let shown = io::stderr().is_terminal() && !is_quiet;
        let shown = shown && !(matches!(target, Target::Stdout) && io::stdout().is_terminal());
        let leftover = Leftover::watch()?;
        if let Some(limit) = Option::from(self.max_time) {
            leftover.end_after(limit, format!("{}: not complete in time", self.url))?;
        }
        let download = Download::new(target, leftover)
            .limit(self.max_size.map(|size| usize::from(size) as u64))
            .show(self.head, shown);
        let download = Rc::new(RefCell::new(download));
        let outcome = self.follow(url, &download);
        let mut download = download.borrow_mut();
        if download.has_lost_reader() {
            // They have what they wanted.
            return Ok(ExitCode::SUCCESS);
        }
        outcome?;
        download.finish().map_err(|error| self.named(error))?;
        Ok(ExitCode::SUCCESS)
    }

    /// Asks at `url`, and wherever that leads to.
    fn follow(&self, mut url: Url, download: &Rc<RefCell<Download>>) -> Result<(), Failure> {
        let limit = Option::from(self.max_time);
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        for _ in 0..=self.max_redirects {
            self.get(&url, deadline, download)?;
            let Some(location) = download.borrow_mut().take_redirect() else {
                return Ok(());
            };
            url = redirect(&url, &location)?;
            log::info!(target: TARGET, "redirected to {url}");
        }
        let problem = format!(
            "{}: more than {} redirections",
            self.url, self.max_redirects
        );
        Err(io::Error::other(problem).into())
    }

    fn get(
        &self,
        url: &Url,
        deadline: Option<Instant>,
        download: &Rc<RefCell<Download>>,
    ) -> Result<(), Failure> {
        let request = request(url);
        visit(url.as_str(), resolve(url)?, &self.config(), |ending| {
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
            // What was to be sent was answered.
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

    /// An error about the output, with its name.
    fn named(&self, error: io::Error) -> Failure {
        let name = self.output.as_ref().map(|path| path.display().to_string());
        let name = name.unwrap_or_else(|| "standard output".to_owned());
        io::Error::new(error.kind(), format!("{name}: {error}")).into()
    }
}

/// A URL that can be fetched.
fn parse(text: &str) -> Result<Url, Failure> {
    let usage = |problem: &str| Failure::Usage(format!("{text}: {problem}"));
    let url = Url::parse(text).map_err(|error| match error {
        ParseError::RelativeUrlWithoutBase => usage("a URL begins with http://"),
        error => usage(&error.to_string()),
    })?;
    check(&url).map_err(usage)?;
    Ok(url)
}

fn redirect(from: &Url, location: &str) -> Result<Url, Failure> {
    let failed = |problem: &str| {
        let problem = format!(
            "{from}: redirected to {}: {problem}",
            Quoted(location.as_bytes())
        );
        Failure::from(io::Error::other(problem))
    };
    let url = from
        .join(location)
        .map_err(|error| failed(&error.to_string()))?;
    check(&url).map_err(failed)?;
    Ok(url)
}

fn check(url: &Url) -> Result<(), &'static str> {
    match url.scheme() {
        "http" => {}
        "https" => return Err("https is not spoken here, there is no encryption: use http://"),
        _ => return Err("only http:// URLs can be fetched"),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a user's name and password are not sent");
    }
    Ok(())
}

fn resolve(url: &Url) -> io::Result<Vec<Address>> {
    let host = url.host_str().unwrap_or_default();
    let port = url.port_or_known_default().unwrap_or(80);
    Address::resolve(&format!("tcp://{host}:{port}"))
}

/// The request. A URL that was parsed holds no line end and no space.
fn request(url: &Url) -> Vec<u8> {
    let host = url.host_str().unwrap_or_default();
    let port = url
        .port()
        .map(|port| format!(":{port}"))
        .unwrap_or_default();
    let query = url
        .query()
        .map(|query| format!("?{query}"))
        .unwrap_or_default();
    format!(
        "GET {}{query} HTTP/1.1\r\nHost: {host}{port}\r\nUser-Agent: serveloop/{}\r\nAccept: */*\r\nConnection: close\r\n\r\n",
        url.path(),
        env!("CARGO_PKG_VERSION"),
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first_lines(url: &str) -> String {
        let text = String::from_utf8(request(&parse(url).unwrap())).unwrap();
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
        ];
        for (url, expected) in cases {
            assert_eq!(first_lines(url), expected);
        }
    }

    #[test]
    fn addresses_are_looked_up_with_their_port() {
        let resolved = |url: &str| resolve(&parse(url).unwrap()).unwrap()[0].to_string();
        assert_eq!(resolved("http://127.0.0.1/"), "tcp://127.0.0.1:80");
        assert_eq!(resolved("http://[::1]:8080/"), "tcp://[::1]:8080");
    }

    #[test]
    fn what_cannot_be_fetched_is_refused() {
        for url in [
            "https://h/",
            "ftp://h/",
            "h/a",
            "http://",
            "http://u:p@h/",
            "http://h:99999/",
        ] {
            assert!(matches!(parse(url), Err(Failure::Usage(_))), "{url}");
        }
    }

    #[test]
    fn redirections_are_relative_to_where_they_come_from() {
        let from = parse("http://h:81/a/b").unwrap();
        assert_eq!(redirect(&from, "c").unwrap().as_str(), "http://h:81/a/c");
        assert_eq!(redirect(&from, "//i/d").unwrap().as_str(), "http://i/d");
        assert!(redirect(&from, "https://h/").is_err());
        assert!(redirect(&from, "file:///etc/passwd").is_err());
    }
}
