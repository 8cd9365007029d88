//! The name that may have been meant.

/// Returns the one of `names` that takes the fewest changes to `typed`, unless that is a third of it or
/// more.
pub(super) fn nearest<'a>(typed: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let typed = typed.to_lowercase().replace('_', "-");
    let distances = names.map(|name| (distance(&typed, name), name));
    let (distance, name) = distances.min()?;
    (distance * 3 <= name.len().max(typed.len())).then_some(name)
}

/// Returns how many characters have to be inserted, removed, replaced or exchanged with their neighbour.
fn distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<_>, Vec<_>) = (one.chars().collect(), other.chars().collect());
    let mut earlier: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=other.len()).collect();
    for (row, letter) in one.iter().enumerate() {
        let mut line = vec![row + 1];
        for (column, wanted) in other.iter().enumerate() {
            let replaced = above[column] + usize::from(letter != wanted);
            let mut least = replaced.min(above[column + 1] + 1).min(line[column] + 1);
            let is_exchanged =
                row > 0 && column > 0 && *letter == other[column - 1] && one[row - 1] == *wanted;
            if is_exchanged {
                least = least.min(earlier[column - 1] + 1);
            }
            line.push(least);
        }
        earlier = std::mem::replace(&mut above, line);
    }
    above[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_unless_it_is_far() {
        let names = ["listen", "max-connections", "max-children", "quiet"];
        for (typed, found) in [
            ("max_connections", Some("max-connections")),
            ("max-connection", Some("max-connections")),
            ("Listen", Some("listen")),
            ("lisetn", Some("listen")),
            ("queit", Some("quiet")),
            ("bananas", None),
            ("", None),
        ] {
            assert_eq!(nearest(typed, names.into_iter()), found, "{typed}");
        }
    }

    #[test]
    fn changes_are_counted() {
        for (one, other, count) in [
            ("", "abc", 3),
            ("abc", "", 3),
            ("abc", "abc", 0),
            ("abc", "acb", 1),
            ("abc", "axc", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(one, other), count, "{one} {other}");
        }
    }
}
