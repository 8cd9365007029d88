//! Results of an earlier run, read from the file that `--json` wrote.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::Value;

use crate::bench::results::Results;
use crate::failure::Failure;

/// The format that this version writes and reads.
pub(crate) const FORMAT: u32 = 1;
/// The longest file that is read. One of a benchmark that took an hour has a few MiB.
const LONGEST: u64 = 64 << 20;

/// Reads the results in a file.
///
/// # Errors
/// A file that cannot be read is a failure of the system. One that no `bench --json` wrote, or one of
/// another format, is a mistake on the command line.
pub(super) fn read(path: &Path) -> Result<Results, Failure> {
    let shown = path.display();
    let wrong = |problem: String| Failure::Usage(format!("{shown}: {problem}"));

    let text = text(path)?;
    let not_ours = |why: String| {
        wrong(format!(
            "this is no result of `serveloop bench --json`: {why}"
        ))
    };
    let value: Value = serde_json::from_str(&text).map_err(|error| not_ours(error.to_string()))?;
    match value.get("format").and_then(Value::as_u64) {
        Some(format) if format == u64::from(FORMAT) => {}
        Some(format) => {
            return Err(wrong(format!(
                "it has the format {format}, and this version reads {FORMAT}"
            )));
        }
        None => return Err(not_ours("it has no \"format\"".to_owned())),
    }

    let mut results: Results =
        serde_json::from_value(value).map_err(|error| not_ours(error.to_string()))?;
    results.escape();
    results.restore().map_err(not_ours)?;
    Ok(results)
}

fn text(path: &Path) -> Result<String, Failure> {
    let named = |error: std::io::Error| {
        let problem = format!("{}: {error}", path.display());
        Failure::System(std::io::Error::new(error.kind(), problem))
    };

    let file = File::open(path).map_err(named)?;
    let mut text = String::new();
    let read = file.take(LONGEST + 1).read_to_string(&mut text);
    let count = read.map_err(named)?;
    if count as u64 > LONGEST {
        let problem = format!("{}: it is longer than 64 MiB", path.display());
        return Err(Failure::Usage(problem));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::tests::results;

    fn kept(text: &str) -> Result<Results, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        read(file.path()).map_err(|failure| match failure {
            Failure::Usage(problem) => problem,
            Failure::System(error) => panic!("{error}"),
        })
    }

    #[test]
    fn what_was_written_is_read() {
        let written = serde_json::to_string(&results()).unwrap();
        let read = kept(&written).unwrap();
        assert_eq!(read.results[2].scenario, results().results[2].scenario);
        assert_eq!(serde_json::to_string(&read).unwrap(), written);
    }

    /// A file may come from anybody, and its texts are shown on a terminal.
    #[test]
    fn texts_cannot_drive_a_terminal() {
        let driving = "\u{1b}[2J\ngone\u{202e}";
        let mut value = serde_json::to_value(results()).unwrap();
        for path in [
            "/command",
            "/date",
            "/machine/processor",
            "/machine/system",
            "/ended",
            "/results/0/server",
            "/results/0/skipped",
        ] {
            *value.pointer_mut(path).unwrap() = driving.into();
        }
        let read = kept(&value.to_string()).unwrap();
        let shown = r"\u{1b}[2J\ngone\u{202e}";
        assert_eq!(read.command, shown);
        assert_eq!(read.date, shown);
        let system = format!("{shown}, 2 cores, {shown}");
        assert_eq!(read.machine.to_string(), system);
        assert_eq!(read.ended.as_deref(), Some(shown));
        assert_eq!(read.results[0].server, shown);
        assert_eq!(read.results[0].skipped.as_deref(), Some(shown));
    }

    #[test]
    fn results_without_a_timeline_are_read() {
        let mut value = serde_json::to_value(results()).unwrap();
        let measured = value.pointer_mut("/results/0/measured").unwrap();
        measured.as_object_mut().unwrap().remove("timeline");
        assert!(kept(&value.to_string()).is_ok());
    }

    #[test]
    fn other_files_are_refused_with_the_reason() {
        for (text, said) in [
            ("", "no result of `serveloop bench --json`: EOF"),
            ("[]", "it has no \"format\""),
            (
                "{\"format\": 7}",
                "it has the format 7, and this version reads 1",
            ),
            ("{\"format\": 1}", "missing field"),
        ] {
            let problem = kept(text).unwrap_err();
            assert!(problem.contains(said), "{problem}");
        }
        let mut value = serde_json::to_value(results()).unwrap();
        value["results"][0]["load"] = "sideways".into();
        let problem = kept(&value.to_string()).unwrap_err();
        assert!(problem.contains("unknown load \"sideways\""), "{problem}");
    }
}
