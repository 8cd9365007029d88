//! `serveloop man`: manual pages made from the help texts.

use std::process::ExitCode;

use clap::Args;
use clap_mangen::Man;

use crate::completions::print;
use crate::failure::Failure;
use crate::limits_help;

/// Prints the manual page of serveloop or of one of its commands.
///
///   $ serveloop man | man -l -
///   $ serveloop man serve echo > serveloop-serve-echo.1
///   $ serveloop man help limits > serveloop-help-limits.1
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(crate) struct Manual {
    /// The command to print the page of, for example: serve echo
    command: Vec<String>,
}

impl Manual {
    pub(crate) fn run(self, root: clap::Command) -> Result<ExitCode, Failure> {
        let limits = limits_help::manual(&root);
        let mut root = root.disable_help_subcommand(true);
        // `build` completes names and global options.
        root.build();
        let root = limits_help::without_limits(root);

        if self.command == limits_help::WORDS {
            return render(&limits);
        }

        let mut command = &root;
        for name in &self.command {
            command = command.find_subcommand(name).ok_or_else(|| {
                let known: Vec<_> = command
                    .get_subcommands()
                    .map(clap::Command::get_name)
                    .collect();
                let known = known.join(", ");
                Failure::Usage(format!("there is no command {name:?}; use one of: {known}"))
            })?;
        }

        render(command)
    }
}

/// Prints the page of one command.
fn render(command: &clap::Command) -> Result<ExitCode, Failure> {
    let title = command.get_display_name().unwrap_or("serveloop").to_owned();
    let mut page = Vec::new();
    Man::new(command.clone())
        .title(title.to_uppercase())
        .source(concat!("serveloop ", env!("CARGO_PKG_VERSION")))
        .manual("User Commands")
        .render(&mut page)?;
    print(keep_examples(&String::from_utf8_lossy(&page)).as_bytes())
}

/// Marks indented lines as preformatted, so that they are neither filled nor broken.
fn keep_examples(page: &str) -> String {
    let mut kept = String::with_capacity(page.len());
    let mut is_example = false;

    for line in page.lines() {
        let was_example = is_example;
        is_example = line.starts_with("  ");
        kept.push_str(match (was_example, is_example) {
            (false, true) => ".nf\n",
            (true, false) => ".fi\n",
            _ => "",
        });

        kept.push_str(line);
        kept.push('\n');
    }

    kept
}
