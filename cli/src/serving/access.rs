//! Which peers may connect: the lists of `--allow` and `--deny`, and those of a single listener.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use serveloop::Address;
use serveloop::net::NetworkList;
use serveloop_command::Allowed;

use crate::escaped::on_one_line;
use crate::logger::TARGET;
use crate::regular_file;

/// What a file of networks begins with among the values of an option.
const FILE: char = '@';

/// The largest file of networks that is read, in bytes.
const FILE_MOST: u64 = 16 << 20;

/// One value of `--allow` or `--deny`: networks, or a file of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    Networks(NetworkList),
    File(PathBuf),
}

/// One value of `--allow`, which for the protocol `command` may also be a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Allow {
    Peers(Rule),
    Program(Allowed),
}

impl Allow {
    /// Parses a value of `--allow` of a protocol that runs no programs.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        Rule::parse(text).map(Self::Peers)
    }

    pub(crate) fn peers(&self) -> Option<&Rule> {
        match self {
            Self::Peers(rule) => Some(rule),
            Self::Program(_) => None,
        }
    }
}

impl Rule {
    /// Parses networks, or the name of a file after an `@`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match text.strip_prefix(FILE) {
            Some("") => Err("expected the name of a file after @".to_owned()),
            Some(path) => Ok(Self::File(path.into())),
            None => text
                .parse()
                .map(Self::Networks)
                .map_err(|error| format!("{error}")),
        }
    }

    fn read(&self) -> io::Result<NetworkList> {
        match self {
            Self::Networks(list) => Ok(list.clone()),
            Self::File(path) => read_file(path),
        }
    }
}

/// Reads a file with networks on its lines, several with commas between them. What follows a `#` is a
/// comment.
fn read_file(path: &Path) -> io::Result<NetworkList> {
    let about = |error: io::Error| {
        let problem = format!("{}: {error}", path.display());
        io::Error::new(error.kind(), problem)
    };
    let mut text = String::new();
    let file = regular_file::open(path).map_err(about)?;
    file.take(FILE_MOST + 1)
        .read_to_string(&mut text)
        .map_err(about)?;
    if text.len() as u64 > FILE_MOST {
        return Err(about(io::Error::other("longer than 16 MiB")));
    }

    let mut list = NetworkList::default();
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let networks: NetworkList = line.parse().map_err(|error| {
            let problem = format!("{}:{}: {error}", path.display(), number + 1);
            io::Error::new(io::ErrorKind::InvalidData, problem)
        })?;
        list.extend(&networks);
    }
    Ok(list)
}

/// Who may connect to a listener. All clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Access(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    rules: RwLock<Rules>,
    lists: RwLock<Lists>,
}

#[derive(Clone, Debug)]
struct Rules {
    allow: Vec<Rule>,
    deny: Vec<Rule>,
}

#[derive(Debug)]
struct Lists {
    /// `None` admits all.
    allow: Option<NetworkList>,
    deny: NetworkList,
}

impl Access {
    /// Reads the lists. Without rules everybody may connect, and there is nothing to decide.
    ///
    /// # Errors
    /// A file cannot be read, or has a line that is no network; the message names it.
    pub(crate) fn load(allow: Vec<Rule>, deny: Vec<Rule>) -> io::Result<Option<Self>> {
        if allow.is_empty() && deny.is_empty() {
            return Ok(None);
        }
        Self::read(allow, deny).map(Some)
    }

    /// Works like [`load`](Self::load), also without rules, since there may be some later.
    ///
    /// # Errors
    /// Fails like `load`.
    pub(crate) fn read(allow: Vec<Rule>, deny: Vec<Rule>) -> io::Result<Self> {
        let rules = Rules { allow, deny };
        let lists = RwLock::new(Lists::read(&rules)?);
        let rules = RwLock::new(rules);
        Ok(Self(Arc::new(Shared { rules, lists })))
    }

    /// Reads other rules, which take the place of the earlier ones.
    ///
    /// # Errors
    /// Fails like `load`. Nothing changes then.
    pub(crate) fn replace(&self, allow: Vec<Rule>, deny: Vec<Rule>) -> io::Result<()> {
        let rules = Rules { allow, deny };
        let lists = Lists::read(&rules)?;
        *self.0.rules.write().unwrap_or_else(PoisonError::into_inner) = rules;
        *self.0.lists.write().unwrap_or_else(PoisonError::into_inner) = lists;
        Ok(())
    }

    /// Returns why the peer at `address` may not connect, if so.
    pub(super) fn refusal(&self, address: &Address) -> Option<&'static str> {
        let lists = self.0.lists.read().unwrap_or_else(PoisonError::into_inner);
        if lists.deny.contains(address) {
            return Some("deny lists it");
        }
        let is_unlisted = |list: &NetworkList| !list.contains(address);
        let refuses = lists.allow.as_ref().is_some_and(is_unlisted);
        refuses.then_some("allow does not list it")
    }

    /// Returns whether a part of the lists is in files.
    pub(crate) fn has_files(&self) -> bool {
        let rules = self.rules();
        let mut all = rules.allow.iter().chain(&rules.deny);
        all.any(|rule| matches!(rule, Rule::File(_)))
    }

    /// Reads the files again. If that fails, what was there before stays in use.
    pub(crate) fn reload(&self) {
        match Lists::read(&self.rules()) {
            Ok(lists) => {
                *self.0.lists.write().unwrap_or_else(PoisonError::into_inner) = lists;
                log::info!(target: TARGET, "the lists of allow and deny were read again");
            }
            Err(error) => {
                let problem = on_one_line(&error.to_string());
                log::error!(target: TARGET, "{problem}; what was read before stays in use");
            }
        }
    }
}

impl Access {
    fn rules(&self) -> Rules {
        let rules = self.0.rules.read();
        rules.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Lists {
    fn read(Rules { allow, deny }: &Rules) -> io::Result<Self> {
        let read = |rules: &[Rule]| {
            let mut list = NetworkList::default();
            for rule in rules {
                list.extend(&rule.read()?);
            }
            Ok::<_, io::Error>(list)
        };
        Ok(Self {
            allow: (!allow.is_empty()).then(|| read(allow)).transpose()?,
            deny: read(deny)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn rules(texts: &[&str]) -> Vec<Rule> {
        texts
            .iter()
            .map(|text| Rule::parse(text).unwrap())
            .collect()
    }

    fn admits(access: &Access, uri: &str) -> bool {
        access.refusal(&uri.parse().unwrap()).is_none()
    }

    #[test]
    fn a_denied_peer_is_refused_even_if_it_is_allowed() {
        let access = Access::load(rules(&["10.0.0.0/8", "unix"]), rules(&["10.1.0.0/16"]));
        let access = access.unwrap().unwrap();
        for (uri, expected) in [
            ("tcp://10.2.0.1:5", true),
            ("udp://10.2.0.1:5", true),
            ("tcp://[::ffff:10.2.0.1]:5", true),
            ("tcp://10.1.0.1:5", false),
            ("tcp://11.0.0.1:5", false),
            ("tcp://[2001:db8::1]:5", false),
            ("unix:///client", true),
        ] {
            assert_eq!(admits(&access, uri), expected, "{uri}");
        }

        let access = Access::load(Vec::new(), rules(&["10.1.0.0/16"])).unwrap();
        assert!(admits(&access.unwrap(), "tcp://11.0.0.1:5"));
        assert!(Access::load(Vec::new(), Vec::new()).unwrap().is_none());
    }

    #[test]
    fn a_file_is_read_again_and_what_is_wrong_in_it_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("list");
        fs::write(
            &path,
            "# ours\n10.0.0.0/8, unix # inside\n\n2001:db8::/32\n",
        )
        .unwrap();
        let rule = format!("@{}", path.display());
        let access = Access::load(rules(&[&rule]), Vec::new()).unwrap().unwrap();
        assert!(access.has_files());
        assert!(admits(&access, "tcp://10.0.0.1:5"));
        assert!(!admits(&access, "tcp://192.0.2.1:5"));

        fs::write(&path, "192.0.2.1\n").unwrap();
        access.reload();
        assert!(!admits(&access, "tcp://10.0.0.1:5"));
        assert!(admits(&access, "tcp://192.0.2.1:5"));

        fs::write(&path, "10.0.0.0/8\nnonsense\n").unwrap();
        access.reload();
        assert!(admits(&access, "tcp://192.0.2.1:5"));
        let error = Access::load(rules(&[&rule]), Vec::new()).unwrap_err();
        let expected = format!("{}:2: ", path.display());
        assert!(error.to_string().starts_with(&expected), "{error}");
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        for text in ["", "@", "10.0.0.0/33", "10.0.0.0/8,", "localhost"] {
            assert!(Rule::parse(text).is_err(), "{text}");
        }
    }
}
