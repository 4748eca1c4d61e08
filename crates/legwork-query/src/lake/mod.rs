//! Live and lake as one: a query reads the lake at one version and what the lanes hold beyond it, every row once.
//!
//! What lives here: how versions of rows from both are resolved, and which days need that. What does not: how the lake is read
//! ([`History`] is given) and what the lanes keep.

mod days;
mod fresh;
mod history;
mod implied;
mod local_days;
mod newest;
mod repeated;
mod resolve;
mod scan;
mod table;

pub(crate) use fresh::Fresh;
pub use history::{History, HistoryError, LakeDay, PinnedTable};
pub(crate) use local_days::LocalDays;
pub(crate) use table::{Contents, LakeTable};
