//! Which operator a kind has.

use legwork_types::Kind;
use legwork_types::time::TimeConfig;

use crate::activity::{Calls, Correspondence, Meetings, Tasks};
use crate::deals::Deals;
use crate::records::{Facts, Leads, Orders, Reference};
use crate::track::{Track, TrackConfig};
use crate::{DedupConfig, Operator};

/// What operators are built with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OperatorConfig {
    /// Windows, lateness.
    pub time: TimeConfig,
    /// Duplicates.
    pub dedup: DedupConfig,
    /// The filter of tracks.
    pub track: TrackConfig,
    /// Checkpoints are made: what was handed over and cannot change any more leaves memory, and the snapshots.
    pub has_store: bool,
    /// So many calls, meetings, tasks, deals, leads or orders, and windows of theirs, stay in memory in any case.
    pub n_entities_min: usize,
}

impl Default for OperatorConfig {
    fn default() -> OperatorConfig {
        OperatorConfig {
            time: TimeConfig::default(),
            dedup: DedupConfig::default(),
            track: TrackConfig::default(),
            has_store: false,
            n_entities_min: 4096,
        }
    }
}

/// A new operator for a lane of that kind.
pub fn operator_for(kind: Kind, config: &OperatorConfig) -> Box<dyn Operator> {
    let OperatorConfig { time, dedup, track, has_store, n_entities_min } = config;
    let n_kept_min = has_store.then_some(*n_entities_min);
    match kind {
        Kind::Gps => Box::new(Track::new(*time, *track)),
        Kind::Calls => Box::new(Calls::new(time, dedup, n_kept_min)),
        Kind::Emails => Box::new(Correspondence::emails(time, dedup, *has_store)),
        Kind::Messages => Box::new(Correspondence::messages(time, dedup, *has_store)),
        Kind::Meetings => Box::new(Meetings::new(time, dedup, n_kept_min)),
        Kind::Tasks => Box::new(Tasks::new(time, dedup, n_kept_min)),
        Kind::CheckIns | Kind::Shifts | Kind::Costs => Box::new(Facts::new(kind, dedup, *has_store)),
        Kind::Leads => Box::new(Leads::new(time, n_kept_min)),
        Kind::DealEvents => Box::new(Deals::new(time, n_kept_min)),
        Kind::Orders => Box::new(Orders::new(time, dedup, n_kept_min)),
        _ => Box::new(Reference::new(kind)),
    }
}
