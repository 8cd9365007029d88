//! The start of a server's process, before it becomes the server. It pins itself to its cores and
//! makes sure that it never outlives the benchmark.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{self, Command};

use crate::bench::platform::{end_with_parent, pin};

/// Replaces the benchmark's process number if the server runs under a tracer. The server then ends
/// with its parent, whichever process that is.
const ANY_PARENT: u32 = 0;

/// Returns the options of the command that prepare a process and then start `server`, which follows
/// them.
pub(crate) fn arguments(under_tracer: bool, cores: &[usize]) -> Vec<OsString> {
    let parent = if under_tracer {
        ANY_PARENT
    } else {
        process::id()
    };

    let cores: Vec<_> = cores.iter().map(usize::to_string).collect();
    [
        "bench",
        "--launch",
        &parent.to_string(),
        &cores.join(","),
        "--",
    ]
    .map(OsString::from)
    .into()
}

/// Becomes `server`. Returns only if that fails.
pub(crate) fn launch(options: &[String], server: &[OsString]) -> io::Error {
    prepare(options)
        .err()
        .unwrap_or_else(|| become_server(server))
}

fn prepare(options: &[String]) -> io::Result<()> {
    let [parent, cores] = options else {
        return Err(io::ErrorKind::InvalidInput.into());
    };

    let parent: u32 = number(parent)?;
    end_with_parent((parent != ANY_PARENT).then_some(parent))?;

    let cores = cores
        .split(',')
        .map(number)
        .collect::<io::Result<Vec<_>>>()?;
    pin(&cores)
}

fn number<T: std::str::FromStr>(text: &str) -> io::Result<T> {
    text.parse().map_err(|_| io::ErrorKind::InvalidInput.into())
}

fn become_server(server: &[OsString]) -> io::Error {
    let Some((program, arguments)) = server.split_first() else {
        return io::ErrorKind::InvalidInput.into();
    };
    let error = Command::new(program).args(arguments).exec();
    io::Error::new(error.kind(), format!("{}: {error}", program.display()))
}
