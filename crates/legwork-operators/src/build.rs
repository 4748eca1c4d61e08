//! Which operator a kind has.

use legwork_types::Kind;
use legwork_types::time::TimeConfig;

use crate::activity::{Calls, Correspondence, Meetings, Tasks};
use crate::deals::Deals;
use crate::records::{Facts, Leads, Orders, Reference};
use crate::track::{Track, TrackConfig};
use crate::{DedupConfig, Operator};

/// What operators are built with.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct OperatorConfig {
    /// Windows, lateness.
    pub time: TimeConfig,
    /// Duplicates.
    pub dedup: DedupConfig,
    /// The filter of tracks.
    pub track: TrackConfig,
    /// Checkpoints are made: what was handed over and cannot change any more leaves memory, and the snapshots.
    pub has_store: bool,
}

/// A new operator for a lane of that kind.
pub fn operator_for(kind: Kind, config: &OperatorConfig) -> Box<dyn Operator> {
    let OperatorConfig { time, dedup, track, has_store } = config;
    match kind {
        Kind::Gps => Box::new(Track::new(*time, *track)),
        Kind::Calls => Box::new(Calls::new(time, dedup)),
        Kind::Emails => Box::new(Correspondence::emails(time, dedup, *has_store)),
        Kind::Messages => Box::new(Correspondence::messages(time, dedup, *has_store)),
        Kind::Meetings => Box::new(Meetings::new(time, dedup)),
        Kind::Tasks => Box::new(Tasks::new(time, dedup)),
        Kind::CheckIns | Kind::Shifts | Kind::Costs => Box::new(Facts::new(kind, dedup, *has_store)),
        Kind::Leads => Box::new(Leads::default()),
        Kind::DealEvents => Box::new(Deals::default()),
        Kind::Orders => Box::new(Orders::new(dedup)),
        _ => Box::new(Reference::new(kind)),
    }
}
