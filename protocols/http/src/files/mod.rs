//! Files below a directory.

mod conditions;
mod file_source;
mod media_type;
mod root;
mod target;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::task::Poll;
use std::time::SystemTime;

use rustix::io::Errno;
use serveloop::Waker;
use serveloop::service::Offload;

use self::conditions::{Conditions, Part, Verdict};
use self::file_source::FileSource;
use self::media_type::media_type;
use self::root::{Found, Root};
use self::target::{Target, parse_target};
use crate::LOG_TARGET;
use crate::reply::{Handler, Reply};
use crate::request::Request;
use crate::response::Response;

/// The longest content that is read at once. Longer ones are read in pieces of this size.
const PIECE: u64 = 64 * 1024;

/// The file that a directory is shown as.
const INDEX: &str = "index.html";

/// A [`Handler`] that serves the files below a directory to GET and HEAD.
///
/// Files are found, opened and read on the threads of a pool, so that a disk never holds up a loop.
/// Where each connection has a thread or process of its own, a pool that is
/// [inline](Offload::inline) does the same without threads. Each connection has one job at a time, so
/// a pool with room for as many waiting jobs as there may be connections is never full.
///
/// - A path leads to nothing outside the directory. Segments `.` and `..`, however they are written,
///   encoded slashes and NUL are refused, and a symbolic link works only if what it leads to is
///   below the directory.
/// - A directory is shown as its `index.html`, or is not found. Without a slash at its end, the client is
///   sent to the target with one. What is neither a file nor a directory
///   is not found either.
/// - Responses have `Last-Modified` and an `ETag` of the time of change and the length. The
///   conditions on them work: `If-None-Match`, `If-Modified-Since`, `If-Match`,
///   `If-Unmodified-Since`, `If-Range`. A file with a date in the future is shown with the present one, and
///   `If-Range` with a date does not hold for a file that changed within the last second.
/// - A range is answered with 206, or 416 if the file is shorter. Several ranges at a time are
///   answered with the whole file.
///
/// ```
/// use serveloop::service::Offload;
/// use serveloop::testing::MemorySession;
/// use serveloop_http::Http;
/// use serveloop_http::files::Files;
///
/// let directory = tempfile::tempdir()?;
/// std::fs::write(directory.path().join("hello.txt"), "hello\n")?;
///
/// let files = Files::new(directory.path(), Offload::inline())?;
/// let mut session = MemorySession::new(Http::new(files.clone()));
/// session.receive(b"GET /hello.txt HTTP/1.1\r\nHost: x\r\n\r\n");
/// assert!(session.sent().ends_with(b"\r\n\r\nhello\n"));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Files {
    root: Arc<Root>,
    pool: Offload,
}

impl Files {
    /// Creates a handler for the files below `root`. If `root` is a symbolic link, what it leads to
    /// now is served.
    ///
    /// # Errors
    /// Returns an error if `root` is not a directory that can be opened.
    pub fn new(root: impl AsRef<Path>, pool: Offload) -> io::Result<Self> {
        let root = Arc::new(Root::open(root.as_ref())?);
        Ok(Self { root, pool })
    }
}

impl Handler for Files {
    fn handle(&mut self, request: &Request<'_>) -> Reply {
        match request.method {
            "GET" | "HEAD" => {}
            "POST" | "PUT" | "DELETE" | "PATCH" | "OPTIONS" | "TRACE" => {
                return Response::status(405).header("Allow", "GET, HEAD").into();
            }
            _ => return Response::status(501).into(),
        }
        let target = match parse_target(request.path()) {
            Ok(target) => target,
            Err(status) => return Response::status(status).into(),
        };

        let search = Search {
            root: Arc::clone(&self.root),
            target,
            elsewhere: with_slash(request),
            conditions: Conditions::of(request),
            reading: (self.pool.clone(), request.waker()),
        };
        match self.pool.submit(request.waker(), move || search.answer()) {
            Ok(mut job) => Reply::later(move || match job.take() {
                None => Poll::Pending,
                Some(Ok(response)) => Poll::Ready(response.into()),
                Some(Err(error)) => {
                    log::warn!(target: LOG_TARGET, "a file is not served: {error}");
                    Poll::Ready(Response::status(500).into())
                }
            }),
            Err(full) => {
                log::debug!(target: LOG_TARGET, "{}: a file is not served: {full}", request.peer());
                Response::status(503).header("Retry-After", "1").into()
            }
        }
    }
}

/// What a thread of the pool has to find.
struct Search {
    root: Arc<Root>,
    target: Target,
    /// Where the same is, if it is a directory.
    elsewhere: String,
    conditions: Conditions,
    reading: (Offload, Waker),
}

impl Search {
    fn answer(self) -> Response {
        let path = self.target.path.clone();
        let answer = self.find(&path);
        answer.unwrap_or_else(|error| explain(&path, &error))
    }

    fn find(self, path: &Path) -> io::Result<Response> {
        match self.root.find(path)? {
            Found::File(file) if !self.target.is_directory => self.serve(path, file),
            Found::Directory => {
                let index = path.join(INDEX);
                match self.root.find(&index)? {
                    // Links of the page are relative to the directory.
                    Found::File(_) if !self.target.is_directory => {
                        Ok(Response::status(301).header("Location", self.elsewhere))
                    }
                    Found::File(file) => self.serve(&index, file),
                    _ => Ok(Response::status(404)),
                }
            }
            _ => Ok(Response::status(404)),
        }
    }

    fn serve(self, path: &Path, file: File) -> io::Result<Response> {
        let metadata = file.metadata()?;
        let length = metadata.len();
        let (modified, now) = (metadata.modified().ok(), SystemTime::now());
        let (verdict, fields) = self.conditions.judge(length, modified, now);

        let response = match verdict {
            Verdict::Whole => self.content(Response::new(200), file, 0, length)?,
            Verdict::Part(Part { first, last }) => {
                let range = format!("bytes {first}-{last}/{length}");
                let response = Response::new(206).header("Content-Range", range);
                self.content(response, file, first, last + 1)?
            }
            Verdict::Unsatisfiable => {
                let range = format!("bytes */{length}");
                return Ok(Response::status(416).header("Content-Range", range));
            }
            Verdict::NotModified => return Ok(fields.add_to(Response::new(304))),
            Verdict::Failed => return Ok(Response::status(412)),
        };
        let response = response.header("Content-Type", media_type(path));
        Ok(fields.add_to(response.header("Accept-Ranges", "bytes")))
    }

    /// Adds the content from `first` to before `end`: read now if it is short.
    fn content(self, response: Response, file: File, first: u64, end: u64) -> io::Result<Response> {
        let length = end - first;
        if length > PIECE {
            let source = FileSource::new(file, first..end, self.reading);
            return Ok(response.stream_of_length(length, source));
        }

        let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        file.read_exact_at(&mut bytes, first)?;
        Ok(response.body(bytes))
    }
}

/// Returns the request's target with a slash behind its path, relative to itself, so that no target leads to
/// another server.
fn with_slash(request: &Request<'_>) -> String {
    let path = request.path();
    let name = path.rsplit_once('/').map_or(path, |(_, name)| name);
    let query = request
        .query()
        .map_or(String::new(), |query| format!("?{query}"));
    format!("./{name}/{query}")
}

/// Returns the answer for a file that cannot be served.
fn explain(path: &Path, error: &io::Error) -> Response {
    use io::ErrorKind::{IsADirectory, NotADirectory, NotFound, PermissionDenied};
    // The last is what the file of a Unix socket says.
    const NOWHERE: [Errno; 3] = [Errno::LOOP, Errno::NAMETOOLONG, Errno::NXIO];

    let code = error.raw_os_error();
    match error.kind() {
        NotFound | NotADirectory | IsADirectory => Response::status(404),
        _ if NOWHERE
            .iter()
            .any(|errno| code == Some(errno.raw_os_error())) =>
        {
            Response::status(404)
        }
        PermissionDenied => Response::status(403),
        _ => {
            log::warn!(target: LOG_TARGET, "{}: not served: {error}", path.display());
            Response::status(500)
        }
    }
}
