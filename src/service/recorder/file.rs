//! How a record becomes a file: completely or not at all, for its owner alone.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process;

use crate::service::recorder::format::{CONNECTION, END, HEAD, MAGIC, VERSION, block, push_number};
use crate::service::recorder::store::Store;

/// What was written.
///
/// ```
/// use serveloop::service::recorder::{Recorder, RecorderOptions};
///
/// let recorder = Recorder::new(RecorderOptions::default());
/// let mut record = Vec::new();
/// let written = recorder.write(&mut record)?;
/// assert_eq!((written.connections, written.bytes), (0, record.len() as u64));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Written {
    /// How many connections the record has.
    pub connections: u64,
    /// How many connections were evicted to keep it within its limit.
    pub evicted: u64,
    /// How many bytes the record has.
    pub bytes: u64,
}

/// Counts what is written.
struct Counted<W> {
    inner: W,
    bytes: u64,
}

impl<W: Write> Counted<W> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bytes += bytes.len() as u64;
        self.inner.write_all(bytes)
    }

    fn block(&mut self, tag: u8, content: &[u8]) -> io::Result<()> {
        let (head, sum) = block(tag, content)?;
        self.put(&head)?;
        self.put(content)?;
        self.put(&sum)
    }
}

/// Writes the record of all connections. `date` is the time since the beginning of 1970 at which the
/// record began, in nanoseconds plus one, or 0 if that is not known.
pub(super) fn write(output: impl Write, store: &Store, date: u64) -> io::Result<Written> {
    let mut output = Counted {
        inner: output,
        bytes: 0,
    };
    output.put(&MAGIC)?;
    output.put(&[VERSION])?;
    let mut head = vec![u8::from(store.has_content())];
    push_number(&mut head, date);
    output.block(HEAD, &head)?;

    let (connections, evicted) = store.each(|log| output.block(CONNECTION, log))?;
    let mut end = Vec::new();
    push_number(&mut end, connections);
    push_number(&mut end, evicted);
    output.block(END, &end)?;
    output.inner.flush()?;
    Ok(Written {
        connections,
        evicted,
        bytes: output.bytes,
    })
}

/// Lets `write` fill a new file, which then takes the place of the one at `path`. Only its owner may
/// read it. If anything fails, the old file stays as it is.
pub(super) fn replace<T>(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<T>,
) -> io::Result<T> {
    let (temporary, file) = create_beside(path)?;
    let mut output = BufWriter::new(file);
    let filled = write(&mut output).and_then(|written| {
        output.flush()?;
        output.get_ref().sync_all()?;
        fs::rename(&temporary, path)?;
        Ok(written)
    });
    if filled.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    filled
}

/// Checks that a file can be put at `path`.
pub(super) fn check(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(at) if !at.is_file() => {
            return Err(io::Error::new(ErrorKind::InvalidInput, "is not a file"));
        }
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let (temporary, _) = create_beside(path)?;
    fs::remove_file(temporary)
}

/// Creates a new file in the directory of `path`, which only its owner may read.
fn create_beside(path: &Path) -> io::Result<(PathBuf, File)> {
    let Some(name) = path.file_name() else {
        let problem = "is not the name of a file";
        return Err(io::Error::new(ErrorKind::InvalidInput, problem));
    };

    // A process that died may have left one behind, and another may write the same record.
    for number in 0..100 {
        let mut hidden = OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}-{number}", process::id()));
        let temporary = path.with_file_name(hidden);
        let mut options = OpenOptions::new();
        match options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)
        {
            Ok(file) => return Ok((temporary, file)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    let problem = "too many unfinished records are in its directory";
    Err(io::Error::new(ErrorKind::AlreadyExists, problem))
}
