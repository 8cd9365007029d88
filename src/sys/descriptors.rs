//! The limit on this process's descriptors: how many connections it allows, and what to say where it is
//! reached.

use std::{fmt, io};

use crate::error::counted;
use crate::sys::descriptor_limits;

/// Returns how many connections the process's descriptors allow. If the system does not report a
/// limit, the server notices it when it is reached.
pub(crate) fn spare_descriptors(reserved: usize) -> usize {
    most().unwrap_or(usize::MAX).saturating_sub(reserved).max(1)
}

fn most() -> Option<usize> {
    let limits = descriptor_limits().ok()?;
    Some(usize::try_from(limits.rlim_cur).unwrap_or(usize::MAX))
}

/// Says how many descriptors this process may have, and how to allow more. The limit is read when the text
/// is written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DescriptorLimit;

impl fmt::Display for DescriptorLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(most) = most() {
            let most = counted(most, "open descriptor", "open descriptors");
            write!(f, "this process may have {most}: ")?;
        }
        f.write_str("raise the limit (ulimit -n, or LimitNOFILE= in a unit of systemd)")
    }
}

/// An error with what helps, if it is for want of descriptors.
#[derive(Debug)]
pub(crate) struct Explained<'a>(pub(crate) &'a io::Error);

impl fmt::Display for Explained<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(error) = self;
        match error.raw_os_error() {
            Some(libc::EMFILE) => write!(f, "{error}: {DescriptorLimit}"),
            Some(libc::ENFILE) => write!(
                f,
                "{error}: the whole system has no descriptor left: raise its limit (sysctl fs.file-max)"
            ),
            _ => error.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_want_of_descriptors_is_explained() {
        let text = |code| Explained(&io::Error::from_raw_os_error(code)).to_string();
        let most = most().expect("a limit");
        let process = text(libc::EMFILE);
        assert!(
            process.contains(&format!("this process may have {most} open")),
            "{process}"
        );
        assert!(
            process.contains("ulimit -n") && process.contains("LimitNOFILE="),
            "{process}"
        );
        assert!(text(libc::ENFILE).contains("fs.file-max"));
        let other = io::Error::from_raw_os_error(libc::ENOMEM).to_string();
        assert_eq!(text(libc::ENOMEM), other);
    }
}
