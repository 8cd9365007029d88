//! The shape of the source: who imports whom, how long files and functions are, where the clock and
//! unsafe code may be. Style that nobody checks does not last.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const FILE_MOST: usize = 400;
const FILE_MEDIAN: usize = 200;
const EXAMPLE_MOST: usize = 90;
const FUNCTION_MOST: usize = 70;
/// Nine of ten functions are shorter than this.
const FUNCTION_USUAL: usize = 30;

/// The layers of the library, each of which may import from itself and from those above it in this
/// list. `testing` stands apart: it tests protocols, and knows the core only.
const LAYERS: [(&str, &[&str]); 9] = [
    (
        "values",
        &[
            "address",
            "buffer",
            "clock",
            "config",
            "ending",
            "error",
            "flags",
            "journal",
            "statistics",
            "waker",
        ],
    ),
    (
        "core",
        &[
            "framed",
            "framing",
            "guard",
            "link",
            "protocol",
            "session",
            "transport",
        ],
    ),
    ("protocols", &["protocols"]),
    ("unsafe", &["system"]),
    ("seam", &["net", "shutdown"]),
    ("sockets", &["destination", "mio", "socket", "socket_file"]),
    (
        "loop",
        &[
            "acceptor",
            "admission",
            "agenda",
            "connection",
            "datagram",
            "intake",
            "linger",
            "listener",
            "model",
            "origin",
            "peers",
            "reactor",
            "replies",
            "responder",
            "spin",
            "table",
            "throttle",
            "timers",
            "turn",
        ],
    ),
    (
        "models",
        &[
            "bell",
            "blocking",
            "control",
            "forking",
            "report",
            "sequential",
            "threading",
            "workers",
        ],
    ),
    ("front", &["server", "simulation"]),
];

/// How many of the layers know of no system: no socket, no thread, no clock.
const SANS_IO: usize = 3;

/// What a module without a system has no business with.
const OUTSIDE: [&str; 11] = [
    "std::fs",
    "std::net",
    "std::os",
    "std::process",
    "std::thread",
    "libc",
    "mio",
    "slab",
    "socket2",
    "TcpStream",
    "UnixStream",
];

/// Where unsafe code may be: what only the C library offers, and a signal handler's registration.
const UNSAFE: [(&str, &str); 2] = [("src", "system.rs"), ("cli/src", "signals.rs")];

/// The drivers, which read the clock and pass the time down; and what is called by signal handlers.
const CLOCKS: [&str; 6] = [
    "blocking.rs",
    "mio.rs",
    "sequential.rs",
    "shutdown.rs",
    "simulation.rs",
    "testing/memory.rs",
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// One source file, with its path below the directory that was searched.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// Code lines: neither comments nor the tests at the file's end, or the whole of a file of tests.
    fn code(&self) -> impl Iterator<Item = &str> {
        self.text
            .lines()
            .take_while(|line| !matches!(line.trim(), "#[cfg(test)]" | "#![cfg(test)]"))
            .filter(|line| !line.trim_start().starts_with("//"))
    }

    /// The module that a file belongs to; those in a directory belong to the directory's.
    fn module(&self) -> &str {
        let first = self.path.split('/').next().unwrap_or_default();
        first.trim_end_matches(".rs")
    }
}

fn sources(directory: &str) -> Vec<Source> {
    fn collect(at: &Path, base: &Path, found: &mut Vec<Source>) {
        for entry in fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, base, found);
            } else if path.extension().is_some_and(|end| end == "rs") {
                found.push(Source {
                    path: path.strip_prefix(base).unwrap().display().to_string(),
                    text: fs::read_to_string(&path).unwrap(),
                });
            }
        }
    }
    let base = root().join(directory);
    let mut found = Vec::new();
    collect(&base, &base, &mut found);
    found.sort_by(|one, other| one.path.cmp(&other.path));
    assert!(!found.is_empty(), "no sources in {directory}");
    found
}

/// The modules named by `crate::` paths in a line, in braces or not.
fn imports(line: &str) -> impl Iterator<Item = &str> {
    line.split("crate::").skip(1).flat_map(|rest| {
        let names = match rest.strip_prefix('{') {
            Some(list) => list.split('}').next().unwrap_or_default(),
            None => rest,
        };
        let several = rest.starts_with('{');
        names
            .split(',')
            .take(if several { usize::MAX } else { 1 })
            .map(|name| name.trim())
            .map(|name| {
                let end = name.find(|c: char| !(c.is_ascii_lowercase() || c == '_'));
                &name[..end.unwrap_or(name.len())]
            })
            .filter(|name| !name.is_empty())
    })
}

type Graph = BTreeMap<String, BTreeSet<String>>;

fn graph() -> Graph {
    let mut graph = Graph::new();
    for source in sources("src").iter().filter(|it| it.path != "lib.rs") {
        let module = source.module();
        let edges = graph.entry(module.to_owned()).or_default();
        let imported = source.code().flat_map(imports);
        edges.extend(imported.filter(|name| *name != module).map(str::to_owned));
    }
    graph
}

/// A way from a module back to itself, if there is one.
fn cycle(graph: &Graph) -> Option<Vec<String>> {
    fn search<'g>(
        at: &'g str,
        graph: &'g Graph,
        way: &mut Vec<&'g str>,
        done: &mut BTreeSet<&'g str>,
    ) -> bool {
        if way.contains(&at) {
            way.push(at);
            return true;
        }
        if !done.insert(at) {
            return false;
        }
        way.push(at);
        let next = graph.get(at).into_iter().flatten();
        let found = next.into_iter().any(|next| search(next, graph, way, done));
        if !found {
            way.pop();
        }
        found
    }
    let mut done = BTreeSet::new();
    graph.keys().find_map(|start| {
        let mut way = Vec::new();
        let found = search(start, graph, &mut way, &mut done);
        found.then(|| way.into_iter().map(str::to_owned).collect())
    })
}

fn layer(module: &str) -> Option<usize> {
    LAYERS
        .iter()
        .position(|(_, modules)| modules.contains(&module))
}

#[test]
fn imports_have_no_cycle() {
    assert_eq!(cycle(&graph()), None);
}

#[test]
fn a_cycle_would_be_found() {
    let graph = |edges: &[(&str, &str)]| {
        let mut graph = Graph::new();
        for (from, to) in edges {
            graph
                .entry((*from).to_owned())
                .or_default()
                .insert((*to).to_owned());
        }
        graph
    };
    assert_eq!(cycle(&graph(&[("a", "b"), ("a", "c"), ("b", "c")])), None);
    let round = cycle(&graph(&[("a", "b"), ("b", "c"), ("c", "b")]));
    assert_eq!(round.unwrap(), ["a", "b", "c", "b"]);
    let names: Vec<_> = imports("use crate::{net::Net, turn};").collect();
    assert_eq!(names, ["net", "turn"]);
    let names: Vec<_> = imports("let x: crate::link::Link = crate::session::new();").collect();
    assert_eq!(names, ["link", "session"]);
}

#[test]
fn every_module_has_its_layer() {
    let listed: BTreeSet<_> = LAYERS
        .iter()
        .flat_map(|(_, modules)| *modules)
        .copied()
        .collect();
    let graph = graph();
    let there: BTreeSet<_> = graph
        .keys()
        .map(String::as_str)
        .filter(|module| *module != "testing")
        .collect();
    assert_eq!(there, listed);
}

#[test]
fn imports_go_down_the_layers_only() {
    for (module, imported) in graph() {
        for import in imported {
            let allowed = match (layer(&module), layer(&import)) {
                (Some(own), Some(other)) => other <= own,
                (None, Some(other)) => other < SANS_IO || import == "simulation",
                (_, None) => false,
            };
            assert!(allowed, "{module} may not import {import}");
        }
    }
}

/// Protocols are what users write, so they use only what users have.
#[test]
fn protocols_see_only_what_a_user_sees() {
    let seen = ["error", "framed", "framing", "protocol", "transport"];
    for import in &graph()["protocols"] {
        assert!(seen.contains(&import.as_str()), "protocols import {import}");
    }
}

#[test]
fn the_core_knows_of_no_system() {
    for source in sources("src") {
        let sans_io = layer(source.module()).is_some_and(|layer| layer < SANS_IO);
        if !sans_io || source.path == "address.rs" {
            continue;
        }
        for line in source.code() {
            let words = |name: &&&str| {
                line.match_indices(**name).any(|(at, _)| {
                    let before = line[..at].chars().next_back();
                    !before.is_some_and(|c| c.is_alphanumeric() || c == '_')
                        && line[at + name.len()..].starts_with("::")
                })
            };
            let found = OUTSIDE.iter().find(words);
            assert_eq!(found, None, "{}: {line}", source.path);
        }
    }
}

#[test]
fn addresses_need_nothing_but_the_standard_library() {
    assert_eq!(graph()["address"], BTreeSet::new());
    let sources = sources("src");
    let address = sources.iter().find(|it| it.path == "address.rs").unwrap();
    for line in address.code().filter(|line| line.starts_with("use ")) {
        assert!(line.starts_with("use std::"), "{line}");
    }
}

#[test]
fn time_is_read_by_the_drivers_only() {
    for source in sources("src") {
        let reads = source.code().any(|line| line.contains("Instant::now"));
        let may = CLOCKS.contains(&source.path.as_str());
        assert!(may || !reads, "{} reads the clock", source.path);
        // Nobody's deadline moves with the calendar.
        let calendar = source.code().any(|line| line.contains("SystemTime"));
        assert!(!calendar, "{} reads the wall clock", source.path);
    }
}

#[test]
fn unsafe_code_is_where_it_has_to_be() {
    for directory in ["src", "cli/src", "dispatch/src", "fuzz/src", "examples"] {
        for source in sources(directory) {
            let mut words = source
                .code()
                .flat_map(|line| line.split(|c: char| !(c.is_alphanumeric() || c == '_')));
            let found = words.any(|word| word == "unsafe");
            let may = UNSAFE.contains(&(directory, source.path.as_str()));
            assert!(may || !found, "unsafe code in {}", source.path);
        }
    }
}

#[test]
fn names_of_files_say_what_is_in_them() {
    let vague = [
        "utils", "util", "common", "types", "helpers", "prelude", "misc",
    ];
    for directory in [
        "src",
        "cli/src",
        "dispatch/src",
        "fuzz/src",
        "examples",
        "tests",
    ] {
        for source in sources(directory) {
            let stem = source.path.trim_end_matches(".rs");
            let found = stem.split('/').find(|name| vague.contains(name));
            assert_eq!(found, None, "{directory}/{}", source.path);
        }
    }
}

#[test]
fn files_are_short() {
    let mut long = Vec::new();
    for (directory, most) in [
        ("src", FILE_MOST),
        ("cli/src", FILE_MOST),
        ("dispatch/src", FILE_MOST),
        ("fuzz/src", FILE_MOST),
        ("examples", EXAMPLE_MOST),
    ] {
        let mut lengths = Vec::new();
        for source in sources(directory) {
            let length = source.text.lines().count();
            lengths.push(length);
            if length > most {
                long.push(format!(
                    "{directory}/{}: {length} lines, at most {most}",
                    source.path
                ));
            }
        }
        lengths.sort_unstable();
        let median = lengths[lengths.len() / 2];
        assert!(
            median <= FILE_MEDIAN,
            "the median in {directory} is {median} lines"
        );
    }
    assert!(long.is_empty(), "{long:#?}");
}

/// The functions of a file as rustfmt writes them: name and number of lines.
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<_> = text.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let Some((before, after)) = code.split_once("fn ") else {
            continue;
        };
        let qualifies = |word: &str| {
            matches!(word, "const" | "unsafe" | "async" | "extern" | "\"C\"")
                || word.starts_with("pub")
        };
        if !before.split_whitespace().all(qualifies) {
            continue;
        }
        let end = format!("{}}}", &line[..line.len() - code.len()]);
        let declared = |line: &str| line.ends_with(';');
        let signature = lines[start..]
            .iter()
            .position(|line| line.ends_with('{') || line.ends_with('}') || declared(line));
        let Some(signature) = signature.map(|at| start + at) else {
            continue;
        };
        let length = match lines[signature] {
            body if body.ends_with(';') => continue,
            body if body.ends_with('}') => signature - start + 1,
            _ => {
                lines[signature..]
                    .iter()
                    .position(|line| **line == end)
                    .unwrap()
                    + signature
                    - start
                    + 1
            }
        };
        let name = after.split(['(', '<']).next().unwrap_or_default();
        found.push((name.to_owned(), length));
    }
    found
}

#[test]
fn functions_are_measured_right() {
    let text = "fn one() {}\n\nimpl X {\n    pub(crate) const fn two(\n        self,\n    ) -> u8 {\n        {\n        }\n    }\n\n    fn declared(&self);\n}\n";
    let expected = [("one".to_owned(), 1), ("two".to_owned(), 6)];
    assert_eq!(functions(text), expected);
}

#[test]
fn functions_are_short() {
    let mut lengths = Vec::new();
    for directory in ["src", "cli/src", "dispatch/src", "fuzz/src", "examples"] {
        for source in sources(directory) {
            for (name, length) in functions(&source.text) {
                assert!(
                    length <= FUNCTION_MOST,
                    "{directory}/{}: {name} has {length} lines",
                    source.path
                );
                lengths.push(length);
            }
        }
    }
    assert!(
        lengths.len() > 300,
        "only {} functions found",
        lengths.len()
    );
    lengths.sort_unstable();
    let ninth = lengths[lengths.len() * 9 / 10];
    assert!(
        ninth < FUNCTION_USUAL,
        "one function in ten has {ninth} lines or more"
    );
}
