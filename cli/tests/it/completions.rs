//! What is generated for shells and for `man`.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::support::outside::skip;
use crate::support::running::{Running, run};
use crate::support::served::serveloop;

const SHELLS: [&str; 5] = ["bash", "zsh", "fish", "elvish", "powershell"];

fn page(command: &str) -> String {
    let arguments: Vec<_> = ["man"]
        .into_iter()
        .chain(command.split_whitespace())
        .collect();
    run(&arguments, "").well()
}

/// What a program makes of `text`, if it is installed and takes it without a complaint.
fn piped(program: &str, arguments: &[&str], text: &str) -> Option<String> {
    let spawned = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = spawned else {
        skip(program);
        return None;
    };
    // All is read before anything is written, or nothing at all.
    let mut stdin = child.stdin.take().expect("a pipe");
    let written = text.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(written.as_bytes()));
    let output = child.wait_with_output().expect("our child");
    writer.join().expect("no panic").expect("a reader");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && complaint.is_empty(),
        "{program}: {complaint}"
    );
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn every_shell_learns_every_command() {
    for shell in SHELLS {
        let script = run(&["completions", shell], "").well();
        for word in [
            "connect",
            "fetch",
            "discard",
            "max-connections",
            "completions",
        ] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    let said = run(&["completions", "tcsh"], "");
    assert_eq!(said.code, Some(2));
    assert!(
        said.stderr.contains("bash, elvish, fish, powershell, zsh"),
        "{}",
        said.stderr
    );
}

#[test]
fn shells_take_what_is_made_for_them() {
    for shell in ["bash", "zsh", "fish"] {
        let script = run(&["completions", shell], "").well();
        piped(shell, &["-n"], &script);
    }
}

#[test]
fn bash_completes_commands_and_options() {
    let script = run(&["completions", "bash"], "").well();
    let ask = |words: &str, index: usize| {
        let words_of = format!("COMP_WORDS=({words}); COMP_CWORD={index}");
        let current = words.split(' ').nth(index).unwrap_or_default();
        let call = format!("_serveloop serveloop '{current}' ''; echo \"${{COMPREPLY[*]}}\"");
        piped(
            "bash",
            &["--norc"],
            &format!("{script}\n{words_of}\n{call}\n"),
        )
    };
    let Some(found) = ask("serveloop con", 1) else {
        return;
    };
    assert_eq!(found, "connect\n");
    assert_eq!(ask("serveloop connect --fram", 2).unwrap(), "--framing\n");
    let limit = ask("serveloop serve echo --max-conn", 3).unwrap();
    assert_eq!(limit, "--max-connections\n");
    assert_eq!(ask("serveloop help lim", 2).unwrap(), "limits\n");
}

/// `command` and all those below it that its page names, as they are typed.
fn commands(command: &str) -> Vec<String> {
    let name = format!("serveloop {command}").trim().replace(' ', "\\-");
    let page = page(command);
    let below = page.lines().filter_map(|line| {
        let rest = line.strip_prefix(&name)?.strip_prefix("\\-")?;
        rest.strip_suffix("(1)")
    });
    let below = below.flat_map(|name| commands(format!("{command} {name}").trim()));
    [command.to_owned()].into_iter().chain(below).collect()
}

#[test]
fn every_command_has_its_page() {
    let commands = commands("");
    for command in [
        "",
        "serve",
        "serve echo",
        "serve hello",
        "connect",
        "fetch",
        "man",
    ] {
        assert!(
            commands.iter().any(|found| found == command),
            "{commands:?}"
        );
    }
    for command in commands {
        let page = page(&command);
        let name = format!("serveloop {command}").trim().replace(' ', "-");
        let title = format!(".TH {} 1", name.to_uppercase());
        assert!(page.contains(&title), "{page}");
        assert!(page.contains(".SH OPTIONS"), "{command}");
    }
    // The limits have a page of their own, to which the others lead.
    let (echo, limits) = (page("serve echo"), page("help limits"));
    assert!(limits.contains("max\\-connections"), "{limits}");
    assert!(!echo.contains("max\\-connections <"), "{echo}");
    assert!(echo.contains("serveloop help limits"), "{echo}");
    let said = run(&["man", "serve", "gopher"], "");
    assert_eq!(said.code, Some(2));
    assert!(
        said.stderr
            .contains("there is no command \"gopher\"; use one of: echo, ")
    );
}

#[test]
fn pages_are_formatted_without_a_complaint() {
    for command in commands("").into_iter().chain(["help limits".to_owned()]) {
        let warnings = ["-man", "-Tutf8", "-ww", "-P-c"];
        let Some(text) = piped("groff", &warnings, &page(&command)) else {
            return;
        };
        assert!(text.contains("$ serveloop"), "{text}");
    }
}

/// Backslashes, dashes and spaces of an example come out as they went in, on one line.
#[test]
fn examples_survive_the_formatting() {
    let Some(text) = piped("groff", &["-man", "-Tascii", "-P-c"], &page("connect")) else {
        return;
    };
    let example =
        r"$ printf 'Michael\nexit\n' | serveloop connect tcp://127.0.0.1:9999 --protocol hello";
    assert!(text.contains(example), "{text}");
}

#[test]
fn who_has_seen_enough_may_leave() {
    for arguments in [&["man", "serve", "echo"][..], &["completions", "bash"]] {
        let mut client = Running::spawn(serveloop(arguments));
        drop(client.stdout());
        assert_eq!(client.end().well(), "");
    }
}
