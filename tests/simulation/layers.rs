//! Every system once more, inside a layer: one that changes nothing, and one that changes all bytes.

use serveloop::testing::{Identity, Scrambled};

use crate::Check;
use crate::systems::SYSTEMS;

/// The part of a name that only systems in a layer have: `echo/identity`.
pub(crate) const IN_LAYERS: &str = "/";

/// Returns every system in each of the two layers, with its name.
pub(crate) fn checks() -> impl Iterator<Item = (String, Check)> {
    SYSTEMS.iter().flat_map(|(name, make)| {
        let mut identity = make().through(|| Identity, <[u8]>::to_vec, <[u8]>::to_vec);
        let layer = Scrambled::new(200);
        let (seal, expect) = (
            move |part: &[u8]| layer.seal(part),
            move |all: &[u8]| layer.expect(all),
        );
        let mut scrambled = make().through(move || layer, seal, expect);
        let identity: Check = Box::new(move |seed| identity.check(seed));
        let scrambled: Check = Box::new(move |seed| scrambled.check(seed));
        [
            (format!("{name}/identity"), identity),
            (format!("{name}/scrambled"), scrambled),
        ]
    })
}
