//! Keeps one lane: its claim, its newest checkpoint, what waits for the lake.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use bytes::Bytes;
use futures::future::BoxFuture;
use legwork_state::{Checkpoint, Head, LaneStore, StoreError};
use legwork_types::{Changes, LaneId, StateEntry, StateValue, Table, TableSnapshot};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::pending::StoredRows;
use super::{Delivery, Part, Pending};

/// What a lane hands over at a checkpoint.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    pub(crate) changes: Changes,
    /// Rows of its logs.
    pub(crate) logs: Vec<TakenRows>,
}

/// Rows of a log.
#[derive(Debug)]
pub(crate) struct TakenRows {
    pub(crate) table: String,
    /// As they are stored, but for those in files.
    pub(crate) stored: Vec<RecordBatch>,
    /// As they are shown: all of them.
    pub(crate) parts: Vec<Part>,
}

/// A checkpoint on its way.
struct InFlight {
    head: Head,
    since: Instant,
    outcome: oneshot::Receiver<Result<Vec<Encoded>, StoreError>>,
}

/// Rows of a checkpoint for a table, as files.
type Encoded = (Table, Vec<Bytes>);

/// A checkpoint that has become durable.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Durable {
    pub(crate) number: u32,
    /// From its beginning until it was known to be durable.
    pub(crate) took: Duration,
}

pub(crate) struct Keeper {
    pub(crate) lane: LaneId,
    delivery: Arc<Delivery>,
    store: Arc<dyn LaneStore>,
    /// Of the newest durable checkpoint.
    head: Head,
    /// Number of the newest checkpoint when the lane was claimed.
    claimed_at: u32,
    in_flight: Option<InFlight>,
    pub(crate) pending: Pending,
    /// The lake holds everything through this number but what is carried; the store is told with the next checkpoint.
    settled: Option<u32>,
    /// The lane's transaction numbers in the lake's tables.
    lake_tables: BTreeMap<String, u32>,
    last: Instant,
    /// See [`Keeper::has_turn`].
    turn: Option<OwnedSemaphorePermit>,
}

impl Keeper {
    pub(crate) fn new(
        lane: LaneId,
        delivery: Arc<Delivery>,
        store: Arc<dyn LaneStore>,
        head: Head,
        pending: Pending,
        now: Instant,
    ) -> Keeper {
        let lake_tables = head.lake_tables.clone();
        Keeper {
            lane,
            delivery,
            store,
            claimed_at: head.number,
            head,
            in_flight: None,
            pending,
            settled: None,
            lake_tables,
            last: now,
            turn: None,
        }
    }

    /// Whether rows through this number may have been taken from another claim, whose lane knew less.
    pub(crate) fn is_of_former_claim(&self, through: u32) -> bool {
        through < self.claimed_at
    }

    /// Head of the newest durable checkpoint.
    pub(crate) fn head(&self) -> &Head {
        &self.head
    }

    pub(crate) fn store(&self) -> &Arc<dyn LaneStore> {
        &self.store
    }

    pub(crate) fn is_in_flight(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Whether it is time for a checkpoint of a lane that is to read this offset next.
    pub(crate) fn is_due(&self, now: Instant, next_offset: i64) -> bool {
        self.in_flight.is_none()
            && now.duration_since(self.last) >= self.delivery.checkpoint_every
            && self.has_news(next_offset)
    }

    /// Whether there is anything that the newest durable checkpoint lacks.
    pub(crate) fn has_news(&self, next_offset: i64) -> bool {
        next_offset != self.head.next_offset || self.settled.is_some()
    }

    /// Whether the next checkpoint should not be left waiting for room's sake. `n_events`: raw events since the last one.
    pub(crate) fn is_crowded(&self, n_events: usize) -> bool {
        n_events > self.delivery.encoded_rows_min && self.delivery.is_tight()
    }

    /// Whether it may make the checkpoint that is due now: see [`super::DeliveryOptions::large_checkpoint`].
    pub(crate) fn has_turn(&mut self, next_offset: i64) -> bool {
        let is_large = next_offset - self.head.next_offset >= self.delivery.large_checkpoint;
        if is_large && self.turn.is_none() {
            self.turn = self.delivery.large.clone().try_acquire_owned().ok();
        }
        !is_large || self.turn.is_some()
    }

    /// Whether reading should wait until the lake has taken some of the rows.
    pub(crate) fn is_full(&self) -> bool {
        self.delivery.held.get() > self.delivery.waiting_bytes_max
    }

    /// Whether the lake should not be left waiting.
    pub(crate) fn is_heavy(&self) -> bool {
        self.delivery.is_tight() && self.pending.n_rows() > 0
    }

    /// Starts making a checkpoint durable. `before` is waited for first, and says whether it may be made at all; `wake` is called when the
    /// outcome is known.
    pub(crate) fn begin(
        &mut self,
        head: Head,
        taken: Taken,
        before: BoxFuture<'static, bool>,
        wake: Arc<dyn Fn() + Send + Sync>,
        now: Instant,
    ) {
        debug_assert!(self.in_flight.is_none(), "one checkpoint at a time");
        let number = head.number;
        let Taken { changes, logs } = taken;
        for (table, rows) in &changes.rows {
            self.pending.add(table.name(), Part::of_batch(number, rows.clone(), &self.delivery.held));
        }
        let of_batch =
            |(table, rows): (Table, RecordBatch)| (table.name().to_owned(), StoredRows::of_batches(vec![rows]));
        let mut rows: Rows = changes.rows.into_iter().map(of_batch).collect();
        for TakenRows { table, stored, parts } in logs {
            let files = parts.iter().filter_map(|part| part.file.clone()).collect();
            parts.into_iter().for_each(|part| self.pending.add(&table, part));
            rows.push((table, StoredRows { batches: stored, files }));
        }
        for (table, rows) in &changes.rows_later {
            self.pending.add_unmade(table.name(), Part::new(number, rows.clone()));
        }
        let later = (changes.cold_later, changes.rows_later);
        let settled = self.settled.take();
        let of_part = |(name, part): (&str, &Part)| (name.to_owned(), StoredRows::of_batches(part.batches().collect()));
        let carried: Rows = match settled {
            Some(_) => self.pending.carried().map(of_part).collect(),
            None => Vec::new(),
        };
        let lake_through = settled.unwrap_or(self.head.lake_through);
        let head = Head { lake_through, lake_tables: self.lake_tables.clone(), ..head };
        let checkpoint = Checkpoint {
            head: head.clone(),
            hot: changes.hot,
            cold: changes.cold,
            drop_rows_through: settled,
            ..Checkpoint::default()
        };
        let making =
            Making { delivery: self.delivery.clone(), lane: self.lane.clone(), checkpoint, rows, carried, later };
        let (store, turn) = (self.store.clone(), self.turn.take());
        let (send, outcome) = oneshot::channel();
        self.delivery.runtime.spawn(async move {
            let committed = match (before.await, making) {
                (false, Making { lane, .. }) => {
                    let detail = "it is not known whether the topic is still the one that it was".to_owned();
                    Err(StoreError::Unknown { lane, detail })
                }
                (true, making) => match making.make() {
                    Ok((checkpoint, encoded)) => store.commit(checkpoint).await.map(|()| encoded),
                    Err(error) => Err(error),
                },
            };
            drop(turn);
            // The lane may have gone meanwhile.
            let _ = send.send(committed);
            wake();
        });
        self.in_flight = Some(InFlight { head, since: now, outcome });
        self.last = now;
    }

    /// Whether the checkpoint on its way has become durable. *Errors:* the claim is dead.
    pub(crate) fn poll(&mut self, now: Instant) -> Result<Option<Durable>, StoreError> {
        let Some(in_flight) = &mut self.in_flight else { return Ok(None) };
        let outcome = match in_flight.outcome.try_recv() {
            Ok(outcome) => outcome,
            Err(oneshot::error::TryRecvError::Empty) => return Ok(None),
            Err(oneshot::error::TryRecvError::Closed) => {
                let detail = "the task that wrote the checkpoint has ended".to_owned();
                Err(StoreError::Unknown { lane: self.lane.clone(), detail })
            }
        };
        let InFlight { head, since, .. } = self.in_flight.take().expect("it was there");
        let encoded = outcome?;
        self.head = head;
        self.pending.made(self.head.number, &self.delivery.held);
        for (table, files) in encoded {
            self.pending.replace(table, self.head.number, files, &self.delivery.held);
        }
        Ok(Some(Durable { number: self.head.number, took: now.duration_since(since) }))
    }

    /// The lake holds rows of a table through a number, but for `carried`; see [`Pending::cover`].
    pub(crate) fn cover(&mut self, table: &str, numbered: (u32, bool), carried: Option<RecordBatch>, now: Instant) {
        let carried = carried.map(|rows| Part::of_batch(numbered.0, rows, &self.delivery.held));
        self.pending.cover(table, numbered, carried, now);
    }

    /// Lets go of rows that the lake holds.
    pub(crate) fn expire(&mut self, now: Instant) {
        self.pending.expire(now, self.delivery.is_tight());
    }

    /// A table of the lake has this transaction number of the lane.
    pub(crate) fn number_table(&mut self, table: String, through: u32) {
        self.lake_tables.insert(table, through);
    }

    /// The lake holds everything of the tables told through this number.
    pub(crate) fn settle(&mut self, through: u32) {
        if through > self.head.lake_through {
            self.settled = Some(through);
        }
    }

    /// Waits for the checkpoint on its way, then lets the claim go in good order.
    pub(crate) fn close(self) -> BoxFuture<'static, Result<(), StoreError>> {
        Box::pin(async move {
            if let Some(in_flight) = self.in_flight {
                // A task that is gone has told nothing.
                if let Ok(outcome) = in_flight.outcome.await {
                    outcome?;
                }
            }
            self.store.release().await
        })
    }
}

type Rows = Vec<(String, StoredRows)>;

/// What an operator left to be made off the lane's thread.
type Later = (Vec<(Vec<u8>, Arc<dyn StateValue>)>, Vec<(Table, Arc<dyn TableSnapshot>)>);

/// A checkpoint that is being made, off the lane's thread.
struct Making {
    delivery: Arc<Delivery>,
    lane: LaneId,
    checkpoint: Checkpoint,
    rows: Rows,
    carried: Rows,
    later: Later,
}

impl Making {
    /// *Returns* it with the rows of facts that were encoded for it.
    fn make(self) -> Result<(Checkpoint, Vec<Encoded>), StoreError> {
        let Making { delivery, lane, mut checkpoint, mut rows, mut carried, later: (cold, made) } = self;
        checkpoint.cold.extend(cold.into_iter().map(StateEntry::of));
        for (table, snapshot) in made {
            let batches = (0..snapshot.n_chunks()).map(|chunk_idx| snapshot.chunk(chunk_idx, None));
            rows.push((table.name().to_owned(), StoredRows::of_batches(batches.collect())));
        }
        let mut encoded = Vec::new();
        for (is_new, (name, rows)) in
            rows.iter_mut().map(|rows| (true, rows)).chain(carried.iter_mut().map(|rows| (false, rows)))
        {
            let Some(table) = Table::by_name(name).filter(|_| encode_many(&delivery, &lane, name, rows)) else {
                continue;
            };
            if is_new {
                encoded.push((table, rows.files.clone()));
            }
        }
        let failed = |error: ArrowError| {
            let detail = format!("rows cannot be written: {error}");
            StoreError::Damaged { lane: lane.clone(), detail }
        };
        checkpoint.rows = to_bytes(rows).map_err(failed)?;
        checkpoint.carried = to_bytes(carried).map_err(failed)?;
        Ok((checkpoint, encoded))
    }
}

/// Puts files in the place of rows if they are many. *Returns* whether it did.
fn encode_many(delivery: &Delivery, lane: &LaneId, table: &str, rows: &mut StoredRows) -> bool {
    if rows.batches.iter().map(RecordBatch::num_rows).sum::<usize>() < delivery.encoded_rows_min {
        return false;
    }
    match delivery.lake.encode(table, lane, &rows.batches) {
        Ok(files) => {
            *rows = StoredRows { batches: Vec::new(), files };
            true
        }
        Err(error) => {
            // They go on as they are, and the lake's next commit tells whoever looks after it.
            tracing::error!(%lane, table, %error, "rows cannot be encoded for the lake");
            false
        }
    }
}

fn to_bytes(rows: Rows) -> Result<Vec<(String, Vec<u8>)>, ArrowError> {
    let rows = rows.into_iter().filter(|(_, rows)| !rows.is_empty());
    rows.map(|(table, rows)| Ok((table, rows.to_bytes()?))).collect()
}
