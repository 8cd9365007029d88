//! The requests that a client queues between `MULTI` and `EXEC`.

use std::mem;

use crate::error_reply::ErrorReply;
use crate::request::{Request, Span};

/// What a queued request takes in bytes besides its words, and each of its words besides its text.
const PLACE: usize = size_of::<Span>();

/// The transaction of one client: what `MULTI`, `EXEC` and `DISCARD` act on. A [`Service`](crate::Service)
/// that offers transactions has one for each connection; one that does not needs nothing.
///
/// ```
/// use serveloop::testing::MemorySession;
/// use serveloop::Transport;
/// use serveloop_resp::{ErrorReply, Reply, Request, Resp, Service, Transaction};
///
/// /// Adds numbers: ADD NUMBER, and several at once in a transaction.
/// struct Adder {
///     sum: i64,
///     transaction: Transaction,
/// }
///
/// impl Adder {
///     fn add(&mut self, request: Request<'_>, reply: &mut Reply) -> Result<(), ErrorReply> {
///         let number: i64 = request.arguments().parse()?;
///         self.sum = self.sum.checked_add(number).ok_or(ErrorReply::OVERFLOW)?;
///         reply.integer(self.sum);
///         Ok(())
///     }
/// }
///
/// impl Service for Adder {
///     fn answer(
///         &mut self,
///         request: Request<'_>,
///         reply: &mut Reply,
///         _: &mut Transport<'_>,
///     ) -> Result<(), ErrorReply> {
///         match request.name().to_ascii_lowercase().as_slice() {
///             b"multi" => self.transaction.begin().map(|()| reply.ok()),
///             b"discard" => self.transaction.discard().map(|()| reply.ok()),
///             b"exec" => {
///                 let queued = self.transaction.take()?;
///                 reply.array(queued.len());
///                 for request in queued.requests() {
///                     reply.element(|reply| self.add(request, reply));
///                 }
///                 Ok(())
///             }
///             b"add" if self.transaction.is_open() => {
///                 self.transaction.queue(request)?;
///                 reply.simple("QUEUED");
///                 Ok(())
///             }
///             b"add" => self.add(request, reply),
///             _ => {
///                 self.transaction.refuse();
///                 Err(ErrorReply::new("unknown command"))
///             }
///         }
///     }
///
///     fn held(&self) -> usize {
///         self.transaction.held()
///     }
/// }
///
/// let adder = Adder { sum: 0, transaction: Transaction::new(1 << 20) };
/// let mut session = MemorySession::new(Resp::new(adder));
/// session.receive(b"multi\r\nadd 1\r\nadd x\r\nadd 2\r\nexec\r\n");
/// let expected = "\
///     +OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n\
///     *3\r\n:1\r\n-ERR value is not an integer or out of range\r\n:3\r\n";
/// assert_eq!(session.sent(), expected.as_bytes());
///
/// session.receive(b"multi\r\nfrob\r\nadd 1\r\nexec\r\n");
/// assert!(session.sent().ends_with(b"-EXECABORT Transaction discarded because of previous errors.\r\n"));
/// ```
#[derive(Debug)]
pub struct Transaction {
    most: usize,
    state: State,
}

#[derive(Debug)]
enum State {
    Closed,
    Open(Queued),
    /// A request was refused. Nothing is queued any more; this many were.
    Refused(usize),
}

impl Transaction {
    /// Creates what has not begun. The requests that are queued later take at most `most` bytes: their
    /// words, with 8 bytes for each word and each request. More than 4 GiB is 4 GiB.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            most: most.min(u32::MAX as usize),
            state: State::Closed,
        }
    }

    /// Begins a transaction: `MULTI`.
    ///
    /// # Errors
    /// Returns what the client is told if one has begun. That one goes on.
    pub fn begin(&mut self) -> Result<(), ErrorReply> {
        if self.is_open() {
            return Err(ErrorReply::constant("ERR", "MULTI calls can not be nested"));
        }
        self.state = State::Open(Queued::default());
        Ok(())
    }

    /// Returns whether a transaction has begun, so that requests are queued.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !matches!(self.state, State::Closed)
    }

    /// Keeps a copy of a request until the transaction ends, if one has begun. After one that was refused
    /// it is only forgotten.
    ///
    /// # Errors
    /// Returns what the client is told if there is no room for it. The transaction is
    /// [refused](Self::refuse) then.
    pub fn queue(&mut self, request: Request<'_>) -> Result<(), ErrorReply> {
        let State::Open(queued) = &mut self.state else {
            return Ok(());
        };
        if queued.size() + Queued::size_of(request) > self.most {
            self.refuse();
            return Err(TOO_LONG);
        }
        queued.push(request);
        Ok(())
    }

    /// Notes that a request was refused, for example because there is no such command: then none of the
    /// transaction is executed. Does nothing if none has begun.
    pub fn refuse(&mut self) {
        if self.is_open() {
            self.state = State::Refused(self.len());
        }
    }

    /// Ends the transaction, and returns its requests, which are now to be executed: `EXEC`.
    ///
    /// # Errors
    /// Returns what the client is told if none has begun, or if a request of it was refused. In the second
    /// case it has ended too.
    pub fn take(&mut self) -> Result<Queued, ErrorReply> {
        match mem::replace(&mut self.state, State::Closed) {
            State::Open(queued) => Ok(queued),
            State::Closed => Err(ErrorReply::constant("ERR", "EXEC without MULTI")),
            State::Refused(_) => Err(ABORTED),
        }
    }

    /// Ends the transaction, and forgets its requests: `DISCARD`.
    ///
    /// # Errors
    /// Returns what the client is told if none has begun.
    pub fn discard(&mut self) -> Result<(), ErrorReply> {
        match mem::replace(&mut self.state, State::Closed) {
            State::Closed => Err(ErrorReply::constant("ERR", "DISCARD without MULTI")),
            _ => Ok(()),
        }
    }

    /// Returns how many requests were queued.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.state {
            State::Closed => 0,
            State::Open(queued) => queued.len(),
            State::Refused(queued) => *queued,
        }
    }

    /// Returns whether no requests were queued.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns how many bytes of memory the queued requests take, for
    /// [`Service::held`](crate::Service::held): up to twice what they are limited to, because memory for
    /// more is reserved.
    #[must_use]
    pub fn held(&self) -> usize {
        match &self.state {
            State::Open(queued) => queued.held(),
            _ => 0,
        }
    }
}

const TOO_LONG: ErrorReply = ErrorReply::constant(
    "ERR",
    "the transaction takes more memory than the server's max_transaction allows",
);

const ABORTED: ErrorReply = ErrorReply::constant(
    "EXECABORT",
    "Transaction discarded because of previous errors.",
);

/// The requests of a transaction that [`Transaction::take`] has ended, in their order.
#[derive(Debug, Default)]
pub struct Queued {
    bytes: Vec<u8>,
    /// The words of all requests, each by its place among the bytes of its request.
    words: Vec<Span>,
    /// Where the bytes and the words of each request end.
    ends: Vec<(u32, u32)>,
}

impl Queued {
    /// Returns how many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Returns whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Returns the requests in the order in which they came.
    pub fn requests(&self) -> impl Iterator<Item = Request<'_>> {
        let mut from = (0, 0);
        self.ends.iter().map(move |(bytes, words)| {
            let to = (*bytes as usize, *words as usize);
            let (bytes, words) = (&self.bytes[from.0..to.0], &self.words[from.1..to.1]);
            from = to;
            Request::new(bytes, words)
        })
    }

    /// What there is fits in 32 bits, because that is checked before.
    fn push(&mut self, request: Request<'_>) {
        let start = self.bytes.len();
        for word in request.words() {
            let begin = self.bytes.len() - start;
            self.bytes.extend_from_slice(word);
            self.words.push(Span {
                start: begin as u32,
                end: (begin + word.len()) as u32,
            });
        }
        let end = (self.bytes.len() as u32, self.words.len() as u32);
        self.ends.push(end);
    }

    fn size(&self) -> usize {
        self.bytes.len() + (self.words.len() + self.ends.len()) * PLACE
    }

    fn size_of(request: Request<'_>) -> usize {
        let words = request.words();
        PLACE + words.map(|word| word.len() + PLACE).sum::<usize>()
    }

    fn held(&self) -> usize {
        let places = self.words.capacity() + self.ends.capacity();
        self.bytes.capacity() + places * PLACE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(words: &[&str], use_it: impl FnOnce(Request<'_>)) {
        let mut spans = Vec::new();
        let mut bytes = b"*1\r\n".to_vec();
        for word in words {
            let start = bytes.len() as u32;
            bytes.extend_from_slice(word.as_bytes());
            let end = bytes.len() as u32;
            spans.push(Span { start, end });
            bytes.extend_from_slice(b"\r\n");
        }
        use_it(Request::new(&bytes, &spans));
    }

    fn queue(transaction: &mut Transaction, words: &[&str]) -> Result<(), ErrorReply> {
        let mut outcome = Ok(());
        with(words, |request| outcome = transaction.queue(request));
        outcome
    }

    fn texts(queued: &Queued) -> Vec<String> {
        queued
            .requests()
            .map(|request| format!("{request:?}"))
            .collect()
    }

    #[test]
    fn requests_come_out_as_they_went_in() {
        let mut transaction = Transaction::new(1_000);
        transaction.begin().unwrap();
        for words in [&["SET", "a", ""][..], &["PING"], &["", "", "x y"]] {
            queue(&mut transaction, words).unwrap();
        }
        assert_eq!(transaction.len(), 3);
        assert!(transaction.held() > 0);
        let queued = transaction.take().unwrap();
        assert_eq!(
            texts(&queued),
            [r#"["SET", "a", ""]"#, r#"["PING"]"#, r#"["", "", "x y"]"#]
        );
        assert!(!transaction.is_open() && transaction.is_empty());
        assert_eq!(transaction.held(), 0);
    }

    #[test]
    fn each_step_has_its_place() {
        let mut transaction = Transaction::new(1_000);
        let text = |outcome: Result<(), ErrorReply>| outcome.unwrap_err().to_string();
        assert_eq!(text(transaction.take().map(drop)), "ERR EXEC without MULTI");
        assert_eq!(text(transaction.discard()), "ERR DISCARD without MULTI");
        transaction.refuse();
        assert!(!transaction.is_open());

        transaction.begin().unwrap();
        queue(&mut transaction, &["PING"]).unwrap();
        assert_eq!(
            text(transaction.begin()),
            "ERR MULTI calls can not be nested"
        );
        assert_eq!(transaction.take().unwrap().len(), 1);

        transaction.begin().unwrap();
        transaction.discard().unwrap();
        assert!(!transaction.is_open());

        transaction.begin().unwrap();
        queue(&mut transaction, &["PING"]).unwrap();
        transaction.refuse();
        queue(&mut transaction, &["PING"]).unwrap();
        assert_eq!((transaction.len(), transaction.held()), (1, 0));
        let aborted = "EXECABORT Transaction discarded because of previous errors.";
        assert_eq!(text(transaction.take().map(drop)), aborted);
        assert!(!transaction.is_open());
    }

    /// Up to the last byte, and never beyond.
    #[test]
    fn what_is_queued_is_limited() {
        // 8 bytes for the request, 8 and 4 for each word.
        let mut transaction = Transaction::new(2 * (8 + 12));
        transaction.begin().unwrap();
        queue(&mut transaction, &["PING"]).unwrap();
        queue(&mut transaction, &["PING"]).unwrap();
        let refused = queue(&mut transaction, &[""]).unwrap_err().to_string();
        assert!(refused.contains("max_transaction"), "{refused}");
        assert_eq!((transaction.len(), transaction.held()), (2, 0));
        queue(&mut transaction, &["PING"]).unwrap();
        assert!(transaction.take().is_err());

        transaction.begin().unwrap();
        queue(&mut transaction, &["PING", "0123456789ab"]).unwrap();
        assert_eq!(transaction.take().unwrap().len(), 1);
    }
}
