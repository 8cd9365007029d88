//! The seven phases of a turn, in order.

use std::time::Duration;
use std::{fmt, io, mem};

use log::Level;

use crate::LOG_TARGET;
use crate::address::Peer;
use crate::error::{CloseReason, Deadline, counted};
use crate::net::Net;
use crate::reactor::accept::Admission;
use crate::reactor::connections::Listed;
use crate::reactor::hub::Hub;
use crate::reactor::listeners::Listeners;
use crate::reactor::model::FIRST_OF_MODEL;
use crate::reactor::token::{FIRST_TOKEN, is_of_connection};
use crate::reactor::{LONG, Reactor, SHUTDOWN, WAKER};
use crate::session::{Actions, Factory, REPEAT, Tick, catch, log_end};

impl<F: Factory, N: Net> Reactor<F, N> {
    /// Waits for events, up to `timeout` or the loop's own next deadline.
    pub(super) fn wait(&mut self, mut timeout: Option<Duration>) -> io::Result<()> {
        if !mem::take(&mut self.follows) {
            if !self.has_started {
                self.start();
                if self.is_finished() {
                    // The caller learns only now that there is nothing to wait for.
                    timeout = Some(Duration::ZERO);
                }
            }
            // The caller may have spent time elsewhere since the last turn.
            self.ended = self.read_clock();
        }

        self.factory_due = self.factory_deadline();
        let timeout = match (self.patience(self.factory_due), timeout) {
            (Some(own), Some(asked)) => Some(own.min(asked)),
            (own, asked) => own.or(asked),
        };

        self.events.clear();
        self.busy_poll
            .poll(&mut self.net, &mut self.events, timeout)
    }

    /// Reads the clock, once for the whole turn.
    pub(crate) fn now(&mut self) {
        let now = self.read_clock();
        self.env.clock.advance(now);
    }

    #[inline]
    fn read_clock(&mut self) -> Tick {
        match self.net.nanos() {
            Some(nanos) => Tick::from_nanos(nanos.saturating_sub(self.zero)),
            None => self.env.clock.tick_of(self.net.now()),
        }
    }

    /// Passes each event to its connection, listener or model, and starts a requested shutdown.
    pub(super) fn dispatch(&mut self) {
        self.connections.begin_turn();
        let is_requested = self.shutdown.is_requested();
        self.is_direct = !is_requested
            && self.connections.is_idle(self.env.clock.tick())
            && self
                .events
                .iter()
                .all(|event| is_of_connection(event.token));
        if !self.is_direct {
            self.note_events();
        }
    }

    /// Notes all events, and starts a requested shutdown.
    fn note_events(&mut self) {
        let mut is_mixed = false;
        for event in &self.events {
            if event.token < FIRST_TOKEN {
                is_mixed = true;
            } else if !self.connections.note(event) && !self.sessions.note_event(event) {
                self.effects.statistics.stale_events += 1;
            }
        }

        if is_mixed {
            self.note_others();
        }
        if self.shutdown.is_requested() {
            self.obey_request();
        }
    }

    /// Acts on deadlines that have passed.
    pub(super) fn expire(&mut self) {
        let now = self.env.clock.tick();
        if !self.is_direct && self.connections.deadline().is_some_and(|at| at <= now) {
            let most = self.env.config.timeouts_per_turn;
            self.connections.expire(now, most);
        }
        if self.sessions.deadline().is_some_and(|at| at <= now) {
            let most = self.env.config.timeouts_per_turn;
            self.sessions.expire(now, most);
        }
        self.listeners.expire(now);
        if self.shutdown.expire(now) {
            self.end_all(false);
        }
    }

    /// Serves the connections that have work, then accepts new ones.
    #[inline]
    pub(super) fn drive(&mut self) {
        let mut hub = Hub::new(
            &mut self.net,
            &self.env,
            &mut self.effects,
            &mut self.input,
            self.shutdown.has_begun(),
        );
        if self.is_direct {
            let stale = self.connections.serve(&self.events, &mut hub);
            self.effects.statistics.stale_events += stale;
        } else {
            self.connections.drive(&mut hub);
        }
        if self.listeners.is_ready() {
            self.accept(self.env.config.accepts_per_turn);
        }
        if self.sessions.is_busy() {
            let (mut admission, listeners) = self.lend();
            admission.sessions.drive(listeners, &mut admission.hub);
        }
    }

    /// Calls the factory, and begins the outbound connections that are due.
    pub(crate) fn service_actions(&mut self) {
        let now = self.env.clock.tick();
        if self
            .requests
            .again
            .is_some_and(|at| self.env.clock.tick_of(at) <= now)
        {
            self.requests.again = None;
        }
        // Asked before the wait, and again only if that time has come: what the turn itself brought
        // forward is for the next turn, which does not wait then.
        if self.factory_due.is_some_and(|at| at <= now)
            && self.factory_deadline().is_some_and(|at| at <= now)
        {
            self.next_tick = now.after(REPEAT);
            self.act(F::handle_timeout);
        }
        self.act(F::service_actions);

        if !self.requests.connects.is_empty() || (!self.postponed.is_empty() && self.is_due_again())
        {
            self.begin_connects();
        }
    }

    /// Frees what has ended, and reports failures to the factory.
    #[inline]
    pub(super) fn reap(&mut self) {
        self.check_pace();
        if self.effects.is_crowded {
            self.relieve();
        }
        if self.effects.held_besides_posts() != self.alarmed {
            self.set_alarm();
        }
        if let Some(model) = &mut self.model {
            let mut hub = Hub::new(
                &mut self.net,
                &self.env,
                &mut self.effects,
                &mut self.input,
                self.shutdown.has_begun(),
            );
            let leave = &mut |net: &mut N| {
                self.connections.abandon(net);
                self.sessions.abandon(net);
                self.listeners.close_all(net);
            };
            model.reap(&mut hub, leave);
        }

        if self.shutdown.has_begun() && self.sessions.is_empty() && !self.listeners.is_empty() {
            self.listeners.close_all(&mut self.net);
        }

        let cleans = self.connections.has_changed();
        if cleans {
            let (mut admission, _) = self.lend();
            admission.connections.reap(&mut admission.hub);
        }

        let reports = !self.effects.failures.is_empty();
        if reports {
            self.report_failures();
        }

        if cleans || reports || self.model.is_some() {
            self.ended = self.read_clock();
        }
    }
}

/// Steps of the phases.
impl<F: Factory, N: Net> Reactor<F, N> {
    /// Tells the factory that the loop begins to serve.
    #[cold]
    fn start(&mut self) {
        self.has_started = true;
        self.now();
        self.act(F::started);
        if self.monitored.is_some() {
            self.begin_monitored();
        }
    }

    /// Calls a hook of the factory.
    #[inline]
    fn act(&mut self, hook: fn(&mut F, &mut Actions<'_, F::Protocol>)) {
        let open = Listed {
            connections: &self.connections,
            sessions: &self.sessions,
            now: self.env.clock.tick(),
        };
        let mut actions = Actions {
            clock: self.env.clock,
            statistics: &self.effects.statistics,
            requests: &mut self.requests,
            open: &open,
            mailbox: &self.env.mailbox,
        };

        let factory = &mut self.factory;
        if catch(|| hook(factory, &mut actions)).is_none() {
            self.effects.statistics.panics += 1;
        }
        if self.requests.urgent.is_some() {
            self.obey_factory();
        }
    }

    /// Returns when the factory is to be told that its time has come.
    #[inline]
    fn factory_deadline(&mut self) -> Option<Tick> {
        let asked = self.ask_factory();
        self.effects.statistics.panics += u64::from(asked.is_none());
        asked.flatten()
    }

    /// Works like `factory_deadline`, and counts no panic. The outer `None` means that there was one.
    #[inline]
    pub(super) fn ask_factory(&self) -> Option<Option<Tick>> {
        let at = catch(|| self.factory.poll_timeout())?;
        Some(at.map(|at| self.env.clock.tick_of(at).max(self.next_tick)))
    }

    /// Measures how long the turn's work took. A slow turn is blamed on a connection only if it
    /// served no other, since reading the clock for each one would slow every message.
    fn check_pace(&mut self) {
        self.ended = self.read_clock();
        let took = self.ended.nanos_since(self.env.clock.tick());
        if took > self.most {
            self.note_long(Duration::from_nanos(took));
        }
    }

    #[cold]
    fn note_long(&mut self, took: Duration) {
        if self.monitored.is_some() {
            self.count_turn(took);
        }
        let began = self.env.clock.tick();
        if took > LONG {
            self.connections.catch_up(began, began.after(took));
            self.sessions.catch_up(began, began.after(took));
        }
        // A model may serve a whole connection within one turn.
        let most = self.env.config.slow_turn.filter(|_| self.model.is_none());
        if most.is_some_and(|most| took > most) {
            self.warn_slow(took);
        }
    }

    /// Counts a slow turn, and logs it.
    #[cold]
    fn warn_slow(&mut self, took: Duration) {
        self.effects.statistics.slow_turns += 1;
        let now = self.env.clock.tick();
        let took = took.as_millis();

        let mut warn = |peer: Option<&Peer>, problem: fmt::Arguments<'_>| {
            if !self.effects.log_limit.warn("slow turn", peer, now, problem) {
                log::debug!(target: LOG_TARGET, "{problem}");
            }
        };

        match self.connections.served() {
            (_, Some(peer)) => warn(
                Some(peer),
                format_args!("{peer}: kept the loop busy for {took} ms"),
            ),
            (count, None) => {
                let served = counted(count, "connection", "connections");
                warn(None, format_args!("a turn took {took} ms, for {served}"));
            }
        }
    }

    /// Handles the events that are not connections'.
    #[cold]
    fn note_others(&mut self) {
        let events = mem::take(&mut self.events);
        let others = events.iter().filter(|event| event.token < FIRST_TOKEN);
        others.for_each(|event| self.note(event.token, event.error));
        self.events = events;
    }

    /// Handles an event that is not a connection's.
    fn note(&mut self, token: usize, has_error: bool) {
        match token {
            WAKER => {
                self.answer_monitors();
                let mut is_factory = false;
                for woken in self.env.mailbox.take_woken() {
                    is_factory |= woken.is_for_factory();
                    self.sessions.note_woken(&woken);
                    self.connections.note_woken(woken);
                }
                // It may have been the alarm.
                self.effects.is_crowded = true;
                if is_factory {
                    self.act(F::woken);
                }
            }
            SHUTDOWN => self.shutdown.note_rung(),
            FIRST_OF_MODEL.. => self.model.iter_mut().for_each(|model| model.note(token)),
            _ => {
                self.listeners.note_readable(token);
                if has_error {
                    self.listeners.note_error(token);
                }
                self.sessions.note_room(self.listeners.number_of(token));
            }
        }
    }

    /// Lends the parts of the reactor that serving needs.
    pub(super) fn lend(&mut self) -> (Admission<'_, F, N>, &mut Listeners<N>) {
        let hub = Hub::new(
            &mut self.net,
            &self.env,
            &mut self.effects,
            &mut self.input,
            self.shutdown.has_begun(),
        );

        let admission = Admission {
            hub,
            factory: &mut self.factory,
            connections: &mut self.connections,
            sessions: &mut self.sessions,
            model: self.model.as_deref_mut(),
        };
        (admission, &mut self.listeners)
    }

    /// Logs failures, and reports them to the factory.
    #[cold]
    fn report_failures(&mut self) {
        for end in mem::take(&mut self.effects.failures) {
            let (peer, reason, ended) = (end.peer(), end.reason(), end.ended());
            let now = self.env.clock.tick();
            let is_inbound = peer.listener().is_some() && !peer.is_datagram();
            let is_everyday = is_inbound && reason.is_ordinary();
            let log_limit = &mut self.effects.log_limit;
            let warned = (!is_everyday).then(|| log_limit.admit(reason.name(), now));
            match warned.flatten() {
                Some(more) => log_end(Level::Warn, &ended, more),
                None => log_end(Level::Debug, &ended, 0),
            }

            let factory = &mut self.factory;
            if catch(|| factory.handle_error(&end.ended())).is_none() {
                self.effects.statistics.panics += 1;
            }

            // The reason may hold a user's error, whose `Drop` may panic.
            if catch(|| drop(end)).is_none() {
                self.effects.statistics.panics += 1;
            }
        }
    }

    /// Serves the listeners. When the last one has failed, the loop shuts down and returns its
    /// error.
    #[cold]
    fn accept(&mut self, most: usize) {
        let (mut admission, listeners) = self.lend();
        if let Some(error) = listeners.drive(&mut admission, most) {
            self.failure = Some(error);
            if !self.shutdown.has_begun() {
                self.shutdown.request();
            }
        }
    }

    /// Starts the drain at the first request, and ends everything at the second.
    fn obey_request(&mut self) {
        if self.shutdown.has_begun() {
            self.shutdown.note_end();
            return self.end_all(true);
        }

        self.say_shutdown();
        let now = self.env.clock.tick();
        let timeout = self.env.config.drain_timeout;
        self.shutdown
            .begin(timeout.map(|timeout| now.after(timeout)));

        // Clients that connected before the shutdown are served though not yet accepted. The
        // system's queue holds one more than it was asked to.
        let most = usize::try_from(self.env.config.backlog).unwrap_or(0) + 1;
        self.listeners.note_all_readable();
        self.accept(most);
        self.listeners
            .close_idle(&mut self.net, !self.sessions.is_empty());
        self.connections.note_shutdown();
        self.sessions.note_shutdown();
    }

    /// Logs how many connections are open when the shutdown begins.
    fn say_shutdown(&mut self) {
        let here = self.connections.len();
        let elsewhere = self.model.as_ref().map_or(Some(0), |model| model.open());
        let open = elsewhere.and_then(|elsewhere| self.shutdown.count_open(here + elsewhere));
        if let Some(open) = open {
            let open = counted(open, "connection", "connections");
            log::info!(target: LOG_TARGET, "shutting down: {open} open");
        }
    }

    /// Ends everything that is being served, here and in the model.
    pub(super) fn end_all(&mut self, at_once: bool) {
        let now = self.env.clock.tick();
        self.model
            .iter_mut()
            .for_each(|model| model.end(now, at_once));
        let (mut admission, _) = self.lend();
        let reason = || CloseReason::TimedOut(Deadline::Drain);
        let hub = &mut admission.hub;
        admission.sessions.end_all(hub, reason);
        admission.connections.end_all(hub, |connection, hub| {
            if at_once {
                connection.cut_off(reason(), hub);
            } else {
                connection.end(reason(), hub);
            }
        });
    }
}
