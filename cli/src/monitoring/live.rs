//! What the live page is sent: once a second the counters, and the connections with the most traffic.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value, json};
use serveloop::ProtocolError;
use serveloop_websocket::{Accept, Message, MessageProtocol, MessageTransport, Refusal, Request};

use crate::monitoring::host::{is_same_origin, is_unforgeable};
use crate::monitoring::places::Place;
use crate::monitoring::source::Source;
use crate::monitoring::{Answer, By, Question, Selection};
use crate::threads::lock;

/// How often a page is sent something new.
const EVERY: Duration = Duration::from_secs(1);

/// How many connections are shown.
const SHOWN: usize = 20;

/// With many connections, those with the most traffic are looked for less often: once for this many
/// times what it takes to list them.
const PAUSES: u32 = 20;

/// What all live pages are sent. It is asked for once, however many there are.
#[derive(Clone, Debug)]
pub(super) struct Feed {
    source: Source,
    controls: bool,
    latest: Arc<Mutex<Latest>>,
}

#[derive(Debug, Default)]
struct Latest {
    text: Arc<str>,
    made: Option<Instant>,
    top: Value,
    /// When the connections are listed again.
    again: Option<Instant>,
}

impl Feed {
    pub(super) fn new(source: Source, controls: bool) -> Self {
        Self {
            source,
            controls,
            latest: Arc::default(),
        }
    }

    /// Returns the news, which are made anew if they are nearly a second old.
    fn news(&self, now: Instant) -> Arc<str> {
        let mut latest = lock(&self.latest);
        let is_fresh = |made: Instant| now.saturating_duration_since(made) < EVERY * 9 / 10;
        if !latest.made.is_some_and(is_fresh) {
            self.refresh(&mut latest, now);
        }
        Arc::clone(&latest.text)
    }

    fn refresh(&self, latest: &mut Latest, now: Instant) {
        if latest.again.is_none_or(|again| again <= now) {
            let begin = Instant::now();
            let busiest = Selection {
                by: By::Traffic,
                first: Some(SHOWN),
                ..Selection::default()
            };
            latest.top = value(self.source.ask(&Question::Ls(busiest)));
            latest.again = Some(now + begin.elapsed() * PAUSES);
        }
        let stats = value(self.source.ask(&Question::Stats));
        let news = json!({ "stats": stats, "top": latest.top, "controls": self.controls });
        latest.text = news.to_string().into();
        latest.made = Some(now);
    }
}

fn value(answer: Answer) -> Value {
    let value = answer.into_result();
    value.unwrap_or_else(|problem| json!({ "problem": problem.to_string() }))
}

/// Accepts the WebSocket of a live page. Whether it may end connections depends on the name by which
/// its browser knows this server, too.
pub(super) fn accept(
    feed: &Feed,
    place: &Arc<Place>,
    request: &Request<'_>,
) -> Result<Accept<Live>, Refusal> {
    if !is_same_origin(request.origin(), request.host()) {
        return Err(Refusal::forbidden("not from this page"));
    }
    if !place.stay() {
        return Err(Refusal::new(503, "too many pages are live already"));
    }

    let feed = Feed {
        controls: feed.controls && is_unforgeable(request.host()),
        latest: match feed.controls && !is_unforgeable(request.host()) {
            // What it is sent says that it may not.
            true => Arc::default(),
            false => Arc::clone(&feed.latest),
        },
        source: feed.source.clone(),
    };
    Ok(Accept::new(Live {
        feed,
        _place: Arc::clone(place),
        next: None,
    }))
}

/// One live page.
pub(super) struct Live {
    feed: Feed,
    /// It is free for another page when this one ends.
    _place: Arc<Place>,
    /// When it is sent something new.
    next: Option<Instant>,
}

/// What a page asks for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    end: u64,
    #[serde(default)]
    abort: bool,
}

impl Live {
    /// Sends the news, unless the page has not taken the last ones.
    fn send(&mut self, client: &mut MessageTransport<'_>) {
        let now = client.now();
        self.next = Some(now + EVERY);
        if client.waiting() == 0 {
            client.send(&*self.feed.news(now));
        }
    }
}

impl MessageProtocol for Live {
    fn opened(&mut self, client: &mut MessageTransport<'_>) -> Result<(), ProtocolError> {
        self.send(client);
        Ok(())
    }

    fn message_received(
        &mut self,
        message: Message<'_>,
        client: &mut MessageTransport<'_>,
    ) -> Result<(), ProtocolError> {
        let wish: Wish = serde_json::from_slice(message.as_bytes())
            .map_err(|error| ProtocolError::malformed(format!("not a wish: {error}")))?;
        if !self.feed.controls {
            let problem = "this page may not end connections: see --metrics-control";
            client.send(&*json!({ "problem": problem }).to_string());
            return Ok(());
        }
        let Wish { end: id, abort } = wish;
        let reply = value(self.feed.source.ask(&Question::End { id, abort }));
        client.send(&*reply.to_string());
        Ok(())
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.next
    }

    fn handle_timeout(&mut self, client: &mut MessageTransport<'_>) {
        self.send(client);
    }
}
