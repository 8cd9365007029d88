//! Sockets that another program has opened for this one.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::os::fd::{AsRawFd, OwnedFd};
use std::str::FromStr;
use std::sync::Arc;

/// Bound sockets at one address, shared by all copies of a [`Listen`](crate::Listen). Two are equal if
/// they begin with the same descriptor.
#[derive(Clone, Debug)]
pub(crate) struct PassedSocket {
    pub(crate) socket: Arc<OwnedFd>,
    /// What a former process of the same server says of it. `None` if anybody else has opened it.
    pub(crate) former: Option<Former>,
}

/// What a server hands on with a socket.
#[derive(Clone, Debug, Default)]
pub(crate) struct Former {
    /// Further sockets at the same address: with several workers, each has one.
    pub(crate) others: Arc<Vec<OwnedFd>>,
    pub(crate) file: Option<SocketFileId>,
}

impl PartialEq for PassedSocket {
    fn eq(&self, other: &Self) -> bool {
        self.socket.as_raw_fd() == other.socket.as_raw_fd()
    }
}

impl Eq for PassedSocket {}

impl Hash for PassedSocket {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.socket.as_raw_fd().hash(state);
    }
}

/// Which file a Unix socket has: its device and its inode number. No other file has them while the
/// socket is open.
///
/// It is written as two numbers, so that another process can be told.
///
/// ```
/// use serveloop::net::SocketFileId;
///
/// let file: SocketFileId = "66306:131".parse()?;
/// assert_eq!(file.to_string(), "66306:131");
/// assert!("66306".parse::<SocketFileId>().is_err());
/// # Ok::<(), serveloop::net::NotASocketFileId>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SocketFileId {
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

impl fmt::Display for SocketFileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.device, self.inode)
    }
}

impl FromStr for SocketFileId {
    type Err = NotASocketFileId;

    fn from_str(text: &str) -> Result<Self, NotASocketFileId> {
        let parse = || {
            let (device, inode) = text.split_once(':')?;
            let (device, inode) = (device.parse().ok()?, inode.parse().ok()?);
            Some(Self { device, inode })
        };
        parse().ok_or(NotASocketFileId)
    }
}

/// A text is no [`SocketFileId`].
///
/// ```
/// use serveloop::net::SocketFileId;
///
/// let error = "somewhere".parse::<SocketFileId>().unwrap_err();
/// assert!(error.to_string().contains("66306:131"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotASocketFileId;

impl fmt::Display for NotASocketFileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected the numbers of a device and of an inode, as in 66306:131")
    }
}

impl std::error::Error for NotASocketFileId {}
