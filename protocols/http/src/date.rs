//! The field `Date` of responses, formatted once a second on each thread.

use std::cell::RefCell;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

struct Cached {
    /// When the calendar's next second begins.
    until: Instant,
    line: String,
}

thread_local! {
    static CACHED: RefCell<Option<Cached>> = const { RefCell::new(None) };
}

/// Appends the header field with the calendar's time. `now` is the driver's.
pub(crate) fn push_date(head: &mut Vec<u8>, now: Instant) {
    CACHED.with_borrow_mut(|cached| {
        let current = cached.take().filter(|cached| now < cached.until);
        let current = current.unwrap_or_else(|| format_date(now));
        head.extend_from_slice(current.line.as_bytes());
        *cached = Some(current);
    });
}

#[cold]
fn format_date(now: Instant) -> Cached {
    let time = SystemTime::now().max(UNIX_EPOCH);
    let nanos = time
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.subsec_nanos());
    let rest = Duration::from_nanos(1_000_000_000 - u64::from(nanos));
    Cached {
        until: now + rest,
        line: format!("Date: {}\r\n", httpdate::fmt_http_date(time)),
    }
}
