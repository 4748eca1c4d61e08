//! What all events have in common, downcast once a batch; and the account of what became of them.

use std::borrow::Cow;

use arrow::array::{Array, Int64Array, StringArray};
use legwork_types::{EventBatch, Verdict, Verdicts, gps};

/// The four common columns of a batch.
#[derive(Debug)]
pub(crate) struct Common<'a> {
    events: &'a EventBatch,
    event_ids: &'a StringArray,
    sources: &'a StringArray,
    times_us: &'a [i64],
    sequences: &'a Int64Array,
}

impl<'a> Common<'a> {
    pub(crate) fn of(events: &'a EventBatch) -> Common<'a> {
        Common {
            events,
            event_ids: events.strings(gps::EVENT_ID),
            sources: events.strings(gps::SOURCE),
            times_us: events.event_time_us(),
            sequences: events.i64s(gps::SEQUENCE),
        }
    }

    /// Event id, or what stands in for it.
    #[inline]
    pub(crate) fn event_id(&self, row: usize) -> Cow<'a, str> {
        match self.event_ids.value(row) {
            "" => Cow::Owned(self.events.event_id(row).into_owned()),
            id => Cow::Borrowed(id),
        }
    }

    /// Source, or what stands in for it.
    #[inline]
    pub(crate) fn source(&self, row: usize) -> &'a str {
        match self.sources.value(row) {
            "" => &self.events.topic,
            source => source,
        }
    }

    /// Event time, microseconds.
    #[inline]
    pub(crate) fn time_us(&self, row: usize) -> i64 {
        self.times_us[row]
    }

    /// Sequence; none is the smallest and shares `i64::MIN` with that number itself.
    #[inline]
    pub(crate) fn sequence(&self, row: usize) -> i64 {
        if self.sequences.is_null(row) { i64::MIN } else { self.sequences.value(row) }
    }
}

/// A string that may be null.
#[inline]
pub(crate) fn opt_text(column: &StringArray, row: usize) -> Option<&str> {
    column.is_valid(row).then(|| column.value(row))
}

/// What became of one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Accepted.
    Accepted {
        /// It is older than the newest event of its key.
        is_reordered: bool,
    },
    /// The same event again.
    Duplicate,
    /// Beyond the late horizon.
    Late,
}

/// Gathers a batch's verdicts.
#[derive(Debug, Default)]
pub(crate) struct Tally(Verdicts);

impl Tally {
    #[inline]
    pub(crate) fn count(&mut self, row: usize, outcome: Outcome) {
        let verdict = match outcome {
            Outcome::Accepted { is_reordered } => {
                self.0.n_reordered += u64::from(is_reordered);
                return;
            }
            Outcome::Duplicate => Verdict::Duplicate,
            Outcome::Late => Verdict::Late,
        };
        self.0.refused.push((u32::try_from(row).expect("a batch holds fewer than 2^32 rows"), verdict));
    }

    pub(crate) fn verdicts(self) -> Verdicts {
        self.0
    }
}
