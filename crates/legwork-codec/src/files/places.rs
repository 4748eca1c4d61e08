//! Where rows stand in their file, as a person looks them up: lines as an editor counts them, rows or points from 1.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// Places of the rows of a batch.
#[derive(Clone, Debug)]
pub struct Places {
    path: Arc<Path>,
    unit: &'static str,
    /// (first row, how far its place lies above its number), ascending. Empty lines and cells of several lines widen the distance; few
    /// files have any.
    shifts: Vec<(i64, i64)>,
}

impl Places {
    /// Of a file whose rows are counted from 1.
    pub(crate) fn new(path: &Path, unit: &'static str) -> Places {
        Places { path: Arc::from(path), unit, shifts: vec![(0, 1)] }
    }

    /// Notes the place of the next row.
    #[inline]
    pub(crate) fn note(&mut self, row: i64, place: i64) {
        if self.shifts.last().is_none_or(|(_, shift)| *shift != place - row) {
            self.shifts.push((row, place - row));
        }
    }

    /// *Returns* the places of a batch that has come to its end; what is noted from here on is of the next one.
    pub(crate) fn take(&mut self) -> Places {
        let last = self.shifts.last().copied();
        let taken = self.clone();
        self.shifts = last.into_iter().collect();
        taken
    }

    /// The place of the row with this number from 0, as `pings.csv line 4`.
    pub fn of(&self, row: i64) -> Place<'_> {
        let n_before = self.shifts.partition_point(|(first_row, _)| *first_row <= row);
        let shift = n_before.checked_sub(1).map_or(1, |last| self.shifts[last].1);
        Place { path: &self.path, unit: self.unit, number: row + shift }
    }
}

/// File, unit and number of a row.
#[derive(Clone, Copy, Debug)]
pub struct Place<'p> {
    path: &'p Path,
    unit: &'static str,
    number: i64,
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.path.display(), self.unit, self.number)
    }
}
