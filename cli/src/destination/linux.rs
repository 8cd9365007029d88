//! What only Linux offers: a file's access list. `elsewhere.rs` has the same function for other systems.

use std::path::Path;

use rustix::fs::getxattr;
use rustix::io::Errno;

/// The extended attribute that holds it.
const ACCESS_LIST: &str = "system.posix_acl_access";

/// Such a list is longer only where many are named in it.
const LIST_USUAL: usize = 1 << 10;

/// Whether more is said of who may read and write a file than its mode does.
pub(crate) fn has_access_list(path: &Path) -> bool {
    match getxattr(path, ACCESS_LIST, &mut [0; LIST_USUAL]) {
        Ok(length) => length > 0,
        // A file system without access lists is an error, too.
        Err(error) => error == Errno::RANGE,
    }
}
