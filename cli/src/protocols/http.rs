//! `serve http`: files, or a greeting.

use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use serveloop::protocols::counted;
use serveloop::service::{Offload, OffloadLimits};
use serveloop::{Address, Config, Peer, Statistics};
use serveloop_http::files::Files;
use serveloop_http::{Http, Receive, Reply, Request, Response};

use crate::failure::Failure;
use crate::protocols::streams::need_streams;
use crate::serving::{BoundServer, Execution};

/// How many threads read files for event loops.
const READERS: usize = 4;

/// Serves files over HTTP/1.1.
///
///   $ serveloop serve http --root .
///   listening on tcp://127.0.0.1:9999
///
/// In another terminal, or in a browser:
///
///   $ curl http://127.0.0.1:9999/
///
/// The methods are GET and HEAD. A directory is shown as its index.html, or is not found. Nothing
/// outside of the directory is served: a path with .. leads nowhere, however it is written, and neither
/// does a symbolic link to the outside. Files with names that begin with a dot are served like others.
/// ETag and Last-Modified, the conditions on them, and single ranges work as browsers and download
/// tools expect; several ranges at a time get the whole file. With event loops, threads of their own read
/// the files, so that a slow disk holds up no other client.
///
/// Without --root, GET gets a greeting, and a body that is sent with POST or PUT is counted:
///
///   $ serveloop serve http
///   $ seq 1000 | curl --upload-file - http://127.0.0.1:9999/
///   3893 bytes
///
/// A request that two programs could read differently is refused, because a proxy in front might be one
/// of them. The longest line of a head is --max-line: a longer request line is answered with 414, another
/// line with 431, and so are more than 64KiB or 100 fields. The longest body is --max-frame (413). A head
/// that is not complete within --message-timeout, or --first-message-timeout for the first one, is
/// answered with 408, and so is a body of which less than 4KiB come in --message-timeout. A connection
/// without a request ends after --idle-timeout.
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(crate) struct HttpOptions {
    /// The directory whose files are served
    #[arg(long, value_name = "DIRECTORY")]
    root: Option<PathBuf>,
}

impl HttpOptions {
    /// Returns an error if the directory cannot be served, or one of the addresses has no streams.
    pub(super) fn check(&self, addresses: &[Address]) -> Result<(), Failure> {
        let why = "http is for streams: requests do not come in datagrams";
        need_streams(addresses, why)?;
        if let Some(root) = &self.root {
            open(root, Offload::inline())?;
        }
        Ok(())
    }

    pub(super) fn serve(
        self,
        server: BoundServer,
        config: &Config,
        execution: Execution,
    ) -> io::Result<Statistics> {
        let Some(root) = &self.root else {
            return execution.serve(server, |_: &Peer| Some(Http::new(greet)));
        };
        let files = open(root, pool(config, execution))?;
        execution.serve(server, move |_: &Peer| Some(Http::new(files.clone())))
    }
}

fn open(root: &Path, pool: Offload) -> io::Result<Files> {
    Files::new(root, pool).map_err(|error| {
        let problem = format!("--root {}: {error}", root.display());
        io::Error::new(error.kind(), problem)
    })
}

/// Returns what reads files. It is never full, because a connection has one job at a time.
fn pool(config: &Config, execution: Execution) -> Offload {
    if !execution.has_loops() {
        // What reads a file holds up one connection only.
        return Offload::inline();
    }
    let (loops, _) = execution.parts();
    Offload::new(OffloadLimits {
        max_threads: READERS,
        max_waiting: config.max_connections.saturating_mul(loops),
        ..OffloadLimits::default()
    })
}

/// Answers if no directory is given.
fn greet(request: &Request<'_>) -> Reply {
    match request.method {
        "GET" | "HEAD" => Response::text("hello\n").into(),
        "POST" | "PUT" => Reply::receive(Count(0)),
        "DELETE" | "PATCH" | "OPTIONS" | "TRACE" => {
            let response = Response::status(405);
            response.header("Allow", "GET, HEAD, POST, PUT").into()
        }
        _ => Response::status(501).into(),
    }
}

/// Counts the bytes of a body.
struct Count(u64);

impl Receive for Count {
    fn received(&mut self, data: &[u8]) -> Result<usize, Response> {
        self.0 += data.len() as u64;
        Ok(data.len())
    }

    fn ended(self: Box<Self>) -> Reply {
        Response::text(format!("{}\n", counted(self.0, "byte", "bytes"))).into()
    }
}
