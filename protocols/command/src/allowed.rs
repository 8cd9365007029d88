//! The programs that a client may run.

use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::{fmt, fs};

use rustix::fs::{Access, access};

use crate::quoted::Quoted;

/// The directories where programs are searched, which is also the `PATH` that they get.
pub(crate) const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// A program that clients may run. It is looked up once, when the server starts.
///
/// ```
/// use serveloop_command::Allowed;
///
/// let list = Allowed::find("ls")?;
/// assert!(list.path().is_absolute());
///
/// let error = Allowed::find("no-such-program").unwrap_err();
/// assert_eq!(error.problem(), "no such program in /usr/local/bin:/usr/bin:/bin");
/// # Ok::<(), serveloop_command::AllowError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    name: OsString,
    path: PathBuf,
}

impl Allowed {
    /// Finds the program: at an absolute path, or by its name in `/usr/local/bin`, `/usr/bin` and
    /// `/bin`. Neither has to be UTF-8.
    ///
    /// # Errors
    /// Fails if there is no such program, or it cannot be run.
    pub fn find(name: impl Into<OsString>) -> Result<Self, AllowError> {
        let name = name.into();
        match locate(&name) {
            Ok(path) => Ok(Self { name, path }),
            Err(problem) => Err(AllowError { name, problem }),
        }
    }

    /// Returns where the program was found.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether a request's first word means this program: exactly the name that it was
    /// found by, or the path found for it.
    pub(crate) fn is_called(&self, word: &OsStr) -> bool {
        word == self.name || word == self.path.as_os_str()
    }
}

/// Why a program cannot be allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowError {
    name: OsString,
    problem: String,
}

impl AllowError {
    /// Returns the name that was asked for.
    #[must_use]
    pub fn name(&self) -> &OsStr {
        &self.name
    }

    /// Returns what is wrong with it, without the name.
    #[must_use]
    pub fn problem(&self) -> &str {
        &self.problem
    }
}

impl fmt::Display for AllowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", Quoted(self.name.as_bytes()), self.problem)
    }
}

impl Error for AllowError {}

fn locate(name: &OsStr) -> Result<PathBuf, String> {
    let bytes = name.as_bytes();
    let path = if bytes.starts_with(b"/") {
        PathBuf::from(name)
    } else if bytes.contains(&b'/') || bytes.is_empty() {
        return Err("expected an absolute path, or a name without slashes".to_owned());
    } else {
        search(name).ok_or_else(|| format!("no such program in {PATH}"))?
    };

    check(&path)?;
    Ok(path)
}

fn search(name: &OsStr) -> Option<PathBuf> {
    PATH.split(':')
        .map(|directory| Path::new(directory).join(name))
        .find(|path| check(path).is_ok())
}

fn check(path: &Path) -> Result<(), String> {
    let metadata = fs::metadata(path).map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("it is not a file".to_owned());
    }
    access(path, Access::EXEC_OK).map_err(|_| "it is not executable".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_and_called_by_itself_or_its_path() {
        let allowed = Allowed::find("ls").unwrap();
        assert!(allowed.path().is_absolute());
        assert!(allowed.is_called(OsStr::new("ls")));
        assert!(allowed.is_called(allowed.path().as_os_str()));
        for other in ["", "l", "lss", "./ls", "../bin/ls", "LS", "ls ", "/ls"] {
            assert!(!allowed.is_called(OsStr::new(other)), "{other}");
        }
    }

    #[test]
    fn a_path_is_called_by_itself_alone() {
        let allowed = Allowed::find("/bin/ls").unwrap();
        assert!(allowed.is_called(OsStr::new("/bin/ls")));
        for other in ["ls", "/bin//ls", "/bin/../bin/ls", "/usr/bin/ls"] {
            assert!(!allowed.is_called(OsStr::new(other)), "{other}");
        }
    }

    #[test]
    fn what_cannot_be_run_is_refused() {
        let refused = [
            ("", "expected an absolute path"),
            ("bin/ls", "expected an absolute path"),
            ("../ls", "expected an absolute path"),
            ("no-such-program", "no such program in /usr/local/bin"),
            ("/no/such/program", "No such file"),
            ("/tmp", "not a file"),
            ("/etc/passwd", "not executable"),
        ];
        for (name, expected) in refused {
            let error = Allowed::find(name).unwrap_err();
            assert!(error.problem().contains(expected), "{error}");
            assert!(
                error.to_string().starts_with(&format!("\"{name}\": ")),
                "{error}"
            );
        }
    }
}
