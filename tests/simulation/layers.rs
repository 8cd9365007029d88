//! Every system once more, inside a layer: one that changes nothing, and one that changes all bytes.

use serveloop::layer::{Layer, Received, Wire};
use serveloop::testing::{Identity, Scrambled};
use serveloop::{ProtocolError, Result};

use crate::Check;
use crate::systems::SYSTEMS;

/// The key of all scrambled bytes.
const KEY: u8 = 200;

/// Takes scrambled units, and sends a stream whose bytes depend on their position alone: how the
/// server cuts its output must not change what a client expects. Before every eighth byte there is
/// a mark, so that the output on the wire is longer than the plain one.
struct Marked {
    input: Scrambled,
    sent: usize,
}

impl Marked {
    fn new() -> Self {
        Self {
            input: Scrambled::new(KEY),
            sent: 0,
        }
    }
}

/// Returns `plain` as it goes over the wire, of which the first byte is number `from`.
fn mark(plain: &[u8], from: usize) -> Vec<u8> {
    let mut wire = Vec::new();
    for (byte, place) in plain.iter().zip(from..) {
        if place % 8 == 0 {
            wire.push(b'|');
        }
        wire.push(byte ^ (place as u8) ^ KEY);
    }
    wire
}

impl Layer for Marked {
    type Info = ();

    fn opened(&mut self) -> Option<()> {
        Some(())
    }

    fn received<'a>(&mut self, data: &'a [u8], wire: &mut Wire<'_>) -> Result<Received<'a>> {
        self.input.received(data, wire)
    }

    fn send(&mut self, plain: &[u8], wire: &mut Wire<'_>) -> Result<(), ProtocolError> {
        wire.write(&mark(plain, self.sent));
        self.sent += plain.len();
        Ok(())
    }
}

/// The part of a name that only systems in a layer have: `echo/identity`.
pub(crate) const IN_LAYERS: &str = "/";

/// Returns every system in each of the two layers, with its name.
pub(crate) fn checks() -> impl Iterator<Item = (String, Check)> {
    SYSTEMS.iter().flat_map(|(name, make)| {
        let mut identity = make().through(|| Identity, <[u8]>::to_vec, <[u8]>::to_vec);
        let seal = |part: &[u8]| Scrambled::new(KEY).seal(part);
        let mut marked = make().through(Marked::new, seal, |expected| mark(expected, 0));
        let identity: Check = Box::new(move |seed| identity.check(seed));
        let marked: Check = Box::new(move |seed| marked.check(seed));
        [
            (format!("{name}/identity"), identity),
            (format!("{name}/marked"), marked),
        ]
    })
}
