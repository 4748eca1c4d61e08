//! `legwork replay`: recorded files to Kafka at a chosen speed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, TimestampMicrosecondType};
use indicatif::{ProgressBar, ProgressStyle};
use legwork_codec::files::{FileInput, FileReader};
use legwork_kafka::Admin;
use legwork_types::Kind;

use super::publish::Publisher;
use super::simulate::create_topics;
use super::sql::inputs;
use crate::args::ReplayArgs;
use crate::exit::Failure;
use crate::service::wall_clock_us;
use crate::{config, topics};

/// Partitions of a topic that a replay has to make.
const N_PARTITIONS: i32 = 4;
/// Events due within this wall time are sent together.
const STEP_US: i64 = 20_000;

/// How long the end waits for acknowledgements.
const FLUSH_MAX: Duration = Duration::from_secs(60);
/// As [`FLUSH_MAX`], once the command was told to stop: it is to end within 10 s.
const STOP_MAX: Duration = Duration::from_secs(8);

pub(crate) async fn run(args: ReplayArgs) -> Result<()> {
    if !(args.speed >= 0.0 && args.speed.is_finite()) {
        bail!(Failure::Usage(format!("--speed {} is wrong: expected 0 (as fast as it can) or more", args.speed)));
    }
    let config = config::load(&args.config.overrides())?;
    super::start_logging(&config)?;
    for input in inputs(&args.files, &args.map)? {
        let path = input.path.clone();
        // A file that is not there is told before brokers are asked for anything.
        FileReader::open(input).with_context(|| format!("replaying {}", path.display()))?;
    }
    let bootstrap = args.bootstrap.clone().unwrap_or_else(|| config.kafka.bootstrap.clone());
    let registry = topics::registry(&config, tokio::runtime::Handle::current())?;
    let mut publisher = Publisher::new(&config, &bootstrap, registry)?;
    let names: Vec<(Kind, String)> = args.files.iter().map(|(kind, _)| (*kind, publisher.topic(*kind))).collect();
    create_topics(
        &Admin::new(&bootstrap, &topics::kafka_options(&config)?)?,
        &names,
        N_PARTITIONS,
        !args.shift_to_now,
    )?;
    let stop = tokio::spawn(super::stop_signal());
    let is_stopped = tokio::select! {
        done = replay_all(&args, &mut publisher) => done.map(|()| false)?,
        stopped = stop => stopped?.map(|()| true)?,
    };
    match (publisher.flush(if is_stopped { STOP_MAX } else { FLUSH_MAX }), is_stopped) {
        (Err(unsent), true) => tracing::warn!("{unsent:#}"),
        (flushed, _) => flushed?,
    }
    eprintln!("{} events sent", publisher.n_sent());
    Ok(())
}

async fn replay_all(args: &ReplayArgs, publisher: &mut Publisher) -> Result<()> {
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template("{wide_bar} {percent:>3}%  {msg}  {elapsed}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let mut pace = Pace { speed: args.speed, shift_to_now: args.shift_to_now, start: None };
    for input in inputs(&args.files, &args.map)? {
        let path = input.path.clone();
        replay(input, &mut pace, publisher, &bar).await.with_context(|| format!("replaying {}", path.display()))?;
    }
    bar.finish_and_clear();
    Ok(())
}

/// When each event is due; the first event of the first file sets the start for all.
struct Pace {
    speed: f64,
    shift_to_now: bool,
    /// (first event time, wall time of its sending, both microseconds; the same by the monotonic clock).
    start: Option<(i64, i64, Instant)>,
}

impl Pace {
    fn start(&mut self, first_us: i64) -> (i64, i64, Instant) {
        *self.start.get_or_insert_with(|| (first_us, wall_clock_us(), Instant::now()))
    }

    /// What is added to all times.
    fn shift_us(&self) -> i64 {
        match self.start {
            Some((first_us, wall_us, _)) if self.shift_to_now => wall_us - first_us,
            _ => 0,
        }
    }

    async fn wait_until_due(&self, event_time_us: i64) {
        let Some((first_us, _, started)) = self.start else { return };
        if self.speed > 0.0 {
            let due_us = (event_time_us - first_us) as f64 / self.speed;
            let wait = Duration::from_micros(due_us.max(0.0) as u64).saturating_sub(started.elapsed());
            tokio::time::sleep(wait).await;
        }
    }
}

async fn replay(input: FileInput, pace: &mut Pace, publisher: &mut Publisher, bar: &ProgressBar) -> Result<()> {
    let kind = input.kind;
    let mut reader = FileReader::open(input)?;
    while let Some(batch) = reader.next() {
        let batch = batch?;
        for reject in &batch.rejects {
            let place = batch.places.of(reject.offset);
            tracing::warn!(reason = %reject.reason, "{place} is left out: {}", reject.detail);
        }
        let rows = batch.events.columns;
        let keys: StringArray = rows.column_by_name(kind.key()).context("the key's column")?.as_string::<i32>().clone();
        if kind.is_reference() {
            let now_us = wall_clock_us();
            let keys = StringArray::from(legwork_sim::reference_keys(kind, &rows));
            publisher.send(kind, &rows, &keys, &vec![now_us; rows.num_rows()]).await?;
            continue;
        }
        let times =
            rows.column(legwork_types::gps::EVENT_TIME).as_primitive::<TimestampMicrosecondType>().values().clone();
        let Some(&first_us) = times.first() else { continue };
        pace.start(first_us);
        let shifted = shifted(&rows, pace.shift_us())?;
        let step_us = if pace.speed > 0.0 { (STEP_US as f64 * pace.speed) as i64 } else { i64::MAX };
        let mut from = 0;
        while from < times.len() {
            let until = times[from].saturating_add(step_us);
            let n_due = times[from..].iter().take_while(|&&time| time <= until).count().max(1);
            pace.wait_until_due(times[from]).await;
            let part = shifted.slice(from, n_due);
            publisher.send(kind, &part, &keys.slice(from, n_due), &sent_us(&part)).await?;
            from += n_due;
        }
        let (bytes_read, bytes_total) = reader.progress();
        bar.set_length(bytes_total.unwrap_or(bytes_read));
        bar.set_position(bytes_read);
        bar.set_message(format!("{} events", publisher.n_sent()));
    }
    Ok(())
}

/// All times moved by `shift_us`.
fn shifted(rows: &RecordBatch, shift_us: i64) -> Result<RecordBatch> {
    if shift_us == 0 {
        return Ok(rows.clone());
    }
    let columns = rows.columns().iter().map(|column| -> ArrayRef {
        match column.data_type() {
            DataType::Timestamp(_, _) => {
                let times = column.as_primitive::<TimestampMicrosecondType>();
                let moved: TimestampMicrosecondArray = times.unary(|time| time.saturating_add(shift_us));
                Arc::new(moved.with_timezone("UTC"))
            }
            _ => column.clone(),
        }
    });
    Ok(RecordBatch::try_new(rows.schema(), columns.collect())?)
}

/// Record timestamps: when the device sent it, where it says so and that is later.
fn sent_us(rows: &RecordBatch) -> Vec<i64> {
    let times = rows.column(legwork_types::gps::EVENT_TIME).as_primitive::<TimestampMicrosecondType>();
    let sent = rows.column_by_name("sent_time").map(|column| column.as_primitive::<TimestampMicrosecondType>());
    (0..rows.num_rows())
        .map(|row| match sent {
            Some(sent) if sent.is_valid(row) => sent.value(row).max(times.value(row)),
            _ => times.value(row),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Int64Type;

    use super::*;

    #[test]
    fn all_times_move_together_and_nothing_else_does() -> Result<()> {
        let schema = Kind::Gps.schema();
        let empty = RecordBatch::new_empty(schema.clone());
        assert_eq!(shifted(&empty, 5)?.schema(), schema);
        let sequence = arrow::array::PrimitiveArray::<Int64Type>::from(vec![7]);
        let time = TimestampMicrosecondArray::from(vec![10]).with_timezone("UTC");
        let fields = vec![schema.field(2).clone(), schema.field(3).clone()];
        let rows = RecordBatch::try_new(
            Arc::new(arrow::datatypes::Schema::new(fields)),
            vec![Arc::new(time), Arc::new(sequence.clone())],
        )?;
        let moved = shifted(&rows, 5)?;
        assert_eq!(moved.column(0).as_primitive::<TimestampMicrosecondType>().value(0), 15);
        assert_eq!(moved.column(1).as_primitive::<Int64Type>(), &sequence);
        Ok(())
    }
}
