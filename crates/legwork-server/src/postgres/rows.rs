//! Rows of the engine as rows of the wire: types, encoding, deadline and cancellation.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::timezone::Tz;
use arrow::array::{Array, ArrayRef, AsArray, ListArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Decimal128Type, Field, Float64Type, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType,
};
use arrow::error::ArrowError;
use chrono::{DateTime, Offset, TimeZone};
use datafusion_postgres::arrow_pg::datatypes::arrow_schema_to_pg_fields;
use datafusion_postgres::arrow_pg::encoder::encode_value;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use legwork_query::{QueryError, QueryResult};
use parking_lot::Mutex;
use pgwire::api::portal::Format;
use pgwire::api::results::{DataRowEncoder, FieldFormat, FieldInfo};
use pgwire::error::{PgWireError, PgWireResult};
use pgwire::messages::data::DataRow;
use tokio::time::Instant;

use super::cancel::Cancelled;
use super::error::{error, from_query};

/// What ends a statement before its time.
#[derive(Clone, Debug)]
pub(crate) struct Ends {
    /// The client asks for it.
    pub(crate) cancelled: Cancelled,
    /// The client's own `statement_timeout`.
    pub(crate) deadline: Option<Instant>,
}

impl Ends {
    pub(crate) fn new(cancelled: Cancelled, timeout: Option<Duration>) -> Ends {
        Ends { cancelled, deadline: timeout.and_then(|timeout| Instant::now().checked_add(timeout)) }
    }

    /// `work`, unless the statement is to end first.
    pub(crate) async fn or<T>(&mut self, work: impl Future<Output = T>) -> PgWireResult<T> {
        let deadline = self.deadline;
        let late = async move {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.cancelled.requested() => Err(error("57014", "canceling statement due to user request")),
            () = late => Err(error("57014", "canceling statement due to statement timeout")),
            done = work => Ok(done),
        }
    }
}

/// Batches in the types of [`wire_schema`], until the end, an error, a cancellation or the deadline.
pub(crate) fn batches(result: QueryResult, ends: Ends) -> BoxStream<'static, PgWireResult<RecordBatch>> {
    let schema = wire_schema(&result.schema);
    let open = Some((result.batches, ends));
    let next = move |open: Option<(BoxStream<'static, Result<RecordBatch, QueryError>>, Ends)>| {
        let schema = schema.clone();
        async move {
            let (mut batches, mut ends) = open?;
            match ends.or(batches.next()).await {
                Ok(None) => None,
                Ok(Some(Ok(batch))) => match to_wire(&batch, &schema) {
                    Ok(batch) => Some((Ok(batch), Some((batches, ends)))),
                    Err(cause) => Some((Err(cause), None)),
                },
                Ok(Some(Err(cause))) => Some((Err(from_query(cause)), None)),
                Err(ended) => Some((Err(ended), None)),
            }
        }
    };
    stream::unfold(open, next).boxed()
}

/// Rows in the formats of `fields`.
pub(crate) fn data_rows(
    batches: BoxStream<'static, PgWireResult<RecordBatch>>,
    fields: Arc<Vec<FieldInfo>>,
) -> BoxStream<'static, PgWireResult<DataRow>> {
    let rows = move |batch: PgWireResult<RecordBatch>| {
        let rows: BoxStream<'static, PgWireResult<DataRow>> = match batch {
            Ok(batch) => match with_texts(&batch, &fields) {
                Ok(batch) => stream::iter(BatchRows::new(batch, fields.clone())).boxed(),
                Err(cause) => stream::once(async { Err(cause) }).boxed(),
            },
            Err(cause) => stream::once(async { Err(cause) }).boxed(),
        };
        rows
    };
    batches.flat_map(rows).boxed()
}

/// Columns as `RowDescription` tells them. *Errors:* 0A000 for a type that PostgreSQL lacks, and when a list of formats is shorter.
pub(crate) fn fields(schema: &Schema, format: &Format) -> PgWireResult<Vec<FieldInfo>> {
    if let Format::Individual(formats) = format
        && formats.len() != schema.fields().len()
    {
        let message =
            format!("bind has {} result formats but the query has {} columns", formats.len(), schema.fields().len());
        return Err(error("08P01", message));
    }
    let fields = arrow_schema_to_pg_fields(schema, format, None)?;
    Ok(fields
        .into_iter()
        .map(|field| {
            let size = type_size(field.datatype().oid());
            field.with_type_size(size)
        })
        .collect())
}

/// `pg_type.typlen` of the types that are sent.
fn type_size(oid: u32) -> i16 {
    match oid {
        16 | 18 => 1,
        21 => 2,
        23 | 26 | 700 | 1082 => 4,
        20 | 701 | 1083 | 1114 | 1184 => 8,
        1186 => 16,
        _ => -1,
    }
}

/// The schema in types that the wire knows.
pub(crate) fn wire_schema(schema: &SchemaRef) -> SchemaRef {
    if schema.fields().iter().all(|field| wire_type(field.data_type()).is_none()) {
        return schema.clone();
    }
    let fields = schema.fields().iter().map(|field| match wire_type(field.data_type()) {
        Some(data_type) => {
            Arc::new(Field::new(field.name(), data_type, field.is_nullable()).with_metadata(field.metadata().clone()))
        }
        None => field.clone(),
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// What a type is cast to before it is sent; none when it can be sent.
fn wire_type(data_type: &DataType) -> Option<DataType> {
    Some(match data_type {
        DataType::Int8 | DataType::UInt8 => DataType::Int16,
        DataType::UInt16 => DataType::Int32,
        DataType::UInt32 | DataType::UInt64 => DataType::Int64,
        // PostgreSQL's AT TIME ZONE: the time that a clock shows there.
        DataType::Timestamp(_, Some(zone)) if !is_utc(zone) => DataType::Timestamp(TimeUnit::Microsecond, None),
        DataType::Float16 => DataType::Float32,
        DataType::Decimal32(precision, scale) | DataType::Decimal64(precision, scale) => {
            DataType::Decimal128(*precision, *scale)
        }
        DataType::Decimal256(_, scale) => DataType::Decimal128(38, *scale),
        DataType::Dictionary(_, value) => wire_type(value).unwrap_or_else(|| value.as_ref().clone()),
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _)
            if wire_item(item).is_some() || !matches!(data_type, DataType::List(_)) =>
        {
            let item_type = wire_item(item).unwrap_or_else(|| item.data_type().clone());
            DataType::List(Arc::new(Field::new_list_field(item_type, true)))
        }
        _ => return None,
    })
}

/// The same for the items of a list, of which a cast does all; times in zones stay instants.
fn wire_item(item: &Field) -> Option<DataType> {
    wire_type(item.data_type()).filter(|data_type| !matches!(data_type, DataType::Timestamp(..)))
}

fn is_utc(zone: &str) -> bool {
    matches!(zone, "UTC" | "utc" | "Z" | "+00:00" | "Etc/UTC")
}

/// A column in the type of the wire.
fn as_wire_type(column: &ArrayRef, wire: &DataType) -> Result<ArrayRef, ArrowError> {
    match (column.data_type(), wire) {
        (of, wire) if of == wire => Ok(column.clone()),
        (DataType::Timestamp(_, Some(zone)), DataType::Timestamp(TimeUnit::Microsecond, None)) => {
            let zone: Tz = zone.parse()?;
            let utc = cast(column, wire)?;
            let local = |us: i64| {
                let utc = DateTime::from_timestamp_micros(us)?.naive_utc();
                let offset_s = zone.offset_from_utc_datetime(&utc).fix().local_minus_utc();
                us.checked_add(i64::from(offset_s) * 1_000_000)
            };
            let times = utc.as_primitive::<TimestampMicrosecondType>();
            Ok(Arc::new(times.unary_opt::<_, TimestampMicrosecondType>(local)))
        }
        (_, wire) => cast(column, wire),
    }
}

fn to_wire(batch: &RecordBatch, schema: &SchemaRef) -> PgWireResult<RecordBatch> {
    let columns = batch.columns().iter().zip(schema.fields());
    let columns = columns.map(|(column, field)| as_wire_type(column, field.data_type()));
    let columns = columns.collect::<Result<Vec<_>, _>>().map_err(|cause| error("22003", cause.to_string()))?;
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    // Nullability of expressions is sometimes told wrongly; the wire does not care.
    let fields: Vec<_> = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)
        .map_err(|cause| error("XX000", cause.to_string()))
}

/// The batch with texts in place of what the encoder would write otherwise than PostgreSQL does, or not at all: infinities, and decimals of
/// more than 96 bits. *Errors:* 22003 for such decimals in binary format.
fn with_texts(batch: &RecordBatch, fields: &[FieldInfo]) -> PgWireResult<RecordBatch> {
    let told = |column: &ArrayRef, format| match format {
        FieldFormat::Text => texts(column).map_err(|cause| error("XX000", cause.to_string())),
        FieldFormat::Binary if is_list_of_long_decimals(column.as_ref()) => {
            Err(error("22003", "a decimal of more than 96 bits has no binary format here: ask for text"))
        }
        FieldFormat::Binary => Ok(None),
    };
    let columns = batch.columns().iter().zip(fields).map(|(column, field)| told(column, field.format()));
    let texts = columns.collect::<PgWireResult<Vec<Option<ArrayRef>>>>()?;
    if texts.iter().all(Option::is_none) {
        return Ok(batch.clone());
    }
    let columns = texts.into_iter().zip(batch.columns()).map(|(text, column)| text.unwrap_or_else(|| column.clone()));
    let columns: Vec<ArrayRef> = columns.collect();
    let fields = columns.iter().zip(batch.schema_ref().fields());
    let fields = fields.map(|(column, field)| field.as_ref().clone().with_data_type(column.data_type().clone()));
    RecordBatch::try_new(Arc::new(Schema::new(fields.collect::<Vec<_>>())), columns)
        .map_err(|cause| error("XX000", cause.to_string()))
}

fn texts(column: &ArrayRef) -> Result<Option<ArrayRef>, ArrowError> {
    Ok(match column.data_type() {
        DataType::Decimal128(_, _) => Some(cast(column, &DataType::Utf8)?),
        DataType::Float32 | DataType::Float64 => {
            let numbers = cast(column, &DataType::Float64)?;
            if !numbers.as_primitive::<Float64Type>().iter().flatten().any(f64::is_infinite) {
                return Ok(None);
            }
            let texts = cast(column, &DataType::Utf8)?;
            let texts = texts.as_string::<i32>().iter().map(|text| match text {
                Some("inf") => Some("Infinity"),
                Some("-inf") => Some("-Infinity"),
                finite => finite,
            });
            Some(Arc::new(texts.collect::<StringArray>()))
        }
        DataType::List(_) => {
            let list = column.as_list::<i32>();
            texts(list.values())?.map(|items| {
                let field = Arc::new(Field::new_list_field(DataType::Utf8, true));
                Arc::new(ListArray::new(field, list.offsets().clone(), items, list.nulls().cloned())) as ArrayRef
            })
        }
        _ => None,
    })
}

fn is_list_of_long_decimals(column: &dyn Array) -> bool {
    let Some(items) = column.as_list_opt::<i32>().map(ListArray::values) else { return false };
    match items.data_type() {
        DataType::Decimal128(_, scale) => {
            let is_long = |value: i128| value.unsigned_abs() >= 1 << 96;
            !(0..=28).contains(scale) || items.as_primitive::<Decimal128Type>().iter().flatten().any(is_long)
        }
        _ => false,
    }
}

/// Rows of one batch.
struct BatchRows {
    batch: RecordBatch,
    fields: Arc<Vec<FieldInfo>>,
    encoder: DataRowEncoder,
    row_idx: usize,
}

impl BatchRows {
    fn new(batch: RecordBatch, fields: Arc<Vec<FieldInfo>>) -> BatchRows {
        BatchRows { batch, encoder: DataRowEncoder::new(fields.clone()), fields, row_idx: 0 }
    }

    fn encode(&mut self) -> PgWireResult<DataRow> {
        for (column_idx, column) in self.batch.columns().iter().enumerate() {
            if column.is_null(self.row_idx) {
                self.encoder.encode_field(&None::<i8>)?;
            } else {
                let field = self.batch.schema_ref().field(column_idx);
                encode_value(&mut self.encoder, column, self.row_idx, field, &self.fields[column_idx])?;
            }
        }
        Ok(self.encoder.take_row())
    }
}

impl Iterator for BatchRows {
    type Item = PgWireResult<DataRow>;

    fn next(&mut self) -> Option<PgWireResult<DataRow>> {
        if self.row_idx == self.batch.num_rows() {
            return None;
        }
        let row = self.encode();
        self.row_idx += 1;
        Some(row)
    }
}

/// Ends work that takes longer, and with it the connection. *Errors:* that of the work, or that the client did not read.
pub(crate) async fn in_time<T>(limit: Duration, work: impl Future<Output = PgWireResult<T>>) -> PgWireResult<T> {
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "the client did not read its answer");
    tokio::time::timeout(limit, Box::pin(work)).await.map_err(late)?
}

/// Rows whose query is given up when they are not asked for in time: a portal that a client forgot must not hold one of the engine's
/// places.
pub(crate) fn expiring(
    rows: BoxStream<'static, PgWireResult<DataRow>>,
    after: Duration,
) -> BoxStream<'static, PgWireResult<DataRow>> {
    let deadline = Instant::now() + after;
    let slot = Arc::new(Mutex::new(Some(rows)));
    let expired = slot.clone();
    let timer = tokio::spawn(async move {
        tokio::time::sleep_until(deadline).await;
        drop(expired.lock().take());
    });
    let timer = AbortOnDrop(timer);
    stream::unfold((slot, timer), move |(slot, timer)| async move {
        let Some(mut rows) = slot.lock().take() else {
            return Some((
                Err::<DataRow, PgWireError>(error("57014", "the portal was not read in time")),
                (slot, timer),
            ));
        };
        let next = rows.next().await;
        if Instant::now() < deadline {
            *slot.lock() = Some(rows);
        }
        next.map(|row| (row, (slot, timer)))
    })
    .boxed()
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Reads all of a result that has no rows to show.
pub(crate) async fn drain(mut batches: BoxStream<'static, PgWireResult<RecordBatch>>) -> PgWireResult<()> {
    while let Some(batch) = batches.next().await {
        batch?;
    }
    Ok(())
}
