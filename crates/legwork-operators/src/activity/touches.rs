//! Contacts of reps with deals, leads and accounts.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use legwork_types::{StateError, Table, TableSnapshot};

use crate::state::{
    Interner, Loader, NONE, Refs, Rows, Saver, Texts, Versioned, Versions, View, damaged, id_texts, labels, names, opt,
    snapshot, times, version_batch,
};

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

    fn from_wire(wire: u8, section: u8) -> Result<Direction, StateError> {
        let known = [Direction::Inbound, Direction::Outbound, Direction::Mutual];
        known.get(wire as usize).copied().ok_or_else(|| damaged(section, 0, format!("direction {wire}")))
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

/// A touch in the store: time, rep, id, source, deal, lead, account, direction, status.
pub(crate) type TouchWire = (i64, u32, u32, Option<u32>, Option<u32>, Option<u32>, Option<u32>, u8, u8);

/// What touches in the store may refer to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TouchRefs {
    pub(crate) reps: Refs,
    pub(crate) ids: Refs,
    /// Sources, deals, leads, accounts.
    pub(crate) refs: Refs,
}

impl TouchRow {
    pub(crate) fn wire(&self) -> TouchWire {
        let TouchRow { time_us, rep, id, source, deal, lead, account, direction, status } = *self;
        (time_us, rep, id, opt(source), opt(deal), opt(lead), opt(account), direction as u8, status)
    }

    pub(crate) fn from_wire(wire: TouchWire, known: TouchRefs) -> Result<TouchRow, StateError> {
        let (time_us, rep, id, source, deal, lead, account, direction, status) = wire;
        Ok(TouchRow {
            time_us,
            rep: known.reps.known(rep)?,
            id: known.ids.known(id)?,
            source: known.refs.known_opt(source)?,
            deal: known.refs.known_opt(deal)?,
            lead: known.refs.known_opt(lead)?,
            account: known.refs.known_opt(account)?,
            direction: Direction::from_wire(direction, known.refs.section)?,
            status,
        })
    }
}

impl Versioned for TouchRow {
    type Key = (u32, u32);

    fn key(&self) -> (u32, u32) {
        (self.source, self.id)
    }

    fn day_time_us(&self) -> i64 {
        self.time_us
    }

    fn says_same(&self, other: &TouchRow) -> bool {
        // The status is no column.
        *self == TouchRow { status: self.status, ..*other }
    }
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

/// How contacts over one channel become a table.
#[derive(Debug)]
pub(crate) struct TouchView {
    channel: &'static str,
    reps: Texts,
    refs: Texts,
    ids: Texts,
}

impl TouchView {
    /// `refs` holds sources, deals, leads and accounts.
    pub(crate) fn new(channel: &'static str, reps: &Interner, refs: &Interner, ids: &Texts) -> TouchView {
        TouchView { channel, reps: reps.texts().clone(), refs: refs.texts().clone(), ids: ids.clone() }
    }

    pub(crate) fn snapshot(self, rows: &Rows<TouchRow>) -> Arc<dyn TableSnapshot> {
        snapshot(Table::Touches.schema(), rows, self)
    }

    /// Versions of what changed since the last checkpoint.
    pub(crate) fn versions(&self, rows: &Rows<TouchRow>, revision: u32) -> Option<RecordBatch> {
        version_batch(Table::Touches, &Versions::of(rows), self, revision)
    }

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

/// The touches that facts are: written once, never changed.
#[derive(Debug)]
pub(crate) struct TouchLog {
    channel: &'static str,
    /// Sources, deals, leads, accounts.
    pub(crate) refs: Interner,
    pub(crate) ids: Texts,
    pub(crate) rows: Rows<TouchRow>,
    n_saved_ids: usize,
    /// There is a store: nothing depends on touches that were handed over.
    pub(crate) has_store: bool,
}

impl TouchLog {
    /// Without touches.
    pub(crate) fn new(channel: &'static str, has_store: bool) -> TouchLog {
        let (refs, ids, rows) = (Interner::default(), Texts::default(), Rows::default());
        TouchLog { channel, refs, ids, rows, n_saved_ids: 0, has_store }
    }

    pub(crate) fn view(&self, reps: &Interner) -> TouchView {
        TouchView::new(self.channel, reps, &self.refs, &self.ids)
    }

    /// Writes what is new since the last checkpoint, into sections `section` and the two after; it counts as handed over, and with a
    /// store it is let go of instead.
    pub(crate) fn save(&mut self, section: u8, saver: &mut Saver) {
        if self.has_store {
            *self = TouchLog::new(self.channel, true);
            return;
        }
        self.refs.save(section, saver);
        saver.texts(section + 1, &self.ids, &mut self.n_saved_ids);
        let rows = &self.rows;
        saver.blocks(section + 2, &rows.touched_blocks(), rows.n_slots(), |slot| rows.get(slot).wire());
        self.rows.forget_changes();
    }

    /// Takes up what was written.
    pub(crate) fn load(&mut self, section: u8, loader: &mut Loader<'_>, n_reps: usize) -> Result<(), StateError> {
        self.refs = loader.interner(section)?;
        self.ids = loader.texts(section + 1)?;
        self.n_saved_ids = self.ids.len();
        let refs = |n| Refs { section: section + 2, n };
        let known = TouchRefs { reps: refs(n_reps), ids: refs(self.ids.len()), refs: refs(self.refs.len()) };
        let rows = loader.blocks::<TouchWire>(section + 2)?.into_iter();
        let rows: Result<Vec<_>, _> = rows.map(|wire| Ok((TouchRow::from_wire(wire, known)?, true))).collect();
        self.rows = Rows::restored(rows?);
        Ok(())
    }

    /// Bytes allocated.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.refs.memory_bytes() + self.ids.memory_bytes() + self.rows.memory_bytes()
    }
}
