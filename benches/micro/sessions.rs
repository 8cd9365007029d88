//! `Session`: one step, from what was read to what is to be sent, as a driver makes it.

use std::hint::black_box;
use std::time::Instant;

use criterion::{Criterion, Throughput};
use serveloop::protocols::Echo;
use serveloop::{
    Address, Buffer, Clock, Config, Context, FrameProtocol, FrameTransport, Framed, Framing,
    LengthPrefix, Lines, Mailbox, Peer, Protocol, ProtocolError, Session, Wake,
};

const FRAME_MOST: usize = 1 << 20;

pub(crate) fn measure(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("session step");
    for size in [64, 1 << 10, 64 << 10] {
        let message = vec![b'x'; size];
        let mut step = Step::new(Echo);
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(format!("echo, {size} B"), |bencher| {
            bencher.iter(|| step.echo(black_box(&message), 0));
        });
    }
    group.throughput(Throughput::Elements(1));
    let frame = [&60_u32.to_be_bytes()[..], &[b'x'; 60]].concat();
    let mut step = Step::new(Framed::new(LengthPrefix::u32(FRAME_MOST), EchoFrames));
    group.bench_function("echo of a frame, 64 B", |bencher| {
        bencher.iter(|| step.echo(black_box(&frame), 0));
    });
    let line = [&[b'x'; 63][..], b"\n"].concat();
    let mut step = Step::new(Framed::new(Lines::new(FRAME_MOST), EchoFrames));
    group.bench_function("echo of a line, 64 B", |bencher| {
        bencher.iter(|| step.echo(black_box(&line), 0));
    });
    group.bench_function("echo of a line in two pieces", |bencher| {
        bencher.iter(|| step.echo(black_box(&line), 40));
    });
    let lines = line.repeat(16);
    group.throughput(Throughput::Elements(16));
    group.bench_function("echo of 16 lines at once", |bencher| {
        bencher.iter(|| step.echo(black_box(&lines), 0));
    });
    group.finish();
}

/// Echoes whole messages.
struct EchoFrames;

impl<F: Framing> FrameProtocol<F> for EchoFrames {
    fn frame_received(
        &mut self,
        frame: &[u8],
        frames: &mut FrameTransport<'_, '_, F>,
    ) -> Result<(), ProtocolError> {
        frames.send(frame)
    }
}

struct Nobody;

impl Wake for Nobody {
    fn wake(&self) {}
}

/// A session and all that a driver lends it.
struct Step<P> {
    session: Session<P>,
    clock: Clock,
    config: Config,
    mailbox: std::sync::Arc<Mailbox>,
    scratch: Option<Box<Buffer>>,
}

impl<P: Protocol> Step<P> {
    fn new(protocol: P) -> Self {
        let clock = Clock::new(Instant::now());
        let peer = Peer::new(Address::Unix("/peer".into()), Some(0));
        Self {
            session: Session::new(protocol, peer, clock.tick()),
            clock,
            config: Config::default(),
            mailbox: Mailbox::new(Box::new(Nobody)),
            scratch: Some(Box::default()),
        }
    }

    /// What comes, in two pieces if `cut` is not 0, is answered, and the answer taken.
    fn echo(&mut self, message: &[u8], cut: usize) {
        let Self {
            session,
            clock,
            config,
            mailbox,
            scratch,
        } = self;
        let context = Context {
            clock,
            config,
            wakers: mailbox,
            id: 0,
        };
        session.lend(scratch);
        if cut > 0 {
            session.handle_data(&message[..cut], &context);
        }
        session.handle_data(&message[cut..], &context);
        let count = black_box(session.output()).len();
        assert_eq!(count, message.len(), "all of it comes back");
        session.output_sent(count, &context);
        session.reclaim(scratch, &context);
        black_box(session.deadline_changed());
    }
}
