//! What the old process tells the new one: which descriptor is a socket of which listener.

use std::os::fd::RawFd;

use serde::{Deserialize, Serialize};

/// The variable that holds the manifest.
pub(super) const VARIABLE: &str = "SERVELOOP_HANDED_ON";

/// What the new process says when every loop serves, followed by a [`Served`].
pub(super) const READY: &str = "ready";
/// What it says if it cannot serve, followed by the reason.
pub(super) const FAILED: &str = "failed";
/// What the old one answers when the new one is to go on alone.
pub(super) const GO: &str = "go";
/// The same, if open connections follow.
pub(super) const GO_ON: &str = "go on";

/// What a new process serves.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Served {
    /// The files of its Unix sockets.
    pub(super) files: Vec<String>,
    /// The addresses of its listeners, by their numbers.
    pub(super) addresses: Vec<String>,
    /// How it serves the connections of each: those of the old process go on if it served them so too.
    /// Empty if no open connection can be taken over.
    #[serde(default)]
    pub(super) ways: Vec<String>,
    /// The file with the number of its process.
    pub(super) pid_file: Option<String>,
}

/// Descriptors that a process is started with.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Manifest {
    /// The stream between the two processes.
    pub(super) control: RawFd,
    /// By the numbers of their listeners.
    pub(super) sockets: Vec<HandedSocket>,
}

/// A socket that listens.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct HandedSocket {
    pub(super) descriptor: RawFd,
    pub(super) place: PlaceName,
    /// The number of the place among all.
    pub(super) place_number: usize,
    /// The number of the listener among all. The loops of a server have several sockets of one.
    pub(super) listener: usize,
    /// The file of a Unix socket.
    pub(super) file: Option<String>,
}

/// Which option `--listen` a place is of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct PlaceName {
    /// How many such options were before it.
    pub(super) number: usize,
    /// The URI without its query: new options take effect on sockets that are handed on.
    pub(super) text: String,
}

impl PlaceName {
    pub(crate) fn new(number: usize, uri: &str) -> Self {
        Self {
            number,
            text: without_query(uri).to_owned(),
        }
    }
}

pub(super) fn without_query(uri: &str) -> &str {
    uri.split_once('?').map_or(uri, |(place, _)| place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let manifest = Manifest {
            control: 7,
            sockets: vec![HandedSocket {
                descriptor: 8,
                place: PlaceName::new(1, "unix:///run/\"ä b\".sock?mode=0600"),
                place_number: 2,
                listener: 3,
                file: Some("1:2".to_owned()),
            }],
        };
        assert_eq!(manifest.sockets[0].place.text, "unix:///run/\"ä b\".sock");
        let text = serde_json::to_string(&manifest).unwrap();
        assert_eq!(serde_json::from_str::<Manifest>(&text).unwrap(), manifest);
    }
}
