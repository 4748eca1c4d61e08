//! The lake: Delta tables with every fact and every raw event, each row of a lane exactly once.
//!
//! A commit puts the rows of all lanes of an instance into one version of a table, with one transaction a lane: the newest checkpoint
//! whose rows it holds. What a lane hands over again is recognised by it. What lives here: commits, reading at a pinned version,
//! compaction, retention and vacuum. What does not: when any of it is done, and how live rows and lake rows become one answer.

#![warn(missing_docs)]

mod azure;
mod commit;
mod encode;
mod error;
mod files;
mod footer;
mod lake;
mod layout;
mod local;
mod log;
mod maintain;
mod newest;
mod pin;
mod store;
mod table;
#[cfg(test)]
mod testing;
mod transactions;

pub use commit::{Committed, LaneCommit, LaneOutcome};
pub use error::{ErrorKind, LakeError};
pub use lake::{Lake, LakeConfig};
pub use maintain::{Lease, Maintained, Maintenance, Upkeep};
pub use pin::{DayFiles, Pinned};
pub use store::knows_option;
pub use table::{DAY, IS_DELETED, LANE, LakeTable, REVISION, Shape};

#[cfg(test)]
mod tests;
