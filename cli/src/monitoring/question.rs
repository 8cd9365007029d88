//! What is asked of a running server, and what it answers: one line of JSON each.

use std::io;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};
use serveloop::service::monitor::{Order, Query};

use crate::units::Span;

/// What is asked.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Question {
    /// Counters, gauges and times.
    Stats,
    /// The open connections.
    Ls(Selection),
    /// One connection.
    Show { id: u64 },
    /// The end of one connection, in order or at once.
    End {
        id: u64,
        #[serde(default)]
        abort: bool,
    },
    /// What SIGTERM does.
    Drain,
    /// Another level of the log.
    Log { level: String },
    /// What SIGHUP does.
    Reload,
    /// The text for Prometheus.
    Metrics,
    /// Whether the loops turn.
    Health,
    /// Whether clients should be sent here.
    Ready,
}

/// Which connections, and in which order.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Selection {
    /// Networks of the peers, as for `--allow`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) from: Option<String>,
    /// The number of the listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) listener: Option<u16>,
    /// The least age, as options have it: `30s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) age: Option<String>,
    /// For how long no byte has moved, written in the same way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) idle: Option<String>,
    pub(crate) by: By,
    /// At most this many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) first: Option<usize>,
}

/// An order of connections.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum By {
    /// The oldest first
    #[default]
    Age,
    /// The longest idle first
    Idle,
    /// The most bytes first
    Traffic,
    /// The most memory first
    Held,
}

/// What the server answers.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Answer {
    /// The value, as it is written: a long list is not taken apart on its way.
    Ok(Box<RawValue>),
    /// Why not, for people.
    Error(String),
    /// There is no such connection.
    Unknown(String),
}

impl Selection {
    /// Returns the library's query.
    ///
    /// # Errors
    /// Something in it makes no sense. The message names it.
    pub(crate) fn query(&self) -> Result<Query, String> {
        let mut query = Query::default().by(match self.by {
            By::Age => Order::Age,
            By::Idle => Order::Idle,
            By::Traffic => Order::Traffic,
            By::Held => Order::Held,
        });
        if let Some(networks) = &self.from {
            let parsed = networks.parse();
            query = query.from(parsed.map_err(|error| format!("from {networks:?}: {error}"))?);
        }
        if let Some(listener) = self.listener {
            query = query.of_listener(listener);
        }
        if let Some(age) = &self.age {
            query = query.older_than(duration("age", age)?);
        }
        if let Some(idle) = &self.idle {
            query = query.idle_for(duration("idle", idle)?);
        }
        if let Some(first) = self.first {
            query = query.first(first);
        }
        Ok(query)
    }
}

fn duration(name: &str, text: &str) -> Result<Duration, String> {
    let span = text.parse::<Span>();
    span.map(Duration::from)
        .map_err(|problem| format!("{name} {text:?}: {problem}"))
}

impl Answer {
    /// Returns the answer that is this value.
    pub(crate) fn of(value: &impl Serialize) -> Self {
        match to_raw_value(value) {
            Ok(written) => Self::Ok(written),
            Err(error) => Self::Error(error.to_string()),
        }
    }

    /// Returns the value, or the problem.
    pub(crate) fn into_result(self) -> io::Result<Value> {
        match self {
            Self::Ok(written) => Ok(serde_json::from_str(written.get())?),
            Self::Error(problem) => Err(io::Error::other(problem)),
            Self::Unknown(problem) => Err(io::Error::new(io::ErrorKind::NotFound, problem)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Question, serde_json::Error> {
        serde_json::from_str(text)
    }

    #[test]
    fn questions_are_read_as_they_are_written() {
        let selection = Selection {
            from: Some("192.0.2.0/24".to_owned()),
            idle: Some("250ms".to_owned()),
            by: By::Traffic,
            first: Some(3),
            ..Selection::default()
        };
        for question in [
            Question::Stats,
            Question::Ls(selection),
            Question::Show { id: 7 },
            Question::End { id: 7, abort: true },
            Question::Log {
                level: "debug".to_owned(),
            },
        ] {
            let text = serde_json::to_string(&question).expect("JSON");
            let again = parse(&text).expect("a question");
            assert_eq!(serde_json::to_string(&again).expect("JSON"), text);
        }
    }

    #[test]
    fn what_is_no_question_is_refused() {
        for text in [
            "",
            "stats",
            "{}",
            r#"{"do":"nothing"}"#,
            r#"{"do":"show"}"#,
            r#"{"do":"show","id":-1}"#,
            r#"{"do":"ls","frist":3}"#,
            r#"{"do":"stats"} {"do":"drain"}"#,
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(matches!(parse(r#"{"do":"ls"}"#), Ok(Question::Ls(_))));
        assert!(matches!(
            parse(r#"{"do":"end","id":7}"#),
            Ok(Question::End { abort: false, .. })
        ));
    }

    #[test]
    fn selections_say_what_is_wrong() {
        let wrong = |selection: Selection| selection.query().expect_err("a problem");
        let networks = Selection {
            from: Some("10.0.0.0/99".to_owned()),
            ..Selection::default()
        };
        assert!(wrong(networks).contains("10.0.0.0/99"));
        for text in ["", "-1s", "soon", "3"] {
            let selection = Selection {
                idle: Some(text.to_owned()),
                ..Selection::default()
            };
            assert!(wrong(selection).contains("idle"), "{text}");
        }
    }
}
