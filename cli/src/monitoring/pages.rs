//! The pages of `--metrics`.

use std::sync::Arc;

use serveloop::layer::Upgradable;
use serveloop::service::metrics;
use serveloop_http::{Reply, Request, Response};
use serveloop_websocket::{Handshake, Settings};

use crate::monitoring::Question;
use crate::monitoring::host::is_same_origin;
use crate::monitoring::live::{Feed, accept};
use crate::monitoring::places::Place;
use crate::monitoring::source::Source;

/// The page at `/`. It needs nothing else but `/live`.
const PAGE: &str = include_str!("page.html");

/// What the page may do: its own style and script, by their hashes, a WebSocket to where it came from,
/// and no frame around it.
const POLICY: &str = "default-src 'none'; \
    style-src 'sha256-j1Dd47sauKEetxIqrc5fQ3jGpyPDcxjd2QtAuhkej4g='; \
    script-src 'sha256-WWKfw2INupZ8sZ7onnHABK7ypcoJcWwKnVh5RVOVlCM='; \
    connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Answers requests for pages. Each connection has its own.
#[derive(Clone, Debug)]
pub(super) struct Pages {
    source: Source,
    feed: Feed,
}

impl Pages {
    pub(super) fn new(source: Source, feed: Feed) -> Self {
        Self { source, feed }
    }

    /// Answers a request of the client that has this place.
    pub(super) fn answer(&self, request: &Request<'_>, place: &Arc<Place>) -> Reply {
        let is_read = matches!(request.method, "GET" | "HEAD");
        match request.path() {
            "/" | "/metrics" | "/healthz" | "/readyz" | "/live" if !is_read => {
                let refused = Response::status(405).header("Allow", "GET, HEAD");
                refused.close().into()
            }
            "/" => page().into(),
            "/metrics" => self.metrics().into(),
            "/healthz" => self.probe(&Question::Health).into(),
            "/readyz" => self.probe(&Question::Ready).into(),
            "/live" => self.live(request, place),
            _ => plain(404, "there is /, /metrics, /healthz and /readyz\n").into(),
        }
    }

    fn metrics(&self) -> Response {
        match self.source.ask(&Question::Metrics).into_result() {
            Ok(text) => {
                let text = text.as_str().unwrap_or_default().to_owned();
                let response = Response::new(200).header("Content-Type", metrics::CONTENT_TYPE);
                guarded(response).body(text)
            }
            Err(problem) => plain(503, &format!("{problem}\n")),
        }
    }

    fn probe(&self, question: &Question) -> Response {
        match self.source.ask(question).into_result() {
            Ok(text) => plain(200, &format!("{}\n", text.as_str().unwrap_or_default())),
            Err(problem) => plain(503, &format!("{problem}\n")),
        }
    }

    /// Hands the connection to a WebSocket, which reads the request itself. A page of another site gets
    /// nothing, since its visitor did not ask to show it who is connected here.
    fn live(&self, request: &Request<'_>, place: &Arc<Place>) -> Reply {
        let origin = request.headers.text("origin");
        let is_foreign = request.headers.get("origin").is_some() && origin.is_none();
        if is_foreign || !is_same_origin(origin, request.host().unwrap_or_default()) {
            return plain(403, "not from this page\n").close().into();
        }
        let (feed, place) = (self.feed.clone(), Arc::clone(place));
        let accept =
            move |request: &serveloop_websocket::Request<'_>| accept(&feed, &place, request);
        Reply::hand_over(Upgradable::new(Handshake::new(Settings::default(), accept)))
    }
}

fn page() -> Response {
    let page = Response::new(200)
        .header("Content-Type", "text/html; charset=utf-8")
        .header("Content-Security-Policy", POLICY)
        .header("X-Frame-Options", "DENY")
        .header("Referrer-Policy", "no-referrer");
    guarded(page).body(PAGE)
}

fn plain(status: u16, text: &str) -> Response {
    let response = Response::new(status).header("Content-Type", "text/plain; charset=utf-8");
    guarded(response).body(text.to_owned())
}

fn guarded(response: Response) -> Response {
    response
        .header("Cache-Control", "no-store")
        .header("X-Content-Type-Options", "nosniff")
}
