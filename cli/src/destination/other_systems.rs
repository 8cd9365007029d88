//! What other systems than Linux do not offer in this way. `linux.rs` has the same functions for Linux.

use std::fs::File;
use std::io;
use std::path::Path;

/// Nothing is known of access lists and attributes here: a file is judged by its mode.
pub(super) fn has_more(_: &Path, _: &File) -> bool {
    false
}

/// There is none that is known.
pub(super) fn remove_access_list(_: &File) -> io::Result<()> {
    Ok(())
}
