//! The program to start anew: where it is, its arguments, and what it needs of the environment.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

use serveloop::service::notify;

/// The program that this process was started by.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    /// Where it is, or why that is unknown.
    path: Result<PathBuf, String>,
    name: OsString,
    arguments: Vec<OsString>,
    /// The service manager's variables, which this process takes out of its environment.
    variables: Vec<(&'static str, OsString)>,
}

impl Program {
    /// Looks the program up, so that whatever is at its path later is found: also a new file in place of
    /// the old one. Call this at the start, before the manager's variables are removed.
    pub(crate) fn of_this_process() -> Self {
        let mut arguments = env::args_os();
        let name = arguments.next().unwrap_or_default();
        // The number of the process would be wrong.
        let passed_on = notify::VARIABLES.iter().filter(|it| **it != "WATCHDOG_PID");
        let variables = passed_on.filter_map(|name| Some((*name, env::var_os(name)?)));
        Self {
            path: find(&name),
            name,
            arguments: arguments.collect(),
            variables: variables.collect(),
        }
    }

    pub(super) fn path(&self) -> Result<&Path, String> {
        self.path.as_deref().map_err(Clone::clone)
    }

    /// Returns a command that starts the program as this process was started.
    ///
    /// # Errors
    /// Says why it is unknown where the program is.
    pub(super) fn command(&self) -> Result<Command, String> {
        use std::os::unix::process::CommandExt;

        let mut command = Command::new(self.path()?);
        command.arg0(&self.name).args(&self.arguments);
        for name in notify::VARIABLES {
            command.env_remove(name);
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        Ok(command)
    }
}

/// Returns the path by which the program was started. A link in it stays one, so that it can be made to
/// lead to another version.
fn find(name: &OsStr) -> Result<PathBuf, String> {
    let path = env::var_os("PATH").unwrap_or_default();
    let directory = env::current_dir();
    choose(named(name, &path, directory), env::current_exe())
}

/// Returns the path that a name leads to, as a shell finds it.
fn named(name: &OsStr, path: &OsStr, directory: io::Result<PathBuf>) -> Option<PathBuf> {
    let written = Path::new(name);
    if written.is_absolute() {
        return Some(written.to_owned());
    }
    let directory = directory.ok()?;
    if name.as_encoded_bytes().contains(&b'/') {
        return Some(directory.join(written));
    }
    let mut all = env::split_paths(path).map(|place| directory.join(place).join(written));
    all.find(|found| {
        let found = fs::metadata(found);
        found.is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    })
}

/// Chooses between the path that the name leads to, and that of the file that the system runs. The name
/// is up to the process that starts a program, so it counts only if it leads to the same file, or if there is no
/// other.
fn choose(named: Option<PathBuf>, running: io::Result<PathBuf>) -> Result<PathBuf, String> {
    let file = |path: &PathBuf| fs::metadata(path).ok().filter(fs::Metadata::is_file);
    let named = named.and_then(|path| Some((file(&path)?, path)));
    match (named, running) {
        (Some((name, by_name)), Ok(running)) => Ok(match file(&running) {
            Some(run) if (run.dev(), run.ino()) != (name.dev(), name.ino()) => running,
            _ => by_name,
        }),
        (Some((_, by_name)), Err(_)) => Ok(by_name),
        (None, Ok(running)) if file(&running).is_some() => Ok(running),
        (None, Ok(running)) => Err(format!(
            "its program is not at {} any more",
            running.display()
        )),
        (None, Err(error)) => Err(format!(
            "its program is not found by the name that it was started by, and the system does not tell \
             which it is (/proc/self/exe): {error}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_found_as_a_shell_finds_it() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path();
        for (name, mode) in [("plain", 0o644), ("program", 0o755)] {
            fs::write(place.join(name), "").unwrap();
            fs::set_permissions(place.join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        let found = |name: &str| {
            let path = format!("/nowhere:{}", place.display());
            named(OsStr::new(name), OsStr::new(&path), Ok("/start".into()))
        };
        assert_eq!(found("program"), Some(place.join("program")));
        assert_eq!(found("plain"), None);
        assert_eq!(found("./x"), Some("/start/./x".into()));
        assert_eq!(found("/x/y"), Some("/x/y".into()));
    }

    #[test]
    fn a_name_counts_if_it_leads_to_the_program_that_runs() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::write(at("one"), "1").unwrap();
        fs::write(at("two"), "2").unwrap();
        std::os::unix::fs::symlink(at("one"), at("link")).unwrap();
        let unknown = || Err(io::ErrorKind::NotFound.into());

        assert_eq!(choose(Some(at("link")), Ok(at("one"))), Ok(at("link")));
        assert_eq!(choose(Some(at("two")), Ok(at("one"))), Ok(at("one")));
        assert_eq!(choose(Some(at("none")), Ok(at("one"))), Ok(at("one")));
        // The file was replaced as soon as it had been started.
        assert_eq!(
            choose(Some(at("two")), Ok(at("one (deleted)"))),
            Ok(at("two"))
        );
        assert_eq!(choose(Some(at("two")), unknown()), Ok(at("two")));
        assert_eq!(choose(None, Ok(at("one"))), Ok(at("one")));
        assert!(choose(None, unknown()).unwrap_err().contains("/proc"));
        assert!(choose(None, Ok(at("none"))).unwrap_err().contains("none"));
    }
}
