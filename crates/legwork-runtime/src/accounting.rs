//! What became of every message of a lane.

use legwork_types::LaneStatus;

/// Counts of what became of the messages read.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Accounting {
    pub(crate) n_read: i64,
    pub(crate) n_accepted: i64,
    pub(crate) n_late: i64,
    pub(crate) n_rejected: i64,
    pub(crate) n_duplicates: i64,
    pub(crate) n_tombstones: i64,
    pub(crate) n_reordered: i64,
    pub(crate) n_misrouted: i64,
}

impl Accounting {
    /// In the order of a checkpoint's head.
    pub(crate) fn to_counts(self) -> Vec<i64> {
        let Accounting { n_read, n_accepted, n_late, n_rejected, n_duplicates, n_tombstones, n_reordered, n_misrouted } =
            self;
        vec![n_read, n_accepted, n_late, n_rejected, n_duplicates, n_tombstones, n_reordered, n_misrouted]
    }

    pub(crate) fn from_counts(counts: &[i64]) -> Accounting {
        let count = |idx: usize| counts.get(idx).copied().unwrap_or(0);
        Accounting {
            n_read: count(0),
            n_accepted: count(1),
            n_late: count(2),
            n_rejected: count(3),
            n_duplicates: count(4),
            n_tombstones: count(5),
            n_reordered: count(6),
            n_misrouted: count(7),
        }
    }

    /// `status` with these counts.
    pub(crate) fn of(self, status: LaneStatus) -> LaneStatus {
        let Accounting { n_read, n_accepted, n_late, n_rejected, n_duplicates, n_tombstones, n_reordered, n_misrouted } =
            self;
        LaneStatus {
            n_read,
            n_accepted,
            n_late,
            n_rejected,
            n_duplicates,
            n_tombstones,
            n_reordered,
            n_misrouted,
            ..status
        }
    }
}
