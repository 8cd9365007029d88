//! Commands of values: texts, parts of them, and counters.

use std::ops::Range;

use crate::error_reply::ErrorReply;
use crate::number::{self, Digits};
use crate::reply::Reply;
use crate::request::Arguments;
use crate::store::commands::expiry::{Unit, deadline_of};
use crate::store::commands::keys::note_cost;
use crate::store::commands::{ALL, ANY, FIRST, Outcome, PAIRS, READ, Row, SHRINK, WRITE, folded};
use crate::store::decimal::{self, Unbounded};
use crate::store::keyspace::{Deadline, Keyspace};

pub(super) fn commands() -> Vec<Row> {
    rows! {
        Keys "string"
        "get" (1..=1) READ FIRST get "Returns the value of a key.";
        "set" (2..=ANY) WRITE FIRST set "Sets the value of a key, and when it expires.";
        "getdel" (1..=1) SHRINK FIRST getdel "Returns the value of a key and removes it.";
        "getex" (1..=ANY) SHRINK FIRST getex "Returns the value of a key and sets when it expires.";
        "getset" (2..=2) WRITE FIRST getset "Sets the value of a key and returns the old one.";
        "setnx" (2..=2) WRITE FIRST setnx "Sets the value of a key that does not exist.";
        "setex" (3..=3) WRITE FIRST setex "Sets the value of a key for some seconds.";
        "psetex" (3..=3) WRITE FIRST psetex "Sets the value of a key for some milliseconds.";
        "mget" (1..=ANY) READ ALL mget "Returns the values of several keys.";
        "mset" (2..=ANY) WRITE PAIRS mset "Sets the values of several keys.";
        "msetnx" (2..=ANY) WRITE PAIRS msetnx "Sets the values of several keys if none exists.";
        "append" (2..=2) WRITE FIRST append "Adds to the end of a value.";
        "strlen" (1..=1) READ FIRST strlen "Returns the length of a value.";
        "getrange" (3..=3) READ FIRST getrange "Returns a part of a value.";
        "substr" (3..=3) READ FIRST getrange "Returns a part of a value.";
        "setrange" (3..=3) WRITE FIRST setrange "Overwrites a part of a value.";
        "incr" (1..=1) WRITE FIRST incr "Adds one to a counter.";
        "decr" (1..=1) WRITE FIRST decr "Subtracts one from a counter.";
        "incrby" (2..=2) WRITE FIRST incrby "Adds to a counter.";
        "decrby" (2..=2) WRITE FIRST decrby "Subtracts from a counter.";
        "incrbyfloat" (2..=2) WRITE FIRST incrbyfloat "Adds a number with a fraction.";
    }
}

fn get(keyspace: &mut Keyspace, arguments: &mut Arguments<'_>, reply: &mut Reply) -> Outcome {
    reply.bulk_or_null(keyspace.get(arguments.parse()?));
    Ok(())
}

/// The options of `SET`.
#[derive(Default)]
struct SetOptions<'a> {
    /// Whether the key has to exist, or must not.
    exists: Option<bool>,
    returns_old: bool,
    keeps_deadline: bool,
    deadline: Option<(Unit, &'a [u8])>,
}

impl<'a> SetOptions<'a> {
    fn parse(arguments: &mut Arguments<'a>) -> Result<Self, ErrorReply> {
        let mut options = Self::default();
        while let Some(option) = arguments.next() {
            let option = folded(option);
            match option.as_slice() {
                b"nx" if options.exists != Some(true) => options.exists = Some(false),
                b"xx" if options.exists != Some(false) => options.exists = Some(true),
                b"get" => options.returns_old = true,
                b"keepttl" if options.deadline.is_none() => options.keeps_deadline = true,
                other => {
                    let unit = Unit::named(other).ok_or(ErrorReply::SYNTAX)?;
                    let is_other = options.deadline.is_some_and(|(before, _)| before != unit);
                    if options.keeps_deadline || is_other {
                        return Err(ErrorReply::SYNTAX);
                    }
                    options.deadline = Some((unit, arguments.parse()?));
                }
            }
        }
        Ok(options)
    }
}

fn set(keyspace: &mut Keyspace, arguments: &mut Arguments<'_>, reply: &mut Reply) -> Outcome {
    let (key, value): (&[u8], &[u8]) = arguments.parse()?;
    if arguments.len() == 0 {
        keyspace.set(key, value, Deadline::Never)?;
        reply.ok();
        return Ok(());
    }

    let options = SetOptions::parse(arguments)?;
    let deadline = match options.deadline {
        _ if options.keeps_deadline => Deadline::Kept,
        Some((unit, text)) => deadline_of(unit, text, "set", keyspace.now())?,
        None => Deadline::Never,
    };

    let is_there = match options.returns_old {
        true => {
            let old = keyspace.get(key);
            reply.bulk_or_null(old);
            old.is_some()
        }
        false => options.exists.is_some() && keyspace.contains(key),
    };
    let is_set = options.exists.is_none_or(|exists| exists == is_there);
    if is_set {
        keyspace.set(key, value, deadline)?;
    }

    match (options.returns_old, is_set) {
        (true, _) => {}
        (false, true) => reply.ok(),
        (false, false) => reply.null(),
    }
    Ok(())
}

fn getdel(keyspace: &mut Keyspace, arguments: &mut Arguments<'_>, reply: &mut Reply) -> Outcome {
    let key = arguments.parse()?;
    let value = keyspace.get(key);
    let is_there = value.is_some();
    reply.bulk_or_null(value);
    if is_there {
        keyspace.remove(key);
    }
    Ok(())
}

fn getex(keyspace: &mut Keyspace, arguments: &mut Arguments<'_>, reply: &mut Reply) -> Outcome {
    let key: &[u8] = arguments.parse()?;
    let option = arguments.next().map(folded);
    let deadline = match (option.as_deref(), arguments.next()) {
        (None, _) => None,
        (Some(b"persist"), None) => Some(None),
        (Some(option), Some(text)) => {
            Some(Some((Unit::named(option).ok_or(ErrorReply::SYNTAX)?, text)))
        }
        _ => return Err(ErrorReply::SYNTAX),
    };
    if arguments.len() > 0 {
        return Err(ErrorReply::SYNTAX);
    }

    let now = keyspace.now();
    let Some(value) = keyspace.get(key) else {
        reply.null();
        return Ok(());
    };
    reply.bulk(value);
    match deadline {
        None => {}
        Some(None) => drop(keyspace.set_deadline(key, None)),
        Some(Some((unit, text))) => {
            if let Deadline::At(at) = deadline_of(unit, text, "getex", now)? {
                keyspace.set_deadline(key, Some(at));
            }
        }
    }
    Ok(())
}

fn getset(keyspace: &mut Keyspace, arguments: &mut Arguments<'_>, reply: &mut Reply) -> Outcome {
    let (key, value): (&[u8], &[u8]) = arguments.parse()?;
    reply.bulk_or_null(keyspace.get(key));
    keyspace.set(key, value, Deadline::Never)
}

fn setnx(keyspace: &mut Keyspace, arguments: &mut Arguments<'_>, reply: &mut Reply) -> Outcome {
    let (key, value): (&[u8], &[u8]) = arguments.parse()?;
    let is_new = !keyspace.contains(key);
    if is_new {
        keyspace.set(key, value, Deadline::Never)?;
    }
    reply.integer(i64::from(is_new));
    Ok(())
}

fn setex(keyspace: &mut Keyspace, arguments: &mut Arguments<'_>, reply: &mut Reply) -> Outcome {
    set_for(Unit::Seconds, "setex", keyspace, arguments, reply)
}

fn psetex(keyspace: &mut Keyspace, arguments: &mut Arguments<'_>, reply: &mut Reply) -> Outcome {
    set_for(Unit::Milliseconds, "psetex", keyspace, arguments, reply)
}

fn set_for(
    unit: Unit,
    command: &str,
    keyspace: &mut Keyspace,
    arguments: &mut Arguments<'_>,
    reply: &mut Reply,
) -> Outcome {
    let (key, time, value): (&[u8], &[u8], &[u8]) = arguments.parse()?;
    let deadline = deadline_of(unit, time, command, keyspace.now())?;
    keyspace.set(key, value, deadline)?;
    reply.ok();
    Ok(())
}

fn mget(keyspace: &mut Keyspace, arguments: &mut Arguments<'_>, reply: &mut Reply) -> Outcome {
    note_cost(arguments.len(), reply);
    reply.array(arguments.len());
    for key in arguments {
        reply.bulk_or_null(keyspace.get(key));
    }
    Ok(())
}

fn mset(keyspace: &mut Keyspace, arguments: &mut Arguments<'_>, reply: &mut Reply) -> Outcome {
    set_all("mset", keyspace, arguments)?;
    reply.ok();
    Ok(())
}

fn msetnx(keyspace: &mut Keyspace, arguments: &mut Arguments<'_>, reply: &mut Reply) -> Outcome {
    let is_free = arguments.len() % 2 == 1
        || !arguments
            .clone()
            .step_by(2)
            .any(|key| keyspace.contains(key));
    if is_free {
        set_all("msetnx", keyspace, arguments)?;
    }
    reply.integer(i64::from(is_free));
    Ok(())
}

/// Sets all values or none.
fn set_all(command: &str, keyspace: &mut Keyspace, arguments: &mut Arguments<'_>) -> Outcome {
    if arguments.len() % 2 == 1 {
        return Err(ErrorReply::wrong_number_of_arguments(command));
    }
    let words = || arguments.clone();
    for value in words().skip(1).step_by(2) {
        keyspace.check_length(value.len())?;
    }
    let pairs = words().step_by(2).zip(words().skip(1).step_by(2));
    let sizes = pairs.map(|(key, value)| Keyspace::size_of(key, value.len()));
    keyspace.make_room(sizes.sum())?;

    while arguments.len() > 0 {
        let (key, value): (&[u8], &[u8]) = arguments.parse()?;
        keyspace.set(key, value, Deadline::Never)?;
    }
    Ok(())
}

fn append(keyspace: &mut Keyspace, arguments: &mut Arguments<'_>, reply: &mut Reply) -> Outcome {
    let (key, more): (&[u8], &[u8]) = arguments.parse()?;
    let length = keyspace.peek(key).map_or(0, <[u8]>::len) + more.len();
    keyspace.check_length(length)?;
    let length = keyspace.edit(key, b"", more.len(), |value| {
        value.extend_from_slice(more);
        Ok(value.len())
    })?;
    reply.count(length);
    Ok(())
}

fn strlen(keyspace: &mut Keyspace, arguments: &mut Arguments<'_>, reply: &mut Reply) -> Outcome {
    let value = keyspace.get(arguments.parse()?);
    reply.count(value.map_or(0, <[u8]>::len));
    Ok(())
}

fn getrange(keyspace: &mut Keyspace, arguments: &mut Arguments<'_>, reply: &mut Reply) -> Outcome {
    let (key, first, last): (&[u8], i64, i64) = arguments.parse()?;
    let value = keyspace.get(key).unwrap_or_default();
    reply.bulk(&value[range_of(first, last, value.len())]);
    Ok(())
}

/// Returns the part from `first` to `last`, which both count from the end if they are negative.
fn range_of(first: i64, last: i64, length: usize) -> Range<usize> {
    let length = length as i64;
    if first < 0 && last < 0 && first > last {
        return 0..0;
    }
    let from_start = |at: i64| if at < 0 { (length + at).max(0) } else { at };
    let (first, last) = (from_start(first), from_start(last).min(length - 1));
    if first > last {
        0..0
    } else {
        first as usize..last as usize + 1
    }
}

fn setrange(keyspace: &mut Keyspace, arguments: &mut Arguments<'_>, reply: &mut Reply) -> Outcome {
    let (key, offset, part): (&[u8], i64, &[u8]) = arguments.parse()?;
    let offset = usize::try_from(offset).map_err(|_| ErrorReply::new("offset is out of range"))?;
    let length = keyspace.peek(key).map_or(0, <[u8]>::len);
    if part.is_empty() {
        reply.count(length);
        return Ok(());
    }

    let end = offset.saturating_add(part.len());
    keyspace.check_length(end)?;
    let length = keyspace.edit(key, b"", end.saturating_sub(length), |value| {
        if value.len() < end {
            value.resize(end, 0);
        }
        value[offset..end].copy_from_slice(part);
        Ok(value.len())
    })?;
    reply.count(length);
    Ok(())
}

fn incr(keyspace: &mut Keyspace, arguments: &mut Arguments<'_>, reply: &mut Reply) -> Outcome {
    add(keyspace, arguments.parse()?, 1, reply)
}

fn decr(keyspace: &mut Keyspace, arguments: &mut Arguments<'_>, reply: &mut Reply) -> Outcome {
    add(keyspace, arguments.parse()?, -1, reply)
}

fn incrby(keyspace: &mut Keyspace, arguments: &mut Arguments<'_>, reply: &mut Reply) -> Outcome {
    let (key, number) = arguments.parse()?;
    add(keyspace, key, number, reply)
}

fn decrby(keyspace: &mut Keyspace, arguments: &mut Arguments<'_>, reply: &mut Reply) -> Outcome {
    let (key, number): (&[u8], i64) = arguments.parse()?;
    let negative = number.checked_neg();
    let negative = negative.ok_or(ErrorReply::constant("ERR", "decrement would overflow"))?;
    add(keyspace, key, negative, reply)
}

fn add(keyspace: &mut Keyspace, key: &[u8], number: i64, reply: &mut Reply) -> Outcome {
    let sum = keyspace.edit(key, b"0", Digits::MOST, |value| {
        let before = number::integer(value).ok_or(ErrorReply::NOT_AN_INTEGER)?;
        let sum = before.checked_add(number).ok_or(ErrorReply::OVERFLOW)?;
        value.clear();
        value.extend_from_slice(Digits::of(sum).as_slice());
        Ok(sum)
    })?;
    reply.integer(sum);
    Ok(())
}

fn incrbyfloat(
    keyspace: &mut Keyspace,
    arguments: &mut Arguments<'_>,
    reply: &mut Reply,
) -> Outcome {
    let (key, number): (&[u8], &[u8]) = arguments.parse()?;
    let before = keyspace.peek(key).unwrap_or(b"0");
    let sum = match decimal::sum(before, number).ok_or(ErrorReply::NOT_A_FLOAT)? {
        Ok(sum) => sum,
        Err(Unbounded) => return Err(ErrorReply::new("increment would produce NaN or Infinity")),
    };
    keyspace.set(key, sum.as_bytes(), Deadline::Kept)?;
    reply.bulk(sum.as_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_those_of_redis() {
        for (first, last, expected) in [
            (0, 3, 0..4),
            (-3, -1, 7..10),
            (0, -1, 0..10),
            (10, 100, 0..0),
            (5, 2, 0..0),
            (-1, -5, 0..0),
            (-100, 2, 0..3),
            (-100, -50, 0..1),
            (3, i64::MAX, 3..10),
            (i64::MIN, i64::MAX, 0..10),
        ] {
            assert_eq!(range_of(first, last, 10), expected, "{first} {last}");
            assert_eq!(range_of(first, last, 0), 0..0, "{first} {last}");
        }
    }
}
