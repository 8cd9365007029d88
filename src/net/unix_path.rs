//! The file of a Unix socket: its permissions, its owner, and the removal of stale ones.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, Permissions};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use std::{io, process, thread};

use socket2::{Domain, SockAddr, Socket, Type};

use crate::address::SocketFileId;
use crate::config::Config;
use crate::waker::sync::lock;
use crate::{LOG_TARGET, sys};

/// The permissions of the owner, which no usual umask takes away from a new file.
const OWNER: u32 = 0o700;

/// The permissions of a file's group.
const GROUP: u32 = 0o070;

/// The bit of a directory whose new files have its group.
const PASSES_GROUP: u32 = 0o2000;

/// How long a socket has to refuse connections before its server counts as dead. Another process
/// may be about to listen on it.
const GRACE: Duration = Duration::from_millis(50);

/// Who may use the file of a socket.
#[derive(Debug)]
pub(super) struct Access {
    mode: u32,
    /// The group that owns the file, with its name for messages.
    group: Option<(u32, String)>,
}

impl Access {
    /// Looks up the group that the configuration names.
    ///
    /// # Errors
    /// `NotFound` if there is no such group, or the error of the lookup.
    pub(super) fn of(config: &Config) -> io::Result<Self> {
        let group = config.socket_group.as_deref().map(|name| {
            let number = sys::group_number(name)?;
            io::Result::Ok((number, name.to_owned()))
        });
        Ok(Self {
            mode: config.socket_mode,
            group: group.transpose()?,
        })
    }

    fn group(&self) -> Option<u32> {
        self.group.as_ref().map(|(number, _)| *number)
    }

    /// Returns the permissions for a file whose group may not be the right one yet.
    fn of_any_group(&self) -> u32 {
        let withheld = if self.group.is_some() { GROUP } else { 0 };
        self.mode & !withheld
    }
}

/// The file of a Unix socket. Dropping this removes the file, unless another one has replaced it, or it
/// is left to another process.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    mark: FileMark,
    /// The process that made the file. A forked child has a copy of this, and removes nothing.
    process: u32,
}

impl SocketFile {
    /// Binds `socket` to `path`. The file lets in nobody that `access` does not, from its first
    /// moment. Replaces a socket file that a dead server left behind. Anything else at `path` is an
    /// error, and stays.
    pub(super) fn bind(socket: &Socket, path: &Path, access: &Access) -> io::Result<Self> {
        // Locked until the new file is listed, so that no other thread takes it for a dead
        // server's.
        let mut own = own_files();

        remove_stale(socket, path, &own)?;
        create(socket, path, access)?;

        let found = fs::symlink_metadata(path)?;
        let identity = identity(&found);
        own.push(identity);
        // Dropping the file takes the lock too.
        drop(own);

        let file = Self {
            path: path.to_owned(),
            mark: FileMark::new(identity, false),
            process: process::id(),
        };
        file.settle(&found, access)?;
        Ok(file)
    }

    /// Takes over the file of another process's socket, which that process removes for now.
    pub(super) fn adopt(path: &Path, identity: Identity) -> Self {
        Self {
            path: path.to_owned(),
            mark: FileMark::new(identity, true),
            process: process::id(),
        }
    }

    /// Returns what says who removes the file.
    pub(super) fn mark(&self) -> FileMark {
        self.mark.clone()
    }

    /// Gives the file the group and the permissions that it does not have yet. No client can connect
    /// before the socket listens.
    fn settle(&self, found: &Metadata, access: &Access) -> io::Result<()> {
        if let Some((number, name)) = &access.group {
            if found.gid() != *number {
                lchown(&self.path, None, Some(*number)).map_err(|error| {
                    let problem = format!("cannot give the file to group {name}: {error}");
                    io::Error::new(error.kind(), problem)
                })?;
            }
        }

        if found.mode() & 0o777 != access.mode {
            fs::set_permissions(&self.path, Permissions::from_mode(access.mode))?;
        }
        Ok(())
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if sys::is_child() && process::id() != self.process {
            return;
        }

        own_files().retain(|identity| *identity != self.mark.identity);
        if self.mark.is_left.load(Ordering::SeqCst) {
            return;
        }
        let found = fs::symlink_metadata(&self.path);
        if found.is_ok_and(|found| identity(&found) == self.mark.identity) {
            if let Err(error) = fs::remove_file(&self.path) {
                log::warn!(target: LOG_TARGET, "cannot remove {}: {error}", self.path.display());
            }
        }
    }
}

/// No other file has the same while its socket is open.
type Identity = SocketFileId;

fn identity(found: &Metadata) -> Identity {
    SocketFileId {
        device: found.dev(),
        inode: found.ino(),
    }
}

/// Which file it is, and whether another process is to remove it.
#[derive(Clone, Debug)]
pub(super) struct FileMark {
    pub(super) identity: SocketFileId,
    pub(super) is_left: Arc<AtomicBool>,
}

impl FileMark {
    fn new(identity: SocketFileId, is_left: bool) -> Self {
        Self {
            identity,
            is_left: Arc::new(AtomicBool::new(is_left)),
        }
    }
}

/// Returns the socket files of this process. A stream socket that is bound and does not listen yet
/// looks like one that a dead server left behind.
fn own_files() -> MutexGuard<'static, Vec<Identity>> {
    static OWN: Mutex<Vec<Identity>> = Mutex::new(Vec::new());
    lock(&OWN)
}

/// Binds `socket` to `path`, with as much of `access` as the system can set at once.
fn create(socket: &Socket, path: &Path, access: &Access) -> io::Result<()> {
    use io::ErrorKind::{PermissionDenied, Unsupported};

    let address = SockAddr::unix(path)?;
    // A umask takes permissions of others away from a new file, and a new file has the process's
    // group.
    let (group, mode) = (access.group(), access.mode);
    if group.is_some() || mode & !OWNER != 0 {
        let mode = if passes_group(path) {
            access.of_any_group()
        } else {
            mode
        };
        match sys::bind_as(socket, &address, mode, group) {
            // The second one if the directory belongs to the group that was given up.
            Err(error) if matches!(error.kind(), Unsupported | PermissionDenied) => {}
            outcome => return outcome,
        }
    }

    restrict(socket, access.of_any_group());
    socket.bind(&address)
}

/// Returns whether a new file at `path` has the group of its directory.
fn passes_group(path: &Path) -> bool {
    let directory = path.parent().filter(|it| !it.as_os_str().is_empty());
    let found = fs::metadata(directory.unwrap_or(Path::new(".")));
    found.is_ok_and(|found| found.mode() & PASSES_GROUP != 0)
}

/// Sets the socket's mode. Linux gives it to the file, less the umask.
fn restrict(socket: &Socket, mode: u32) {
    if let Ok(descriptor) = socket.as_fd().try_clone_to_owned() {
        // On other systems this fails, and the file's mode is set after binding.
        let _ = File::from(descriptor).set_permissions(Permissions::from_mode(mode));
    }
}

/// Removes a socket file that a dead server left at `path`; returns an error for any other file.
fn remove_stale(socket: &Socket, path: &Path, own: &[Identity]) -> io::Result<()> {
    let Ok(found) = fs::symlink_metadata(path) else {
        return Ok(());
    };

    if !found.file_type().is_socket() {
        return in_use("the path exists and is not a socket");
    }

    if found.uid() != sys::effective_user() {
        return in_use("the socket belongs to another user");
    }

    if own.contains(&identity(&found)) {
        return in_use("another server of this process is bound there");
    }

    if !is_dead(path, socket.r#type()?, || thread::sleep(GRACE))? {
        return in_use("another server is listening there");
    }

    log::info!(target: LOG_TARGET, "replacing {}, which a server left behind", path.display());
    remove_only(path, identity(&found))
}

/// Returns whether no server listens there, neither now nor after `grace`.
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

/// Removes this one file and no other. If another server has replaced it in the meantime, that
/// server's file is moved back, and the call fails.
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

    /// A path for one test, whose file is removed with it.
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

        // Keep the file under another name, so that its inode number is not used again.
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
