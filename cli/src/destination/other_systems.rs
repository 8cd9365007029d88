//! The counterpart of `linux.rs` for other systems, which do not have these facilities in the same
//! form.

use std::fs::File;
use std::io;
use std::path::Path;

/// Returns false. Access lists and attributes are not known here, so a file is judged by its mode.
pub(super) fn has_more(_: &Path, _: &File) -> bool {
    false
}

/// Does nothing, since no access list is known.
pub(super) fn remove_access_list(_: &File) -> io::Result<()> {
    Ok(())
}
