//! The log line about the end of a connection.

use std::fmt;

use log::kv::{Error, Key, Source, Value, VisitSource};
use log::{Level, Record};

use crate::LOG_TARGET;
use crate::session::Ended;

/// Logs the end of a connection at `level`, with all that is known of it as fields. `more` is how many
/// ends like it were left out.
#[cold]
pub(crate) fn log_end(level: Level, ended: &Ended<'_>, more: u64) {
    if !log::log_enabled!(target: LOG_TARGET, level) {
        return;
    }
    let (peer, reason) = (ended.peer(), ended.reason());
    let log = |message: fmt::Arguments<'_>| {
        log::logger().log(
            &Record::builder()
                .level(level)
                .target(LOG_TARGET)
                .key_values(&Fields { ended })
                .args(message)
                .build(),
        );
    };
    match more {
        0 => log(format_args!("{peer}: {reason}")),
        more => log(format_args!("{peer}: {reason} (and {more} more like it)")),
    }
}

/// What is known of an end.
struct Fields<'a> {
    ended: &'a Ended<'a>,
}

impl Source for Fields<'_> {
    fn visit<'kvs>(&'kvs self, visitor: &mut dyn VisitSource<'kvs>) -> Result<(), Error> {
        let (peer, reason) = (self.ended.peer(), self.ended.reason());
        let mut visit = |key: &'static str, value| visitor.visit_pair(Key::from(key), value);

        visit("event", Value::from("ended"))?;
        visit("id", Value::from(peer.id()))?;
        visit("peer", Value::from_dyn_display(peer))?;
        if let Some(via) = peer.via() {
            visit("via", Value::from_dyn_display(via))?;
        }
        if let Some(listener) = peer.listener() {
            visit("listener", Value::from(listener as u64))?;
        }
        visit("reason", Value::from_dyn_display(reason))?;
        visit("seconds", Value::from(self.ended.duration().as_secs_f64()))?;
        visit("read", Value::from(self.ended.received()))?;
        visit("written", Value::from(self.ended.sent()))
    }
}
