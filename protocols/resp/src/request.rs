//! A request: the words that a client has sent, and their types.

use std::fmt;
use std::slice;

use crate::error_reply::ErrorReply;
use crate::number;

/// Where a word is in the bytes of its request. Four bytes each, because a request may have very many
/// words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: u32,
    pub(crate) end: u32,
}

impl Span {
    #[inline]
    fn of(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.start as usize..self.end as usize]
    }
}

/// A request: the name of a command and its arguments. It has at least one word.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    bytes: &'a [u8],
    words: &'a [Span],
}

impl<'a> Request<'a> {
    pub(crate) fn new(bytes: &'a [u8], words: &'a [Span]) -> Self {
        debug_assert!(!words.is_empty(), "a request has a name");
        Self { bytes, words }
    }

    /// Returns the first word: the name of a command, as the client has written it.
    #[must_use]
    #[inline]
    pub fn name(&self) -> &'a [u8] {
        self.words[0].of(self.bytes)
    }

    /// Returns the other words.
    #[must_use]
    #[inline]
    pub fn arguments(&self) -> Arguments<'a> {
        Arguments {
            bytes: self.bytes,
            words: self.words[1..].iter(),
        }
    }

    /// Returns all words.
    pub(crate) fn words(&self) -> Arguments<'a> {
        Arguments {
            bytes: self.bytes,
            words: self.words.iter(),
        }
    }
}

impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.words().fmt(f)
    }
}

/// The arguments of a request that a handler has not taken yet.
///
/// They are bytes; [`parse`](Self::parse) takes several with their types.
///
/// ```
/// use serveloop_resp::{Arguments, ErrorReply};
///
/// /// Parses `KEY NUMBER [TWICE]`.
/// fn parsed(arguments: &mut Arguments<'_>) -> Result<(Vec<u8>, i64), ErrorReply> {
///     let (key, mut number): (&[u8], i64) = arguments.parse()?;
///     for option in arguments {
///         if !option.eq_ignore_ascii_case(b"twice") {
///             return Err(ErrorReply::SYNTAX);
///         }
///         number *= 2;
///     }
///     Ok((key.to_vec(), number))
/// }
/// # let _ = parsed;
/// ```
#[derive(Clone)]
pub struct Arguments<'a> {
    bytes: &'a [u8],
    words: slice::Iter<'a, Span>,
}

impl<'a> Arguments<'a> {
    /// Takes as many arguments as `T` has, with their types.
    ///
    /// # Errors
    /// Returns what is wrong with the first that is missing or of another type.
    #[inline]
    pub fn parse<T: FromArguments<'a>>(&mut self) -> Result<T, ErrorReply> {
        T::from_arguments(self)
    }
}

impl<'a> Iterator for Arguments<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        self.words.next().map(|word| word.of(self.bytes))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.words.size_hint()
    }
}

impl ExactSizeIterator for Arguments<'_> {}

impl fmt::Debug for Arguments<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = self.clone().map(String::from_utf8_lossy);
        f.debug_list().entries(words).finish()
    }
}

/// A type of one argument, or of several: `&[u8]`, `i64`, `f64`, and tuples of them.
///
/// ```
/// use serveloop_resp::{Arguments, ErrorReply, FromArguments};
///
/// #[derive(Debug, PartialEq)]
/// struct Percent(u8);
///
/// impl<'a> FromArguments<'a> for Percent {
///     fn from_arguments(arguments: &mut Arguments<'a>) -> Result<Self, ErrorReply> {
///         match arguments.parse()? {
///             number @ 0..=100_i64 => Ok(Self(number as u8)),
///             _ => Err(ErrorReply::new("a percentage is from 0 to 100")),
///         }
///     }
/// }
///
/// /// Parses `KEY PERCENT`.
/// fn parsed(arguments: &mut Arguments<'_>) -> Result<(Vec<u8>, Percent), ErrorReply> {
///     let (key, percent): (&[u8], Percent) = arguments.parse()?;
///     Ok((key.to_vec(), percent))
/// }
/// # let _ = parsed;
/// ```
pub trait FromArguments<'a>: Sized {
    /// Takes the first of `arguments`.
    ///
    /// # Errors
    /// Returns what the client is told if they are missing or of another type.
    fn from_arguments(arguments: &mut Arguments<'a>) -> Result<Self, ErrorReply>;
}

impl<'a> FromArguments<'a> for &'a [u8] {
    #[inline]
    fn from_arguments(arguments: &mut Arguments<'a>) -> Result<Self, ErrorReply> {
        arguments.next().ok_or(ErrorReply::SYNTAX)
    }
}

impl<'a> FromArguments<'a> for i64 {
    #[inline]
    fn from_arguments(arguments: &mut Arguments<'a>) -> Result<Self, ErrorReply> {
        number::integer(arguments.parse()?).ok_or(ErrorReply::NOT_AN_INTEGER)
    }
}

impl<'a> FromArguments<'a> for f64 {
    fn from_arguments(arguments: &mut Arguments<'a>) -> Result<Self, ErrorReply> {
        number::float(arguments.parse()?).ok_or(ErrorReply::NOT_A_FLOAT)
    }
}

impl<'a, A: FromArguments<'a>, B: FromArguments<'a>> FromArguments<'a> for (A, B) {
    #[inline]
    fn from_arguments(arguments: &mut Arguments<'a>) -> Result<Self, ErrorReply> {
        Ok((arguments.parse()?, arguments.parse()?))
    }
}

impl<'a, A, B, C> FromArguments<'a> for (A, B, C)
where
    A: FromArguments<'a>,
    B: FromArguments<'a>,
    C: FromArguments<'a>,
{
    #[inline]
    fn from_arguments(arguments: &mut Arguments<'a>) -> Result<Self, ErrorReply> {
        Ok((arguments.parse()?, arguments.parse()?, arguments.parse()?))
    }
}
