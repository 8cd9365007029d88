//! The file of a Unix socket: who may use it, and whose it is.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, Permissions};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{io, process, thread};

use socket2::{Domain, SockAddr, Socket, Type};

use crate::{LOG_TARGET, sys};

/// The permissions of a socket file: its owner's alone.
const SOCKET_MODE: u32 = 0o600;

/// How long a socket has to refuse connections before its server counts as dead: another process may
/// be about to listen.
const GRACE: Duration = Duration::from_millis(50);

/// The file of a Unix socket. Dropping it removes the file, if it is still the one we made.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    identity: Identity,
    /// The process that made it. A child that serves one connection has a copy, and removes nothing.
    process: u32,
}

impl SocketFile {
    /// Binds `socket` to `path`, with the owner's permissions from the first moment. A socket that
    /// a dead server left there is replaced; anything else is left alone and an error.
    pub(super) fn bind(socket: &Socket, path: &Path) -> io::Result<Self> {
        // Held until the file is among them: nobody else of this process takes it for a dead one's.
        let mut own = own_files();
        remove_stale(socket, path, &own)?;
        restrict(socket);
        socket.bind(&SockAddr::unix(path)?)?;
        let found = fs::symlink_metadata(path)?;
        if found.mode() & 0o777 & !SOCKET_MODE != 0 {
            // Only where the system ignores the socket's own mode; nobody can connect before listen.
            fs::set_permissions(path, Permissions::from_mode(SOCKET_MODE))?;
        }
        let identity = identity(&found);
        own.push(identity);
        Ok(Self {
            path: path.to_owned(),
            identity,
            process: process::id(),
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if sys::is_child() && process::id() != self.process {
            return;
        }
        own_files().retain(|identity| *identity != self.identity);
        let found = fs::symlink_metadata(&self.path);
        if found.is_ok_and(|found| identity(&found) == self.identity) {
            if let Err(error) = fs::remove_file(&self.path) {
                log::warn!(target: LOG_TARGET, "cannot remove {}: {error}", self.path.display());
            }
        }
    }
}

/// A file's device and number, which no other file has as long as its socket is open.
type Identity = (u64, u64);

fn identity(found: &Metadata) -> Identity {
    (found.dev(), found.ino())
}

/// The socket files of this process. A stream socket that is bound and does not listen yet looks
/// like one that a dead server left behind.
fn own_files() -> MutexGuard<'static, Vec<Identity>> {
    static OWN: Mutex<Vec<Identity>> = Mutex::new(Vec::new());
    OWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Gives the socket the mode that Linux then gives its file.
fn restrict(socket: &Socket) {
    if let Ok(descriptor) = socket.as_fd().try_clone_to_owned() {
        // Elsewhere this fails, and the file's mode is set after binding.
        let _ = File::from(descriptor).set_permissions(Permissions::from_mode(SOCKET_MODE));
    }
}

fn remove_stale(socket: &Socket, path: &Path, own: &[Identity]) -> io::Result<()> {
    let Ok(found) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !found.file_type().is_socket() {
        return in_use("the path exists and is no socket");
    }
    if found.uid() != sys::effective_user() {
        return in_use("the socket belongs to another user");
    }
    if own.contains(&identity(&found)) {
        return in_use("another server of this process is bound there");
    }
    if !is_dead(path, socket.r#type()?, || thread::sleep(GRACE))? {
        return in_use("another server listens there");
    }
    log::info!(target: LOG_TARGET, "replacing {}, which a server left behind", path.display());
    remove_only(path, identity(&found))
}

/// Whether nobody listens there, nor does after `grace`.
fn is_dead(path: &Path, kind: Type, grace: impl FnOnce()) -> io::Result<bool> {
    let refuses = || {
        let probe = Socket::new(Domain::UNIX, kind, None)?;
        probe.set_nonblocking(true)?;
        let outcome = probe.connect(&SockAddr::unix(path)?);
        let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
        io::Result::Ok(outcome.is_err_and(refused))
    };
    if !refuses()? {
        return Ok(false);
    }
    grace();
    refuses()
}

/// Removes one file and no other: meanwhile another server may have replaced it by its own, which
/// gets its path back.
fn remove_only(path: &Path, stale: Identity) -> io::Result<()> {
    let mut aside = OsString::from(path);
    aside.push(format!(".{}.stale", process::id()));
    fs::rename(path, &aside)?;
    if identity(&fs::symlink_metadata(&aside)?) == stale {
        return fs::remove_file(&aside);
    }
    fs::hard_link(&aside, path)?;
    fs::remove_file(&aside)?;
    in_use("another server has just begun to listen there")
}

fn in_use<T>(problem: &'static str) -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::AddrInUse, problem))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    /// A path of its own for a test, whose file goes with it.
    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Self {
            let name = format!("serveloop-{name}-{}", std::process::id());
            Self(std::env::temp_dir().join(name))
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }

    #[test]
    fn who_begins_to_listen_a_moment_later_is_alive() {
        let place = Place::new("late");
        let late = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        late.bind(&SockAddr::unix(&place.0).unwrap()).unwrap();
        assert!(is_dead(&place.0, Type::STREAM, || ()).unwrap());
        let listens = || late.listen(1).unwrap();
        assert!(!is_dead(&place.0, Type::STREAM, listens).unwrap());
    }

    #[test]
    fn a_server_that_was_quicker_keeps_its_file() {
        let place = Place::new("quicker");
        drop(UnixListener::bind(&place.0).unwrap());
        let stale = identity(&fs::symlink_metadata(&place.0).unwrap());
        // Kept under another name, so that its number is not given away again.
        let kept = Place::new("kept");
        fs::rename(&place.0, &kept.0).unwrap();
        let quicker = UnixListener::bind(&place.0).unwrap();
        let error = remove_only(&place.0, stale).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        let _client = std::os::unix::net::UnixStream::connect(&place.0).unwrap();
        drop(quicker);
        assert!(remove_only(&kept.0, stale).is_ok());
        assert!(!kept.0.exists());
    }
}
