//! Commands of deadlines.

use crate::error_reply::ErrorReply;
use crate::number;
use crate::reply::Reply;
use crate::request::Arguments;
use crate::store::commands::{ANY, FIRST, Outcome, READ, Row, SHRINK, folded};
use crate::store::keyspace::{Deadline, Keyspace};

pub(super) fn commands() -> Vec<Row> {
    rows! {
        Keys "generic"
        "expire" (2..=ANY) SHRINK FIRST expire "Has a key expire in some seconds.";
        "pexpire" (2..=ANY) SHRINK FIRST pexpire "Has a key expire in some milliseconds.";
        "expireat" (2..=ANY) SHRINK FIRST expireat "Has a key expire at a time in seconds.";
        "pexpireat" (2..=ANY) SHRINK FIRST pexpireat "Has a key expire at a time in milliseconds.";
        "persist" (1..=1) SHRINK FIRST persist "Has a key not expire.";
        "ttl" (1..=1) READ FIRST ttl "Returns in how many seconds a key expires.";
        "pttl" (1..=1) READ FIRST pttl "Returns in how many milliseconds a key expires.";
        "expiretime" (1..=1) READ FIRST expiretime "Returns when a key expires, in seconds.";
        "pexpiretime" (1..=1) READ FIRST pexpiretime "Returns when a key expires, in milliseconds.";
    }
}

/// How a deadline is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// From now.
    Seconds,
    /// From now.
    Milliseconds,
    /// Since 1970.
    UnixSeconds,
    /// Since 1970.
    UnixMilliseconds,
}

impl Unit {
    /// Returns the unit of an option of `SET`, in small letters.
    pub(super) fn named(option: &[u8]) -> Option<Self> {
        match option {
            b"ex" => Some(Self::Seconds),
            b"px" => Some(Self::Milliseconds),
            b"exat" => Some(Self::UnixSeconds),
            b"pxat" => Some(Self::UnixMilliseconds),
            _ => None,
        }
    }

    /// Returns a time in this unit as milliseconds since 1970, if that is a number of 64 bits.
    fn unix(self, number: i64, now: i64) -> Option<i64> {
        match self {
            Self::Seconds => number.checked_mul(1_000)?.checked_add(now),
            Self::Milliseconds => number.checked_add(now),
            Self::UnixSeconds => number.checked_mul(1_000),
            Self::UnixMilliseconds => Some(number),
        }
    }
}

/// Parses the deadline of a key that gets a value, which has to be more than 0 in its unit.
pub(super) fn deadline_of(
    unit: Unit,
    text: &[u8],
    command: &str,
    now: i64,
) -> Result<Deadline, ErrorReply> {
    let number = number::integer(text).ok_or(ErrorReply::NOT_AN_INTEGER)?;
    let at = if number > 0 {
        unit.unix(number, now)
    } else {
        None
    };
    at.map(Deadline::At).ok_or_else(|| invalid_time(command))
}

fn invalid_time(command: &str) -> ErrorReply {
    ErrorReply::new(format!("invalid expire time in '{command}' command"))
}

/// Which keys `EXPIRE` applies to.
#[derive(Clone, Copy, Default)]
struct Conditions {
    /// Only keys that do not expire.
    nx: bool,
    /// Only keys that expire.
    xx: bool,
    /// Only if the new deadline is later.
    gt: bool,
    /// Only if the new deadline is sooner.
    lt: bool,
}

impl Conditions {
    fn parse(arguments: &mut Arguments<'_>) -> Result<Self, ErrorReply> {
        let mut parsed = Self::default();
        for option in arguments {
            match folded(option).as_slice() {
                b"nx" => parsed.nx = true,
                b"xx" => parsed.xx = true,
                b"gt" => parsed.gt = true,
                b"lt" => parsed.lt = true,
                _ => {
                    return Err(ErrorReply::of_bytes(
                        [b"Unsupported option ", option].concat(),
                    ));
                }
            }
        }

        if parsed.nx && (parsed.xx || parsed.gt || parsed.lt) {
            let message = "NX and XX, GT or LT options at the same time are not compatible";
            return Err(ErrorReply::new(message));
        }
        if parsed.gt && parsed.lt {
            let message = "GT and LT options at the same time are not compatible";
            return Err(ErrorReply::new(message));
        }
        Ok(parsed)
    }

    /// Returns whether a key with the deadline `old` gets the new one.
    fn hold(self, old: Deadline, new: i64) -> bool {
        // A key without a deadline expires after all others.
        let (has_one, old) = match old {
            Deadline::At(at) => (true, at),
            _ => (false, i64::MAX),
        };
        !(self.nx && has_one
            || self.xx && !has_one
            || self.gt && new <= old
            || self.lt && new >= old)
    }
}

fn expire(keyspace: &mut Keyspace, arguments: &mut Arguments<'_>, reply: &mut Reply) -> Outcome {
    set(Unit::Seconds, "expire", keyspace, arguments, reply)
}

fn pexpire(keyspace: &mut Keyspace, arguments: &mut Arguments<'_>, reply: &mut Reply) -> Outcome {
    set(Unit::Milliseconds, "pexpire", keyspace, arguments, reply)
}

fn expireat(keyspace: &mut Keyspace, arguments: &mut Arguments<'_>, reply: &mut Reply) -> Outcome {
    set(Unit::UnixSeconds, "expireat", keyspace, arguments, reply)
}

fn pexpireat(keyspace: &mut Keyspace, arguments: &mut Arguments<'_>, reply: &mut Reply) -> Outcome {
    set(
        Unit::UnixMilliseconds,
        "pexpireat",
        keyspace,
        arguments,
        reply,
    )
}

fn set(
    unit: Unit,
    command: &str,
    keyspace: &mut Keyspace,
    arguments: &mut Arguments<'_>,
    reply: &mut Reply,
) -> Outcome {
    let (key, time): (&[u8], &[u8]) = arguments.parse()?;
    let conditions = Conditions::parse(arguments)?;
    let number = number::integer(time).ok_or(ErrorReply::NOT_AN_INTEGER)?;
    let at = unit
        .unix(number, keyspace.now())
        .ok_or_else(|| invalid_time(command))?;

    let old = keyspace.deadline(key);
    let is_set = old.is_some_and(|old| conditions.hold(old, at));
    if is_set {
        keyspace.set_deadline(key, Some(at));
    }
    reply.integer(i64::from(is_set));
    Ok(())
}

fn persist(keyspace: &mut Keyspace, arguments: &mut Arguments<'_>, reply: &mut Reply) -> Outcome {
    let key = arguments.parse()?;
    let has_one = matches!(keyspace.deadline(key), Some(Deadline::At(_)));
    if has_one {
        keyspace.set_deadline(key, None);
    }
    reply.integer(i64::from(has_one));
    Ok(())
}

fn ttl(keyspace: &mut Keyspace, arguments: &mut Arguments<'_>, reply: &mut Reply) -> Outcome {
    tell(Unit::Seconds, keyspace, arguments, reply)
}

fn pttl(keyspace: &mut Keyspace, arguments: &mut Arguments<'_>, reply: &mut Reply) -> Outcome {
    tell(Unit::Milliseconds, keyspace, arguments, reply)
}

fn expiretime(
    keyspace: &mut Keyspace,
    arguments: &mut Arguments<'_>,
    reply: &mut Reply,
) -> Outcome {
    tell(Unit::UnixSeconds, keyspace, arguments, reply)
}

fn pexpiretime(
    keyspace: &mut Keyspace,
    arguments: &mut Arguments<'_>,
    reply: &mut Reply,
) -> Outcome {
    tell(Unit::UnixMilliseconds, keyspace, arguments, reply)
}

/// Tells when a key expires: -1 if it does not, -2 if there is no such key.
fn tell(
    unit: Unit,
    keyspace: &mut Keyspace,
    arguments: &mut Arguments<'_>,
    reply: &mut Reply,
) -> Outcome {
    let at = match keyspace.deadline(arguments.parse()?) {
        None => {
            reply.integer(-2);
            return Ok(());
        }
        Some(Deadline::At(at)) => at,
        Some(_) => {
            reply.integer(-1);
            return Ok(());
        }
    };

    let left = at.saturating_sub(keyspace.now()).max(0);
    reply.integer(match unit {
        Unit::Seconds => left.saturating_add(500) / 1_000,
        Unit::Milliseconds => left,
        Unit::UnixSeconds => at.saturating_add(500) / 1_000,
        Unit::UnixMilliseconds => at,
    });
    Ok(())
}
