//! Protocols of the dialogues that are held in every model.

use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Instant;

use serveloop::framing::{FrameProtocol, FrameTransport, Framed, LengthPrefix};
use serveloop::{Protocol, ProtocolError, Transport};

use crate::support::probe::{Log, Probe};
use crate::support::{millis, noise, panic_quietly};

pub(crate) type Any = Box<dyn Protocol + Send>;

/// Answers frames in capitals, and says what was wrong with one.
struct Shout;

impl FrameProtocol for Shout {
    type Framing = LengthPrefix;

    fn frame_received(
        &mut self,
        frame: &[u8],
        frames: &mut FrameTransport<'_, LengthPrefix>,
    ) -> Result<(), ProtocolError> {
        frames.send(&frame.to_ascii_uppercase())
    }

    fn input_rejected(
        &mut self,
        error: &ProtocolError,
        frames: &mut FrameTransport<'_, LengthPrefix>,
    ) {
        let text: &[u8] = match error {
            ProtocolError::TooLong { .. } => b"too long",
            _ => b"bad",
        };
        frames.send(text).unwrap();
    }
}

pub(crate) fn shout() -> Any {
    Box::new(Framed::new(LengthPrefix::u32(16), Shout))
}

pub(crate) fn frame(text: &str) -> Vec<u8> {
    let length = u32::try_from(text.len()).unwrap();
    [&length.to_be_bytes(), text.as_bytes()].concat()
}

pub(crate) fn probe() -> Probe {
    Probe::new(&Log::default())
}

pub(crate) const PRODUCED: usize = 1 << 20;

/// Writes as much as fits, goes on when asked to, and closes at the end.
pub(crate) fn producer() -> Any {
    fn produce(sent: &mut usize, transport: &mut Transport<'_>) {
        let all = noise(PRODUCED);
        while !transport.is_full() && *sent < all.len() {
            let next = all.len().min(*sent + 10_000);
            transport.write(&all[*sent..next]);
            *sent = next;
        }
        if *sent == all.len() {
            transport.close();
        }
    }
    let sent = Arc::new(Mutex::new(0));
    let resumed = Arc::clone(&sent);
    let made = move |transport: &mut Transport<'_>| {
        produce(&mut sent.lock().unwrap(), transport);
        Ok(())
    };
    Box::new(
        probe()
            .made(made)
            .resume(move |transport| produce(&mut resumed.lock().unwrap(), transport)),
    )
}

/// Has each message answered by another thread, and takes no further one until then.
pub(crate) fn deferring() -> Any {
    let (sender, receiver) = mpsc::channel();
    let take = move |data: &[u8], transport: &mut Transport<'_>| {
        let Some(end) = data.iter().position(|byte| *byte == b';') else {
            return Ok(0);
        };
        transport.pause_reading();
        let (waker, answers, line) = (transport.waker(), sender.clone(), data[..end].to_vec());
        thread::spawn(move || {
            answers.send(line.to_ascii_uppercase()).unwrap();
            waker.wake();
        });
        Ok(end + 1)
    };
    let answer = move |transport: &mut Transport<'_>| {
        for line in receiver.try_iter() {
            transport.write(&line);
            transport.resume_reading();
        }
    };
    Box::new(probe().data(take).woken(answer))
}

/// Says something three times on its own, then closes.
pub(crate) fn ticking() -> Any {
    let next = Arc::new(Mutex::new((Instant::now() + millis(10), 0)));
    let due = Arc::clone(&next);
    let tick = move |transport: &mut Transport<'_>| {
        let mut next = next.lock().unwrap();
        transport.write(b"tick;");
        *next = (transport.now() + millis(10), next.1 + 1);
        if next.1 == 3 {
            transport.close();
        }
    };
    Box::new(
        probe()
            .poll(move || Some(due.lock().unwrap().0))
            .timeout(tick),
    )
}

pub(crate) fn greeting() -> Any {
    Box::new(probe().made(|transport| {
        transport.write(b"we are closed");
        transport.close();
        Ok(())
    }))
}

pub(crate) fn panicking() -> Any {
    Box::new(probe().data(|_, _| panic_quietly()))
}

pub(crate) fn polite() -> Any {
    let take = |data: &[u8], transport: &mut Transport<'_>| {
        transport.write(data);
        Ok(data.len())
    };
    Box::new(probe().data(take).shutdown(|transport| {
        transport.write(b"farewell");
        transport.close();
    }))
}

pub(crate) fn writing(length: usize) -> Any {
    Box::new(probe().made(move |transport| {
        transport.write(&noise(length));
        Ok(())
    }))
}

pub(crate) fn aborting() -> Any {
    Box::new(probe().data(|data, transport| {
        transport.abort();
        Ok(data.len())
    }))
}
