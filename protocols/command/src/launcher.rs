//! The step between the server and a program: our own binary runs again, sets the program's limits
//! and then becomes the program. That way the limits affect nothing else, and no code runs between
//! `fork` and `exec` in a process that has threads.

use std::env;
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::ops::RangeInclusive;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{self, Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::setsid;
use rustix::stdio::dup2_stdin;
use signal_hook::consts::FORBIDDEN;

use crate::allowed::PATH;
use crate::confinement::Confinement;
use crate::platform;
use crate::sys::{close_on_exec_from, execv, unblock_signals};

/// The name, in place of its own, that tells our binary what it was started for.
const MARK: &str = "serveloop: becoming a program";

/// The whole environment of a program.
const ENVIRONMENT: [(&str, &str); 2] = [("PATH", PATH), ("LANG", "C.UTF-8")];

/// All standard and real-time signals. Those that the system does not have are skipped.
const SIGNALS: RangeInclusive<i32> = 1..=64;

/// The first descriptor after standard input, output and error.
const FIRST_OTHER: i32 = 3;

/// The shell's status for a program that could not be started. The server does not report it.
const NOT_STARTED: u8 = 127;

/// Whether the program's `main` has asked [`become_program`].
static IS_ASKED: AtomicBool = AtomicBool::new(false);

/// Returns a command that becomes `program` with `words` as its arguments, the zeroth included. Its
/// standard input must be a pipe, to which it writes why it could not.
pub(crate) fn command(
    confinement: &Confinement,
    program: &Path,
    words: &[OsString],
) -> io::Result<Command> {
    let mut command = Command::new(platform::own_binary()?);
    command
        .arg0(MARK)
        .arg(process::id().to_string())
        .args(confinement.arguments())
        .arg(program)
        .args(words)
        .env_clear()
        .envs(ENVIRONMENT)
        .current_dir("/");
    Ok(command)
}

/// Returns whether [`become_program`] was called. Otherwise this binary, started for a program, would
/// run its whole `main` again.
pub(crate) fn is_ready() -> bool {
    IS_ASKED.load(Ordering::Relaxed)
}

/// Becomes the program that this process was started for. Returns `None` if it was not started for
/// one, and an exit status if that fails.
///
/// Programs are started through the server's own binary, so the `main` of a server calls this
/// before anything else:
///
/// ```
/// use std::process::ExitCode;
///
/// fn main() -> ExitCode {
///     if let Some(failed) = serveloop_command::become_program() {
///         return failed;
///     }
///     // The server.
///     ExitCode::SUCCESS
/// }
/// ```
#[must_use]
pub fn become_program() -> Option<ExitCode> {
    IS_ASKED.store(true, Ordering::Relaxed);
    let mut arguments = env::args_os();
    if arguments.next()? != OsStr::new(MARK) {
        return None;
    }

    let failure = match fcntl_dupfd_cloexec(io::stdin(), FIRST_OTHER) {
        Ok(status) => tell(File::from(status), start(arguments)),
        Err(error) => Err(error.into()),
    };
    // The pipe is gone or never was one, so a person may have typed this.
    if let Err(error) = failure {
        let _ = writeln!(io::stderr(), "serveloop: {error}");
    }
    Some(ExitCode::from(NOT_STARTED))
}

fn tell(mut status: File, error: io::Error) -> io::Result<()> {
    status.write_all(error.to_string().as_bytes())
}

/// Becomes the program. Returns only if that fails.
fn start(arguments: impl Iterator<Item = OsString>) -> io::Error {
    match prepare(arguments) {
        Ok(program) => execv(&program.path, &program.words),
        Err(error) => error,
    }
}

struct Program {
    path: CString,
    words: Vec<CString>,
}

fn prepare(mut arguments: impl Iterator<Item = OsString>) -> io::Result<Program> {
    let mut next = || arguments.next().ok_or(io::ErrorKind::InvalidInput);
    let mut number = || -> io::Result<u64> {
        let text = next()?.into_string().unwrap_or_default();
        let number = text.parse();
        number.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
    };
    let server = number()?;
    let confinement = Confinement::read(&mut number)?;
    let path = CString::new(next()?.into_vec())?;
    let words = arguments.map(|word| CString::new(word.into_vec()));
    let words = words.collect::<Result<_, _>>()?;

    dup2_stdin(File::open("/dev/null")?)?;
    setsid()?;
    platform::bind_to_parent(server)?;
    reset_signals()?;
    confinement.apply()?;
    close_on_exec_from(FIRST_OTHER);
    Ok(Program { path, words })
}

/// Restores the default actions and unblocks all signals. Ignored and blocked signals would stay so
/// in the program. A handler does not: the system replaces it with the default when this process
/// becomes the program.
fn reset_signals() -> io::Result<()> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in SIGNALS.filter(|signal| !FORBIDDEN.contains(signal)) {
        // This fails for the two that the C library reserves.
        let _ = signal_hook::flag::register(signal, Arc::clone(&flag));
    }
    unblock_signals()
}
