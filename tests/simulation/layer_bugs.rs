//! Faults that a layer could have. A simulation that does not find them proves nothing.

use serveloop::layer::{Layer, Received, Wire, WireEnd};
use serveloop::testing::Side;
use serveloop::{ProtocolError, Result as Outcome};

use crate::layers::Subject;
use crate::systems::{OF_DATAGRAMS, SYSTEMS, Simulated};

/// What goes wrong at the server's ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    /// A stream that was cut short is taken for one that ended.
    TakesCutForEnd,
    /// A stream that ended is taken for one that was cut short.
    TakesEndForCut,
    /// The end mark is not sent.
    LeavesOutMark,
    /// The stream ends before its end mark.
    EndsEarly,
    /// The last byte of a unit is not shown.
    DropsInput,
    /// A unit is shown twice.
    ShowsTwice,
    /// A unit is shown as it is on the wire.
    ShowsWire,
    /// Output goes around the layer.
    SendsPlain,
    /// The last byte of the output is not sent.
    DropsOutput,
    /// Output is sent twice.
    SendsTwice,
    /// A unit is taken and forgotten while it is incomplete.
    TakesIncomplete,
}

const BUGS: [Bug; 11] = [
    Bug::TakesCutForEnd,
    Bug::TakesEndForCut,
    Bug::LeavesOutMark,
    Bug::EndsEarly,
    Bug::DropsInput,
    Bug::ShowsTwice,
    Bug::ShowsWire,
    Bug::SendsPlain,
    Bug::DropsOutput,
    Bug::SendsTwice,
    Bug::TakesIncomplete,
];

/// Runs within which a fault must be found.
const RUNS_MOST: u64 = 10_000;

/// The length of a unit's header, which states the length of what follows.
const HEADER: usize = 2;

/// The most bytes of one unit without its header.
const UNIT_MOST: usize = 1_000;

/// A layer that makes units of the stream, inverts their bits, and ends with an empty one.
struct Units {
    bug: Option<Bug>,
    ended: bool,
}

impl Units {
    fn new(bug: Option<Bug>) -> Self {
        Self { bug, ended: false }
    }

    fn is(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }
}

fn unit(plain: &[u8]) -> Vec<u8> {
    let length = u16::try_from(plain.len()).expect("it is short");
    let inverted = plain.iter().map(|byte| !byte);
    length.to_be_bytes().into_iter().chain(inverted).collect()
}

impl Layer for Units {
    type Info = ();

    fn opened(&mut self) -> Option<()> {
        Some(())
    }

    fn received<'a>(&mut self, data: &'a [u8], _: &mut Wire<'_>) -> Outcome<Received<'a>> {
        if self.ended {
            return Ok(Received::taken(data.len()));
        }
        let Some((header, rest)) = data.split_first_chunk() else {
            return Ok(Received::incomplete());
        };
        let length = usize::from(u16::from_be_bytes(*header));
        if length > UNIT_MOST {
            return Err(ProtocolError::malformed("a unit is too long"));
        }
        let Some(part) = rest.get(..length) else {
            return Ok(match self.bug {
                Some(Bug::TakesIncomplete) => Received::taken(data.len()),
                _ => Received::incomplete(),
            });
        };

        let taken = Received::taken(HEADER + length);
        if part.is_empty() {
            self.ended = true;
            return Ok(taken.with_end());
        }
        let mut plain: Vec<u8> = part.iter().map(|byte| !byte).collect();
        match self.bug {
            Some(Bug::DropsInput) => plain.truncate(length - 1),
            Some(Bug::ShowsTwice) => plain.extend_from_within(..),
            Some(Bug::ShowsWire) => plain = part.to_vec(),
            Some(Bug::EndsEarly) => {
                self.ended = true;
                return Ok(taken.with_plain(plain).with_end());
            }
            _ => {}
        }
        Ok(taken.with_plain(plain))
    }

    fn send(&mut self, plain: &[u8], wire: &mut Wire<'_>) -> Outcome {
        if self.is(Bug::SendsPlain) {
            wire.write(plain);
            return Ok(());
        }

        for part in plain.chunks(UNIT_MOST) {
            match self.bug {
                Some(Bug::DropsOutput) => wire.write(&unit(&part[..part.len() - 1])),
                Some(Bug::SendsTwice) => wire.write(&[unit(part), unit(part)].concat()),
                _ => wire.write(&unit(part)),
            }
        }
        Ok(())
    }

    fn end(&mut self, wire: &mut Wire<'_>) {
        if !self.is(Bug::LeavesOutMark) {
            wire.write(&unit(&[]));
        }
    }

    fn wire_ended(&mut self) -> WireEnd {
        match self.bug {
            Some(Bug::TakesCutForEnd) => WireEnd::Clean,
            Some(Bug::TakesEndForCut) => WireEnd::Truncated,
            _ if self.ended => WireEnd::Clean,
            _ => WireEnd::Truncated,
        }
    }
}

/// Returns the plain systems in this layer, whose server has the fault.
fn systems(bug: Option<Bug>) -> Vec<(&'static str, Box<dyn Subject>)> {
    let put = |(name, make): &(&'static str, fn() -> Simulated)| {
        let layer = move |side| match side {
            Side::Accepted | Side::Connected => Units::new(bug),
            Side::Client | Side::Remote => Units::new(None),
        };
        let subject: Box<dyn Subject> = Box::new(make().within(move || layer));
        (*name, subject)
    };
    let systems = SYSTEMS
        .iter()
        .filter(|(name, _)| !OF_DATAGRAMS.contains(name));
    systems.map(put).collect()
}

/// The power of the simulation: a layer with a fault does not pass, and one without passes.
pub(crate) fn each_bug_of_a_layer_is_found() {
    let lost: Vec<_> = BUGS.into_iter().filter(|bug| !is_found(*bug)).collect();
    assert!(lost.is_empty(), "not found: {lost:?}");

    let mut sound = systems(None);
    for seed in 0..1_000 {
        let (name, system) = crate::of_seed(&mut sound, seed);
        if let Err(failure) = system.check(seed) {
            panic!("{name} in sound units: {failure}");
        }
    }
}

fn is_found(bug: Bug) -> bool {
    let mut systems = systems(Some(bug));
    let found = (0..RUNS_MOST).position(|seed: u64| {
        let (_, system) = crate::of_seed(&mut systems, seed);
        system.check(seed).is_err()
    });
    let after = found.map_or("never".to_owned(), |seed| {
        format!("after {} runs", seed + 1)
    });
    println!("  {bug:?}: found {after}");
    found.is_some()
}
