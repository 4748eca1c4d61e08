//! What became of every message of a lane.

use legwork_state::Head;
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
    /// [`legwork_state::Head::renewals`].
    pub(crate) n_renewals: i64,
}

impl Accounting {
    /// In the order of a checkpoint's head.
    pub(crate) fn to_counts(self) -> Vec<i64> {
        vec![
            self.n_read,
            self.n_accepted,
            self.n_late,
            self.n_rejected,
            self.n_duplicates,
            self.n_tombstones,
            self.n_reordered,
            self.n_misrouted,
            self.n_renewals,
        ]
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
            n_renewals: count(Head::RENEWALS),
        }
    }

    /// `status` with these counts.
    pub(crate) fn of(self, status: LaneStatus) -> LaneStatus {
        LaneStatus {
            n_read: self.n_read,
            n_accepted: self.n_accepted,
            n_late: self.n_late,
            n_rejected: self.n_rejected,
            n_duplicates: self.n_duplicates,
            n_tombstones: self.n_tombstones,
            n_reordered: self.n_reordered,
            n_misrouted: self.n_misrouted,
            ..status
        }
    }
}
