//! From the path of a request to that of a file, which stays below the directory that is served.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// Relative, and only of names.
    pub(super) path: PathBuf,
    /// Whether the path ends with a slash, so that it cannot be a file.
    pub(super) is_directory: bool,
}

/// Reads the path of a request, or returns the status to answer with.
pub(super) fn parse_target(path: &str) -> Result<Target, u16> {
    let mut target = Target {
        path: PathBuf::new(),
        is_directory: path.ends_with('/'),
    };
    for segment in path.split('/').filter(|segment| !segment.is_empty()) {
        let name = decode(segment).ok_or(400_u16)?;
        if name.contains(&0) {
            return Err(400);
        }
        if name == b"." || name == b".." || name.contains(&b'/') {
            return Err(404);
        }
        target.path.push(OsString::from_vec(name));
    }
    Ok(target)
}

/// Replaces each `%HH` with its byte. `None` if two digits do not follow a percent sign.
fn decode(segment: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte != b'%' {
            bytes.push(*byte);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        let digit = |at: usize| char::from(digits[at]).to_digit(16);
        bytes.push(u8::try_from(digit(0)? * 16 + digit(1)?).ok()?);
        rest = after;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_decoded_once() {
        let path = |text| parse_target(text).map(|target| target.path);
        assert_eq!(path("/"), Ok(PathBuf::new()));
        assert_eq!(path("/a/b%20c/%C3%A4"), Ok(PathBuf::from("a/b c/ä")));
        assert_eq!(path("//a///b"), Ok(PathBuf::from("a/b")));
        assert_eq!(path("/%252e%252e"), Ok(PathBuf::from("%2e%2e")));
        assert_eq!(path("/..."), Ok(PathBuf::from("...")));
        assert_eq!(path("/a\\..\\b"), Ok(PathBuf::from("a\\..\\b")));
    }

    #[test]
    fn nothing_leads_out() {
        let status = |text| parse_target(text).unwrap_err();
        for path in [
            "/..",
            "/../a",
            "/a/../b",
            "/%2e%2e/a",
            "/.%2E/a",
            "/a/%2e",
            "/./a",
        ] {
            assert_eq!(status(path), 404, "{path}");
        }
        for path in ["/a%2fb", "/..%2f..%2fetc", "/%2F"] {
            assert_eq!(status(path), 404, "{path}");
        }
        for path in ["/a%00.txt", "/%", "/%4", "/%zz", "/%+1"] {
            assert_eq!(status(path), 400, "{path}");
        }
    }
}
