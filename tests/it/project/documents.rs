//! The documents: links lead somewhere, snippets run, figures are those of the benchmarks, and the words are
//! plain.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The documents whose snippets have to run, besides the pages of the guide.
const TAUGHT: [&str; 5] = [
    "README.md",
    "docs/cookbook.md",
    "docs/from-socketserver.md",
    "docs/from-tokio.md",
    "docs/from-mio.md",
];

/// The most lines of a recipe.
const RECIPE_LINES: usize = 30;

/// Languages of blocks in which nothing runs, and why.
const NOT_RUN: [(&str, &str); 4] = [
    (
        "text",
        "what a program prints, or a file of another program",
    ),
    ("toml", "a part of a manifest"),
    (
        "python",
        "the other side of a comparison; those of tutorials have tests of their own",
    ),
    ("sh", "the tests of the command run these"),
];

/// Documents that quote source which cannot be run alone.
const QUOTES: [&str; 1] = ["docs/guide/memcached.md"];

/// Words that a stranger stumbles over, and better ones. They are looked for in documents, help texts and
/// comments.
const STUMBLES: [(&str, &str); 14] = [
    ("so many", "this many, at most N"),
    ("beside", "besides, next to, compared with"),
    ("for ever", "without end"),
    ("the other's", "the peer's"),
    ("somebody", "a client, a peer, another program"),
    ("holds up nobody", "holds up no other connection"),
    ("delays nobody", "delays no other"),
    ("of one's own", "of your own"),
    ("yes-or-no", "boolean"),
    ("stands at", "is established"),
    ("stands the", "is the"),
    ("how the client stands", "the state of the client"),
    ("has connections looked at", "queues connections"),
    ("who comes from", "a user who comes from, coming from"),
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Returns all files with one of these extensions, by their paths in the repository.
fn files(extensions: &[&str]) -> Vec<String> {
    fn collect(folder: &Path, extensions: &[&str], found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if path.is_dir() {
                let is_ours = !name.starts_with('.') || name == ".github";
                if is_ours && !["target", "corpus"].contains(&&*name) {
                    collect(&path, extensions, found);
                }
            } else if path
                .extension()
                .is_some_and(|end| extensions.iter().any(|it| end == *it))
            {
                found.push(path);
            }
        }
    }

    let mut found = Vec::new();
    collect(&root(), extensions, &mut found);
    let short = |path: PathBuf| path.strip_prefix(root()).unwrap().display().to_string();
    let mut found: Vec<_> = found.into_iter().map(short).collect();
    found.sort();
    found
}

/// A block of code in a document: its language, and its lines.
struct Block<'a> {
    language: &'a str,
    lines: Vec<&'a str>,
}

/// Returns the blocks of code of a document, and what is around them.
fn parts(text: &str) -> (Vec<Block<'_>>, String) {
    let (mut blocks, mut prose, mut open) = (Vec::new(), String::new(), None::<Block<'_>>);
    for line in text.lines() {
        match (line.trim_start().strip_prefix("```"), &mut open) {
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(language), None) => {
                open = Some(Block {
                    language,
                    lines: Vec::new(),
                })
            }
            (None, Some(block)) => block.lines.push(line),
            (None, None) => {
                prose.push_str(line);
                prose.push('\n');
            }
        }
    }
    assert!(open.is_none(), "a block of code has no end");
    (blocks, prose)
}

/// Returns the targets of the links in a text: `[...](target)`, `[...]: target`, `src="..."`.
fn links(prose: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in prose.lines() {
        let inline = line.split("](").skip(1);
        found.extend(inline.filter_map(|rest| rest.split(')').next()));
        let definition = line
            .strip_prefix('[')
            .and_then(|rest| rest.split_once("]: "));
        found.extend(definition.map(|(_, target)| target.trim()));
        for attribute in ["src=\"", "srcset=\"", "href=\""] {
            let quoted = line.split(attribute).skip(1);
            found.extend(quoted.filter_map(|rest| rest.split('"').next()));
        }
    }
    found.into_iter().map(str::to_owned).collect()
}

/// Returns the anchors of a document: its headings, in small letters, with hyphens for blanks.
fn anchors(text: &str) -> BTreeSet<String> {
    let (_, prose) = parts(text);
    let headings = prose.lines().filter(|line| line.starts_with('#'));
    let anchor = |line: &str| {
        let letters = line.trim_start_matches('#').trim().chars();
        let letters = letters.filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        letters
            .flat_map(char::to_lowercase)
            .map(|c| if c == ' ' { '-' } else { c })
            .collect()
    };
    headings.map(anchor).collect()
}

#[test]
fn links_lead_somewhere() {
    let mut broken = Vec::new();
    let mut count = 0;
    for file in files(&["md"]) {
        let text = read(&file);
        for link in links(&parts(&text).1) {
            if link.contains("://") || link.starts_with("mailto:") || link.contains(' ') {
                continue;
            }
            count += 1;
            let (path, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = match path {
                "" => root().join(&file),
                _ => root().join(&file).parent().unwrap().join(path),
            };
            let is_there = target.exists();
            let has_anchor = anchor.is_empty()
                || fs::read_to_string(&target).is_ok_and(|text| anchors(&text).contains(anchor));
            if !is_there || !has_anchor {
                broken.push(format!("{file}: {link}"));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
    assert!(count > 100, "{count} links only");
}

/// `lib.rs` includes each document, so `cargo test` runs its snippets; a block that does not run has a
/// reason.
#[test]
fn snippets_are_run() {
    let library = read("src/lib.rs");
    let pages = files(&["md"])
        .into_iter()
        .filter(|file| file.starts_with("docs/guide/"));
    let taught = TAUGHT.into_iter().map(str::to_owned);
    let mut snippets = 0;
    for file in taught.chain(pages) {
        let text = read(&file);
        for block in parts(&text).0 {
            let (language, how) = block
                .language
                .split_once(',')
                .unwrap_or((block.language, ""));
            if NOT_RUN.iter().any(|(known, _)| *known == language) {
                continue;
            }
            assert_eq!(
                language, "rust",
                "{file}: nothing runs a block of {language:?}"
            );
            if how == "ignore" && QUOTES.contains(&&*file) {
                continue;
            }
            assert!(
                ["", "no_run", "compile_fail"].contains(&how),
                "{file}: {how}"
            );
            let short = file.trim_start_matches("docs/");
            let is_included = [format!("../{file}\")"), format!(": \"{short}\";")];
            assert!(
                is_included.iter().any(|line| library.contains(line)),
                "no test runs the snippets of {file}"
            );
            snippets += 1;
        }
    }
    assert!(snippets > 60, "{snippets} snippets only");
}

#[test]
fn recipes_are_short_and_listed() {
    let text = read("docs/cookbook.md");
    let recipes: Vec<_> = text.split("\n## ").skip(1).collect();
    assert_eq!(recipes.len(), 20);
    let contents = text.split("\n## ").next().unwrap();
    for recipe in recipes {
        let title = recipe.lines().next().unwrap();
        let anchor = anchors(&format!("# {title}")).pop_first().unwrap();
        assert!(contents.contains(&format!("(#{anchor})")), "{title}");
        let blocks = parts(recipe).0;
        assert!(
            blocks.iter().any(|it| it.language.starts_with("rust")),
            "{title}"
        );
        for block in blocks {
            let shown = block
                .lines
                .iter()
                .filter(|line| !line.trim_start().starts_with("# "));
            let lines = shown.filter(|line| !line.trim().is_empty()).count();
            assert!(lines <= RECIPE_LINES, "{title}: {lines} lines");
        }
    }
}

/// The book and the documentation of the crate have the same pages.
#[test]
fn the_guide_has_every_page() {
    let (summary, library) = (read("docs/SUMMARY.md"), read("src/lib.rs"));
    for file in files(&["md"]) {
        let Some(page) = file.strip_prefix("docs/") else {
            continue;
        };
        assert!(
            page == "SUMMARY.md" || summary.contains(&format!("]({page})")),
            "{page}"
        );
    }
    // Those behind this heading are about other crates.
    let (own, _) = summary.split_once("# How the protocols").unwrap();
    for page in links(own) {
        let text = read(&format!("docs/{page}"));
        assert!(text.starts_with("# "), "a page begins with its title");
        let is_of_guide = page.starts_with("guide/");
        assert!(
            !is_of_guide || library.contains(&format!("\"{page}\";")),
            "{page}"
        );
    }
}

/// Numbers that the README calls measured are in docs/BENCHMARKS.md.
#[test]
fn figures_of_the_readme_are_those_of_the_benchmarks() {
    let (readme, measured) = (read("README.md"), read("docs/BENCHMARKS.md"));
    let mut count = 0;
    for label in [
        "| messages/s,",
        "| instructions for a message",
        "| bytes for an idle connection",
    ] {
        let row = readme.lines().find(|line| line.starts_with(label)).unwrap();
        let cells = row.trim_matches('|').split('|').skip(1).map(str::trim);
        for cell in cells.filter(|cell| cell.parse::<f64>() != Ok(1.0) && *cell != "not measured") {
            let plain = cell.replace(',', "");
            assert!(
                measured.contains(cell) || measured.contains(&plain),
                "{cell} in {row}"
            );
            count += 1;
        }
    }
    assert_eq!(count, 8);
}

/// Returns the comments of a source file, help texts among them. What is in backticks is code.
fn comments(text: &str) -> String {
    let lines = text.lines().map(str::trim_start);
    let lines = lines.filter(|line| line.starts_with("//"));
    without_code(&lines.map(|line| format!("{line}\n")).collect::<String>())
}

fn without_code(text: &str) -> String {
    let plain = |line: &str| line.split('`').step_by(2).collect::<String>() + "\n";
    text.lines().map(plain).collect()
}

/// Returns whether a text has a phrase, as words of its own.
fn has_phrase(text: &str, phrase: &str) -> bool {
    let is_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric());
    text.match_indices(phrase).any(|(at, _)| {
        let (before, after) = (&text[..at], &text[at + phrase.len()..]);
        !is_word(before.chars().next_back()) && !is_word(after.chars().next())
    })
}

#[test]
fn words_are_plain() {
    let mut found = Vec::new();
    for file in files(&["md", "rs"]) {
        // This file names them, and the changelog and the list of faults tell of what was.
        if file.ends_with("project/documents.rs") {
            continue;
        }
        let text = read(&file);
        let prose = match file.ends_with(".md") {
            true => without_code(&parts(&text).1),
            false => comments(&text),
        };
        for (number, line) in prose.lines().enumerate() {
            let line = line.to_lowercase();
            for (phrase, better) in STUMBLES.iter().filter(|(it, _)| has_phrase(&line, it)) {
                found.push(format!(
                    "{file}, line {number} of prose: {phrase:?}; better: {better}"
                ));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn documents_are_taken_apart() {
    let text = "# A page: one\n[a](b.md) and [c](d.md#e)\n```sh\nrun [x](y)\n```\n[z]: w.md\n";
    let (blocks, prose) = parts(text);
    assert_eq!(blocks.len(), 1);
    assert_eq!(
        (blocks[0].language, &blocks[0].lines[..]),
        ("sh", &["run [x](y)"][..])
    );
    assert_eq!(links(&prose), ["b.md", "d.md#e", "w.md"]);
    assert!(anchors(text).contains("a-page-one"));

    assert!(has_phrase("there are so many.", "so many"));
    assert!(!has_phrase("besides", "beside"));
    assert_eq!(
        comments("let a = 1;\n    /// One `two` three.\n"),
        "/// One  three.\n"
    );
}
