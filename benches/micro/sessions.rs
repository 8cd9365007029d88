//! `Session`: one step, from what was read to what is to be sent, as a driver makes it.

use std::hint::black_box;
use std::marker::PhantomData;
use std::time::Instant;

use criterion::{Criterion, Throughput};
use serveloop::driver::{Buffer, Clock, Context, Mailbox, Session};
use serveloop::framing::{
    FrameProtocol, FrameTransport, Framed, Framing, LengthPrefix, Lines, Message,
};
use serveloop::protocols::Echo;
use serveloop::{Address, Config, Peer, Protocol, ProtocolError};

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
    let mut step = Step::new(Framed::new(
        LengthPrefix::u32(FRAME_MOST),
        EchoFrames(PhantomData),
    ));
    group.bench_function("echo of a frame, 64 B", |bencher| {
        bencher.iter(|| step.echo(black_box(&frame), 0));
    });
    let line = [&[b'x'; 63][..], b"\n"].concat();
    let mut step = Step::new(Framed::new(Lines::new(FRAME_MOST), EchoFrames(PhantomData)));
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
struct EchoFrames<F>(PhantomData<F>);

impl<F: Framing> FrameProtocol for EchoFrames<F>
where
    for<'m> Message<'m, F>: AsRef<[u8]>,
{
    type Framing = F;

    fn frame_received(
        &mut self,
        frame: Message<'_, F>,
        frames: &mut FrameTransport<'_, F>,
    ) -> Result<(), ProtocolError> {
        frames.send(frame.as_ref())
    }
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
            mailbox: Mailbox::new(Box::new(|| ())),
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
            driver: mailbox,
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
