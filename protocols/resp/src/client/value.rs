//! What a server answers.

use crate::number;

/// A value that a server has sent: the answer to a request, or a message of a channel.
///
/// ```
/// use serveloop_resp::client::Value;
///
/// let value = Value::Array(vec![Value::Bytes(b"ann".to_vec()), Value::Integer(2)]);
/// let Value::Array(elements) = &value else { unreachable!() };
/// assert_eq!(elements[0].bytes(), Some(&b"ann"[..]));
/// assert_eq!(elements[1].integer(), Some(2));
/// assert_eq!(value.bytes(), None);
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// Nothing, for example under a key.
    Null,
    /// A text of the server's own, such as `OK`, or bytes.
    Bytes(Vec<u8>),
    /// A whole number.
    Integer(i64),
    /// A number with a fraction.
    Double(f64),
    /// Yes or no.
    Boolean(bool),
    /// An error: the request was not carried out. The text begins with a code such as `ERR`.
    Error(Vec<u8>),
    /// An array, or a set.
    Array(Vec<Value>),
    /// A map.
    Map(Vec<(Value, Value)>),
    /// Data that is no answer.
    Push(Vec<Value>),
}

impl Value {
    /// Returns the bytes, if the value is some.
    #[must_use]
    pub fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// Returns the number, if the value is a whole one.
    #[must_use]
    pub fn integer(&self) -> Option<i64> {
        match self {
            Self::Integer(number) => Some(*number),
            _ => None,
        }
    }

    /// Reads a value that a scanner has found, of which `data` is all. Returns `None` for a number that
    /// is none.
    pub(super) fn read(mut data: &[u8]) -> Option<Self> {
        Self::take(&mut data)
    }

    fn take(data: &mut &[u8]) -> Option<Self> {
        let end = data.iter().position(|byte| *byte == b'\n')?;
        let (kind, line) = data[..end.checked_sub(1)?].split_first()?;
        *data = &data[end + 1..];

        Some(match kind {
            b'+' | b'(' => Self::Bytes(line.to_vec()),
            b'-' => Self::Error(line.to_vec()),
            b':' => Self::Integer(number::integer(line.strip_prefix(b"+").unwrap_or(line))?),
            b',' if line == b"nan" => Self::Double(f64::NAN),
            b',' => Self::Double(number::float(line)?),
            b'#' => Self::Boolean(line == b"t"),
            b'_' => Self::Null,
            _ => return Self::take_long(*kind, line, data),
        })
    }

    /// Takes a value that begins with a length.
    fn take_long(kind: u8, line: &[u8], data: &mut &[u8]) -> Option<Self> {
        let Ok(length) = usize::try_from(number::integer(line)?) else {
            return Some(Self::Null);
        };
        let mut elements = |count: usize| {
            (0..count)
                .map(|_| Self::take(data))
                .collect::<Option<Vec<_>>>()
        };

        Some(match kind {
            b'*' | b'~' => Self::Array(elements(length)?),
            b'>' => Self::Push(elements(length)?),
            b'%' => {
                let mut both = elements(length * 2)?.into_iter();
                let pairs = std::iter::from_fn(|| both.next().zip(both.next()));
                Self::Map(pairs.collect())
            }
            _ => {
                let bytes = data.get(..length)?;
                *data = data.get(length + 2..)?;
                match kind {
                    b'!' => Self::Error(bytes.to_vec()),
                    // Three letters and a colon say what kind of text it is.
                    b'=' => Self::Bytes(bytes.get(4..)?.to_vec()),
                    _ => Self::Bytes(bytes.to_vec()),
                }
            }
        })
    }
}
