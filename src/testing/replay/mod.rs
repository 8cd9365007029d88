//! Recorded connections, run through a protocol again in virtual time.

mod comparison;
mod player;
mod script;

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::address::Peer;
use crate::error::counted;
use crate::service::recorder::{Recording, RecordingError};
use crate::session::{Factory, catch};
use crate::testing::Simulation;
use crate::testing::replay::player::Player;
use crate::testing::replay::script::{Step, steps};

impl Recording {
    /// Runs each connection's input through a protocol of `factory` again, step by step: the same
    /// chunks at the same times, in the order of all connections, with the peer taking output when it did. Compares what
    /// the protocol writes and how it ends. Nothing is waited for.
    ///
    /// A step is what happens to a connection from outside (bytes, the end of the stream, a deadline, a
    /// wake, a post, a shutdown), with all calls that follow from it. Only what the peer sees is
    /// compared: a protocol may take its input in other portions, as long as it says the same in the
    /// same step. After the first difference a connection is left alone.
    ///
    /// A protocol that depends on the bytes of its connection and on [`Transport::now`](crate::Transport::now) alone replays
    /// without a difference, and so do protocols that share state by their factory, if one loop
    /// served them and no connection was evicted. What comes from elsewhere is not in the record: the
    /// calendar, random numbers, files, the results of threads. Of the factory, only
    /// [`build_protocol`](Factory::build_protocol) is called.
    ///
    /// ```
    /// use serveloop::protocols::Echo;
    /// use serveloop::service::recorder::{Recorder, RecorderOptions, Recording};
    /// use serveloop::testing::MemorySession;
    /// use serveloop::{Peer, Protocol, Result, Transport};
    ///
    /// /// An echo that is mended: it said everything in capitals before.
    /// struct Loud;
    ///
    /// impl Protocol for Loud {
    ///     fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
    ///         transport.write(&data.to_ascii_uppercase());
    ///         Ok(data.len())
    ///     }
    /// }
    ///
    /// let recorder = Recorder::new(RecorderOptions::default());
    /// MemorySession::new(recorder.protocol(Loud)).receive(b"hello");
    /// let mut record = Vec::new();
    /// recorder.write(&mut record)?;
    ///
    /// let recording = Recording::read(&record[..])?;
    /// assert!(recording.replay(|_: &Peer| Some(Loud))?.is_same());
    /// let replay = recording.replay(|_: &Peer| Some(Echo))?;
    /// let difference = replay.first().unwrap();
    /// assert_eq!((difference.step(), difference.offset()), (2, Some(0)));
    /// assert_eq!((difference.expected(), difference.got()), ("\"HELLO\"", "\"hello\""));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Fails if the record has sizes alone.
    pub fn replay<F: Factory>(&self, mut factory: F) -> Result<Replay, RecordingError> {
        if !self.has_content() {
            let problem = "the record has sizes alone, and a replay needs the content";
            return Err(RecordingError::of(problem));
        }

        let scripts: Vec<_> = self.connections().iter().map(steps).collect();
        let base = Instant::now();
        let mut players: Vec<Option<Player<'_, F::Protocol>>> = Vec::new();
        players.resize_with(scripts.len(), || None);
        let mut replay = Replay::default();

        for (connection, step) in in_order(&scripts) {
            let recorded = &self.connections()[connection];
            if step.number == 1 {
                let begin = base.checked_add(recorded.opened()).unwrap_or(base);
                match catch(|| factory.build_protocol(recorded.peer())).flatten() {
                    Some(protocol) => {
                        players[connection] = Some(Player::new(recorded, protocol, begin));
                    }
                    None => replay.refuse(recorded.peer(), step),
                }
            }
            if let Some(player) = &mut players[connection] {
                player.step(step);
                replay.steps += 1;
            }
        }

        for player in players.into_iter().flatten() {
            replay.differences.extend(player.difference);
            replay.ends.push(player.reason);
        }
        replay.sort();
        replay.connections = scripts.len();
        Ok(replay)
    }
}

/// Returns the steps of all connections in the order in which they happened.
fn in_order<'a, 'b>(scripts: &'b [Vec<Step<'a>>]) -> Vec<(usize, &'b Step<'a>)> {
    let numbered = scripts.iter().enumerate();
    let all =
        numbered.flat_map(|(connection, steps)| steps.iter().map(move |step| (connection, step)));
    let mut all: Vec<_> = all.collect();
    all.sort_by_key(|(_, step)| step.cause.order);
    all
}

impl<M, F> Simulation<M>
where
    M: FnMut() -> F,
    F: Factory,
{
    /// Runs the connections of the record at `path` through the protocol again: see
    /// [`Recording::replay`]. The other settings of the simulation have no effect on it.
    ///
    /// ```
    /// use serveloop::protocols::Echo;
    /// use serveloop::service::recorder::{Recorder, RecorderOptions};
    /// use serveloop::testing::{MemorySession, Simulation};
    /// use serveloop::Peer;
    ///
    /// # let directory = std::env::temp_dir().join(format!("replay-{}", std::process::id()));
    /// # std::fs::create_dir_all(&directory)?;
    /// # let path = directory.join("record");
    /// let recorder = Recorder::new(RecorderOptions::default());
    /// MemorySession::new(recorder.protocol(Echo)).receive(b"hello");
    /// recorder.write_to(&path)?;
    ///
    /// let replay = Simulation::new(|| |_: &Peer| Some(Echo)).replay(&path)?;
    /// replay.assert_same();
    /// # std::fs::remove_dir_all(&directory)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Fails if the record cannot be read, or has sizes alone.
    pub fn replay(&mut self, path: impl AsRef<Path>) -> Result<Replay, RecordingError> {
        Recording::open(path)?.replay(self.make_factory())
    }
}

/// What a replay has found: see [`Recording::replay`].
#[derive(Clone, Debug, Default)]
pub struct Replay {
    connections: usize,
    steps: u64,
    differences: Vec<Difference>,
    /// Why each connection that was replayed has ended, if it has.
    ends: Vec<Option<String>>,
}

impl Replay {
    /// Returns how many connections there are.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections
    }

    /// Returns how many steps were taken.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Returns whether every answer was the recorded one.
    #[must_use]
    pub fn is_same(&self) -> bool {
        self.differences.is_empty()
    }

    /// Returns the first difference of each connection that has one, the earliest first.
    #[must_use]
    pub fn differences(&self) -> &[Difference] {
        &self.differences
    }

    /// Returns the earliest difference.
    #[must_use]
    pub fn first(&self) -> Option<&Difference> {
        self.differences.first()
    }

    /// Returns why the connections have ended in the replay, in the order in which they were opened: the text of each
    /// [reason](crate::CloseReason). Those that were still open are left out.
    pub fn ends(&self) -> impl Iterator<Item = &str> {
        self.ends.iter().filter_map(|reason| reason.as_deref())
    }

    /// Checks that every answer was the recorded one.
    ///
    /// # Panics
    /// Panics with what differs if one was not.
    #[track_caller]
    pub fn assert_same(&self) {
        assert!(self.is_same(), "{self}");
    }

    fn refuse(&mut self, peer: &Peer, step: &Step<'_>) {
        let (expected, got) = ("a protocol", "the factory made none");
        let at = Duration::ZERO;
        let difference = Difference::new(peer.clone(), step, at, None, expected, got);
        self.differences.push(difference);
    }

    fn sort(&mut self) {
        self.differences.sort_by_key(|difference| difference.order);
    }
}

impl fmt::Display for Replay {
    /// Writes a line with the counts, and one for each difference.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let connections = counted(self.connections, "connection", "connections");
        let steps = counted(self.steps, "step", "steps");
        let differences = counted(self.differences.len(), "difference", "differences");
        write!(f, "{connections}, {steps}, {differences}")?;
        for difference in &self.differences {
            write!(f, "\n{difference}")?;
        }
        Ok(())
    }
}

/// The first difference between a recorded connection and its replay.
#[derive(Clone, Debug)]
pub struct Difference {
    peer: Peer,
    step: usize,
    cause: String,
    at: Duration,
    order: u64,
    offset: Option<u64>,
    expected: String,
    got: String,
}

impl Difference {
    fn new(
        peer: Peer,
        step: &Step<'_>,
        at: Duration,
        offset: Option<u64>,
        expected: &str,
        got: &str,
    ) -> Self {
        Self {
            peer,
            step: step.number,
            cause: step.cause.what.to_string(),
            at,
            order: step.cause.order,
            offset,
            expected: expected.to_owned(),
            got: got.to_owned(),
        }
    }

    /// Returns the number of the connection: see [`Peer::id`].
    #[must_use]
    pub fn connection(&self) -> u64 {
        self.peer.id()
    }

    /// Returns the peer.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Returns the number of the step on the connection, counted from 1, which is the making of the
    /// connection.
    #[must_use]
    pub fn step(&self) -> usize {
        self.step
    }

    /// Returns when it showed, after the connection was opened: at the step, or before it if a deadline of
    /// the protocol is another one now.
    #[must_use]
    pub fn at(&self) -> Duration {
        self.at
    }

    /// Returns the number of the byte of the output that differs, counted from 0, or `None` if it is
    /// not the output that differs.
    #[must_use]
    pub fn offset(&self) -> Option<u64> {
        self.offset
    }

    /// Returns what was recorded: an excerpt of the output, or how the connection went on.
    #[must_use]
    pub fn expected(&self) -> &str {
        &self.expected
    }

    /// Returns what came of the replay.
    #[must_use]
    pub fn got(&self) -> &str {
        &self.got
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            peer,
            step,
            cause,
            expected,
            got,
            ..
        } = self;
        let seconds = self.at.as_secs_f64();
        write!(f, "connection {} of {peer}: ", peer.id())?;
        write!(f, "after {seconds:.6} s, step {step} ({cause}): ")?;
        if let Some(offset) = self.offset {
            write!(f, "byte {offset} of the output: ")?;
        }
        write!(f, "expected {expected}, got {got}")
    }
}
