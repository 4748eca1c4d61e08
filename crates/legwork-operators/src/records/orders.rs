//! Orders: entities.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Decimal128Array, Float64Array, RecordBatch, StringArray};
use arrow::datatypes::Decimal128Type;
use legwork_types::time::{LaneClock, TimeConfig};
use legwork_types::{Changes, EventBatch, StateEntry, StateError, Table, TableSnapshot, Verdicts, orders};

use crate::state::{
    ArchiveConfig, Candidate, ClockOf, Common, DedupConfig, Entities, Fingerprint, Interner, Loader, Outcome, Place,
    Refs, Rows, Saver, Tally, Texts, Versioned, Versions, View, changed_rows, counts, damaged, measures, money_units,
    moneys, names, opt, opt_text, snapshot, times, version_batch,
};
use crate::{Need, Operator};

/// Sections of the state; orders take five.
const TEXTS: u8 = b'a';
const ORDERS: u8 = b'b';
const AWAY: u8 = b'g';

/// An order in the store: event time, quantity, amount, deal, account, rep; product, currency, kind, source, revision.
type OrderWire = (i64, f64, i64, [Option<u32>; 3], [u32; 5]);

/// Order lines in their newest version. Key and clock: order_id. No event is ever late. With a store, orders that are older than the late
/// horizon are only there until a version comes.
#[derive(Debug)]
pub struct Orders {
    entities: Entities<OrderWire>,
    texts: Interner,
    /// By the number of the order.
    rows: Rows<OrderRow>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct OrderRow {
    event_time_us: i64,
    quantity: f64,
    amount: i64,
    order: u32,
    deal: u32,
    account: u32,
    rep: u32,
    product: u32,
    currency: u32,
    kind: u32,
    source: u32,
    revision: u32,
}

impl OrderRow {
    fn wire(&self) -> OrderWire {
        let refs = [opt(self.deal), opt(self.account), opt(self.rep)];
        let texts = [self.product, self.currency, self.kind, self.source, self.revision];
        (self.event_time_us, self.quantity, self.amount, refs, texts)
    }

    fn from_wire(order: u32, wire: OrderWire, texts: Refs) -> Result<OrderRow, StateError> {
        let (event_time_us, quantity, amount, [deal, account, rep], [product, currency, kind, source, revision]) = wire;
        Ok(OrderRow {
            event_time_us,
            quantity,
            amount,
            order,
            deal: texts.known_opt(deal)?,
            account: texts.known_opt(account)?,
            rep: texts.known_opt(rep)?,
            product: texts.known(product)?,
            currency: texts.known(currency)?,
            kind: texts.known(kind)?,
            source: texts.known(source)?,
            revision,
        })
    }
}

impl Versioned for OrderRow {
    type Key = u32;

    fn key(&self) -> u32 {
        self.order
    }

    fn day_time_us(&self) -> i64 {
        self.event_time_us
    }

    fn says_same(&self, other: &OrderRow) -> bool {
        *self == OrderRow { revision: self.revision, ..*other } && self.quantity.to_bits() == other.quantity.to_bits()
    }

    fn keep_revision(&mut self, before: &OrderRow) {
        self.revision = before.revision;
    }
}

impl Orders {
    /// Without orders. With a store, `n_kept_min` of them stay in memory in any case.
    pub fn new(time: &TimeConfig, dedup: &DedupConfig, n_kept_min: Option<usize>) -> Orders {
        let after_us = time.late_horizon_us;
        let archive = n_kept_min.map(|n_kept_min| ArchiveConfig { section: AWAY, n_kept_min, after_us });
        Orders { entities: Entities::new(dedup, None, archive), texts: Interner::default(), rows: Rows::default() }
    }

    /// Takes an order that was read back for this batch into memory again.
    fn bring_back(&mut self, id: &str) {
        let Some(wire) = self.entities.bring_back(id, ClockOf::Itself) else { return };
        let number = u32::try_from(self.entities.ids().len() - 1).expect("entities are numbered in 32 bits");
        let order = OrderRow::from_wire(number, wire, self.known()).expect("it was checked when it was read");
        let slot = self.rows.bring_back(order);
        debug_assert_eq!(slot, number, "orders are numbered like their rows");
    }

    /// What orders may refer to.
    fn known(&self) -> Refs {
        Refs { section: ORDERS, n: self.texts.len() }
    }

    /// Lets go of what is done.
    fn leave(&mut self, clock: &LaneClock, cold: &mut Vec<StateEntry>) {
        let wire = |order: u32| self.rows.get(order).wire();
        let Some(kept) = self.entities.leave(clock, ClockOf::Itself, cold, wire) else { return };
        let orders = (0..).zip(&kept).map(|(order, old)| (OrderRow { order, ..*self.rows.get(*old) }, true));
        self.rows = Rows::restored(orders.collect::<Vec<_>>());
    }

    fn view(&self) -> OrderView {
        OrderView { ids: self.entities.ids().texts().clone(), texts: self.texts.texts().clone() }
    }

    fn take(&mut self, columns: &Columns<'_>, row: usize, revision: u32) -> Outcome {
        let common = &columns.common;
        let event_id = common.event_id(row);
        let candidate = Candidate {
            id: columns.order.value(row),
            event_time_us: common.time_us(row),
            sequence: common.sequence(row),
            event_id: &event_id,
            source: common.source(row),
            content: columns.content(row),
        };
        self.bring_back(candidate.id);
        let offered = self.entities.offer(&candidate, ClockOf::Itself);
        let order = match offered.place {
            Place::Nowhere => return offered.outcome,
            Place::First => u32::try_from(self.entities.ids().len() - 1).expect("entities are numbered in 32 bits"),
            Place::Newest(order) => order,
        };
        let texts = &mut self.texts;
        let new = OrderRow {
            event_time_us: candidate.event_time_us,
            quantity: columns.quantity.value(row),
            amount: money_units(columns.amount.value(row)),
            order,
            deal: texts.intern_opt(opt_text(columns.deal, row)),
            account: texts.intern_opt(opt_text(columns.account, row)),
            rep: texts.intern_opt(opt_text(columns.rep, row)),
            product: texts.intern(columns.product.value(row)),
            currency: texts.intern(columns.currency.value(row)),
            kind: texts.intern(columns.kind.value(row)),
            source: texts.intern(candidate.source),
            revision,
        };
        if offered.place == Place::First {
            self.rows.insert(new);
        } else {
            *self.rows.get_mut(order) = new;
        }
        offered.outcome
    }
}

struct Columns<'a> {
    common: Common<'a>,
    order: &'a StringArray,
    deal: &'a StringArray,
    account: &'a StringArray,
    rep: &'a StringArray,
    product: &'a StringArray,
    quantity: &'a Float64Array,
    amount: &'a Decimal128Array,
    currency: &'a StringArray,
    kind: &'a StringArray,
}

impl<'a> Columns<'a> {
    fn of(events: &'a EventBatch) -> Columns<'a> {
        Columns {
            common: Common::of(events),
            order: events.strings(orders::ORDER_ID),
            deal: events.strings(orders::DEAL_ID),
            account: events.strings(orders::ACCOUNT_ID),
            rep: events.strings(orders::REP_ID),
            product: events.strings(orders::PRODUCT_ID),
            quantity: events.f64s(orders::QUANTITY),
            amount: events.columns.column(orders::AMOUNT).as_primitive::<Decimal128Type>(),
            currency: events.strings(orders::CURRENCY),
            kind: events.strings(orders::KIND),
        }
    }

    fn content(&self, row: usize) -> u64 {
        Fingerprint::default()
            .opt_text(opt_text(self.deal, row))
            .opt_text(opt_text(self.account, row))
            .opt_text(opt_text(self.rep, row))
            .text(self.product.value(row))
            .int(self.quantity.value(row).to_bits().cast_signed())
            .bytes(&self.amount.value(row).to_le_bytes())
            .text(self.currency.value(row))
            .text(self.kind.value(row))
            .u64()
    }
}

impl Operator for Orders {
    fn apply(&mut self, events: &EventBatch, clock: &LaneClock) -> Verdicts {
        let columns = Columns::of(events);
        let mut tally = Tally::default();
        for row in 0..events.n_rows() {
            tally.count(row, self.take(&columns, row, clock.revision));
        }
        self.entities.forget_brought();
        tally.verdicts()
    }

    fn wanted(&mut self, need: Need<'_>, _clock: &LaneClock) -> Vec<Vec<u8>> {
        let (Need::Batch(events), false) = (need, self.entities.are_all_here()) else { return Vec::new() };
        let ids = events.strings(orders::ORDER_ID);
        let keys: BTreeSet<Vec<u8>> = ids.iter().flatten().filter_map(|id| self.entities.wanted(id)).collect();
        keys.into_iter().collect()
    }

    fn supply(&mut self, cold: Vec<StateEntry>) -> Result<(), StateError> {
        let known = self.known();
        for entry in cold {
            let check = |order: &OrderWire| OrderRow::from_wire(0, *order, known).map(|_| ());
            if !self.entities.supply(&entry, check)? {
                return Err(damaged(AWAY, 0, "an entry that was not asked for"));
            }
        }
        Ok(())
    }

    fn committed(&mut self, revision: u32) {
        self.entities.committed(revision);
    }

    fn tables(&self) -> Vec<&'static str> {
        vec![Table::Orders.name()]
    }

    fn snapshot(&mut self, table: &str, _clock: &LaneClock) -> Option<Arc<dyn TableSnapshot>> {
        (table == Table::Orders.name()).then(|| snapshot(Table::Orders.schema(), &self.rows, self.view()))
    }

    fn checkpoint(&mut self, clock: &LaneClock) -> Changes {
        let versions = Versions::of(&self.rows);
        let rows =
            changed_rows(&[Table::Orders], |table| version_batch(table, &versions, &self.view(), clock.revision));
        versions.settle(&mut self.rows);
        let (mut saver, mut cold) = (Saver::default(), Vec::new());
        if !rows.is_empty() {
            self.leave(clock, &mut cold);
        }
        self.texts.save(TEXTS, &mut saver);
        self.entities.save(ORDERS, &mut saver, |order| self.rows.get(order).wire());
        Changes { hot: saver.entries(), cold, rows, ..Changes::default() }
    }

    fn fresh(&mut self, table: Table, clock: &LaneClock) -> Option<RecordBatch> {
        let versions = || version_batch(table, &Versions::of(&self.rows), &self.view(), clock.revision);
        (table == Table::Orders).then(versions).flatten()
    }

    fn restore(&mut self, hot: &mut dyn Iterator<Item = (Vec<u8>, Vec<u8>)>) -> Result<(), StateError> {
        let mut loader = Loader::new(hot);
        self.texts = loader.interner(TEXTS)?;
        let texts = self.known();
        for (order, wire) in (0..).zip(self.entities.load(ORDERS, &mut loader, None)?) {
            self.rows.insert(OrderRow::from_wire(order, wire, texts)?);
        }
        self.rows.forget_changes();
        self.entities.load_away(&mut loader)?;
        loader.finish()
    }

    fn memory_bytes(&self) -> usize {
        self.entities.memory_bytes() + self.texts.memory_bytes() + self.rows.memory_bytes()
    }
}

#[derive(Debug)]
struct OrderView {
    ids: Texts,
    texts: Texts,
}

impl View for OrderView {
    type Row = OrderRow;

    fn column(&self, column: usize, rows: &[&OrderRow]) -> ArrayRef {
        match column {
            0 => names(&self.ids, rows.iter().map(|row| row.order)),
            1 => names(&self.texts, rows.iter().map(|row| row.deal)),
            2 => names(&self.texts, rows.iter().map(|row| row.account)),
            3 => names(&self.texts, rows.iter().map(|row| row.rep)),
            4 => names(&self.texts, rows.iter().map(|row| row.product)),
            5 => measures(rows.iter().map(|row| row.quantity)),
            6 => moneys(rows.iter().map(|row| Some(row.amount))),
            7 => names(&self.texts, rows.iter().map(|row| row.currency)),
            8 => names(&self.texts, rows.iter().map(|row| row.kind)),
            9 => times(rows.iter().map(|row| row.event_time_us)),
            10 => names(&self.texts, rows.iter().map(|row| row.source)),
            _ => counts(rows.iter().map(|row| i64::from(row.revision))),
        }
    }
}
