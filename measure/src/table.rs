//! Tables of plain text.

/// Returns a line of a table, without spaces at its end. The first cell begins at the left of its
/// column, and all others end at the right of theirs. A cell that is wider than its column moves
/// those behind it.
///
/// ```
/// let widths = [8, 6, 6];
/// assert_eq!(serveloop_measure::line(widths, ["echo", "1.00", "12"]), "echo       1.00     12");
/// ```
pub fn line<const N: usize>(widths: [usize; N], cells: [impl AsRef<str>; N]) -> String {
    let mut text = String::new();
    for (place, (cell, width)) in cells.iter().zip(widths).enumerate() {
        let cell = cell.as_ref();
        text += &match place {
            0 => format!("{cell:<width$}"),
            _ => format!(" {cell:>width$}"),
        };
    }
    text.truncate(text.trim_end().len());
    text
}
