//! Making the file of a Unix socket: its permissions and its group.

use std::ffi::CString;
use std::io;
use std::os::fd::AsFd;
#[cfg(any(target_os = "linux", target_os = "android"))]
use std::os::fd::{AsRawFd, RawFd};

use socket2::SockAddr;

#[cfg(any(target_os = "linux", target_os = "android"))]
use super::{block_signals, unblock_signals};

/// Room for a group's names, in bytes, at first and at most.
const GROUP_ROOM: usize = 4_096;
const GROUP_ROOM_MOST: usize = 16 << 20;

/// Returns the number of a group. A text of digits is the number itself.
///
/// # Errors
/// `NotFound` if there is no such group, or the error of the lookup.
pub(crate) fn group_number(name: &str) -> io::Result<u32> {
    // The system takes the last number for the wish not to change the group.
    let is_number = name.bytes().all(|byte| byte.is_ascii_digit());
    let number = name.parse().ok().filter(|number| *number != u32::MAX);
    if let Some(number) = number.filter(|_| is_number) {
        return Ok(number);
    }

    let text = CString::new(name)?;
    let mut room = vec![0; GROUP_ROOM];
    loop {
        // SAFETY: all zeroes are a valid group, whose pointers are null.
        let mut group: libc::group = unsafe { std::mem::zeroed() };
        let mut found = std::ptr::null_mut();
        // SAFETY: the name ends with a NUL, and the other pointers are to live, writable values. The
        // room has the length that is given.
        let error = unsafe {
            let room = (room.as_mut_ptr(), room.len());
            libc::getgrnam_r(
                text.as_ptr(),
                &raw mut group,
                room.0,
                room.1,
                &raw mut found,
            )
        };

        match error {
            0 if !found.is_null() => return Ok(group.gr_gid),
            // A group with many members needs more room.
            libc::ERANGE if room.len() < GROUP_ROOM_MOST => room.resize(room.len() * 4, 0),
            libc::EINTR => {}
            // What the call returns for a group that does not exist differs between systems.
            0 | libc::ENOENT | libc::ESRCH | libc::EBADF | libc::EPERM => {
                let problem = format!("there is no group {name:?}");
                return Err(io::Error::new(io::ErrorKind::NotFound, problem));
            }
            error => return Err(io::Error::from_raw_os_error(error)),
        }
    }
}

/// Binds a socket to a path, whose file has exactly these permissions and this group from its first
/// moment. If the process may not give files to the group, the file has another one, and no
/// permissions for it.
///
/// The umask belongs to the process and to all its threads, so it cannot be changed for one file. A
/// child has a umask and a group of its own. It shares this process's memory and descriptors, and
/// this thread waits until it has ended, like a child of posix_spawn(3).
///
/// # Errors
/// The errors of bind(2), or `Unsupported` if there can be no such child.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn bind_as(
    socket: impl AsFd,
    address: &SockAddr,
    mode: u32,
    group: Option<u32>,
) -> io::Result<()> {
    let mut task = BindAs {
        socket: socket.as_fd().as_raw_fd(),
        address: address.as_ptr().cast(),
        length: address.len(),
        mode,
        group,
        error: 0,
    };

    let mut stack = vec![0_u128; STACK / size_of::<u128>()];
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_FILES;
    // A handler must not run in the child, which has this thread's memory.
    let before = block_signals();
    // SAFETY: the stack grows down from its end, is aligned, and outlives the child, as does the
    // task. This thread does not run until the child has ended, and no other thread knows the two.
    // Without a signal in the flags, nobody is told of the child's end.
    let child = unsafe {
        let top = stack.as_mut_ptr_range().end.cast();
        libc::clone(bind_in_child, top, flags, (&raw mut task).cast())
    };
    let failure = io::Error::last_os_error();
    unblock_signals(&before);

    if child == -1 {
        let problem = format!("no child can be made: {failure}");
        return Err(io::Error::new(io::ErrorKind::Unsupported, problem));
    }

    // SAFETY: no status is requested, and the id is our child's until it is waited for. It has
    // ended, so this does not block.
    unsafe { libc::waitpid(child, std::ptr::null_mut(), libc::__WALL) };
    match task.error {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// Other systems set the permissions of the file after binding.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn bind_as(_: impl AsFd, _: &SockAddr, _: u32, _: Option<u32>) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// The size of the stack of a child that makes four system calls.
#[cfg(any(target_os = "linux", target_os = "android"))]
const STACK: usize = 64 << 10;

/// What a child is to bind, and what came of it.
#[cfg(any(target_os = "linux", target_os = "android"))]
struct BindAs {
    socket: RawFd,
    address: *const libc::sockaddr,
    length: libc::socklen_t,
    mode: u32,
    group: Option<u32>,
    error: libc::c_int,
}

/// Runs in a child that shares its parent's memory, so it only makes system calls.
#[cfg(any(target_os = "linux", target_os = "android"))]
extern "C" fn bind_in_child(task: *mut libc::c_void) -> libc::c_int {
    const GROUP: u32 = 0o070;
    // SAFETY: the parent waits, and lends its task.
    let task = unsafe { &mut *task.cast::<BindAs>() };
    let mut mode = task.mode;

    if let Some(group) = task.group {
        // SAFETY: the calls take plain numbers. The second one changes nothing and returns the group
        // that is set, since the first one does not tell whether it failed.
        let now = unsafe {
            libc::setfsgid(group);
            libc::setfsgid(group)
        };
        if now as u32 != group {
            mode &= !GROUP;
        }
    }

    // SAFETY: umask takes a plain number. The address is live, and has that length.
    task.error = unsafe {
        libc::umask((!mode & 0o777) as libc::mode_t);
        match libc::bind(task.socket, task.address, task.length) {
            0 => 0,
            _ => io::Error::last_os_error().raw_os_error().unwrap_or(-1),
        }
    };
    0
}
