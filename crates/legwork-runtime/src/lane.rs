//! A lane: the clock, the operator, the logs and the accounting of one partition. It takes batches and answers questions between
//! two of them; it knows neither threads nor where batches come from.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use legwork_operators::{Need, Operator, operator_for};
use legwork_state::Head;
use legwork_types::time::LaneClock;
use legwork_types::{
    EventBatch, Kind, LaneId, LaneState, LaneStatus, Lookup, Reject, RejectReason, StateEntry, StateError, Table,
    TableSnapshot, Verdict, Verdicts,
};
use prometheus::{IntCounter, IntCounterVec};

use crate::accounting::Accounting;
use crate::delivery::{Delivery, Part, Taken, TakenRows};
use crate::event_log::{EventLog, shown_events};
use crate::guard::{EARLIEST_US, Guard};
use crate::record_log::{RecordLog, Space};
use crate::{LaneConfig, PipelineMetrics, rows};

/// Raw events of so many bytes are encoded, be they ever so few.
const PLAIN_BYTES_MAX: u64 = 32 << 20;

/// The messages of a batch that are neither events nor rejects, and the bytes of those that may yet be rejected.
pub(crate) trait Origin {
    /// Value, key and schema id of the message that a row of the batch came from.
    fn message(&self, events: &EventBatch, row: usize) -> (Vec<u8>, Option<Vec<u8>>, Option<u32>);

    /// What is wrong with the message at an offset, with where it stands if offset and partition do not say it.
    fn detail(&self, _offset: i64, detail: &str) -> String {
        detail.to_owned()
    }
}

/// A message with a key and no value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tombstone<'a> {
    pub(crate) key: &'a [u8],
    /// Rows of the batch that came before it.
    pub(crate) n_rows_before: usize,
}

pub(crate) struct Lane {
    pub(crate) kind: Kind,
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
    config: Arc<LaneConfig>,
    guard: Guard,
    clock: LaneClock,
    operator: Box<dyn Operator>,
    events: Option<EventLog>,
    rejected: RecordLog,
    late: RecordLog,
    space: Arc<Space>,
    accounting: Accounting,
    metrics: Option<LaneMetrics>,
    has_changed: bool,
}

/// Reads cold state; waits for it.
pub(crate) type ReadCold<'a> = &'a dyn Fn(Vec<Vec<u8>>) -> Result<Vec<Option<Vec<u8>>>, String>;

/// The metrics of a lane with their labels resolved once. So a counter stands at 0 before there is anything to count: a rate over the first
/// event would be nothing otherwise.
struct LaneMetrics {
    all: PipelineMetrics,
    partition: String,
    read: IntCounter,
    late: IntCounter,
    duplicates: IntCounter,
    misrouted: IntCounter,
    dropped: IntCounter,
}

impl LaneMetrics {
    fn new(all: PipelineMetrics, topic: &str, partition: i32) -> LaneMetrics {
        let of_topic = |counter: &IntCounterVec| counter.with_label_values(&[topic]);
        LaneMetrics {
            partition: partition.to_string(),
            read: of_topic(&all.events_read),
            late: of_topic(&all.events_late),
            duplicates: of_topic(&all.events_duplicate),
            misrouted: of_topic(&all.events_misrouted),
            dropped: of_topic(&all.raw_events_dropped),
            all,
        }
    }
}

/// What a lane is made of.
#[derive(Clone, Debug)]
pub(crate) struct LaneSpec {
    pub(crate) kind: Kind,
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
    pub(crate) past_us_max: Option<i64>,
    pub(crate) config: Arc<LaneConfig>,
    pub(crate) space: Arc<Space>,
    pub(crate) metrics: Option<PipelineMetrics>,
}

impl Lane {
    pub(crate) fn new(spec: &LaneSpec) -> Lane {
        let LaneSpec { kind, topic, partition, past_us_max, config, space, metrics } = spec.clone();
        let keeps_events = !kind.is_reference() && config.raw_events.keeps(kind);
        let metrics = metrics.map(|all| LaneMetrics::new(all, &topic, partition));
        Lane {
            kind,
            guard: Guard { future_skew_us_max: config.future_skew_us_max, past_us_max },
            clock: LaneClock { revision: 1, ..LaneClock::START },
            operator: operator_for(kind, &config.operators),
            events: keeps_events.then(|| EventLog::new(kind, topic.clone(), partition, space.clone())),
            rejected: RecordLog::new(Table::RejectedEvents.schema(), space.clone()),
            late: RecordLog::new(Table::LateEvents.schema(), space.clone()),
            space,
            accounting: Accounting::default(),
            metrics,
            has_changed: false,
            topic,
            partition,
            config,
        }
    }

    /// Takes decoded events with the messages that became none. The events' lengths, `n_tombstones` and the rejects together are
    /// the messages read. `strays`: offsets of those whose key belongs to another partition, ascending.
    pub(crate) fn ingest(
        &mut self,
        events: EventBatch,
        mut rejects: Vec<Reject>,
        tombstones: &[Tombstone<'_>],
        origin: &dyn Origin,
        strays: &[i64],
    ) {
        self.accounting.n_read += (events.n_rows() + rejects.len() + tombstones.len()) as i64;
        if let Some(metrics) = &self.metrics {
            metrics.read.inc_by((events.n_rows() + rejects.len() + tombstones.len()) as u64);
        }
        if self.kind.is_reference() {
            self.apply_references(&events, tombstones);
        } else {
            let events = self.guarded(events, &mut rejects, origin);
            let events = rows::with_ids(events, self.accounting.n_renewals);
            self.apply(&events, strays);
        }
        self.accounting.n_tombstones += tombstones.len() as i64;
        self.reject(&rejects);
    }

    fn apply(&mut self, events: &EventBatch, strays: &[i64]) {
        if events.n_rows() == 0 {
            return;
        }
        if !self.kind.is_reference() {
            let newest = events.event_time_us().iter().copied().max().unwrap_or(i64::MIN);
            self.clock.newest_us = self.clock.newest_us.max(newest);
        }
        let verdicts = self.operator.apply(events, &self.clock);
        self.keep(events, &verdicts, strays);
        self.has_changed = true;
    }

    /// Records and tombstones of reference data, in the order in which they were written: a tombstone deletes only what came before it.
    fn apply_references(&mut self, records: &EventBatch, tombstones: &[Tombstone<'_>]) {
        let mut n_applied = 0;
        for tombstone in tombstones {
            self.apply(&rows::slice(records, n_applied, tombstone.n_rows_before), &[]);
            n_applied = tombstone.n_rows_before;
            self.operator.delete(&[tombstone.key], &self.clock);
            self.has_changed = true;
        }
        if n_applied == 0 {
            self.apply(records, &[]);
        } else {
            self.apply(&rows::slice(records, n_applied, records.n_rows()), &[]);
        }
    }

    /// Takes out what the guard refuses.
    fn guarded(&self, events: EventBatch, rejects: &mut Vec<Reject>, origin: &dyn Origin) -> EventBatch {
        let refused = self.guard.check(events.event_time_us(), &events.arrival_us);
        if refused.is_empty() {
            return events;
        }
        for &(row, reason) in &refused {
            let detail = reason_detail(reason, events.event_time_us()[row as usize]);
            rejects.push(reject_row(&events, row as usize, reason, detail, origin));
        }
        let refused: Vec<u32> = refused.iter().map(|(row, _)| *row).collect();
        events.without(&refused)
    }

    /// Accounts for the verdicts and keeps the events that are to be kept.
    fn keep(&mut self, events: &EventBatch, verdicts: &Verdicts, strays: &[i64]) {
        let (n_late, n_duplicates) = (verdicts.count(Verdict::Late), verdicts.count(Verdict::Duplicate));
        let n_accepted = events.n_rows() as u64 - n_late - n_duplicates;
        self.accounting.n_accepted += n_accepted as i64;
        self.accounting.n_late += n_late as i64;
        self.accounting.n_duplicates += n_duplicates as i64;
        self.accounting.n_reordered += verdicts.n_reordered as i64;
        let n_misrouted = n_accepted_of(strays, events, verdicts);
        self.accounting.n_misrouted += n_misrouted as i64;
        if n_late > 0 {
            let late: Vec<u32> = with_verdict(verdicts, Verdict::Late);
            self.late.push(rows::late_events(&events.take(&late)));
        }
        let n_dropped = match &mut self.events {
            Some(log) if verdicts.refused.is_empty() => log.push(events),
            Some(log) => {
                let refused: Vec<u32> = verdicts.refused.iter().map(|(row, _)| *row).collect();
                log.push(&events.without(&refused))
            }
            None => 0,
        };
        if let Some(delivery) = self.config.delivery.clone() {
            let is_large = self.events.as_ref().is_some_and(|log| log.n_plain_bytes() > PLAIN_BYTES_MAX);
            self.encode_events(&delivery, if is_large { 1 } else { 8 * delivery.encoded_rows_min });
        }
        let Some(metrics) = &self.metrics else { return };
        metrics.late.inc_by(n_late);
        metrics.duplicates.inc_by(n_duplicates);
        metrics.dropped.inc_by(n_dropped);
        metrics.misrouted.inc_by(n_misrouted);
    }

    /// Encodes the events that wait for a checkpoint, if they are so many.
    fn encode_events(&mut self, delivery: &Delivery, n_rows_min: usize) {
        let Some(log) = self.events.as_mut().filter(|log| log.n_plain_rows() >= n_rows_min) else { return };
        let (table, lane) = (self.kind.table(), LaneId::new(self.topic.clone(), self.partition));
        if let Err(error) = log.encode(|rows| delivery.lake.encode(table, &lane, rows), &delivery.held) {
            // They go on as they are, and the lake's next commit tells whoever looks after it.
            tracing::error!(topic = %self.topic, partition = self.partition, %error, "events cannot be encoded for the lake");
        }
    }

    fn reject(&mut self, rejects: &[Reject]) {
        if rejects.is_empty() {
            return;
        }
        self.accounting.n_rejected += rejects.len() as i64;
        self.rejected.push(rows::rejected_events(&self.topic, self.partition, rejects));
        if let Some(metrics) = &self.metrics {
            for reject in rejects {
                metrics.all.events_rejected.with_label_values(&[&*self.topic, reject.reason.as_str()]).inc();
            }
        }
        if let Some(sink) = &self.config.dead_letters {
            sink.send(&self.topic, self.partition, rejects);
        }
    }

    /// Notes how long events waited from their arrival until now, and what the gauges show.
    pub(crate) fn report(&mut self, arrival_us: &[i64], now_us: i64) {
        let Some(metrics) = &mut self.metrics else { return };
        metrics.all.visible_delay.observe(arrival_us, now_us);
        if self.clock.newest_us > i64::MIN {
            let seconds = self.clock.newest_us as f64 * 1e-6;
            let gauge = metrics.all.last_event.with_label_values(&[&*self.topic]);
            gauge.set(seconds.max(gauge.get()));
        }
    }

    /// Shows how far it is behind, in gauges.
    pub(crate) fn report_gauges(&mut self, status: &LaneStatus, queued_bytes: usize) {
        let Some(metrics) = &self.metrics else { return };
        let lane = [&*self.topic, metrics.partition.as_str()];
        if let Some(end_offset) = status.end_offset {
            metrics.all.lane_lag.with_label_values(&lane).set((end_offset - status.next_offset).max(0));
        }
        if let Some(watermark_us) = status.watermark_us {
            metrics.all.lane_watermark.with_label_values(&lane).set(watermark_us as f64 * 1e-6);
        }
        metrics.all.fetch_queue_bytes.with_label_values(&lane).set(queued_bytes as i64);
    }

    /// Shows the size of the operator's state.
    pub(crate) fn report_state_bytes(&self) {
        let Some(metrics) = &self.metrics else { return };
        let lane = [&*self.topic, metrics.partition.as_str()];
        metrics.all.state_bytes.with_label_values(&lane).set(self.operator.memory_bytes() as i64);
    }

    /// Starts a new revision when anything changed in the old one.
    pub(crate) fn advance_revision(&mut self) {
        if std::mem::take(&mut self.has_changed) {
            self.clock.revision = self.clock.revision.saturating_add(1);
        }
    }

    /// The bounded input has ended: every window closes.
    pub(crate) fn end(&mut self) {
        self.clock.ended = true;
    }

    /// Newest guarded event time.
    pub(crate) fn newest_us(&self) -> Option<i64> {
        (self.clock.newest_us > i64::MIN).then_some(self.clock.newest_us)
    }

    pub(crate) fn id(&self) -> LaneId {
        LaneId::new(self.topic.clone(), self.partition)
    }

    /// Takes up where a checkpoint left off.
    pub(crate) fn restore(&mut self, head: &Head, hot: Vec<(Vec<u8>, Vec<u8>)>) -> Result<(), StateError> {
        self.operator.restore(&mut hot.into_iter())?;
        self.clock.newest_us = head.newest_us;
        self.clock.revision = head.number + 1;
        self.accounting = Accounting::from_counts(&head.counts);
        Ok(())
    }

    /// Puts what came late in its place, with state that has left memory.
    pub(crate) fn settle(&mut self, need: Need<'_>, read: ReadCold<'_>) -> Result<(), String> {
        loop {
            let wanted = self.operator.wanted(need, &self.clock);
            if wanted.is_empty() {
                return Ok(());
            }
            let found = read(wanted.clone())?;
            let cold = wanted.into_iter().zip(found).map(|(key, value)| StateEntry { key, value });
            self.operator.supply(cold.collect()).map_err(|error| error.to_string())?;
        }
    }

    /// Hands over everything since the checkpoint before, with the head of this one but for what only the caller knows. It is settled.
    ///
    /// *Errors:* rows in the cache folder cannot be read. Nothing that the lane holds counts any more then.
    pub(crate) fn take(&mut self, head: Head, delivery: &Delivery) -> Result<(Head, Taken), ArrowError> {
        let number = self.clock.revision;
        let mut taken = Taken { changes: self.operator.checkpoint(&self.clock), logs: Vec::new() };
        for (table, log) in [(Table::RejectedEvents, &mut self.rejected), (Table::LateEvents, &mut self.late)] {
            let log = std::mem::replace(log, RecordLog::new(table.schema(), self.space.clone()));
            let batches: Vec<RecordBatch> =
                log.batches()?.iter().map(|batch| rows::versions(table, batch, number)).collect();
            let parts = batches.iter().map(|batch| Part::of_batch(number, batch.clone(), &delivery.held)).collect();
            taken.logs.push(TakenRows { table: table.name().to_owned(), stored: batches, parts });
        }
        self.encode_events(delivery, delivery.encoded_rows_min);
        let id = self.id();
        if let Some(log) = &mut self.events {
            let empty = EventLog::new(self.kind, self.topic.clone(), self.partition, self.space.clone());
            let log = std::mem::replace(log, empty);
            let mut parts: Vec<Part> = log.files().iter().map(|file| Part::of_file(number, file.clone())).collect();
            // From here on the rows are in memory: the lake's commit must not depend on the cache folder.
            let stored = log.stored()?;
            parts.push(Part::new(number, shown_events(self.kind, &id, stored.clone())));
            taken.logs.push(TakenRows { table: self.kind.table().to_owned(), stored, parts });
        }
        let head = Head { number, newest_us: self.clock.newest_us, counts: self.accounting.to_counts(), ..head };
        self.clock.revision += 1;
        self.has_changed = false;
        Ok((head, taken))
    }

    /// Rows of a table since the last checkpoint. It is settled.
    pub(crate) fn fresh(&mut self, table: &str) -> Option<(u32, Vec<RecordBatch>)> {
        let number = self.clock.revision;
        let log = |table: Table, log: &RecordLog| -> Vec<RecordBatch> {
            let snapshot = log.snapshot();
            (0..snapshot.n_chunks()).map(|idx| rows::versions(table, &snapshot.chunk(idx, None), number)).collect()
        };
        let batches = match Table::by_name(table) {
            Some(Table::RejectedEvents) => log(Table::RejectedEvents, &self.rejected),
            Some(Table::LateEvents) => log(Table::LateEvents, &self.late),
            Some(table) => self.operator.fresh(table, &self.clock).into_iter().collect(),
            None => {
                let log = self.events.as_ref().filter(|_| table == self.kind.table())?;
                let snapshot = log.snapshot();
                (0..snapshot.n_chunks()).map(|idx| snapshot.chunk(idx, None)).collect()
            }
        };
        (!batches.is_empty()).then_some((number, batches))
    }

    /// A checkpoint, and all before it, are durable.
    pub(crate) fn committed(&mut self, number: u32, took_s: f64) {
        self.operator.committed(number);
        if let Some(metrics) = &self.metrics {
            metrics.all.checkpoint_duration.observe(took_s);
            metrics.all.checkpoint_last_success.set(crate::stream_lane::wall_clock_us() as f64 * 1e-6);
        }
    }

    /// Raw events kept since the last checkpoint.
    pub(crate) fn n_events(&self) -> usize {
        self.events.as_ref().map_or(0, EventLog::n_rows)
    }

    /// Bytes of rejects and late events since the last checkpoint.
    pub(crate) fn logged_bytes(&self) -> u64 {
        self.rejected.n_bytes() + self.late.n_bytes()
    }

    /// Shows how many rows wait for the lake.
    pub(crate) fn report_waiting_rows(&self, n_rows: usize) {
        let Some(metrics) = &self.metrics else { return };
        let lane = [&*self.topic, metrics.partition.as_str()];
        metrics.all.lake_waiting_rows.with_label_values(&lane).set(n_rows as i64);
    }

    /// Notes how long a checkpoint kept the lane from reading.
    pub(crate) fn report_pause(&self, pause_s: f64) {
        if let Some(metrics) = &self.metrics {
            metrics.all.checkpoint_pause.observe(pause_s);
        }
    }

    /// What a table holds now; none for a table that it does not fill.
    pub(crate) fn snapshot(&mut self, table: &str) -> Option<Arc<dyn TableSnapshot>> {
        if let Some(snapshot) = self.operator.snapshot(table, &self.clock) {
            return Some(snapshot);
        }
        if table == Table::RejectedEvents.name() {
            return Some(Arc::new(self.rejected.snapshot()));
        }
        if table == Table::LateEvents.name() {
            return Some(Arc::new(self.late.snapshot()));
        }
        match &self.events {
            Some(log) if table == self.kind.table() => Some(log.snapshot()),
            _ => None,
        }
    }

    /// Answers a question about one key; none when it is not for this lane's operator.
    pub(crate) fn lookup(&mut self, lookup: &Lookup) -> Option<RecordBatch> {
        self.operator.lookup(lookup, &self.clock)
    }

    /// A row of `pipeline_lanes`.
    pub(crate) fn status(
        &self,
        state: LaneState,
        detail: &str,
        next_offset: i64,
        end_offset: Option<i64>,
        is_idle: bool,
    ) -> LaneStatus {
        let newest_us = self.newest_us();
        self.accounting.of(LaneStatus {
            state,
            detail: detail.to_owned(),
            owner: self.config.owner.clone(),
            next_offset,
            end_offset,
            watermark_us: newest_us.map(|newest| newest.saturating_sub(self.config.operators.time.reorder_bound_us)),
            last_event_time_us: newest_us,
            is_idle,
            ..LaneStatus::new(self.topic.clone(), self.partition)
        })
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        if let Some(metrics) = &self.metrics {
            metrics.all.forget_lane(&self.topic, self.partition);
        }
    }
}

/// How many of the events at some offsets, ascending, were accepted.
fn n_accepted_of(offsets: &[i64], events: &EventBatch, verdicts: &Verdicts) -> u64 {
    if offsets.is_empty() {
        return 0;
    }
    let is_among = |row: usize| offsets.binary_search(&events.offsets[row]).is_ok();
    let n_refused = verdicts.refused.iter().filter(|(row, _)| is_among(*row as usize)).count();
    ((0..events.n_rows()).filter(|row| is_among(*row)).count() - n_refused) as u64
}

fn with_verdict(verdicts: &Verdicts, wanted: Verdict) -> Vec<u32> {
    verdicts.refused.iter().filter(|(_, verdict)| *verdict == wanted).map(|(row, _)| *row).collect()
}

fn reason_detail(reason: RejectReason, event_time_us: i64) -> &'static str {
    match reason {
        RejectReason::FromFuture => "event_time is later than the arrival by more than time.future_skew_max",
        _ if event_time_us < EARLIEST_US => {
            "event_time is before 1980: a clock that was never set, or seconds or milliseconds where microseconds are expected"
        }
        _ => "event_time is earlier than the arrival by more than past_max of the topic",
    }
}

/// Turns a row that is an event by its form into a reject.
pub(crate) fn reject_row(
    events: &EventBatch,
    row: usize,
    reason: RejectReason,
    detail: &str,
    origin: &dyn Origin,
) -> Reject {
    let (payload, key, schema_id) = origin.message(events, row);
    Reject {
        offset: events.offsets[row],
        arrival_us: events.arrival_us[row],
        reason,
        detail: origin.detail(events.offsets[row], detail),
        schema_id,
        key,
        payload,
    }
}
