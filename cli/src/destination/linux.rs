//! Facilities that only Linux has: the access list and the extended attributes of a file.
//! `other_systems.rs` has the same functions for other systems.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{fgetxattr, fremovexattr, getxattr, listxattr};
use rustix::io::Errno;

/// The extended attribute that holds a file's access list.
const ACCESS_LIST: &str = "system.posix_acl_access";

/// The attributes that belong to the old content: the capabilities of a program, and what certifies
/// its integrity.
const OF_CONTENT: [&str; 3] = ["security.capability", "security.ima", "security.evm"];

/// The system's limit for a list of names and for one value, in bytes.
const MOST: usize = 1 << 16;

/// Returns whether the file at `old` has an access list, or other extended attributes that `part`
/// does not have.
pub(super) fn has_more(old: &Path, part: &File) -> bool {
    let mut names = vec![0_u8; MOST];
    let names = match listxattr(old, &mut names[..]) {
        Ok(length) => &names[..length],
        // The file system does not support attributes.
        Err(Errno::NOTSUP | Errno::NOSYS) => return false,
        Err(_) => return true,
    };

    let mut names = names.split(|byte| *byte == 0);
    names.any(|name| {
        let is_of_content = OF_CONTENT.iter().any(|known| known.as_bytes() == name);
        !name.is_empty() && !is_of_content && differs(name, old, part)
    })
}

fn differs(name: &[u8], old: &Path, part: &File) -> bool {
    // Even an equal list would be changed by the mode, which is set later.
    if name == ACCESS_LIST.as_bytes() {
        return true;
    }

    let (mut one, mut other) = (vec![0; MOST], vec![0; MOST]);
    let one = getxattr(old, name, &mut one[..]).map(|length| &one[..length]);
    let other = fgetxattr(part, name, &mut other[..]).map(|length| &other[..length]);
    one.is_err() || one.ok() != other.ok()
}

/// Removes the access list that a new file inherits from its directory. Otherwise, a mode that is
/// set later would give the rights of the group to the users in the list.
pub(super) fn remove_access_list(part: &File) -> io::Result<()> {
    match fremovexattr(part, ACCESS_LIST) {
        Err(Errno::NODATA | Errno::NOTSUP | Errno::NOSYS) => Ok(()),
        outcome => Ok(outcome?),
    }
}
