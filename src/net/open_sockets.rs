//! The sockets that a server listens on, for another process that goes on with them.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use crate::address::{Address, SocketFileId};
use crate::net::unix_path::FileMark;
use crate::sys;
use crate::waker::sync::lock;

/// The sockets that a server has open to listen on, of all its loops. Made by
/// [`Server::open_sockets`](crate::Server::open_sockets); all clones are the same.
///
/// With it a server is replaced by a new process, and no client is refused: the new process is given
/// copies of the same sockets ([`list`](Self::list)), makes listeners of them
/// ([`Inherited::handed_on`](crate::service::activation::Inherited::handed_on)), and serves. Then the old
/// one stops listening ([`Actions::retire`](crate::Actions::retire)). What waits in the system's queues
/// is served by the new one.
///
/// ```
/// use std::os::fd::OwnedFd;
///
/// use serveloop::service::activation::Inherited;
/// use serveloop::{Config, Server};
///
/// let old = Server::bind(&["tcp://127.0.0.1:0".parse()?], Config::default())?;
/// let sockets = old.open_sockets().list()?;
///
/// // In a real program these go to another process.
/// let copies: Vec<OwnedFd> = sockets.into_iter().map(OwnedFd::from).collect();
/// let inherited = Inherited::handed_on(copies, None)?;
/// let new = Server::bind_with(&[inherited.listen()?], Config::default())?;
/// assert_eq!(new.addresses(), old.addresses());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct OpenSockets {
    entries: Arc<Mutex<Entries>>,
}

#[derive(Debug, Default)]
struct Entries {
    all: Vec<Entry>,
    last_key: u64,
}

#[derive(Debug)]
struct Entry {
    key: u64,
    listener: usize,
    address: Address,
    /// Open as long as this entry is there.
    descriptor: RawFd,
    file: Option<FileMark>,
}

/// A copy of one socket that a server listens on.
///
/// The file of a Unix socket belongs to one process, which removes it at its end:
///
/// ```
/// use std::os::fd::AsFd;
///
/// use serveloop::service::activation::Inherited;
/// use serveloop::{Config, Server};
///
/// # let directory = std::env::temp_dir().join(format!("open-socket-{}", std::process::id()));
/// # std::fs::create_dir_all(&directory)?;
/// let path = directory.join("socket");
/// let uri = format!("unix://{}", path.display());
/// let old = Server::bind(&[uri.parse()?], Config::default())?;
///
/// let socket = old.open_sockets().list()?.remove(0);
/// let copy = socket.as_fd().try_clone_to_owned()?;
/// let inherited = Inherited::handed_on([copy], socket.file())?;
/// let new = Server::bind_with(&[inherited.listen()?], Config::default())?;
///
/// // The new server serves, so the old one leaves the file to it.
/// socket.leave_file();
/// new.open_sockets().list()?.iter().for_each(|socket| socket.own_file());
/// drop(old);
/// assert!(path.exists());
/// drop(new);
/// assert!(!path.exists());
/// # std::fs::remove_dir_all(&directory)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct OpenSocket {
    listener: usize,
    address: Address,
    descriptor: OwnedFd,
    file: Option<FileMark>,
}

/// What removes a socket's entry. It has to be dropped before the socket is closed.
#[derive(Debug)]
pub(super) struct Entered {
    entries: Arc<Mutex<Entries>>,
    key: u64,
}

impl OpenSockets {
    /// Copies the sockets that are open now, by the numbers of their listeners. With several workers,
    /// each has a socket of its own at an IP address. A server that shuts down, or has retired, has none.
    ///
    /// The copies keep a socket open: as long as one is there, clients that connect to it wait.
    ///
    /// # Errors
    /// The process has no descriptor left.
    pub fn list(&self) -> io::Result<Vec<OpenSocket>> {
        // Locked until all are copied, so that none is closed meanwhile.
        let entries = lock(&self.entries);
        let copy = |entry: &Entry| {
            Ok(OpenSocket {
                listener: entry.listener,
                address: entry.address.clone(),
                descriptor: sys::copy_descriptor(entry.descriptor)?,
                file: entry.file.clone(),
            })
        };
        let mut copies: Vec<_> = entries.all.iter().map(copy).collect::<io::Result<_>>()?;
        drop(entries);
        copies.sort_by_key(|copy| copy.listener);
        Ok(copies)
    }

    /// Enters a socket, until what is returned is dropped.
    pub(super) fn enter(
        &self,
        listener: usize,
        address: &Address,
        socket: BorrowedFd<'_>,
        file: Option<FileMark>,
    ) -> Entered {
        let mut entries = lock(&self.entries);
        entries.last_key += 1;
        let key = entries.last_key;
        entries.all.push(Entry {
            key,
            listener,
            address: address.clone(),
            descriptor: socket.as_raw_fd(),
            file,
        });
        Entered {
            entries: Arc::clone(&self.entries),
            key,
        }
    }
}

impl OpenSocket {
    /// Returns the number of the listener: its place in
    /// [`Server::addresses`](crate::Server::addresses). Several sockets may have the same.
    #[must_use]
    pub fn listener(&self) -> usize {
        self.listener
    }

    /// Returns the address that it is bound to.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Returns which file a Unix socket has, if this process removes it at its end or is to do so.
    #[must_use]
    pub fn file(&self) -> Option<SocketFileId> {
        self.file.as_ref().map(|file| file.identity)
    }

    /// Leaves the file of a Unix socket to the process that goes on with it: this one does not remove
    /// it any more.
    pub fn leave_file(&self) {
        if let Some(file) = &self.file {
            file.is_left.store(true, Ordering::SeqCst);
        }
    }

    /// Makes this process remove the file of a Unix socket at the server's end. A process that was
    /// [handed](crate::service::activation::Inherited::handed_on) the socket calls this when the former
    /// process has left the file to it.
    pub fn own_file(&self) {
        if let Some(file) = &self.file {
            file.is_left.store(false, Ordering::SeqCst);
        }
    }
}

impl AsFd for OpenSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl From<OpenSocket> for OwnedFd {
    fn from(socket: OpenSocket) -> Self {
        socket.descriptor
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        lock(&self.entries)
            .all
            .retain(|entry| entry.key != self.key);
    }
}
