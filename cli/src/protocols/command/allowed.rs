//! The programs that a client may run.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

/// The directories where programs are searched, which is also the `PATH` that they get.
pub(super) const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// A program named by `--allow`. It is looked up once, when the server starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Allowed {
    name: OsString,
    path: PathBuf,
}

impl Allowed {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether a request's first word means this program: exactly the name given to
    /// `--allow`, or the path found for it.
    pub(super) fn is_called(&self, word: &OsStr) -> bool {
        word == self.name || word == self.path.as_os_str()
    }

    /// Finds the program: at an absolute path, or by its name in [`PATH`]. Neither has to be UTF-8.
    ///
    /// # Errors
    /// Fails with a message if there is no such program, or it cannot be run.
    pub(super) fn find(name: OsString) -> Result<Self, String> {
        let bytes = name.as_bytes();
        let path = if bytes.starts_with(b"/") {
            PathBuf::from(&name)
        } else if bytes.contains(&b'/') || bytes.is_empty() {
            return Err("expected an absolute path, or a name without slashes".to_owned());
        } else {
            search(&name).ok_or_else(|| format!("no such program in {PATH}"))?
        };

        check(&path)?;
        Ok(Self { name, path })
    }
}

fn search(name: &OsStr) -> Option<PathBuf> {
    PATH.split(':')
        .map(|directory| Path::new(directory).join(name))
        .find(|path| check(path).is_ok())
}

fn check(path: &Path) -> Result<(), String> {
    let metadata = fs::metadata(path).map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("not a file".to_owned());
    }
    access(path, Access::EXEC_OK).map_err(|_| "not executable".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_and_called_by_itself_or_its_path() {
        let allowed = Allowed::find("ls".into()).unwrap();
        assert!(allowed.path().is_absolute());
        assert!(allowed.is_called(OsStr::new("ls")));
        assert!(allowed.is_called(allowed.path().as_os_str()));
        for other in ["", "l", "lss", "./ls", "../bin/ls", "LS", "ls ", "/ls"] {
            assert!(!allowed.is_called(OsStr::new(other)), "{other}");
        }
    }

    #[test]
    fn a_path_is_called_by_itself_alone() {
        let allowed = Allowed::find("/bin/ls".into()).unwrap();
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
            let problem = Allowed::find(name.into()).unwrap_err();
            assert!(problem.contains(expected), "{problem}");
        }
    }
}
