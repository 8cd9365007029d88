//! One request and the response to it.

use std::mem;
use std::task::Poll;
use std::time::Instant;

use serveloop::protocols::counted;
use serveloop::{Protocol, Transport};

use crate::LOG_TARGET;
use crate::body::Incoming;
use crate::head::Head;
use crate::outgoing::{Outgoing, Sent};
use crate::rejection::Rejection;
use crate::reply::{Receive, Reply, Step};
use crate::request::Version;
use crate::response::{Asked, Connection, Response, reason};
use crate::settings::Settings;

/// The protocol that takes a connection over.
pub(crate) type Next = Box<dyn Protocol + Send>;

/// What tells a client to send the body that it holds back.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// A request whose head has been read, until its body is read and the response is sent.
pub(crate) struct Exchange {
    incoming: Incoming,
    consumer: Consumer,
    answer: Answer,
    next: Option<Next>,
    request: Traits,
    /// How many bytes of `CONTINUE` are still to be sent.
    interim: usize,
    /// How many bytes of the body have arrived since the pace was last checked.
    arrived: u64,
    /// When to look at the body's pace, or when a handler has taken too long.
    deadline: Option<Instant>,
}

/// What a request says about how it is answered.
#[derive(Clone, Copy, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, none of which is a state"
)]
struct Traits {
    version: Version,
    is_head: bool,
    asks_for_upgrade: bool,
    awaits_continue: bool,
    /// Whether the connection goes on after the response.
    keeps_alive: bool,
    /// Whether the client has said that it sends nothing after this request.
    is_last: bool,
}

/// Where the content of the body goes.
enum Consumer {
    /// It waits until it is known.
    None,
    /// Nowhere, for at most this many bytes more.
    Discard(u64),
    Collect(usize, Vec<u8>, Box<dyn FnOnce(Vec<u8>) -> Reply + Send>),
    Receive(Box<dyn Receive>),
    /// To a receiver that has no room at present.
    Full(Box<dyn Receive>),
}

/// How far the response is.
enum Answer {
    /// It depends on the body.
    Open,
    Later(Box<dyn FnMut() -> Poll<Reply> + Send>),
    Sending(Outgoing),
    Sent,
}

impl Exchange {
    pub(crate) fn new(head: &Head<'_>, incoming: Incoming) -> Self {
        let request = Traits {
            version: head.version,
            is_head: head.method == "HEAD",
            asks_for_upgrade: head.upgrade.is_some(),
            awaits_continue: head.expects_continue,
            keeps_alive: head.keeps_alive,
            is_last: !head.keeps_alive,
        };
        Self {
            incoming,
            consumer: Consumer::None,
            answer: Answer::Open,
            next: None,
            request,
            interim: 0,
            arrived: 0,
            deadline: None,
        }
    }

    /// Ends without a response, so that `next` takes the connection over.
    pub(crate) fn hand_over(&mut self, next: Next) {
        self.incoming.give_up();
        self.answer = Answer::Sent;
        self.next = Some(next);
    }

    /// Returns whether the response is sent, and the body read if another request comes after it.
    pub(crate) fn is_over(&self) -> bool {
        let is_read = self.incoming.is_done() || !self.request.keeps_alive;
        matches!(self.answer, Answer::Sent) && is_read
    }

    /// Returns whether a response has begun, so that no other can be sent.
    pub(crate) fn has_answered(&self) -> bool {
        matches!(self.answer, Answer::Sending(_) | Answer::Sent)
    }

    pub(crate) fn is_head(&self) -> bool {
        self.request.is_head
    }

    pub(crate) fn keeps_alive(&self) -> bool {
        self.request.keeps_alive
    }

    /// Returns whether the client sends nothing more, because it said so and all of it has come.
    pub(crate) fn is_last(&self) -> bool {
        self.request.is_last
    }

    /// Ends the connection after the response.
    pub(crate) fn end_after(&mut self) {
        self.request.keeps_alive = false;
    }

    /// Returns whether another protocol takes the connection over.
    pub(crate) fn is_switching(&self) -> bool {
        self.next.is_some()
    }

    /// Returns the protocol that takes the connection over now, after the response.
    pub(crate) fn take_next(&mut self) -> Option<Next> {
        self.next.take_if(|_| matches!(self.answer, Answer::Sent))
    }

    /// Returns whether more of the body can be taken.
    pub(crate) fn wants_body(&self) -> bool {
        !self.incoming.is_done() && !matches!(self.consumer, Consumer::None | Consumer::Full(_))
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Returns how many bytes of memory this keeps.
    pub(crate) fn held(&self) -> usize {
        let consumer = match &self.consumer {
            Consumer::Collect(_, body, _) => body.capacity(),
            Consumer::Receive(receiver) | Consumer::Full(receiver) => receiver.held(),
            _ => 0,
        };
        let answer = match &self.answer {
            Answer::Sending(outgoing) => outgoing.held(),
            _ => 0,
        };
        consumer + answer
    }

    /// Returns what is still to be sent before a response.
    pub(crate) fn interim_rest(&self) -> &'static [u8] {
        &CONTINUE[CONTINUE.len() - self.interim..]
    }

    /// Does what a handler has answered.
    pub(crate) fn follow(
        &mut self,
        mut reply: Reply,
        settings: &Settings,
        transport: &Transport<'_>,
    ) {
        loop {
            reply = match reply.0 {
                Step::Respond(response) => {
                    return self.respond(response.checked(false), settings, transport);
                }
                Step::Upgrade(response, next) => {
                    return self.switch(response, next, settings, transport);
                }
                Step::HandOver(_) => {
                    let problem = "the connection cannot be handed over here";
                    log::error!(target: LOG_TARGET, "{}: {problem}", transport.peer());
                    return self.respond(Response::status(500), settings, transport);
                }
                Step::Collect(_, with) if self.incoming.is_done() => with(Vec::new()),
                Step::Collect(most, with) => {
                    if self
                        .incoming
                        .missing()
                        .is_some_and(|missing| missing > most as u64)
                    {
                        return self.respond(too_large(most), settings, transport);
                    }
                    self.consumer = Consumer::Collect(most, Vec::new(), with);
                    return self.begin_body(transport);
                }
                Step::Receive(receiver) if self.incoming.is_done() => receiver.ended(),
                Step::Receive(receiver) => {
                    self.consumer = Consumer::Receive(receiver);
                    return self.begin_body(transport);
                }
                Step::Later(mut poll) => match poll() {
                    Poll::Ready(reply) => reply,
                    Poll::Pending => {
                        self.answer = Answer::Later(poll);
                        let patience = settings.reply_timeout;
                        self.deadline = patience.map(|patience| transport.now() + patience);
                        return;
                    }
                },
            };
        }
    }

    fn begin_body(&mut self, transport: &Transport<'_>) {
        self.answer = Answer::Open;
        if mem::take(&mut self.request.awaits_continue) {
            self.interim = CONTINUE.len();
        }
        self.watch_pace(transport);
    }

    /// Begins a period in which enough of the body has to arrive.
    fn watch_pace(&mut self, transport: &Transport<'_>) {
        self.arrived = 0;
        let patience = transport.limits().message_timeout;
        self.deadline = patience.map(|patience| transport.now() + patience);
    }

    fn switch(
        &mut self,
        response: Response,
        next: Next,
        settings: &Settings,
        transport: &Transport<'_>,
    ) {
        if !self.request.asks_for_upgrade {
            let response = Response::status(426).header("Upgrade", response.upgrade_field());
            return self.respond(response, settings, transport);
        }

        let response = response.checked(true);
        if response.code() == 101 {
            self.next = Some(next);
        }
        self.respond(response, settings, transport);
    }

    /// Begins to send a response. What is left of the body is discarded if it is short, and otherwise
    /// the connection ends.
    fn respond(&mut self, response: Response, settings: &Settings, transport: &Transport<'_>) {
        let takes_chunks = self.request.version == Version::Http11;
        let is_rest_long = self
            .incoming
            .missing()
            .is_some_and(|rest| rest > settings.max_discard);
        // A client that held its body back may or may not send it now.
        let is_rest_unclear = self.request.awaits_continue && !self.incoming.is_done();
        if response.closes()
            || response.ends_with_connection(takes_chunks)
            || is_rest_long
            || is_rest_unclear
        {
            self.request.keeps_alive = false;
        }

        self.deadline = None;
        self.consumer = Consumer::Discard(settings.max_discard);
        match self.request.keeps_alive {
            true if !self.incoming.is_done() => self.watch_pace(transport),
            true => {}
            false => self.abandon_body(),
        }

        let mut head = Vec::with_capacity(256);
        head.extend_from_slice(self.interim_rest());
        self.interim = 0;
        let asked = Asked {
            is_head: self.request.is_head,
            takes_chunks,
            connection: match (self.request.keeps_alive, self.request.version) {
                (false, _) => Connection::Close,
                (true, Version::Http10) => Connection::KeepAlive,
                (true, Version::Http11) => Connection::Persistent,
            },
        };
        let (body, framed) = response.encode(asked, settings, transport.now(), &mut head);
        self.answer = Answer::Sending(Outgoing::new(head, body, framed));
    }

    /// Asks again what had nothing: an answer for later, a receiver that was full, or a source.
    pub(crate) fn handle_woken(&mut self, settings: &Settings, transport: &mut Transport<'_>) {
        self.retry();
        if let Answer::Later(poll) = &mut self.answer {
            if let Poll::Ready(reply) = poll() {
                self.deadline = None;
                self.follow(reply, settings, transport);
            }
        }
        self.advance(transport);
    }

    /// Sends what fits.
    pub(crate) fn advance(&mut self, transport: &mut Transport<'_>) {
        if self.interim > 0 {
            self.interim -= transport.write_some(self.interim_rest());
        }
        if let Answer::Sending(outgoing) = &mut self.answer {
            match outgoing.send(transport) {
                Sent::All => self.answer = Answer::Sent,
                Sent::Part => {}
                Sent::Failed => transport.abort(),
            }
        }
    }

    /// Lets a receiver that had no room try again.
    fn retry(&mut self) {
        self.consumer = match mem::replace(&mut self.consumer, Consumer::None) {
            Consumer::Full(receiver) => Consumer::Receive(receiver),
            other => other,
        };
    }

    /// Takes what it can of the body, and returns how many bytes that is.
    pub(crate) fn feed(
        &mut self,
        data: &[u8],
        settings: &Settings,
        transport: &mut Transport<'_>,
    ) -> Result<usize, Rejection> {
        let mut at = 0;
        while self.wants_body() {
            let skipped = match self.incoming.skip(&data[at..]) {
                Ok(skipped) => skipped,
                Err(rejection) => {
                    self.refuse_body(rejection)?;
                    break;
                }
            };

            at += skipped;
            let content = self.incoming.content(&data[at..]);
            if content == 0 {
                break;
            }
            let taken = self.consume(&data[at..at + content], settings, transport);
            self.incoming.take(taken);
            at += taken;
        }

        self.arrived += at as u64;
        if self.incoming.is_done() {
            self.end_body(settings, transport);
        }
        self.advance(transport);
        Ok(at)
    }

    /// Ends a body that is wrong. If a response is on its way, the connection ends after it.
    fn refuse_body(&mut self, rejection: Rejection) -> Result<(), Rejection> {
        if !self.has_answered() {
            return Err(rejection);
        }
        self.give_up_body();
        Ok(())
    }

    /// Reads no more of the body, and ends the connection after the response.
    pub(crate) fn give_up_body(&mut self) {
        self.abandon_body();
        self.deadline = None;
        self.end_after();
    }

    fn abandon_body(&mut self) {
        self.request.is_last &= self.incoming.is_done();
        self.incoming.give_up();
    }

    /// Gives content to who asked for it. Returns how many bytes were taken.
    fn consume(&mut self, content: &[u8], settings: &Settings, transport: &Transport<'_>) -> usize {
        match &mut self.consumer {
            Consumer::Discard(left) => match left.checked_sub(content.len() as u64) {
                Some(rest) => *left = rest,
                None => self.give_up_body(),
            },
            Consumer::Collect(most, body, _) if content.len() > *most - body.len() => {
                let response = too_large(*most);
                self.respond(response, settings, transport);
            }
            Consumer::Collect(_, body, _) => body.extend_from_slice(content),
            Consumer::Receive(receiver) => match receiver.received(content) {
                Ok(count) if count < content.len() => {
                    self.fill_up();
                    return count;
                }
                Ok(count) => assert_eq!(count, content.len(), "more bytes taken than shown"),
                Err(response) => self.respond(response.checked(false), settings, transport),
            },
            Consumer::None | Consumer::Full(_) => return 0,
        }

        // A body that was given up has no content left.
        self.incoming.content(content)
    }

    fn fill_up(&mut self) {
        self.consumer = match mem::replace(&mut self.consumer, Consumer::None) {
            Consumer::Receive(receiver) => Consumer::Full(receiver),
            other => other,
        };
    }

    /// Tells who took the body that it is complete.
    fn end_body(&mut self, settings: &Settings, transport: &Transport<'_>) {
        self.deadline = None;
        let reply = match mem::replace(&mut self.consumer, Consumer::None) {
            Consumer::Collect(_, body, with) => with(body),
            Consumer::Receive(receiver) => receiver.ended(),
            _ => return,
        };
        self.follow(reply, settings, transport);
    }

    /// Handles the deadline: a handler that takes too long, or a body that is too slow.
    pub(crate) fn handle_timeout(&mut self, settings: &Settings, transport: &mut Transport<'_>) {
        if matches!(self.answer, Answer::Later(_)) {
            self.respond(Response::status(503).close(), settings, transport);
        } else if self.arrived >= settings.body_pace || matches!(self.consumer, Consumer::Full(_)) {
            self.watch_pace(transport);
        } else if self.has_answered() {
            self.give_up_body();
        } else {
            self.respond(Response::status(408).close(), settings, transport);
        }
        self.advance(transport);
    }
}

fn too_large(most: usize) -> Response {
    let most = counted(most, "byte", "bytes");
    let text = format!("413 {}: at most {most}\n", reason(413));
    Response::text(text).with_status(413).close()
}
