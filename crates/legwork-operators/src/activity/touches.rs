//! Contacts of reps with deals, leads and accounts.

use std::sync::Arc;

use arrow::array::ArrayRef;
use legwork_types::{Table, TableSnapshot};

use crate::state::{Interner, NONE, Rows, Texts, View, id_texts, labels, names, snapshot, times};

/// Which way a contact went, as seen by the rep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Inbound,
    Outbound,
    /// Meetings and check-ins have none.
    Mutual,
}

impl Direction {
    /// `inbound` or `outbound`; codecs refuse other words.
    pub(crate) fn parse(text: &str) -> Direction {
        if text == "inbound" { Direction::Inbound } else { Direction::Outbound }
    }

    fn label(self) -> Option<&'static str> {
        match self {
            Direction::Inbound => Some("inbound"),
            Direction::Outbound => Some("outbound"),
            Direction::Mutual => None,
        }
    }
}

/// One contact. `id` is an entity's id, or a fact's event id with its `source`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TouchRow {
    pub(crate) time_us: i64,
    pub(crate) rep: u32,
    pub(crate) id: u32,
    pub(crate) source: u32,
    pub(crate) deal: u32,
    pub(crate) lead: u32,
    pub(crate) account: u32,
    pub(crate) direction: Direction,
    /// What the operator wants to remember of it.
    pub(crate) status: u8,
}

/// What a fact or entity concerns, interned.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Concerns {
    pub(crate) deal: u32,
    pub(crate) lead: u32,
    pub(crate) account: u32,
}

impl Concerns {
    pub(crate) fn intern(
        refs: &mut Interner,
        deal: Option<&str>,
        lead: Option<&str>,
        account: Option<&str>,
    ) -> Concerns {
        Concerns { deal: refs.intern_opt(deal), lead: refs.intern_opt(lead), account: refs.intern_opt(account) }
    }
}

/// A snapshot of contacts over one channel. `refs` holds sources, deals, leads and accounts.
pub(crate) fn touches(
    rows: &Rows<TouchRow>,
    channel: &'static str,
    reps: &Interner,
    refs: &Interner,
    ids: &Texts,
) -> Arc<dyn TableSnapshot> {
    let view = TouchView { channel, reps: reps.texts().clone(), refs: refs.texts().clone(), ids: ids.clone() };
    snapshot(Table::Touches.schema(), rows, view)
}

#[derive(Debug)]
struct TouchView {
    channel: &'static str,
    reps: Texts,
    refs: Texts,
    ids: Texts,
}

impl TouchView {
    fn id(&self, row: &TouchRow) -> String {
        match row.source {
            NONE => self.ids.get(row.id).to_owned(),
            source => format!("{}/{}", self.refs.get(source), self.ids.get(row.id)),
        }
    }
}

impl View for TouchView {
    type Row = TouchRow;

    fn column(&self, column: usize, rows: &[&TouchRow]) -> ArrayRef {
        match column {
            0 => names(&self.reps, rows.iter().map(|row| row.rep)),
            1 => times(rows.iter().map(|row| row.time_us)),
            2 => labels(rows.iter().map(|_| Some(self.channel))),
            3 => labels(rows.iter().map(|row| row.direction.label())),
            4 => names(&self.refs, rows.iter().map(|row| row.deal)),
            5 => names(&self.refs, rows.iter().map(|row| row.lead)),
            6 => names(&self.refs, rows.iter().map(|row| row.account)),
            _ => id_texts(rows.iter().map(|row| self.id(row))),
        }
    }
}
