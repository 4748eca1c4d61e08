//! What has been sent since the last look, and the names of things.

use legwork_types::{Kind, gps};

use crate::dice::hash;
use crate::organisation::{SimBatch, keys_of};
use crate::rows::Rows;

/// Columns that all events share stand where those of a fix do.
const EVENT_ID: usize = gps::EVENT_ID;
const SOURCE: usize = gps::SOURCE;
const EVENT_TIME: usize = gps::EVENT_TIME;
const SEQUENCE: usize = gps::SEQUENCE;

const EVENTS: [Kind; 12] = [
    Kind::Gps,
    Kind::Calls,
    Kind::Emails,
    Kind::Messages,
    Kind::Meetings,
    Kind::CheckIns,
    Kind::Tasks,
    Kind::Shifts,
    Kind::Leads,
    Kind::DealEvents,
    Kind::Orders,
    Kind::Costs,
];

/// Rows of every kind of event.
#[derive(Debug)]
pub(crate) struct Outbox {
    rows: [Rows; EVENTS.len()],
    /// Distinguishes the things of this run from those of another start or seed in the same tables.
    pub(crate) run: u32,
    pub(crate) now_us: i64,
    n_events: u64,
    n_rows: usize,
}

impl Outbox {
    pub(crate) fn new(seed: u64, start_us: i64) -> Outbox {
        let run = (hash(seed, start_us.unsigned_abs(), 17) & 0xf_ffff) as u32;
        Outbox { rows: EVENTS.map(Rows::new), run, now_us: start_us, n_events: 0, n_rows: 0 }
    }

    /// A new event's number, from which its id is made.
    pub(crate) fn number(&mut self) -> u64 {
        self.n_events += 1;
        self.n_events
    }

    /// Begins a row with its common columns; the caller sets the others and ends it with [`Rows::end`] at the current time.
    pub(crate) fn begin(&mut self, kind: Kind, number: u64, event_time_us: i64, sequence: Option<i64>) -> &mut Rows {
        self.n_rows += 1;
        let run = self.run;
        let rows = &mut self.rows[kind as usize];
        rows.write(EVENT_ID, format_args!("{run:05x}-{number:x}"))
            .text(SOURCE, source(kind))
            .time(EVENT_TIME, event_time_us);
        if let Some(sequence) = sequence {
            rows.i64(SEQUENCE, sequence);
        }
        rows
    }

    pub(crate) fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// One batch of each kind that has rows.
    pub(crate) fn take(&mut self) -> Vec<SimBatch> {
        self.n_rows = 0;
        let filled = self.rows.iter_mut().filter(|rows| rows.n_rows() > 0);
        filled
            .map(|rows| {
                let (batch, sent_us) = rows.finish();
                SimBatch { kind: rows.kind, keys: keys_of(rows.kind, &batch), rows: batch, sent_us }
            })
            .collect()
    }
}

/// The system that emits a kind.
fn source(kind: Kind) -> &'static str {
    match kind {
        Kind::Gps | Kind::CheckIns | Kind::Shifts => "fleet-app",
        Kind::Calls => "telephony",
        Kind::Emails => "mail",
        Kind::Messages => "chat",
        Kind::Meetings => "calendar",
        Kind::Orders | Kind::Costs => "erp",
        _ => "crm",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_stands_where_its_number_says() {
        assert!(EVENTS.iter().enumerate().all(|(idx, &kind)| kind as usize == idx));
        assert!(Kind::events().eq(EVENTS));
    }
}
