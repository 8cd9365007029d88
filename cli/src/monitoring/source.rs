//! Where answers come from: the monitor of the server, its signals and its log.

use std::fmt::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use log::LevelFilter;
use serde_json::{Value, json};
use serveloop::service::metrics;
use serveloop::service::monitor::{EndError, Histogram, Listing, Monitor, Query, Snapshot};

use crate::logger::{TARGET, set_level};
use crate::monitoring::asking::Asking;
use crate::monitoring::rows::{List, Row};
use crate::monitoring::stuck::{STUCK, stuck};
use crate::monitoring::{Answer, Question, Selection};
use crate::signals::{Leaving, raise_drain, raise_hangup};
use crate::threads::lock;

/// What a loop told of itself less than so long ago is up to date.
const OWN_AGE: Duration = Duration::from_secs(1);

/// What does not change while a server runs.
#[derive(Clone, Debug)]
pub(crate) struct About {
    pub(crate) protocol: &'static str,
    /// The URIs of the listeners, by their numbers.
    pub(crate) uris: Vec<String>,
}

/// Answers questions about a server. All clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Source(Place);

#[derive(Clone, Debug)]
enum Place {
    /// The server is in this process.
    Here(Arc<Shared>),
    /// It is at the other end of a pipe.
    There(Arc<Mutex<Asking>>),
}

#[derive(Debug)]
struct Shared {
    monitor: Monitor,
    /// The loop itself asks, which does not wait for itself.
    is_on_loop: bool,
    leaving: Leaving,
    about: About,
    began: Instant,
}

impl Source {
    /// Creates the source of a server that this process runs.
    pub(crate) fn new(monitor: Monitor, leaving: Leaving, about: About) -> Self {
        Self(Place::Here(Arc::new(Shared {
            monitor,
            is_on_loop: false,
            leaving,
            about,
            began: Instant::now(),
        })))
    }

    /// Creates the source of a server that is asked over a pipe.
    pub(super) fn over(asking: Asking) -> Self {
        Self(Place::There(Arc::new(Mutex::new(asking))))
    }

    /// Makes it a source that the loop itself asks.
    pub(super) fn on_loop(mut self) -> Self {
        if let Place::Here(shared) = &mut self.0
            && let Some(shared) = Arc::get_mut(shared)
        {
            shared.is_on_loop = true;
        }
        self
    }

    /// Answers a question. Waits for loops no longer than their monitor does.
    pub(crate) fn ask(&self, question: &Question) -> Answer {
        match &self.0 {
            Place::Here(shared) => shared.answer(question),
            Place::There(asking) => {
                let mut asking = lock(asking);
                asking.ask(question)
            }
        }
    }

    /// Asks a server at the other end of a pipe for what is to be known while it does not answer.
    pub(super) fn refresh(&self) {
        if let Place::There(asking) = &self.0 {
            lock(asking).refresh();
        }
    }

    /// Asks for a list, and returns whether one was made since that time. For a loop that asks
    /// itself.
    pub(super) fn is_listed_since(&self, since: Instant) -> bool {
        let Place::Here(shared) = &self.0 else {
            return true;
        };
        let listing = shared.monitor.list(&Query::default().first(0));
        listing.unanswered == 0 || listing.age > Duration::ZERO && listing.age < since.elapsed()
    }
}

impl Shared {
    fn answer(&self, question: &Question) -> Answer {
        match question {
            Question::Stats => Answer::of(&self.stats()),
            Question::Ls(selection) => self.list(selection),
            Question::Show { id } => self.show(*id),
            Question::End { id, abort } => self.end(*id, *abort),
            Question::Drain => {
                log::info!(target: TARGET, "asked to end through --admin");
                of_signal(raise_drain())
            }
            Question::Log { level } => set_log_level(level),
            Question::Reload => of_signal(raise_hangup()),
            Question::Metrics => Answer::of(&self.metrics()),
            Question::Health => self.health(),
            Question::Ready => self.ready(),
        }
    }

    /// Returns the counters of all loops. What the loop itself published just before is up to date.
    fn snapshot(&self) -> Snapshot {
        let mut snapshot = self.monitor.snapshot();
        if self.is_on_loop && snapshot.age < OWN_AGE {
            (snapshot.unanswered, snapshot.age) = (0, Duration::ZERO);
        }
        snapshot
    }

    /// Returns the connections that a query selects. A list that the loop has made for this question is
    /// up to date.
    fn connections(&self, query: &Query) -> Listing {
        let mut listing = self.monitor.list(query);
        if self.is_on_loop && listing.age > Duration::ZERO && listing.age < OWN_AGE {
            (listing.unanswered, listing.age) = (0, Duration::ZERO);
        }
        listing
    }

    fn stats(&self) -> Value {
        let snapshot = self.snapshot();
        let statistics: serde_json::Map<_, _> = snapshot
            .statistics
            .iter()
            .map(|(name, count)| (name.to_owned(), count.into()))
            .collect();
        json!({
            "protocol": self.about.protocol,
            "listening": self.about.uris,
            "version": env!("CARGO_PKG_VERSION"),
            "process": std::process::id(),
            "phase": self.phase(),
            "uptime": self.began.elapsed().as_secs_f64(),
            "open": snapshot.open,
            "buffered": snapshot.buffered,
            "listeners": snapshot.listeners,
            "loops": snapshot.loops,
            "unanswered": snapshot.unanswered,
            "age": snapshot.age.as_secs_f64(),
            "lag": histogram(&snapshot.loop_lag),
            "turn": histogram(&snapshot.turn_time),
            "statistics": statistics,
        })
    }

    fn list(&self, selection: &Selection) -> Answer {
        match selection.query() {
            Ok(query) => self.listing(&self.connections(&query)),
            Err(problem) => Answer::Error(problem),
        }
    }

    fn listing(&self, listing: &Listing) -> Answer {
        let all = listing.connections.iter();
        Answer::of(&List {
            age: listing.age.as_secs_f64(),
            connections: all.map(|it| Row::new(it, &self.about.uris)).collect(),
            found: listing.found,
            unanswered: listing.unanswered,
        })
    }

    fn show(&self, id: u64) -> Answer {
        let listing = self.connections(&Query::default());
        let found = listing.connections.iter().find(|it| it.id() == id);
        match found {
            Some(connection) => Answer::of(&Row::new(connection, &self.about.uris)),
            None if listing.unanswered > 0 => unanswered(),
            None => unknown(id),
        }
    }

    fn end(&self, id: u64, abort: bool) -> Answer {
        if self.is_on_loop && !matches!(self.show(id), Answer::Ok(_)) {
            return unknown(id);
        }
        let ended = match abort {
            true => self.monitor.abort(id),
            false => self.monitor.end(id),
        };
        match ended {
            // The loop does it in its next turn.
            Err(EndError::Unanswered) if !self.is_on_loop => unanswered(),
            Ok(()) | Err(EndError::Unanswered) => {
                log::info!(target: TARGET, id = id; "connection {id} is ended on request");
                Answer::of(&json!({ "ended": id }))
            }
            Err(_) => unknown(id),
        }
    }

    fn metrics(&self) -> String {
        let mut text = String::new();
        let snapshot = self.snapshot();
        let (uptime, leaving) = (self.began.elapsed(), u8::from(self.leaving.is_asked()));
        // A string takes everything.
        let _ = metrics::write(&snapshot, &mut text);
        let _ = write!(
            text,
            "# HELP serveloop_uptime_seconds For how long the server has run.\n\
             # TYPE serveloop_uptime_seconds gauge\n\
             serveloop_uptime_seconds {}\n\
             # HELP serveloop_leaving Whether the server was asked to end.\n\
             # TYPE serveloop_leaving gauge\n\
             serveloop_leaving {leaving}\n",
            uptime.as_secs_f64(),
        );
        text
    }

    fn health(&self) -> Answer {
        trouble(&self.snapshot()).unwrap_or_else(|| Answer::of(&"ok"))
    }

    fn ready(&self) -> Answer {
        if self.leaving.is_asked() {
            return Answer::Error("the server was asked to end".to_owned());
        }
        match self.snapshot() {
            Snapshot { loops: 0, .. } => Answer::Error("the server does not serve yet".to_owned()),
            snapshot => trouble(&snapshot).unwrap_or_else(|| Answer::of(&"ready")),
        }
    }

    fn phase(&self) -> &'static str {
        match () {
            () if self.leaving.is_draining() => "draining",
            () if self.leaving.is_asked() => "leaving",
            () => "serving",
        }
    }
}

/// Returns what to answer if a loop is stuck.
fn trouble(snapshot: &Snapshot) -> Option<Answer> {
    let problem = || stuck(snapshot.unanswered, snapshot.loops, snapshot.age);
    (snapshot.age >= STUCK).then(|| Answer::Error(problem()))
}

fn unknown(id: u64) -> Answer {
    Answer::Unknown(format!("no open connection has the id {id}"))
}

fn unanswered() -> Answer {
    let problem = "a loop does not answer because a handler keeps it busy; it does what was asked when it \
                   goes on";
    Answer::Error(problem.to_owned())
}

fn of_signal(raised: std::io::Result<()>) -> Answer {
    match raised {
        Ok(()) => Answer::of(&json!({})),
        Err(error) => Answer::Error(error.to_string()),
    }
}

fn set_log_level(level: &str) -> Answer {
    match level.parse::<LevelFilter>() {
        Ok(parsed) => {
            set_level(Some(parsed));
            Answer::of(&json!({ "level": parsed.to_string().to_lowercase() }))
        }
        Err(_) => Answer::Error(format!(
            "log level {level:?}: use one of off, error, warn, info, debug, trace"
        )),
    }
}

/// Returns a histogram in seconds. A quantile beyond the last bound is `null`.
fn histogram(histogram: &Histogram) -> Value {
    let quantile = |of| {
        let value = histogram
            .quantile(of)
            .filter(|value| *value < Duration::MAX);
        value.map(|value| value.as_secs_f64())
    };
    let buckets: Vec<_> = histogram
        .cumulative()
        .map(|(bound, count)| json!([bound.map(|bound| bound.as_secs_f64()), count]))
        .collect();
    json!({
        "count": histogram.count(),
        "sum": histogram.sum().as_secs_f64(),
        "p50": quantile(0.5),
        "p99": quantile(0.99),
        "buckets": buckets,
    })
}
