//! Files that are written as the output comes: pipes, devices, and the names of descriptors.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::destination::part::directory_of;

/// The directories that list the descriptors of this process, on Linux and on other systems.
const OPEN_FILES: [&str; 3] = ["/proc/self/fd", "/proc/thread-self/fd", "/dev/fd"];

/// The interval at which a pipe is checked for a reader.
const STEP: Duration = Duration::from_millis(20);

/// Opens `path` for appending. If it names a descriptor of a file, what others write to it is thus
/// not overwritten. For a pipe without a reader, fails after `patience`.
pub(super) fn open(path: &Path, patience: Option<Duration>) -> io::Result<File> {
    let mut options = File::options();
    options.append(true);
    let is_pipe = fs::metadata(path).is_ok_and(|found| found.file_type().is_fifo());
    let Some(patience) = patience.filter(|_| is_pipe) else {
        return options.open(path);
    };

    options.custom_flags(libc::O_NONBLOCK);
    let began = Instant::now();
    loop {
        match options.open(path) {
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => {}
            outcome => return outcome,
        }

        if began.elapsed() >= patience {
            let patience = humantime::format_duration(patience);
            let problem = format!("no reader opened the pipe within {patience}");
            return Err(io::Error::new(ErrorKind::TimedOut, problem));
        }
        thread::sleep(STEP.min(patience));
    }
}

/// Returns whether `path` names an open descriptor, of this process or of another.
pub(super) fn is_descriptor(path: &Path) -> bool {
    let of_any =
        |(directory, _): &(PathBuf, PathBuf)| is_own(directory) || is_of_process(directory);
    names(path).iter().any(of_any)
}

/// Returns the number of this process's descriptor that `path` names, directly or through symbolic
/// links such as `/dev/stdout`.
pub(super) fn own_descriptor(path: &Path) -> Option<PathBuf> {
    let names = names(path).into_iter();
    let mut own = names.filter(|(directory, _)| is_own(directory));
    own.next().map(|(_, number)| number)
}

/// Returns the directory and the name of each step that `path` leads through, by symbolic links.
fn names(path: &Path) -> Vec<(PathBuf, PathBuf)> {
    let mut path = path.to_owned();
    let mut names = Vec::new();
    for _ in 0..8 {
        let Ok(directory) = fs::canonicalize(directory_of(&path)) else {
            break;
        };

        let Some(name) = path.file_name() else {
            break;
        };

        names.push((directory.clone(), name.into()));

        let Ok(next) = fs::read_link(&path) else {
            break;
        };
        path = directory.join(next);
    }
    names
}

fn is_own(directory: &Path) -> bool {
    let is_it = |own: &str| fs::canonicalize(own).is_ok_and(|own| own == directory);
    OPEN_FILES.into_iter().any(is_it)
}

/// Returns whether a directory has the form `/proc/1/fd` or `/proc/1/task/1/fd`.
fn is_of_process(directory: &Path) -> bool {
    let names: Vec<_> = directory
        .components()
        .filter_map(|component| match component {
            Component::Normal(name) => name.to_str(),
            _ => None,
        })
        .collect();

    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    match names[..] {
        ["proc", process, "fd"] => is_number(process),
        ["proc", process, "task", thread, "fd"] => is_number(process) && is_number(thread),
        _ => false,
    }
}
