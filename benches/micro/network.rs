//! A network without a system: as many connections as asked for, and peers that send a message or
//! their end when they are told to. What remains of a turn is the loop's own work.

use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serveloop::driver::Wake;
use serveloop::net::{Event, Net};
use serveloop::{Address, Config};

const MESSAGE: usize = 64;

/// What the benchmark says that happens next.
#[derive(Clone, Default)]
pub(crate) struct Plan(Arc<Mutex<Steps>>);

#[derive(Default)]
struct Steps {
    connects: usize,
    /// Tokens of streams on which a message comes, and whether it is the end instead.
    comes: Vec<usize>,
    ends: bool,
    registered: Vec<usize>,
}

impl Plan {
    pub(crate) fn connect(&self, count: usize) {
        self.with(|steps| steps.connects += count);
    }

    /// A message on each of the `count` streams that were registered last.
    pub(crate) fn send(&self, count: usize) {
        self.with(|steps| {
            let from = steps.registered.len() - count;
            steps.comes.extend_from_slice(&steps.registered[from..]);
        });
    }

    /// The stream that was registered last ends.
    pub(crate) fn end_last(&self) {
        self.with(|steps| {
            steps.comes.extend(steps.registered.pop());
            steps.ends = true;
        });
    }

    fn with<T>(&self, change: impl FnOnce(&mut Steps) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

pub(crate) struct Planned {
    plan: Plan,
    now: Instant,
    ends: bool,
}

impl Planned {
    pub(crate) fn new(plan: &Plan) -> Self {
        Self {
            plan: plan.clone(),
            now: Instant::now(),
            ends: false,
        }
    }
}

impl Net for Planned {
    type Stream = ();
    type Listener = ();
    type Datagram = ();

    fn now(&mut self) -> Instant {
        self.now += Duration::from_micros(1);
        self.now
    }

    fn poll(&mut self, events: &mut Vec<Event>, _: Option<Duration>) -> io::Result<()> {
        self.ends = self.plan.with(|steps| {
            let event = |token| Event {
                token,
                readable: true,
                writable: true,
                closed: steps.ends,
                ..Event::default()
            };
            events.extend(steps.comes.drain(..).map(event));
            if steps.connects > 0 {
                events.push(event(0));
            }
            std::mem::take(&mut steps.ends)
        });
        Ok(())
    }

    fn waker(&mut self, _: usize) -> io::Result<Box<dyn Wake>> {
        Ok(Box::new(|| ()))
    }

    fn listen(&mut self, at: &Address, _: &Config, _: usize) -> io::Result<((), Address)> {
        Ok(((), at.clone()))
    }

    fn accept(&mut self, (): &mut ()) -> io::Result<((), Address)> {
        self.plan.with(|steps| {
            steps.connects = steps.connects.checked_sub(1).ok_or(ErrorKind::WouldBlock)?;
            Ok(((), Address::Unix("".into())))
        })
    }

    fn register(&mut self, (): &mut (), token: usize) -> io::Result<()> {
        self.plan.with(|steps| steps.registered.push(token));
        Ok(())
    }

    fn read(&mut self, (): &mut (), buffer: &mut [u8]) -> io::Result<usize> {
        Ok(if self.ends {
            0
        } else {
            MESSAGE.min(buffer.len())
        })
    }

    fn write(&mut self, (): &mut (), data: &[u8]) -> io::Result<usize> {
        Ok(data.len())
    }
}
