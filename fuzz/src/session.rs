//! A session between a driver and a protocol that both do whatever bytes say, compared with a model.

mod model;
mod pattern;
mod scripted;
mod steps;

use std::cell::{RefCell, RefMut};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serveloop::driver::{Buffer, Clock, Context, Mailbox, Session, Tick};
use serveloop::{Address, CloseReason, Config, Peer};

use crate::input::Input;
use model::{Event, Model};
use pattern::piece;
use scripted::Scripted;
use steps::{Act, Answer, Step};

/// A configuration, and then one step for every four bytes.
///
/// # Panics
/// When the session breaks a rule of the model.
pub fn target(data: &[u8]) {
    let mut input = Input::new(data);
    let kind = input.below(8);
    let config = steps::config(&mut input);
    if kind == 7 {
        return datagram(&mut input, config);
    }
    let mut steps = vec![Step::of(Act::Open, &mut input)];
    while !input.is_empty() {
        let act = Act::of(&mut input);
        steps.push(Step::of(act, &mut input));
    }
    let mut run = Run::new(config, "tcp://127.0.0.1:1", kind == 6);
    for (number, step) in steps.iter().enumerate() {
        if let Err(fault) = run.perform(*step) {
            panic!("{fault}\nafter {:#?}\n{:?}", &steps[..=number], run.model());
        }
    }
    if let Err(fault) = run.end() {
        panic!("at the end, {fault}\nafter {steps:#?}\n{:?}", run.model());
    }
}

fn datagram(input: &mut Input<'_>, config: Config) {
    let mut run = Run::new(config, "udp://127.0.0.1:1", false);
    let length = input.below(64);
    run.answer(Step::of(Act::Woken, input));
    if let Err(fault) = run.datagram(length) {
        panic!("{fault}\nwith {length} bytes\n{:?}", run.model());
    }
}

/// A session, the model of it, and what its driver keeps.
struct Run {
    session: Session<Scripted>,
    protocol: Scripted,
    config: Config,
    clock: Clock,
    mailbox: Arc<Mailbox>,
    /// The driver's one output buffer; `None` while a session has it.
    scratch: Option<Box<Buffer>>,
    in_turn: bool,
    /// What the driver was told when it last asked for the deadline.
    asked: Option<Option<Tick>>,
}

impl Run {
    /// A session with a peer that came to us, or that we went to.
    fn new(config: Config, peer: &str, outbound: bool) -> Self {
        config.validate().expect("small limits are valid");
        let address: Address = peer.parse().expect("an address");
        let clock = Clock::new(Instant::now());
        let peer = Peer::new(address, (!outbound).then_some(0));
        let model = Model::new(config.clone(), outbound);
        let protocol = Scripted::new(Rc::new(RefCell::new(model)));
        Self {
            session: Session::new(protocol.clone(), peer, clock.tick()),
            protocol,
            config,
            clock,
            mailbox: Mailbox::new(Box::new(|| ())),
            scratch: Some(Box::default()),
            in_turn: false,
            asked: None,
        }
    }

    fn model(&self) -> RefMut<'_, Model> {
        self.protocol.model.borrow_mut()
    }

    fn answer(&self, step: Step) {
        *self.protocol.answers.borrow_mut() = step.answers;
    }

    fn call(&mut self, event: impl FnOnce(&mut Session<Scripted>, &Context<'_>)) {
        let context = Context {
            clock: &self.clock,
            config: &self.config,
            driver: &self.mailbox,
            id: 0,
        };
        event(&mut self.session, &context);
    }

    fn perform(&mut self, step: Step) -> Result<(), String> {
        self.answer(step);
        match step.act {
            Act::Open => self.open(),
            Act::Data => self.data(step.amount),
            Act::More => self.more(step.amount),
            Act::Eof => self.eof(),
            Act::Sent => self.sent(step.amount),
            Act::Wait => self.wait(step.amount),
            Act::Timeout => self.timeout(),
            Act::Woken => self.tell(Event::Woken, Session::handle_woken),
            Act::Shutdown => {
                self.model().shutdown = true;
                self.tell(Event::Shutdown, Session::handle_shutdown);
            }
            Act::Turn => self.turn(),
            Act::Stalled => {
                self.model().stall();
                self.call(|session, context| session.note_stalled(context));
            }
            Act::Deadline => self.deadline(),
            Act::Fail => {
                self.model().fail(CloseReason::Panicked);
                self.session.fail(CloseReason::Panicked);
            }
            Act::Lost => self.lost(),
        }
        self.compare()
    }

    fn open(&mut self) {
        self.model().open();
        self.call(Session::handle_open);
        let calls = self.model().calls;
        self.model().demand(calls == 1, "not told of the beginning");
    }

    /// A driver reads only if the session wants input; one that does all the same loses nothing.
    fn data(&mut self, amount: usize) {
        let is_rude = amount % 16 == 0;
        if self.model().eof || !(is_rude || self.session.wants_input()) {
            return;
        }
        let count = steps::data(amount, &self.model());
        let data = piece(self.model().fed, count);
        self.model().feed(count);
        self.call(|session, context| session.handle_data(&data, context));
        self.model().end_show();
    }

    fn more(&mut self, amount: usize) {
        let is_rude = amount % 16 == 0;
        if !(is_rude || self.session.has_more()) {
            return;
        }
        let told = self.model().more();
        self.call(Session::handle_more);
        let calls = self.model().calls;
        let is_told = self.model().event != Event::More || calls == 1;
        self.model()
            .demand(!told || is_told, "not called as it asked");
        self.model().end_show();
        self.model().end_eof();
    }

    fn eof(&mut self) {
        self.model().begin(Event::End);
        self.model().eof = true;
        self.call(Session::handle_eof);
        self.model().end_eof();
    }

    fn sent(&mut self, amount: usize) {
        let waiting = self.session.output().len();
        if waiting == 0 {
            return;
        }
        let count = if amount < 64 {
            waiting
        } else {
            1 + amount % waiting
        };
        let resumes = self.model().send(count);
        self.call(|session, context| session.output_sent(count, context));
        let calls = self.model().calls;
        self.model()
            .demand(calls == usize::from(resumes), "resume_writing");
    }

    fn wait(&mut self, amount: usize) {
        let now = self.clock.now() + Duration::from_millis(amount as u64 / 8);
        self.clock.set(now);
        self.model().now = self.clock.tick();
    }

    fn timeout(&mut self) {
        let now = self.clock.now();
        let panics = *self.protocol.panics_later.borrow();
        let own = self.model().own.is_some_and(|at| at <= now);
        let told = own && !panics && !self.model().closing;
        self.model().begin(Event::Timeout);
        self.call(Session::handle_timeout);
        let mut model = self.model();
        let calls = model.calls;
        model.demand(calls == usize::from(told), "handle_timeout");
        let now = model.now;
        if let Some((_, deadline)) = model.limit().filter(|(at, _)| *at <= now) {
            model.fail(CloseReason::TimedOut(deadline));
        }
    }

    fn tell(&mut self, event: Event, handle: fn(&mut Session<Scripted>, &Context<'_>)) {
        let told = !self.model().closing;
        self.model().begin(event);
        self.call(handle);
        let calls = self.model().calls;
        self.model().demand(calls == usize::from(told), "not told");
    }

    /// Begins or ends a turn: the driver's output buffer is lent or taken back.
    fn turn(&mut self) {
        self.in_turn = !self.in_turn;
        if self.in_turn {
            return self.session.lend(&mut self.scratch);
        }
        if self.model().waiting() > 0 {
            self.model().stall();
        }
        let mut scratch = self.scratch.take();
        self.call(|session, context| session.reclaim(&mut scratch, context));
        let is_back = scratch.as_ref().is_some_and(|buffer| buffer.is_empty());
        self.model()
            .demand(is_back, "the buffer did not come back empty");
        self.scratch = scratch;
    }

    fn deadline(&mut self) {
        let panics = *self.protocol.panics_later.borrow();
        let mut asked = None;
        self.call(|session, context| asked = session.deadline(context));
        let expected = self.expected_deadline();
        self.model()
            .demand(panics || asked == expected, "the deadline");
        self.asked = Some(asked);
    }

    fn expected_deadline(&self) -> Option<Tick> {
        let model = self.model();
        let own = model.own.filter(|_| !model.closing);
        let own = own.map(|at| self.clock.tick_of(at));
        let limit = model.limit().map(|(at, _)| at);
        own.into_iter().chain(limit).min()
    }

    fn lost(&mut self) {
        let was_lost = self.model().lost;
        self.model().begin(Event::Lost);
        let mut reason = None;
        self.call(|session, context| reason = session.handle_lost(context));
        let mut model = self.model();
        let calls = model.calls;
        let once = calls == usize::from(!was_lost) && reason.is_some() != was_lost;
        model.demand(once, "the end was not told once");
        model.lose();
    }

    /// What a driver can see of the session is what the model says.
    fn compare(&mut self) -> Result<(), String> {
        self.compare_deadline();
        let Self { session, .. } = self;
        let mut model = self.protocol.model.borrow_mut();
        model.event = Event::Nothing;
        let output = session.output();
        let follows = output.len() == model.waiting() && pattern::follows(output, model.sent);
        let wants = !(model.blocked() || model.eof || model.pending);
        let more = model.pending && !model.blocked() || model.again && !model.closing;
        let bounded = output.len() <= model.most();
        let (held, is_idle) = (session.held(), model.waiting() + model.unread() == 0);
        let accounted = held >= model.waiting() && (held == 0 || !is_idle);
        for (holds, rule) in [
            (follows, "output"),
            (bounded, "more output than allowed"),
            (session.wants_input() == wants, "wants_input"),
            (session.has_more() == more, "has_more"),
            (session.is_closing() == model.closing, "is_closing"),
            (session.is_aborted() == model.aborted, "is_aborted"),
            (session.is_finished() == model.finished, "is_finished"),
            (session.is_eof() == model.eof, "is_eof"),
            (session.has_replied() == model.replied, "has_replied"),
            (accounted, "held"),
        ] {
            model.demand(holds, rule);
        }
        model.fault.clone().map_or(Ok(()), Err)
    }

    /// A driver that was told of no change would still be in time with the deadline that it knows.
    fn compare_deadline(&mut self) {
        let Some(asked) = self.asked else {
            return;
        };
        if self.session.deadline_changed() {
            return;
        }
        let expected = self.expected_deadline();
        let in_time = expected.is_none_or(|at| asked.is_some_and(|asked| asked <= at));
        self.model()
            .demand(in_time, "an earlier deadline that is not reported");
    }

    /// The peer and the protocol do all that is to be done: everything is shown, unless the protocol
    /// wants none of it, and the end comes once.
    fn end(&mut self) -> Result<(), String> {
        let polite = |act| Step {
            act,
            amount: 1,
            answers: [Answer::TAKES_ALL; 2],
        };
        self.perform(polite(Act::Eof))?;
        for _ in 0..4 {
            self.perform(Step {
                act: Act::Sent,
                amount: 0,
                ..polite(Act::Sent)
            })?;
            self.perform(polite(Act::More))?;
        }
        let model = self.model();
        let shown = model.unread() == 0 && model.eof_told;
        let excused = model.closing || model.paused;
        drop(model);
        self.model()
            .demand(shown || excused, "not everything was shown");
        self.perform(polite(Act::Lost))?;
        self.perform(polite(Act::Lost))
    }

    fn datagram(&mut self, length: usize) -> Result<(), String> {
        let mut model = self.model();
        model.open();
        model.event = Event::Datagram;
        model.fed = length;
        drop(model);
        let data = piece(0, length);
        self.call(|session, context| session.handle_datagram(&data, context));
        let mut model = self.model();
        (model.eof, model.eof_told) = (true, true);
        let ended = self.session.is_closing() && self.session.is_eof();
        model.demand(ended, "a datagram's session that goes on");
        model.close();
        drop(model);
        self.lost();
        self.compare()
    }
}
