//! Commands of keys, whatever their values are.

use crate::error_reply::ErrorReply;
use crate::number;
use crate::reply::Reply;
use crate::request::Arguments;
use crate::store::commands::{
    ALL, ANY, FIRST, NO_KEY, Outcome, Places, READ, Row, SHRINK, SLOW_READ, folded,
};
use crate::store::glob;
use crate::store::keyspace::Keyspace;

/// The first two arguments.
const BOTH: Places = (1, 2, 1);

/// As many keys are looked at by one `SCAN`, unless `COUNT` says something else.
const SCAN_COUNT: i64 = 10;

/// A scan of an almost empty index looks at this many places for each key that it was asked for.
const PLACES_PER_KEY: usize = 10;

/// A request that concerns more keys than this takes long.
const MANY: usize = 1_000;

pub(super) fn commands() -> Vec<Row> {
    rows! {
        Keys "generic"
        "del" (1..=ANY) SHRINK ALL del "Removes keys.";
        "unlink" (1..=ANY) SHRINK ALL del "Removes keys.";
        "exists" (1..=ANY) READ ALL exists "Counts the keys that exist.";
        "touch" (1..=ANY) READ ALL exists "Counts the keys that exist, and notes that they are in use.";
        "type" (1..=1) READ FIRST kind "Returns the type of a value.";
        "keys" (1..=1) SLOW_READ NO_KEY keys "Returns the keys that match a pattern.";
        "scan" (1..=ANY) SLOW_READ NO_KEY scan "Returns some keys, and where to go on.";
        "dbsize" (0..=0) READ NO_KEY dbsize "Counts all keys.";
        "flushall" (0..=ANY) SHRINK NO_KEY flush "Removes all keys.";
        "flushdb" (0..=ANY) SHRINK NO_KEY flush "Removes all keys.";
        "randomkey" (0..=0) SLOW_READ NO_KEY randomkey "Returns a key that is chosen at random.";
        "rename" (2..=2) SHRINK BOTH rename "Gives a value another key.";
        "renamenx" (2..=2) SHRINK BOTH renamenx "Gives a value another key that does not exist.";
    }
}

/// Lets other connections have their turn after a request that concerns many keys.
pub(super) fn note_cost(keys: usize, reply: &mut Reply) {
    if keys > MANY {
        reply.note_cost();
    }
}

fn del(keyspace: &mut Keyspace, arguments: &mut Arguments<'_>, reply: &mut Reply) -> Outcome {
    note_cost(arguments.len(), reply);
    reply.count(
        arguments
            .filter(|key| keyspace.remove(key).is_some())
            .count(),
    );
    Ok(())
}

fn exists(keyspace: &mut Keyspace, arguments: &mut Arguments<'_>, reply: &mut Reply) -> Outcome {
    note_cost(arguments.len(), reply);
    reply.count(arguments.filter(|key| keyspace.contains(key)).count());
    Ok(())
}

fn kind(keyspace: &mut Keyspace, arguments: &mut Arguments<'_>, reply: &mut Reply) -> Outcome {
    let is_there = keyspace.contains(arguments.parse()?);
    reply.simple(if is_there { "string" } else { "none" });
    Ok(())
}

fn keys(keyspace: &mut Keyspace, arguments: &mut Arguments<'_>, reply: &mut Reply) -> Outcome {
    let pattern = glob::checked(arguments.parse()?)?;
    note_cost(keyspace.len(), reply);
    let matching: Vec<_> = keyspace
        .keys()
        .filter(|key| pattern == b"*" || glob::matches(pattern, key))
        .collect();
    reply.array(matching.len());
    matching.iter().for_each(|key| reply.bulk(key));
    Ok(())
}

fn scan(keyspace: &mut Keyspace, arguments: &mut Arguments<'_>, reply: &mut Reply) -> Outcome {
    let cursor: &[u8] = arguments.parse()?;
    let cursor = std::str::from_utf8(cursor)
        .ok()
        .and_then(|text| text.parse::<u64>().ok());
    let cursor = cursor.ok_or(ErrorReply::constant("ERR", "invalid cursor"))?;

    let (mut count, mut pattern, mut is_empty) = (SCAN_COUNT, None, false);
    while let Some(option) = arguments.next() {
        match folded(option).as_slice() {
            b"count" => count = arguments.parse()?,
            b"match" => pattern = Some(glob::checked(arguments.parse()?)?),
            // There is only one type.
            b"type" => is_empty = !arguments.parse::<&[u8]>()?.eq_ignore_ascii_case(b"string"),
            _ => return Err(ErrorReply::SYNTAX),
        }
    }
    let count = usize::try_from(count).ok().filter(|count| *count > 0);
    let count = count.ok_or(ErrorReply::SYNTAX)?;
    note_cost(count, reply);

    let mut seen = Vec::new();
    // A cursor that no scan has given is behind the end.
    let mut next = u32::try_from(cursor).ok();
    let mut places = 0;
    while let Some(from) = next.filter(|_| seen.len() < count && places / PLACES_PER_KEY < count) {
        next = keyspace.scan(from, |key| seen.push(key));
        places += 1;
    }

    let is_match =
        |key: &&[u8]| !is_empty && pattern.is_none_or(|pattern| glob::matches(pattern, key));
    seen.retain(is_match);
    reply.array(2);
    reply.bulk(number::Digits::of(next.map_or(0, i64::from)).as_slice());
    reply.array(seen.len());
    seen.iter().for_each(|key| reply.bulk(key));
    Ok(())
}

fn dbsize(keyspace: &mut Keyspace, _: &mut Arguments<'_>, reply: &mut Reply) -> Outcome {
    reply.count(keyspace.len());
    Ok(())
}

fn flush(keyspace: &mut Keyspace, arguments: &mut Arguments<'_>, reply: &mut Reply) -> Outcome {
    note_cost(keyspace.len(), reply);
    match (arguments.next().map(folded).as_deref(), arguments.len()) {
        (None | Some(b"async" | b"sync"), 0) => keyspace.clear(),
        _ => return Err(ErrorReply::SYNTAX),
    }
    reply.ok();
    Ok(())
}

fn randomkey(keyspace: &mut Keyspace, _: &mut Arguments<'_>, reply: &mut Reply) -> Outcome {
    reply.bulk_or_null(keyspace.random_key());
    Ok(())
}

fn rename(keyspace: &mut Keyspace, arguments: &mut Arguments<'_>, reply: &mut Reply) -> Outcome {
    let (from, to) = arguments.parse()?;
    if !keyspace.rename(from, to) {
        return Err(NO_SUCH_KEY);
    }
    reply.ok();
    Ok(())
}

fn renamenx(keyspace: &mut Keyspace, arguments: &mut Arguments<'_>, reply: &mut Reply) -> Outcome {
    let (from, to) = arguments.parse()?;
    if !keyspace.contains(from) {
        return Err(NO_SUCH_KEY);
    }
    let is_free = !keyspace.contains(to);
    if is_free {
        keyspace.rename(from, to);
    }
    reply.integer(i64::from(is_free));
    Ok(())
}

const NO_SUCH_KEY: ErrorReply = ErrorReply::constant("ERR", "no such key");
