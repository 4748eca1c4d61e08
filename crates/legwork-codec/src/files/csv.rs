//! CSV with a header (RFC 4180). Cells of the columns that are needed go straight from the line into their builders.

use std::sync::Arc;

use legwork_types::{Reject, RejectReason};

use super::bind::bind;
use super::builder::{Cell, Fault, RowBuilder};
use super::input::Bytes;
use super::lines::{Line, Lines};
use super::places::Places;
use super::{FileBatch, FileError, RowSource, Target};

const SEPARATOR: u8 = b',';
/// Text in one batch, after which it ends however few its rows are.
pub(crate) const BATCH_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Bytes of a bad row that are kept.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 64 * 1024;

pub(crate) struct CsvRows {
    target: Arc<Target>,
    lines: Lines,
    n_columns: usize,
    /// (column of the file, column of the builder), by column of the file.
    wanted: Vec<(usize, usize)>,
    rows: RowBuilder,
    places: Places,
    scratch: Vec<u8>,
    /// An error that came after good rows.
    pending: Option<FileError>,
}

impl CsvRows {
    pub(crate) fn open(input: Bytes, target: Arc<Target>, map: &[(String, String)]) -> Result<CsvRows, FileError> {
        let mut lines = Lines::new(input, Some(SEPARATOR));
        let columns = header(&mut lines, &target)?;
        let bound = bind(&target, map, &columns)?;
        let field_idxs = bound.iter().enumerate().filter(|(_, column)| column.is_some()).map(|(field, _)| field);
        let rows = RowBuilder::new(target.kind.schema(), field_idxs);
        let mut wanted: Vec<(usize, usize)> =
            bound.iter().flatten().enumerate().map(|(built, &column)| (column, built)).collect();
        wanted.sort_unstable();
        let places = Places::new(&target.path, "line");
        let (n_columns, scratch) = (columns.len(), Vec::new());
        Ok(CsvRows { target, lines, n_columns, wanted, rows, places, scratch, pending: None })
    }

    /// Reads one line into the builders.
    fn row(&mut self, mut line: Line, rejects: &mut Vec<Reject>) -> usize {
        let mut fault = self.cells(&line);
        if fault.is_some() && self.lines.is_multiple(&line) {
            // A quote that was never closed has swallowed lines: only the first of them is bad.
            line = self.lines.keep_first(&line);
        }
        if line.is_cut {
            fault = Some(Fault::new(RejectReason::Oversized, "the row is longer than 8 MiB"));
        }
        let row = self.rows.row();
        self.places.note(row, line.number);
        let bytes = self.lines.bytes(&line);
        if let Err(fault) = self.rows.end_row(fault) {
            let payload = bytes[..bytes.len().min(PAYLOAD_BYTES_MAX)].to_vec();
            rejects.push(self.target.reject(row, fault, payload));
        }
        bytes.len()
    }

    /// Pushes the cells of a line. *Returns* what is wrong with the line as a whole.
    #[inline]
    fn cells(&mut self, line: &Line) -> Option<Fault> {
        let text = self.lines.bytes(line);
        let mut wanted = self.wanted.iter().peekable();
        let mut n_cells = 0;
        let rows = &mut self.rows;
        let mut cell = |text: &[u8]| {
            while let Some((_, built)) = wanted.next_if(|(column, _)| *column == n_cells) {
                rows.push(*built, if text.is_empty() { Cell::Null } else { Cell::Text(text) });
            }
            n_cells += 1;
        };
        if line.is_quoted {
            if !quoted_cells(text, &mut self.scratch, cell) {
                return Some(Fault::new(RejectReason::Malformed, "a quoted cell does not end where a cell ends"));
            }
        } else {
            let mut start = 0;
            for end in memchr::memchr_iter(SEPARATOR, text) {
                cell(&text[start..end]);
                start = end + 1;
            }
            cell(&text[start..]);
        }
        (n_cells != self.n_columns)
            .then(|| Fault::new(RejectReason::Malformed, format!("expected {} cells, found {n_cells}", self.n_columns)))
    }
}

impl RowSource for CsvRows {
    fn next_batch(&mut self) -> Option<Result<FileBatch, FileError>> {
        if let Some(error) = self.pending.take() {
            return Some(Err(error));
        }
        let mut rejects = Vec::new();
        let mut n_bytes = 0;
        while self.rows.n_rows() < self.target.batch_rows && n_bytes < BATCH_BYTES_MAX {
            match self.lines.next() {
                Ok(Some(line)) if self.lines.bytes(&line).is_empty() => {}
                Ok(Some(line)) => n_bytes += self.row(line, &mut rejects),
                Ok(None) => break,
                Err(source) => {
                    self.pending = Some(read_error(&self.target, "CSV", source));
                    break;
                }
            }
        }
        if self.rows.n_rows() == 0 {
            return self.pending.take().map(Err);
        }
        let (columns, offsets) = self.rows.finish();
        Some(Ok(self.target.batch(columns, offsets, rejects, self.places.take())))
    }
}

/// An error while reading bytes: a damaged gzip stream is the file's fault, the rest the system's.
pub(crate) fn read_error(target: &Target, format: &'static str, source: std::io::Error) -> FileError {
    use std::io::ErrorKind;
    let path = target.path.clone();
    match source.kind() {
        ErrorKind::UnexpectedEof | ErrorKind::InvalidInput | ErrorKind::InvalidData => {
            FileError::Corrupt { path, format, detail: source.to_string() }
        }
        _ => FileError::Io { path, source },
    }
}

/// Names of the columns.
fn header(lines: &mut Lines, target: &Target) -> Result<Vec<String>, FileError> {
    let corrupt =
        |detail: &str| FileError::Corrupt { path: target.path.clone(), format: "CSV", detail: detail.to_owned() };
    let io = |source| read_error(target, "CSV", source);
    // Spreadsheets write a byte order mark.
    if lines.peek(3).map_err(io)?.starts_with(b"\xef\xbb\xbf") {
        lines.skip(3);
    }
    let line = lines.next().map_err(io)?.ok_or_else(|| corrupt("it is empty; a header is expected"))?;
    let mut columns = Vec::new();
    let mut scratch = Vec::new();
    let is_well = quoted_cells(lines.bytes(&line), &mut scratch, |cell| {
        columns.push(String::from_utf8_lossy(cell).trim().to_owned());
    });
    if is_well { Ok(columns) } else { Err(corrupt("a quote in the header is not closed")) }
}

/// Hands out the cells of a line with quotes; `scratch` holds unquoted text. False when a quoted cell does not end where a cell ends.
fn quoted_cells(text: &[u8], scratch: &mut Vec<u8>, mut cell: impl FnMut(&[u8])) -> bool {
    let mut rest = text;
    loop {
        let after = if let Some(mut quoted) = rest.strip_prefix(b"\"") {
            scratch.clear();
            loop {
                let Some(quote) = memchr::memchr(b'"', quoted) else { return false };
                scratch.extend_from_slice(&quoted[..quote]);
                quoted = &quoted[quote + 1..];
                match quoted.strip_prefix(b"\"") {
                    Some(more) => {
                        scratch.push(b'"');
                        quoted = more;
                    }
                    None => break,
                }
            }
            cell(scratch);
            quoted
        } else {
            let end = memchr::memchr(SEPARATOR, rest).unwrap_or(rest.len());
            cell(&rest[..end]);
            &rest[end..]
        };
        match after {
            [] => return true,
            [SEPARATOR, more @ ..] => rest = more,
            _ => return false,
        }
    }
}
