//! A connection on its way to another process.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// An open connection that goes on in another process: its socket, what was read from it and not taken,
/// what is to be sent, what was [posted](crate::service::Outbox) and waits, and what its protocol knows of
/// it.
///
/// [`Actions::hand_over`](crate::Actions::hand_over) takes one out of a loop, and
/// [`Actions::adopt`](crate::Actions::adopt) puts it into another one. In between it is a descriptor and
/// bytes, which go to another process in any way that passes descriptors (`SCM_RIGHTS`).
///
/// ```
/// use std::os::fd::OwnedFd;
///
/// use serveloop::net::HandedConnection;
///
/// /// What one process sends, and another makes a connection of.
/// fn moved(connection: HandedConnection) -> std::io::Result<HandedConnection> {
///     let (socket, bytes): (OwnedFd, Vec<u8>) = connection.into_parts();
///     HandedConnection::from_parts(socket, &bytes)
/// }
/// ```
#[derive(Debug)]
pub struct HandedConnection {
    pub(crate) descriptor: OwnedFd,
    /// The number of its listener.
    pub(crate) listener: u16,
    pub(crate) talk: Talk,
}

/// What has been said on a connection and concerns what comes next.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Talk {
    /// No message has been complete yet.
    pub(crate) is_first: bool,
    /// So much output waits that no input is shown.
    pub(crate) is_full: bool,
    /// The protocol is to be told when there is room for output, although it may not be full.
    pub(crate) awaits_room: bool,
    pub(crate) unread: Vec<u8>,
    pub(crate) unsent: Vec<u8>,
    /// What the protocol knows.
    pub(crate) state: Vec<u8>,
    /// What others have posted and the connection has not taken, oldest first.
    pub(crate) posts: Vec<Arc<[u8]>>,
}

impl HandedConnection {
    /// Returns the number of its listener.
    #[must_use]
    pub fn listener(&self) -> u16 {
        self.listener
    }

    /// Sets the number of its listener, if that is another one in the process where it goes on.
    #[must_use]
    pub fn with_listener(mut self, listener: u16) -> Self {
        self.listener = listener;
        self
    }

    /// Returns the socket, and everything else as bytes.
    #[must_use]
    pub fn into_parts(self) -> (OwnedFd, Vec<u8>) {
        let Talk {
            is_first,
            is_full,
            awaits_room,
            unread,
            unsent,
            state,
            posts,
        } = self.talk;
        let mut bytes = self.listener.to_be_bytes().to_vec();
        let flags = [is_first, is_full, awaits_room];
        let bits = flags
            .iter()
            .rev()
            .fold(0, |bits, flag| bits << 1 | u8::from(*flag));
        bytes.push(bits);
        bytes.extend((posts.len() as u64).to_be_bytes());
        let parts = [&unread[..], &unsent, &state].into_iter();
        for part in parts.chain(posts.iter().map(|post| &**post)) {
            bytes.extend((part.len() as u64).to_be_bytes());
            bytes.extend_from_slice(part);
        }
        (self.descriptor, bytes)
    }

    /// Puts the [parts](Self::into_parts) together again.
    ///
    /// # Errors
    /// `InvalidData` if the bytes are not those of a connection.
    pub fn from_parts(descriptor: OwnedFd, bytes: &[u8]) -> io::Result<Self> {
        let mut rest = bytes;
        let parsed = parse(&mut rest);
        let (listener, talk) = parsed.ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "not the bytes of a connection")
        })?;
        Ok(Self {
            descriptor,
            listener,
            talk,
        })
    }
}

fn parse(bytes: &mut &[u8]) -> Option<(u16, Talk)> {
    let listener = u16::from_be_bytes(*take(bytes)?);
    let [flags] = *take(bytes)?;
    let posts = u64::from_be_bytes(*take(bytes)?);
    let mut talk = Talk {
        is_first: flags & 1 != 0,
        is_full: flags & 2 != 0,
        awaits_room: flags & 4 != 0,
        unread: part(bytes)?.to_vec(),
        unsent: part(bytes)?.to_vec(),
        state: part(bytes)?.to_vec(),
        posts: Vec::new(),
    };
    for _ in 0..posts {
        talk.posts.push(part(bytes)?.into());
    }
    bytes.is_empty().then_some((listener, talk))
}

fn part<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = u64::from_be_bytes(*take(bytes)?);
    let (part, rest) = bytes.split_at_checked(usize::try_from(length).ok()?)?;
    *bytes = rest;
    Some(part)
}

fn take<'a, const N: usize>(bytes: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn the_parts_make_the_same_connection() {
        let open = || OwnedFd::from(File::open("/dev/null").unwrap());
        let talk = || Talk {
            is_first: true,
            is_full: false,
            awaits_room: true,
            unread: b"unread".to_vec(),
            unsent: Vec::new(),
            state: vec![0; 300],
            posts: vec![(*b"one").into(), (*b"").into(), (*b"three").into()],
        };
        let handed = HandedConnection {
            descriptor: open(),
            listener: 7,
            talk: talk(),
        };
        let (descriptor, bytes) = handed.into_parts();
        let again = HandedConnection::from_parts(descriptor, &bytes).unwrap();
        assert_eq!((again.listener(), again.talk), (7, talk()));
        for cut in 0..bytes.len() {
            assert!(HandedConnection::from_parts(open(), &bytes[..cut]).is_err());
        }
        let long = [&bytes[..], b"x"].concat();
        assert!(HandedConnection::from_parts(open(), &long).is_err());
    }
}
