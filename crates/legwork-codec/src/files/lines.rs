//! Lines of a byte stream from one growing buffer, with a bound on their length.

use std::io;
use std::ops::Range;

use super::input::Bytes;

/// Bytes of the buffer at the start, and read at once.
const BUFFER_BYTES: usize = 256 * 1024;
/// A longer line is cut and rejected: room for a detailed outline of a territory.
pub(crate) const LINE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// A quoted cell that does not end within so many bytes was never closed.
const QUOTED_BYTES_MAX: usize = 256 * 1024;

/// A line, without its end.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    range: Range<usize>,
    /// Its number in the file, from 1; the first one's of several physical lines.
    pub(crate) number: i64,
    /// Whether there is a quote in it that opens a cell.
    pub(crate) is_quoted: bool,
    /// Whether it was longer than allowed; its rest has been thrown away.
    pub(crate) is_cut: bool,
}

/// Reads lines.
pub(crate) struct Lines {
    input: Bytes,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    at_end: bool,
    /// Number of the next line.
    next_number: i64,
    /// Separator of cells, when line ends within quotes do not count.
    quoted_after: Option<u8>,
}

impl Lines {
    /// Lines that end at each line end; with a separator, those within quotes do not count (RFC 4180).
    pub(crate) fn new(input: Bytes, quoted_after: Option<u8>) -> Lines {
        Lines { input, buffer: vec![0; BUFFER_BYTES], start: 0, end: 0, at_end: false, next_number: 1, quoted_after }
    }

    /// Bytes of a line, valid until the next one is read.
    #[inline]
    pub(crate) fn bytes(&self, line: &Line) -> &[u8] {
        let bytes = &self.buffer[line.range.clone()];
        bytes.strip_suffix(b"\r").unwrap_or(bytes)
    }

    /// The next line; none at the end.
    #[inline]
    pub(crate) fn next(&mut self) -> io::Result<Option<Line>> {
        let mut quotes = Quotes::default();
        let mut from = self.start;
        loop {
            let found = match self.quoted_after {
                None => memchr::memchr(b'\n', &self.buffer[from..self.end]).map(|at| from + at),
                Some(separator) => quotes.line_end(&self.buffer[..self.end], self.start, &mut from, separator),
            };
            if let Some(at) = found {
                return Ok(Some(self.take(at, at + 1, quotes.seen)));
            }
            let n_held = self.end - self.start;
            let was_never_closed = quotes.open && (self.at_end || n_held > QUOTED_BYTES_MAX);
            if was_never_closed && (self.at_end || memchr::memchr(b'\n', &self.buffer[self.start..self.end]).is_some())
            {
                return Ok(Some(self.first_physical_line()));
            }
            if n_held > LINE_BYTES_MAX {
                return self.cut().map(Some);
            }
            if self.at_end {
                return Ok((n_held > 0).then(|| self.take(self.end, self.end, quotes.seen)));
            }
            from = n_held;
            self.fill()?;
        }
    }

    /// Gives all but the first physical line of a line back, to be read again. *Returns* the first one.
    pub(crate) fn keep_first(&mut self, line: &Line) -> Line {
        self.start = line.range.start;
        self.next_number = line.number;
        self.first_physical_line()
    }

    /// Whether a line has several physical ones.
    pub(crate) fn is_multiple(&self, line: &Line) -> bool {
        line.is_quoted && memchr::memchr(b'\n', &self.buffer[line.range.clone()]).is_some()
    }

    /// What has been read ahead, at least the first `n_bytes` of the rest if there are so many.
    pub(crate) fn peek(&mut self, n_bytes: usize) -> io::Result<&[u8]> {
        while self.end - self.start < n_bytes && !self.at_end {
            self.fill()?;
        }
        Ok(&self.buffer[self.start..self.end])
    }

    /// Whether the whole rest has been read ahead.
    pub(crate) fn holds_all(&self) -> bool {
        self.at_end
    }

    /// Leaves bytes out.
    pub(crate) fn skip(&mut self, n_bytes: usize) {
        self.start = (self.start + n_bytes).min(self.end);
    }

    fn take(&mut self, end: usize, next: usize, is_quoted: bool) -> Line {
        let is_cut = end - self.start > LINE_BYTES_MAX;
        let range = self.start..end.min(self.start + LINE_BYTES_MAX);
        let n_within = if is_quoted { n_line_ends(&self.buffer[self.start..end]) } else { 0 };
        self.start = next;
        Line { range, number: self.count(n_within + 1), is_quoted, is_cut }
    }

    /// Counts the lines of one that is handed out. *Returns* its number.
    fn count(&mut self, n_lines: i64) -> i64 {
        self.next_number += n_lines;
        self.next_number - n_lines
    }

    fn first_physical_line(&mut self) -> Line {
        match memchr::memchr(b'\n', &self.buffer[self.start..self.end]) {
            Some(at) => self.take(self.start + at, self.start + at + 1, true),
            None => self.take(self.end, self.end, true),
        }
    }

    /// Throws the rest of a line away that is too long, and hands its start out.
    fn cut(&mut self) -> io::Result<Line> {
        let range = self.start..self.start + LINE_BYTES_MAX;
        self.end = range.end;
        // The rest goes through the space behind the start, which stays.
        loop {
            if self.buffer.len() < self.end + BUFFER_BYTES {
                self.buffer.resize(self.end + BUFFER_BYTES, 0);
            }
            let n_bytes = read(&mut self.input, &mut self.buffer[range.end..])?;
            let held = range.end + n_bytes;
            if n_bytes == 0 {
                self.at_end = true;
                self.start = held;
                self.end = held;
                break;
            }
            if let Some(at) = memchr::memchr(b'\n', &self.buffer[range.end..held]) {
                self.start = range.end + at + 1;
                self.end = held;
                break;
            }
        }
        let number = self.count(n_line_ends(&self.buffer[range.clone()]) + 1);
        Ok(Line { range, number, is_quoted: false, is_cut: true })
    }

    /// Reads more behind what is held, which moves to the front.
    fn fill(&mut self) -> io::Result<()> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.buffer.len() - self.end < BUFFER_BYTES / 2 {
            let doubled = self.buffer.len() * 2;
            self.buffer.resize(doubled, 0);
        }
        let n_bytes = read(&mut self.input, &mut self.buffer[self.end..])?;
        self.end += n_bytes;
        self.at_end = n_bytes == 0;
        Ok(())
    }
}

fn n_line_ends(bytes: &[u8]) -> i64 {
    memchr::memchr_iter(b'\n', bytes).count() as i64
}

fn read(input: &mut Bytes, into: &mut [u8]) -> io::Result<usize> {
    loop {
        match input.read(into) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// Whether the scan stands within quotes.
#[derive(Default)]
struct Quotes {
    open: bool,
    seen: bool,
    /// Where the last one closed, from the line's start.
    closed_at: usize,
}

impl Quotes {
    /// Scans on to the end of the line that starts at `start`. A quote opens a cell only at the cell's start.
    #[inline]
    fn line_end(&mut self, buffer: &[u8], start: usize, from: &mut usize, separator: u8) -> Option<usize> {
        while let Some(at) = memchr::memchr2(b'\n', b'"', &buffer[*from..]).map(|at| *from + at) {
            *from = at + 1;
            if buffer[at] == b'\n' {
                if !self.open {
                    return Some(at);
                }
            } else if self.open {
                self.open = false;
                self.closed_at = at - start;
            } else if at == start || buffer[at - 1] == separator || (self.seen && at - start == self.closed_at + 1) {
                // The last case is a doubled quote, which stands for one.
                self.open = true;
                self.seen = true;
            }
        }
        *from = buffer.len();
        None
    }
}
