//! Building blocks of operators' state: interned strings, rows in shared blocks, memory of duplicates, entities, patches.
//!
//! What a snapshot needs lies in blocks behind `Arc`: taking one clones a list of pointers, and the writer copies a block only when
//! it touches it while a reader still holds it.
//!
//! Each building block notes what changed since the last checkpoint, writes that, and takes it up again. Before the first checkpoint
//! everything has changed and nothing is noted, so that an operator that is never checkpointed pays for none of it.

mod archive;
mod columns;
mod entities;
mod fingerprint;
mod index;
mod keys;
mod patches;
mod persist;
mod seen;
mod table;
mod texts;
mod versions;

pub(crate) use archive::{Archive, ArchiveConfig, Leave};
pub(crate) use columns::{Common, Outcome, Tally, opt_text};
pub(crate) use entities::{Candidate, ClockOf, Entities, Place};
pub(crate) use fingerprint::Fingerprint;
pub(crate) use index::{Index, hash_of};
pub(crate) use keys::{FactLog, Keys};
pub(crate) use patches::{Field, FieldType, Fold, PatchView, Patches, Value, money_units};
pub(crate) use persist::{Loader, Refs, Saver, damaged, opt};
pub use seen::DedupConfig;
pub(crate) use seen::Seen;
pub(crate) use table::{
    NO_TIME, Rows, View, counts, dates, flags, id_texts, labels, measures, moneys, names, opt_measures, snapshot, times,
};
pub(crate) use texts::{Interner, NONE, Texts};
pub(crate) use versions::{Versioned, Versions, changed_rows, version_batch};
