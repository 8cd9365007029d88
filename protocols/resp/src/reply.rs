//! The writer of replies, in either version of the protocol.

use crate::error_reply::ErrorReply;
use crate::number::Digits;

/// The version of the protocol that a client has asked for. It begins with RESP2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// Strings, integers, errors and arrays.
    #[default]
    Resp2,
    /// Also maps, sets, numbers with fractions, booleans, one null, and pushed data.
    Resp3,
}

impl Version {
    /// Returns 2 or 3.
    pub(crate) fn number(self) -> i64 {
        match self {
            Self::Resp2 => 2,
            Self::Resp3 => 3,
        }
    }
}

/// Writes the reply to one request. What RESP2 does not have is written as what it has instead: a map
/// as an array of keys and values, a null as a null string.
///
/// The elements of an array or a map are written after it, one by one, and a handler has to write as
/// many as it announced. An error that a handler returns replaces what it has written.
///
/// A reply that does not fit in `max_reply` is replaced by an error too, so a handler may write
/// whatever was asked for.
#[derive(Debug)]
pub struct Reply {
    bytes: Vec<u8>,
    /// Where the present reply begins; before it are the replies to earlier requests.
    start: usize,
    /// How many bytes there may be.
    most: usize,
    is_too_long: bool,
    is_last: bool,
    is_costly: bool,
    version: Version,
}

impl Reply {
    /// Creates the writer for the replies to a few requests, at most `most` bytes.
    pub(crate) fn new(version: Version, most: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(FIRST),
            start: 0,
            most,
            is_too_long: false,
            is_last: false,
            is_costly: false,
            version,
        }
    }

    /// Returns the version that the client has chosen.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// Sets the version from the present reply on.
    pub fn set_version(&mut self, version: Version) {
        self.version = version;
    }

    /// Ends the connection when this reply is sent.
    pub fn close(&mut self) {
        self.is_last = true;
    }

    /// Notes that the request took long, as one over all keys does: other connections have their turn
    /// before the next request of this one is answered.
    pub fn note_cost(&mut self) {
        self.is_costly = true;
    }

    /// Writes a text of the server's own, such as `OK`. It has no line ends.
    #[inline]
    pub fn simple(&mut self, text: &str) {
        self.line(b'+', text.as_bytes());
    }

    /// Writes `OK`.
    #[inline]
    pub fn ok(&mut self) {
        self.bytes.extend_from_slice(b"+OK\r\n");
    }

    /// Writes bytes, whatever they are.
    #[inline]
    pub fn bulk(&mut self, bytes: &[u8]) {
        if self.has_room(bytes.len()) {
            self.bytes.reserve(bytes.len() + HEADER_MOST);
            self.line(b'$', Digits::of_unsigned(bytes.len() as u64).as_slice());
            self.bytes.extend_from_slice(bytes);
            self.bytes.extend_from_slice(b"\r\n");
        }
    }

    /// Writes a text for people, which clients show as it is.
    pub fn verbatim(&mut self, text: &[u8]) {
        if self.version == Version::Resp2 {
            return self.bulk(text);
        }
        if self.has_room(text.len()) {
            self.length(b'=', text.len() + 4);
            self.bytes.extend_from_slice(b"txt:");
            self.bytes.extend_from_slice(text);
            self.bytes.extend_from_slice(b"\r\n");
        }
    }

    /// Writes a whole number.
    #[inline]
    pub fn integer(&mut self, number: i64) {
        self.line(b':', Digits::of(number).as_slice());
    }

    /// Writes a count. One beyond `i64::MAX` is written as that.
    #[inline]
    pub fn count(&mut self, count: usize) {
        self.integer(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Writes a number with a fraction.
    pub fn double(&mut self, number: f64) {
        let text = match number {
            f64::INFINITY => "inf".to_owned(),
            f64::NEG_INFINITY => "-inf".to_owned(),
            number => number.to_string(),
        };
        match self.version {
            Version::Resp2 => self.bulk(text.as_bytes()),
            Version::Resp3 => self.line(b',', text.as_bytes()),
        }
    }

    /// Writes yes or no, which are 1 and 0 in RESP2.
    pub fn boolean(&mut self, is_true: bool) {
        match self.version {
            Version::Resp2 => self.integer(i64::from(is_true)),
            Version::Resp3 => self.line(b'#', if is_true { b"t" } else { b"f" }),
        }
    }

    /// Writes an array of texts of the server's own, such as the lines of a help.
    pub fn lines(&mut self, lines: &[&str]) {
        self.array(lines.len());
        lines.iter().for_each(|line| self.simple(line));
    }

    /// Writes that there is nothing, for example under a key.
    #[inline]
    pub fn null(&mut self) {
        let null: &[u8] = match self.version {
            Version::Resp2 => b"$-1\r\n",
            Version::Resp3 => b"_\r\n",
        };
        self.raw(null);
    }

    /// Writes bytes, or that there are none.
    #[inline]
    pub fn bulk_or_null(&mut self, bytes: Option<&[u8]>) {
        match bytes {
            Some(bytes) => self.bulk(bytes),
            None => self.null(),
        }
    }

    /// Writes that there is no array, for example because a transaction was not executed.
    pub fn null_array(&mut self) {
        let null: &[u8] = match self.version {
            Version::Resp2 => b"*-1\r\n",
            Version::Resp3 => b"_\r\n",
        };
        self.raw(null);
    }

    /// Begins an array of `length` elements, which follow.
    pub fn array(&mut self, length: usize) {
        self.length(b'*', length);
    }

    /// Begins a set of `length` elements.
    pub fn set(&mut self, length: usize) {
        match self.version {
            Version::Resp2 => self.length(b'*', length),
            Version::Resp3 => self.length(b'~', length),
        }
    }

    /// Begins a map of `length` keys, each followed by its value.
    pub fn map(&mut self, length: usize) {
        match self.version {
            Version::Resp2 => self.length(b'*', length * 2),
            Version::Resp3 => self.length(b'%', length),
        }
    }

    /// Begins pushed data of `length` elements, which is no reply to a request, such as a message of
    /// a channel.
    pub fn push(&mut self, length: usize) {
        match self.version {
            Version::Resp2 => self.length(b'*', length),
            Version::Resp3 => self.length(b'>', length),
        }
    }

    /// Writes an error. In an array it is the error of one element.
    pub fn error(&mut self, error: &ErrorReply) {
        let code = error.code().as_bytes();
        self.error_line(&[code, b" ", error.message()].concat());
    }

    /// Writes one element of an array with a handler. If it fails, or if what it writes does not fit,
    /// the element is that error, and the elements before and after it stay. If not even errors fit any
    /// more, the whole reply is replaced by one.
    ///
    /// ```
    /// use serveloop_resp::{Arguments, ErrorReply, Reply};
    ///
    /// /// DOUBLED NUMBER ...: a number or an error for each.
    /// fn doubled(arguments: &mut Arguments<'_>, reply: &mut Reply) -> Result<(), ErrorReply> {
    ///     reply.array(arguments.len());
    ///     while arguments.len() > 0 {
    ///         reply.element(|reply| {
    ///             let number: i64 = arguments.parse()?;
    ///             reply.integer(number.checked_mul(2).ok_or(ErrorReply::OVERFLOW)?);
    ///             Ok(())
    ///         });
    ///     }
    ///     Ok(())
    /// }
    /// # let _ = doubled;
    /// ```
    pub fn element(&mut self, handler: impl FnOnce(&mut Self) -> Result<(), ErrorReply>) {
        let was_too_long = self.is_too_long;
        let start = std::mem::replace(&mut self.start, self.bytes.len());
        let outcome = handler(self);

        // What does not fit as a whole is replaced as a whole.
        if !was_too_long {
            self.finish(outcome);
            self.is_too_long = self.bytes.len() > self.most;
        }
        self.start = start;
    }

    /// Begins the reply to the next request.
    #[inline]
    pub(crate) fn begin(&mut self) {
        self.start = self.bytes.len();
    }

    /// Ends the reply to a request with the outcome of its handler.
    #[inline]
    pub(crate) fn finish(&mut self, outcome: Result<(), ErrorReply>) {
        if outcome.is_err() || self.is_too_long {
            self.replace(outcome);
        }
    }

    #[cold]
    fn replace(&mut self, outcome: Result<(), ErrorReply>) {
        self.bytes.truncate(self.start);
        self.is_too_long = false;
        match outcome {
            Err(error) => self.error(&error),
            Ok(()) => {
                let message = "the reply is longer than the server's max_reply allows";
                self.error(&ErrorReply::new(message));
            }
        }
    }

    /// Writes that the input is broken.
    pub(crate) fn protocol_error(&mut self, text: &[u8]) {
        self.error_line(&[b"ERR Protocol error: ", text].concat());
    }

    /// Returns all replies.
    #[inline]
    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns all replies.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Returns whether the connection is to end.
    #[inline]
    pub(crate) fn is_last(&self) -> bool {
        self.is_last
    }

    /// Returns whether the last request took long.
    #[inline]
    pub(crate) fn is_costly(&self) -> bool {
        self.is_costly
    }

    /// Returns how many bytes are left for the present reply.
    pub(crate) fn room(&self) -> usize {
        self.most.saturating_sub(self.bytes.len())
    }

    /// Returns whether `more` bytes still fit. From the first that do not, nothing does.
    #[inline]
    fn has_room(&mut self, more: usize) -> bool {
        let fits =
            self.bytes.len().saturating_add(more + HEADER_MOST) <= self.most && !self.is_too_long;
        self.is_too_long |= !fits;
        fits
    }

    #[inline]
    fn raw(&mut self, bytes: &[u8]) {
        if self.has_room(0) {
            self.bytes.extend_from_slice(bytes);
        }
    }

    #[inline]
    fn line(&mut self, kind: u8, text: &[u8]) {
        self.bytes.push(kind);
        self.bytes.extend_from_slice(text);
        self.bytes.extend_from_slice(b"\r\n");
    }

    fn length(&mut self, kind: u8, length: usize) {
        if self.has_room(0) {
            self.line(kind, Digits::of_unsigned(length as u64).as_slice());
        }
    }

    fn error_line(&mut self, text: &[u8]) {
        let is_line_end = |byte: &u8| matches!(byte, b'\r' | b'\n');
        let text: Vec<_> = text
            .iter()
            .map(|byte| if is_line_end(byte) { b' ' } else { *byte })
            .collect();
        self.line(b'-', &text);
    }
}

/// Returns pushed data for [`Outbox::post`](serveloop::service::Outbox::post) and
/// [`Group::publish`](serveloop::service::Group::publish), such as a message of a channel: the words as
/// an array of RESP2. [`Resp`](crate::Resp) makes it pushed data of RESP3 for clients that have chosen that.
///
/// ```
/// let message = serveloop_resp::pushed(&[b"message", b"news", b"hello"]);
/// assert_eq!(message, b"*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$5\r\nhello\r\n");
/// ```
#[must_use]
pub fn pushed(words: &[&[u8]]) -> Vec<u8> {
    let mut message = Reply::new(Version::Resp2, usize::MAX);
    message.push(words.len());
    words.iter().for_each(|word| message.bulk(word));
    message.bytes
}

/// The first memory for replies, in bytes: enough for a few short ones.
const FIRST: usize = 512;

/// More than a line with a type and a length has, and a line end.
const HEADER_MOST: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn written(version: Version, write: impl Fn(&mut Reply)) -> String {
        let mut reply = Reply::new(version, 1_000);
        write(&mut reply);
        String::from_utf8(reply.bytes).unwrap()
    }

    #[track_caller]
    fn check(write: impl Fn(&mut Reply), resp2: &str, resp3: &str) {
        assert_eq!(written(Version::Resp2, &write), resp2);
        assert_eq!(written(Version::Resp3, &write), resp3);
    }

    #[test]
    fn each_version_has_its_types() {
        check(|reply| reply.simple("PONG"), "+PONG\r\n", "+PONG\r\n");
        check(Reply::ok, "+OK\r\n", "+OK\r\n");
        check(
            |reply| reply.bulk(b"a\r\nb"),
            "$4\r\na\r\nb\r\n",
            "$4\r\na\r\nb\r\n",
        );
        check(|reply| reply.bulk(b""), "$0\r\n\r\n", "$0\r\n\r\n");
        check(
            |reply| reply.integer(i64::MIN),
            ":-9223372036854775808\r\n",
            ":-9223372036854775808\r\n",
        );
        check(Reply::null, "$-1\r\n", "_\r\n");
        check(Reply::null_array, "*-1\r\n", "_\r\n");
        check(|reply| reply.array(2), "*2\r\n", "*2\r\n");
        check(|reply| reply.map(2), "*4\r\n", "%2\r\n");
        check(|reply| reply.set(2), "*2\r\n", "~2\r\n");
        check(|reply| reply.push(3), "*3\r\n", ">3\r\n");
        check(|reply| reply.boolean(true), ":1\r\n", "#t\r\n");
        check(|reply| reply.boolean(false), ":0\r\n", "#f\r\n");
        check(|reply| reply.double(1.5), "$3\r\n1.5\r\n", ",1.5\r\n");
        check(
            |reply| reply.double(f64::INFINITY),
            "$3\r\ninf\r\n",
            ",inf\r\n",
        );
        check(
            |reply| reply.verbatim(b"hi"),
            "$2\r\nhi\r\n",
            "=6\r\ntxt:hi\r\n",
        );
        let error = ErrorReply::new("a\r\nb");
        check(
            |reply| reply.error(&error),
            "-ERR a  b\r\n",
            "-ERR a  b\r\n",
        );
    }

    #[test]
    fn a_reply_that_is_too_long_becomes_an_error() {
        let mut reply = Reply::new(Version::Resp2, 200);
        reply.begin();
        reply.bulk(&[b'x'; 100]);
        reply.finish(Ok(()));
        reply.begin();
        reply.array(3);
        reply.bulk(b"short");
        reply.bulk(&[b'x'; 100]);
        reply.bulk(b"");
        reply.finish(Ok(()));

        let text = String::from_utf8(reply.bytes).unwrap();
        let expected = format!(
            "$100\r\n{}\r\n-ERR the reply is longer than the server's max_reply allows\r\n",
            "x".repeat(100)
        );
        assert_eq!(text, expected);
    }

    /// Writes an array of elements, each a string of one of the lengths, or an error for 0.
    fn elements(most: usize, lengths: &[usize]) -> String {
        let mut reply = Reply::new(Version::Resp2, most);
        reply.ok();
        reply.begin();
        reply.array(lengths.len());
        for length in lengths {
            reply.element(|reply| {
                reply.bulk(&vec![b'x'; *length]);
                (*length > 0).then_some(()).ok_or(ErrorReply::SYNTAX)
            });
        }
        reply.finish(Ok(()));
        String::from_utf8(reply.bytes).unwrap()
    }

    #[test]
    fn an_error_concerns_one_element() {
        assert_eq!(
            elements(1_000, &[1, 0, 2]),
            "+OK\r\n*3\r\n$1\r\nx\r\n-ERR syntax error\r\n$2\r\nxx\r\n"
        );
        let too_long = "-ERR the reply is longer than the server's max_reply allows\r\n";
        assert_eq!(
            elements(200, &[1, 200, 2]),
            format!("+OK\r\n*3\r\n$1\r\nx\r\n{too_long}$2\r\nxx\r\n")
        );
        // Not even the errors fit, or not even the array.
        assert_eq!(elements(200, &[300; 4]), format!("+OK\r\n{too_long}"));
        assert_eq!(elements(20, &[1, 0]), format!("+OK\r\n{too_long}"));
    }

    #[test]
    fn an_error_replaces_what_was_written() {
        let mut reply = Reply::new(Version::Resp2, 200);
        reply.ok();
        reply.begin();
        reply.array(2);
        reply.finish(Err(ErrorReply::SYNTAX));
        assert_eq!(reply.bytes, b"+OK\r\n-ERR syntax error\r\n");
    }
}
