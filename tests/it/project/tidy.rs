//! Checks of the source's structure: imports between modules, the length of files and functions,
//! and where the clock and unsafe code may be used.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The most lines of code in a file, without comments, blank lines and tests.
const FILE_MOST: usize = 400;
const FILE_MEDIAN: usize = 200;
const EXAMPLE_MOST: usize = 90;
const FUNCTION_MOST: usize = 70;
/// Nine of ten functions must be shorter than this.
const FUNCTION_USUAL: usize = 30;

/// The most names at the crate's root, without modules.
const ROOT_MOST: usize = 20;

/// The rooms of the library. Each may import only those before it. A room is a folder or a file
/// directly below `src`.
const LIBRARY: [&str; 17] = [
    "address",
    "error",
    "config",
    "statistics",
    "waker",
    "session",
    "framing",
    "layer",
    "protocols",
    "sys",
    "shutdown",
    "net",
    "service",
    "reactor",
    "models",
    "server",
    "testing",
];

/// What the C library does in memory alone, for every room.
const IN_MEMORY: &str = "sys/bytes";

/// Rooms that do no I/O: no sockets, threads or clocks.
const SANS_IO: [&str; 9] = [
    "address",
    "error",
    "config",
    "statistics",
    "waker",
    "session",
    "framing",
    "layer",
    "protocols",
];

/// Names that a module without I/O must not use. Types of IP addresses are in `core::net`, where no
/// socket is.
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

/// The module of those rooms that reads files: certificates, before a server serves.
const READS_FILES: &str = "layer/tls/pem";

/// Files that may contain unsafe code, for calls that only the C library offers and to register
/// signal handlers.
const UNSAFE: &[(&str, &str)] = &[
    ("src", "sys/bytes.rs"),
    ("src", "sys/groups.rs"),
    ("src", "sys/groups_linux.rs"),
    ("src", "sys/interruptible.rs"),
    ("src", "sys/mod.rs"),
    ("src", "sys/passed.rs"),
    ("src", "sys/socket_file.rs"),
    ("cli/src", "signals.rs"),
    ("cli/src", "sys/mod.rs"),
    ("cli/src", "sys/alarm.rs"),
    ("cli/src", "sys/apart.rs"),
    ("cli/src", "sys/passed.rs"),
    ("cli/src", "sys/timer.rs"),
    ("measure/src", "sys.rs"),
    ("protocols/command/src", "sys.rs"),
];

/// Files that may read the clock: the drivers, which pass the time down, a monitor, whose callers wait
/// until a deadline, and `shutdown.rs`, which signal handlers call.
const CLOCKS: [&str; 11] = [
    "models/blocking/datagram.rs",
    "models/blocking/socket.rs",
    "models/sequential.rs",
    "net/mio/mod.rs",
    "service/monitor/desk.rs",
    "service/monitor/mod.rs",
    "shutdown.rs",
    "testing/memory.rs",
    "testing/memory_server.rs",
    "testing/replay/mod.rs",
    "testing/simulation/mod.rs",
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the names of the crates that have a protocol each.
fn protocol_crates() -> Vec<String> {
    let entries = fs::read_dir(root().join("protocols")).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort_unstable();
    names
}

/// Returns the sources of all crates: the library, the command, the protocols and the fuzzer.
fn crates() -> Vec<String> {
    let protocols = protocol_crates();
    let protocols = protocols.iter().map(|name| format!("protocols/{name}/src"));
    ["src", "cli/src", "measure/src", "fuzz/src"]
        .map(str::to_owned)
        .into_iter()
        .chain(protocols)
        .collect()
}

/// Returns the same, and the examples.
fn crates_and_examples() -> Vec<String> {
    let mut all = crates();
    all.push("examples".to_owned());
    all
}

/// One source file, with its path below the searched directory.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// Returns the lines of code, without comments and without the tests at the end of the file. A
    /// file of tests has none.
    fn code(&self) -> impl Iterator<Item = &str> {
        self.text
            .lines()
            .take_while(|line| !matches!(line.trim(), "#[cfg(test)]" | "#![cfg(test)]"))
            .filter(|line| !line.trim_start().starts_with("//"))
    }

    /// Returns the file's module as a path, such as `reactor/timers`. For a `mod.rs` it is the
    /// folder.
    fn module(&self) -> String {
        let module = self.path.trim_end_matches(".rs");
        module.trim_end_matches("/mod").to_owned()
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

/// Returns the paths that a `use` tree names, each as its segments: `{a::B, c}` names two.
fn flatten(tree: &str) -> Vec<Vec<String>> {
    let tree = tree.trim();
    let Some(open) = tree.find('{') else {
        let path = tree.split(" as ").next().unwrap_or_default();
        return vec![segments(path)];
    };
    let inner = &tree[open + 1..tree.rfind('}').unwrap_or(tree.len())];
    let prefix = segments(&tree[..open]);

    let mut depth = 0;
    let parts = inner.split(|c: char| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        c == ',' && depth == 0
    });
    let parts = parts.filter(|part| !part.trim().is_empty());
    parts
        .flat_map(flatten)
        .map(|path| prefix.iter().cloned().chain(path).collect())
        .collect()
}

fn segments(path: &str) -> Vec<String> {
    let names = path.split("::").map(str::trim);
    names
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Returns the paths below `crate` that a source names, in `use` items or in its code.
fn named(source: &Source) -> Vec<Vec<String>> {
    let text: Vec<_> = source.code().collect();
    let text = text.join("\n");
    let mut found = Vec::new();
    for (at, _) in text.match_indices("crate::") {
        // A visibility such as `pub(in crate::reactor)` is not an import.
        if text[..at].ends_with("(in ") {
            continue;
        }

        let rest = &text[at + "crate::".len()..];
        let is_use = text[..at].ends_with("use ");
        let path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
        let end = if is_use {
            rest.find(';')
        } else {
            rest.find(|c| !path(c))
        };
        found.extend(flatten(&rest[..end.unwrap_or(rest.len())]));
    }
    found
}

/// Maps the names that the `mod.rs` of each folder re-exports, as (folder, name), to their modules.
fn faces(sources: &[Source]) -> BTreeMap<(String, String), String> {
    let mut faces = BTreeMap::new();
    for source in sources.iter().filter(|it| it.path.ends_with("mod.rs")) {
        let folder = source.module();
        let text: Vec<_> = source.code().collect();

        for shown in text.join("\n").split("use self::").skip(1) {
            let tree = shown.split(';').next().unwrap_or_default();
            for path in flatten(tree) {
                let [module @ .., name] = &path[..] else {
                    continue;
                };
                let module = format!("{folder}/{}", module.join("/"));
                faces.insert((folder.clone(), name.clone()), module);
            }
        }
    }
    faces
}

type Graph = BTreeMap<String, BTreeSet<String>>;

/// Builds the graph of imports between modules. A name that a folder re-exports counts as imported
/// from the module that defines it.
fn graph(directory: &str) -> Graph {
    let sources = sources(directory);
    let modules: BTreeSet<_> = sources.iter().map(Source::module).collect();
    let faces = faces(&sources);
    let mut graph = Graph::new();
    for source in &sources {
        let own = source.module();
        if matches!(own.as_str(), "lib" | "main") {
            continue;
        }

        let edges = graph.entry(own.clone()).or_default();
        for path in named(source) {
            let known = |length: &usize| modules.contains(&path[..*length].join("/"));
            let Some(length) = (1..=path.len()).rev().find(known) else {
                continue;
            };

            let mut module = path[..length].join("/");
            let mut name = path.get(length).cloned().unwrap_or_default();
            while let Some(shown) = faces.get(&(module.clone(), name.clone())) {
                module = shown.clone();
                name = name.clone();
            }
            // A file may use names of the folder that contains it.
            if module != own && !own.starts_with(&format!("{module}/")) {
                edges.insert(module);
            }
        }
    }
    graph
}

fn room(module: &str) -> &str {
    module.split('/').next().unwrap_or(module)
}

/// Returns the graph of imports between rooms.
fn rooms(graph: &Graph) -> Graph {
    let mut rooms = Graph::new();
    for (module, imported) in graph {
        let own = room(module);
        let others = imported.iter().map(|import| room(import));
        let others = others.filter(|other| *other != own).map(str::to_owned);
        rooms.entry(own.to_owned()).or_default().extend(others);
    }
    rooms
}

/// Returns a cycle in the graph, if there is one.
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

#[test]
fn imports_have_no_cycle() {
    for directory in crates() {
        assert_eq!(cycle(&graph(&directory)), None, "in {directory}");
    }
}

/// Modules can be free of a cycle while their rooms import each other.
#[test]
fn rooms_of_the_command_have_no_cycle() {
    let rooms = rooms(&graph("cli/src"));
    for (from, to) in [
        ("serve", "serving"),
        ("serve", "protocols"),
        ("protocols", "serving"),
    ] {
        assert!(rooms[from].contains(to), "{from} no longer imports {to}");
    }
    assert_eq!(cycle(&rooms), None);
}

/// A room that named another by `super` would not be seen in the graph.
#[test]
fn other_rooms_are_named_from_the_root() {
    for directory in ["src", "cli/src"] {
        for source in sources(directory) {
            let is_room = !source.module().contains('/');
            let mut code = source.code().filter(|line| !line.contains("(in "));
            let outside = if is_room { "super::" } else { "super::super::" };
            let found = code.find(|line| line.contains(outside));
            assert_eq!(found, None, "in {directory}/{}", source.path);
        }
    }
}

/// A protocol's crate is what a user could write: of the workspace it needs the library only.
#[test]
fn protocol_crates_need_only_the_library() {
    for name in protocol_crates() {
        let manifest = root().join(format!("protocols/{name}/Cargo.toml"));
        let text = fs::read_to_string(manifest).unwrap();
        let mut local = text.lines().filter(|line| line.contains("path = \"../"));
        let found = local.find(|line| !line.contains("path = \"../..\""));
        assert_eq!(found, None, "in protocols/{name}");
    }
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

    let paths = flatten("{net::{Event, Net}, sys}");
    assert_eq!(
        paths,
        [vec!["net", "Event"], vec!["net", "Net"], vec!["sys"]]
    );

    let crossed = graph(&[("a/one", "b/one"), ("b/two", "a/two")]);
    assert_eq!(cycle(&crossed), None);
    assert_eq!(cycle(&rooms(&crossed)).unwrap(), ["a", "b", "a"]);
}

#[test]
fn every_room_has_its_place() {
    let graph = graph("src");
    let there: BTreeSet<_> = graph.keys().map(|module| room(module)).collect();
    let listed: BTreeSet<_> = LIBRARY.into_iter().collect();
    let unknown: Vec<_> = there.difference(&listed).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    assert!(there.len() < 18, "a newcomer has to find their way");
}

#[test]
fn rooms_import_only_what_is_below_them() {
    let place = |name: &str| LIBRARY.iter().position(|room| *room == name);
    for (module, imported) in graph("src") {
        for import in imported {
            let (own, other) = (place(room(&module)), place(room(&import)));
            let may = other <= own || import == IN_MEMORY;
            assert!(may, "{module} may not import {import}");
        }
    }
}

/// Users write protocols, so the built-in ones use only what users can.
#[test]
fn protocols_see_only_what_a_user_sees() {
    let graph = graph("src");
    let protocols = graph.iter().filter(|(name, _)| room(name) == "protocols");
    for import in protocols.flat_map(|(_, imported)| imported) {
        let seen = ["error", "framing", "protocols", "session", "waker"];
        assert!(seen.contains(&room(import)), "protocols import {import}");
    }
}

#[test]
fn the_core_knows_of_no_system() {
    for source in sources("src") {
        let sans_io = SANS_IO.contains(&room(&source.module()));
        let module = source.module();
        let exempt = room(&module) == "address" || module == READS_FILES;
        if !sans_io || exempt {
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
    let graph = graph("src");
    let rooms = graph.iter().filter(|(name, _)| room(name) == "address");
    for import in rooms.flat_map(|(_, imported)| imported) {
        assert_eq!(room(import), "address");
    }

    for source in sources("src") {
        if room(&source.module()) != "address" {
            continue;
        }
        for line in source.code().filter(|line| line.starts_with("use ")) {
            let is_own = line.starts_with("use super::");
            assert!(is_own || line.starts_with("use std::"), "{line}");
        }
    }
}

#[test]
fn time_is_read_by_the_drivers_only() {
    for source in sources("src") {
        let reads = source.code().any(|line| line.contains("Instant::now"));
        let may = CLOCKS.contains(&source.path.as_str());
        assert!(may || !reads, "{} reads the clock", source.path);
        // Deadlines must not move with the wall clock.
        let calendar = source.code().any(|line| line.contains("SystemTime"));
        assert!(!calendar, "{} reads the wall clock", source.path);
    }
}

#[test]
fn unsafe_code_is_where_it_has_to_be() {
    for directory in crates_and_examples() {
        for source in sources(&directory) {
            let mut words = source
                .code()
                .flat_map(|line| line.split(|c: char| !(c.is_alphanumeric() || c == '_')));

            let found = words.any(|word| word == "unsafe");
            let may = UNSAFE.contains(&(directory.as_str(), source.path.as_str()));
            assert!(may || !found, "unsafe code in {}", source.path);
        }
    }
}

/// Tests of a room have the room's name. `project` is for what concerns no room alone, `support` for what
/// tests are made with.
#[test]
fn tests_are_laid_out_like_the_source() {
    for (tests, source) in [("tests/it", "src"), ("cli/tests/it", "cli/src")] {
        let modules = |directory: &str| -> BTreeSet<String> {
            let sources = sources(directory);
            let modules = sources.iter().map(|it| room(&it.module()).to_owned());
            modules.collect()
        };

        let rooms = modules(source);
        let beside = ["main", "project", "support"];
        let strange = |name: &&String| !rooms.contains(*name) && !beside.contains(&name.as_str());
        let tested = modules(tests);
        let strange: Vec<_> = tested.iter().filter(strange).collect();
        assert!(strange.is_empty(), "no rooms of {source}: {strange:?}");
    }
}

/// A skip that `support/outside.rs` does not know of is a success where nothing may be missing.
#[test]
fn tests_are_skipped_in_one_place() {
    let mark = concat!("\"skip", "ped: ");
    let protocols = protocol_crates();
    let protocols = protocols.iter().map(|name| format!("protocols/{name}"));
    let directories = ["tests", "cli/tests"].map(str::to_owned);
    for directory in directories.into_iter().chain(protocols) {
        let sources = sources(&directory);
        let others = sources.iter().filter(|it| !it.path.ends_with("outside.rs"));
        let strange: Vec<_> = others
            .filter(|it| it.text.contains(mark))
            .map(|it| &it.path)
            .collect();
        assert!(strange.is_empty(), "use `outside::skip`: {strange:?}");
    }
}

/// Whoever writes a server needs the names at the root. Others are behind a door, a public module.
#[test]
fn the_root_has_few_names() {
    let sources = sources("src");
    let root = sources.iter().find(|it| it.path == "lib.rs").unwrap();
    let text: Vec<_> = root.code().collect();
    let text = text.join("\n");
    let names: Vec<_> = text
        .split("\npub use ")
        .skip(1)
        .filter_map(|item| item.split_once(';'))
        .flat_map(|(tree, _)| flatten(tree))
        .collect();
    assert!(names.len() > 10, "{names:?}");
    assert!(names.len() <= ROOT_MOST, "{}: {names:?}", names.len());
    assert!(!names.iter().any(|path| path.ends_with(&["*".to_owned()])));
}

#[test]
fn names_of_files_say_what_is_in_them() {
    let vague = [
        "utils", "util", "common", "types", "helpers", "prelude", "misc",
    ];

    let mut directories = crates_and_examples();
    directories.push("tests".to_owned());

    for directory in directories {
        for source in sources(&directory) {
            let stem = source.path.trim_end_matches(".rs");
            let found = stem.split('/').find(|name| vague.contains(name));
            assert_eq!(found, None, "{directory}/{}", source.path);
        }
    }
}

#[test]
fn files_are_short() {
    let mut long = Vec::new();
    for directory in crates_and_examples() {
        let most = match directory.as_str() {
            "examples" => EXAMPLE_MOST,
            _ => FILE_MOST,
        };
        let mut lengths = Vec::new();
        for source in sources(&directory) {
            let length = source.code().filter(|line| !line.trim().is_empty()).count();
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

/// Who reads what a driver takes should see it on one page.
#[test]
fn a_driver_has_at_most_forty_lines() {
    let examples = sources("examples");
    let driver = examples.iter().find(|it| it.path == "driver.rs").unwrap();
    let length = driver.code().filter(|line| !line.trim().is_empty()).count();
    assert!(length <= 40, "{length} lines");
}

/// Returns the name and the number of lines of each function in a file that rustfmt has formatted.
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
    for directory in crates_and_examples() {
        for source in sources(&directory) {
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
