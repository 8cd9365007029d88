//! The place in a file that a problem is about, by what the problem names.

use crate::settings::document::Document;
use crate::settings::keys::{Setting, first_paragraph};
use crate::settings::place::Problem;
use crate::settings::value::Value;

impl Document {
    /// Finds the first value or option of the file that the problem names. Values go first, since a
    /// listener's own options are named without their hyphens. Returns `None` if the problem names nothing
    /// of the file.
    pub(super) fn blame(&self, problem: &str) -> Option<Problem> {
        let problem = first_paragraph(problem);
        let found = self.value_in(&problem).or_else(|| self.option_in(&problem));
        let at = found.or_else(|| self.protocol_in(&problem))?;
        Some(Problem::new(&self.file, &self.text, at, &problem))
    }

    /// Says that the file has a problem whose place in it is not known.
    pub(super) fn blame_all(&self, problem: &str) -> Problem {
        Problem::new(&self.file, &self.text, 0, &first_paragraph(problem))
    }

    /// Returns the place of a value that the problem contains, or of the part of it that is named as well.
    fn value_in(&self, problem: &str) -> Option<usize> {
        let values = self.settings.iter().flat_map(|setting| &setting.values);
        let named = values.filter(|value| is_named(value, problem));
        let value = named.max_by_key(|value| value.text.len())?;
        let rest = problem.replace(&value.text, "");
        let mut parts = value.parts.iter();
        let part = parts.find(|(name, _)| has_word(&rest, name));
        Some(part.map_or(value.at, |(_, at)| *at))
    }

    /// Returns the place of the option that the problem names first, of those that the file has.
    fn option_in(&self, problem: &str) -> Option<usize> {
        let place = |setting: &Setting| {
            let place = find_word(problem, &format!("--{}", setting.long));
            place.map(|place| (place, setting.at))
        };
        let (_, at) = self.settings.iter().filter_map(place).min()?;
        Some(at)
    }

    fn protocol_in(&self, problem: &str) -> Option<usize> {
        let (_, at) = self
            .protocol_at()
            .filter(|(name, _)| has_word(problem, name))?;
        Some(at)
    }

    /// Returns the names of options with other values in another file.
    pub(super) fn changed(&self, other: &Self) -> Vec<String> {
        let texts = |setting: &Setting| -> Vec<String> {
            setting.values.iter().map(|it| it.text.clone()).collect()
        };
        let known = |document: &Self, setting: &Setting| {
            let mut all = document.settings.iter();
            let same = all.find(|it| (&it.id, &it.section) == (&setting.id, &setting.section));
            same.map(texts)
        };
        let ours = self
            .settings
            .iter()
            .filter(|it| known(other, it) != Some(texts(it)));
        let theirs = other.settings.iter().filter(|it| known(self, it).is_none());
        let mut names: Vec<_> = ours.chain(theirs).map(|it| it.long.clone()).collect();
        if self.protocol() != other.protocol() {
            names.push("protocol".to_owned());
        }
        names
    }
}

/// Returns whether a problem quotes a value, or a part of one that is a file.
fn is_named(value: &Value, problem: &str) -> bool {
    let text = value.text.trim_start_matches('@');
    // A short word may be there for another reason.
    text.len() > 3 && (problem.contains(text) || quotes_file(text, problem))
}

/// Returns whether a problem begins with the name of a file in the query of a listener.
fn quotes_file(uri: &str, problem: &str) -> bool {
    let (_, query) = uri.split_once('?').unwrap_or_default();
    let files = query.split('&').filter_map(|pair| pair.split_once('='));
    let mut files = files.filter(|(_, file)| file.len() > 3);
    files.any(|(_, file)| problem.contains(&file.replace("%25", "%")))
}

fn has_word(text: &str, word: &str) -> bool {
    find_word(text, word).is_some()
}

/// Returns where a word is that is not a part of a longer name.
fn find_word(text: &str, word: &str) -> Option<usize> {
    let is_name =
        |next: Option<char>| next.is_some_and(|next| next.is_alphanumeric() || next == '-');
    let mut places = text.match_indices(word).map(|(place, _)| place);
    places.find(|place| {
        let (before, after) = (&text[..*place], &text[place + word.len()..]);
        !is_name(before.chars().next_back()) && !is_name(after.chars().next())
    })
}
