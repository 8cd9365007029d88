//! What users write against is shown by examples that run: each public type has one in its documentation,
//! or in that of its methods. `cargo test` runs them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Types that are shown together with another one, in whose example they are named.
const SHOWN_BY: &[(&str, &str)] = &[
    ("driver::Context", "driver::Session"),
    ("driver::Wake", "net::Net"),
    ("driver::Wakers", "driver::Mailbox"),
    ("framing::ByteOrder", "framing::LengthPrefix"),
    ("framing::Frame", "framing::Decoder"),
    ("framing::FrameTransport", "framing::FrameProtocol"),
    ("layer::Alarm", "layer::Screen"),
    ("layer::Event", "layer::Observed"),
    ("layer::Layered", "layer::Layer"),
    ("layer::Preface", "layer::prefaced"),
    ("layer::Prefaced", "layer::prefaced"),
    ("layer::Prelude", "layer::prefaced"),
    ("layer::Received", "layer::Layer"),
    ("layer::Upgrade", "layer::Upgradable"),
    ("layer::Wire", "layer::Layer"),
    ("net::Event", "net::Net"),
    ("service::Dial", "service::Dialer"),
    ("service::Dialing", "service::Dialer"),
    ("service::Link", "service::Upstream"),
    ("service::Reply", "service::Upstream"),
    ("testing::Side", "testing::Simulation"),
];

/// Types that no user makes, and why there is nothing to show.
const HANDED_OUT: &[(&str, &str)] = &[
    ("net::Credentials", "`Transport::credentials` returns them"),
    ("driver::End", "`Session::handle_lost` returns it"),
    (
        "net::Sockets",
        "a network answers by it what the system knows",
    ),
    (
        "driver::Tick",
        "a clock makes it, and a session takes it back",
    ),
    ("framing::Message", "a shorter name for signatures"),
    ("layer::WireEnd", "two words, which say when to answer them"),
    ("net::Datagram", "`Mio` makes it, and the loop keeps it"),
    ("net::Listener", "`Mio` makes it, and the loop keeps it"),
    ("service::Rejected", "`Offload::submit` returns it"),
    ("service::Rejection", "`Rejected::reason` returns it"),
    ("testing::Call", "what a simulated network says that failed"),
    (
        "server::OpenConnection",
        "`Actions::connections` lists them",
    ),
    ("testing::Client", "`MemoryServer::connect` returns it"),
    ("testing::Seen", "`MemoryServer::seen` returns it"),
    ("testing::Fate", "the judge of an exchange is shown it"),
    ("testing::Failure", "`Simulation::check` returns it"),
    (
        "testing::Handle",
        "a simulated network makes it, and the loop keeps it",
    ),
    ("testing::Network", "a simulation makes it"),
    ("testing::Report", "`Simulation::check` returns it"),
    ("testing::Replay", "`Simulation::replay` returns it"),
    ("testing::Difference", "`Replay::differences` returns it"),
    (
        "testing::Slip",
        "a fault of the library's own, for its own tests",
    ),
];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Returns the text of a room: of its file, or of all files of its folder.
fn room(name: &str) -> String {
    fn collect(folder: &Path, text: &mut String) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, text);
            } else {
                text.push_str(&fs::read_to_string(path).unwrap());
                text.push('\n');
            }
        }
    }

    let file = source().join(name).with_extension("rs");
    if file.is_file() {
        return fs::read_to_string(file).unwrap();
    }
    let mut text = String::new();
    collect(&source().join(name), &mut text);
    text
}

/// Returns the names that `pub use` items show, each with the first module of its path.
fn shown(text: &str) -> Vec<(String, String)> {
    let mut names = Vec::new();
    for item in text.split("pub use ").skip(1) {
        let item = item.split(';').next().unwrap();
        let (path, tree) = item.rsplit_once("::").unwrap();
        let (path, tree) = match item.split_once('{') {
            Some((path, tree)) => (path, tree.trim_end_matches('}')),
            None => (path, tree),
        };

        let skipped = ["crate", "self", ""];
        let module = path.split("::").find(|part| !skipped.contains(part));
        let trees = tree
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty());
        names.extend(trees.map(|name| (name.to_owned(), module.unwrap_or_default().to_owned())));
    }
    names
}

/// Returns every public type, and function that is no method, as users name it, without the crate's name, and the text of its room.
fn public_types() -> BTreeMap<String, String> {
    let root = fs::read_to_string(source().join("lib.rs")).unwrap();
    let (root, driver) = root.split_once("pub mod driver {").unwrap();
    let mut types = BTreeMap::new();
    for (name, module) in shown(root) {
        types.insert(name, room(&module));
    }
    for (name, module) in shown(driver.split_once("\n}").unwrap().0) {
        types.insert(format!("driver::{name}"), room(&module));
    }

    let rooms = root
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod "));
    for name in rooms.map(|line| line.trim_end_matches(';')) {
        let folder = source().join(name);
        let file = if folder.is_dir() {
            folder.join("mod.rs")
        } else {
            folder.with_extension("rs")
        };
        let face = fs::read_to_string(file).unwrap();
        let own = face.lines().filter(|line| !line.starts_with(' '));
        let own = own.filter_map(defined).map(str::to_owned);
        for item in own {
            types.insert(format!("{name}::{item}"), room(name));
        }
        for (item, module) in shown(&face) {
            // It may be another room's, or of a module inside this one.
            let is_room = |path: PathBuf| path.is_dir() || path.with_extension("rs").is_file();
            let home = if is_room(source().join(&module)) {
                &*module
            } else {
                name
            };
            types.insert(format!("{name}::{item}"), room(home));
        }
    }
    types
}

/// Returns the name of the public type or function that a line begins to define.
fn defined(line: &str) -> Option<&str> {
    let rest = line.trim_start().strip_prefix("pub ")?;
    let (kind, rest) = rest.split_once(' ')?;
    let is_type = ["enum", "fn", "struct", "trait", "type"].contains(&kind);
    let word = |c: char| !(c.is_alphanumeric() || c == '_');
    is_type.then(|| rest.split(word).next().unwrap_or_default())
}

/// Returns the name of the type whose methods begin at a line: `Reactor` of `impl<N: Net> Reactor<N>`.
fn implemented(line: &str) -> Option<&str> {
    let mut rest = line.trim_start().strip_prefix("impl")?;
    if rest.starts_with('<') {
        let mut depth = 0;
        let end = rest.find(|c: char| {
            depth += i32::from(c == '<') - i32::from(c == '>');
            depth == 0
        });
        rest = &rest[end? + 1..];
    }

    let of_type = rest
        .split_once(" for ")
        .map_or(rest, |(_, of_type)| of_type);
    of_type.trim_start().split(['<', ' ']).next()
}

/// Returns the code of all examples that run in the documentation of a type and of its methods.
fn examples(name: &str, room: &str) -> String {
    let lines: Vec<_> = room.lines().collect();
    let mut documentation: Vec<&str> = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        // A macro defines the type that is named alone.
        if defined(line) == Some(name) || line.trim() == format!("{name} {{") {
            let above = lines[..at].iter().rev();
            let above: Vec<_> = above.take_while(|line| !line.trim().is_empty()).collect();
            documentation.extend(above.into_iter().rev());
        }

        if implemented(line) == Some(name) {
            let end = format!("{}}}", &line[..line.len() - line.trim_start().len()]);
            documentation.extend(lines[at..].iter().take_while(|line| **line != end));
        }
    }

    let (mut code, mut runs) = (String::new(), None);
    for line in documentation {
        let Some(text) = line.trim_start().strip_prefix("///") else {
            continue;
        };
        if let Some(kind) = text.trim().strip_prefix("```") {
            runs = runs.is_none().then_some(kind.is_empty());
        } else if runs == Some(true) {
            code.push_str(text);
            code.push('\n');
        }
    }
    code
}

fn names(code: &str, name: &str) -> bool {
    let word = |c: char| !(c.is_alphanumeric() || c == '_');
    code.split(word).any(|found| found == name)
}

fn last(path: &str) -> &str {
    path.rsplit("::").next().unwrap_or(path)
}

#[test]
fn what_users_write_against_has_an_example_that_runs() {
    let types = public_types();
    assert!(types.len() > 50, "only {} types found", types.len());
    let code_of = |path: &str| {
        let room = types.get(path).unwrap_or_else(|| panic!("no type {path}"));
        examples(last(path), room)
    };

    let mut missing = Vec::new();
    for path in types.keys() {
        let by = SHOWN_BY.iter().find(|(shown, _)| shown == path);
        let handed_out = HANDED_OUT.iter().any(|(name, _)| name == path);
        let own = !code_of(path).is_empty();
        if let Some((_, by)) = by {
            assert!(names(&code_of(by), last(path)), "{by} does not show {path}");
        }
        if own && (by.is_some() || handed_out) {
            missing.push(format!(
                "{path} has an example, and is listed as having none"
            ));
        } else if !own && by.is_none() && !handed_out {
            missing.push(format!("{path} has no example"));
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");

    let listed = SHOWN_BY.iter().chain(HANDED_OUT).map(|(name, _)| *name);
    let gone: Vec<_> = listed.filter(|name| !types.contains_key(*name)).collect();
    assert!(gone.is_empty(), "no such types: {gone:?}");
}

#[test]
fn examples_are_found_where_they_are() {
    let room = "/// One.\n///\n/// ```\n/// let one = One;\n/// ```\n#[derive(Debug)]\npub struct One;\n\n\
                /// Two.\n///\n/// ```no_run\n/// let two = Two;\n/// ```\npub struct Two;\n\n\
                impl Two {\n    /// Does.\n    ///\n    /// ```\n    /// Two.does();\n    /// ```\n    pub fn does(&self) {}\n}\n\n\
                /// Three.\n///\n/// ```text\n/// Three\n/// ```\npub trait Three {}\n";
    assert_eq!(examples("One", room), " let one = One;\n");
    assert_eq!(examples("Two", room), " Two.does();\n");
    assert_eq!(examples("Three", room), "");

    assert_eq!(implemented("impl<N: Net<A>> Reactor<N> {"), Some("Reactor"));
    assert_eq!(implemented("impl Protocol for Echo {"), Some("Echo"));
    assert_eq!(implemented("let implemented = 3;"), None);
}
