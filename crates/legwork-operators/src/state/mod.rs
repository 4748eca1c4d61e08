//! Building blocks of operators' state: interned strings, rows in shared blocks, memory of duplicates, entities, patches.
//!
//! What a snapshot needs lies in blocks behind `Arc`: taking one clones a list of pointers, and the writer copies a block only when
//! it touches it while a reader still holds it.

mod columns;
mod entities;
mod index;
mod keys;
mod patches;
mod seen;
mod table;
mod texts;

pub(crate) use columns::{Common, Outcome, Tally, opt_text};
pub(crate) use entities::{Candidate, ClockOf, Entities, Place};
pub(crate) use index::{Index, hash_of};
pub(crate) use keys::{FactLog, Keys};
pub(crate) use patches::{Field, FieldType, Fold, PatchView, Patches, Value, money_units};
pub use seen::DedupConfig;
pub(crate) use seen::Seen;
pub(crate) use table::{
    NO_TIME, Rows, View, counts, dates, flags, id_texts, labels, measures, moneys, names, opt_measures, snapshot, times,
};
pub(crate) use texts::{Interner, NONE, Texts};
