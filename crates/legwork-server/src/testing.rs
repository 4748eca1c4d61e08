//! A small engine for tests: DataFusion over one table, with an allow-list and limits.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array, ListBuilder,
    RecordBatch, StringArray, StringBuilder, TimestampMicrosecondArray,
};
use datafusion::datasource::{MemTable, ViewTable};
use datafusion::error::DataFusionError;
use datafusion::execution::context::SQLOptions;
use datafusion::logical_expr::{Accumulator, ColumnarValue, Volatility, create_udaf, create_udf};
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::scalar::ScalarValue;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use legwork_query::{Engine, ErrorKind, QueryError, QueryResult, Session, TableInfo};
use parking_lot::Mutex;

/// Answers from one table of every type, `samples`, and a view of it, `sample_names`.
#[derive(Debug, Default)]
pub(crate) struct FakeEngine {
    pub(crate) rows_max: Option<usize>,
    pub(crate) timeout: Option<Duration>,
    /// Of every answer with rows.
    pub(crate) notices: Vec<String>,
    /// What views of the business metrics are made of; in order.
    pub(crate) views: Vec<(&'static str, &'static str)>,
}

pub(crate) fn samples() -> RecordBatch {
    let mut tags = ListBuilder::new(StringBuilder::new());
    tags.append_value([Some("a"), None, Some("it's \"b\"")]);
    tags.append_null();
    tags.append_value(Vec::<Option<&str>>::new());
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(Int64Array::from(vec![1, 2, 3]))),
        ("name", Arc::new(StringArray::from(vec![Some("Ada"), None, Some("it's; \\ \"x\"")]))),
        ("share", Arc::new(Float64Array::from(vec![Some(0.1), None, Some(-1.5e300)]))),
        (
            "amount",
            Arc::new(
                Decimal128Array::from(vec![Some(12_345_678_i128), None, Some(-1)])
                    .with_precision_and_scale(18, 4)
                    .unwrap(),
            ),
        ),
        ("at", {
            let times = vec![Some(1_780_000_000_123_456), None, Some(-1)];
            Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC"))
        }),
        ("day", Arc::new(Date32Array::from(vec![Some(20_000), None, Some(-1)]))),
        ("good", Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)]))),
        ("raw", Arc::new(BinaryArray::from(vec![Some(&b"\x00\xff'"[..]), None, Some(b"")]))),
        ("tags", Arc::new(tags.finish())),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true))).unwrap()
}

fn context(views: &[(&'static str, &'static str)]) -> SessionContext {
    let mut config =
        SessionConfig::new().with_information_schema(true).with_default_catalog_and_schema("legwork", "public");
    config.options_mut().sql_parser.dialect = datafusion::config::Dialect::PostgreSQL;
    let context = SessionContext::new_with_config(config);
    let batch = samples();
    context.register_table("samples", Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]]).unwrap())).unwrap();
    add_functions(&context);
    for (name, sql) in [("sample_names", "SELECT id, name FROM samples")].iter().chain(views) {
        let plan = context.sql(sql).now_or_never().unwrap().unwrap().into_unoptimized_plan();
        context.register_table(*name, Arc::new(ViewTable::new(plan, Some((*sql).to_owned())))).unwrap();
    }
    context
}

/// A clock that stands still, and the greatest duration in place of a quantile.
fn add_functions(context: &SessionContext) {
    let now = ScalarValue::TimestampMicrosecond(Some(1_780_000_000_000_000), Some("UTC".into()));
    let data_type = now.data_type();
    let answer = Arc::new(move |_: &[ColumnarValue]| Ok(ColumnarValue::Scalar(now.clone())));
    context.register_udf(create_udf("legwork_now", vec![], data_type, Volatility::Stable, answer));
    use arrow::datatypes::DataType::{Boolean, Float64};
    let arguments = vec![Float64, Boolean, Float64];
    let accumulator = Arc::new(|_: datafusion::logical_expr::function::AccumulatorArgs<'_>| {
        Ok(Box::new(Greatest(None)) as Box<dyn Accumulator>)
    });
    context.register_udaf(create_udaf(
        "km_quantile",
        arguments,
        Arc::new(Float64),
        Volatility::Immutable,
        accumulator,
        Arc::new(vec![Float64]),
    ));
}

#[derive(Debug)]
struct Greatest(Option<f64>);

impl Accumulator for Greatest {
    fn update_batch(&mut self, values: &[ArrayRef]) -> datafusion::error::Result<()> {
        let greatest =
            arrow::compute::max(arrow::array::AsArray::as_primitive::<arrow::datatypes::Float64Type>(&values[0]));
        self.0 = [self.0, greatest].into_iter().flatten().reduce(f64::max);
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> datafusion::error::Result<()> {
        self.update_batch(states)
    }

    fn evaluate(&mut self) -> datafusion::error::Result<ScalarValue> {
        Ok(ScalarValue::Float64(self.0))
    }

    fn state(&mut self) -> datafusion::error::Result<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::Float64(self.0)])
    }

    fn size(&self) -> usize {
        size_of::<Self>()
    }
}

impl Engine for FakeEngine {
    fn session(&self) -> Arc<dyn Session> {
        let context = context(&self.views);
        Arc::new(FakeSession {
            context,
            rows_max: self.rows_max,
            timeout: self.timeout,
            notices: self.notices.clone(),
            as_of: Mutex::default(),
        })
    }

    fn tables(&self) -> BoxFuture<'_, Result<Vec<TableInfo>, QueryError>> {
        let table = TableInfo {
            name: "samples".to_owned(),
            doc: "One row of every type.".to_owned(),
            is_view: false,
            schema: samples().schema(),
            key: vec!["id".to_owned()],
        };
        async { Ok(vec![table]) }.boxed()
    }
}

struct FakeSession {
    context: SessionContext,
    rows_max: Option<usize>,
    timeout: Option<Duration>,
    notices: Vec<String>,
    as_of: Mutex<Option<String>>,
}

impl std::fmt::Debug for FakeSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FakeSession").finish_non_exhaustive()
    }
}

fn from_datafusion(error: DataFusionError) -> QueryError {
    let message = error.to_string();
    let (kind, sqlstate) = match error.find_root() {
        DataFusionError::SQL(..) => (ErrorKind::Statement, "42601"),
        DataFusionError::Plan(text) if text.contains("not found") => (ErrorKind::Statement, "42P01"),
        DataFusionError::Plan(text) if text.contains("not supported") => (ErrorKind::Forbidden, "42501"),
        DataFusionError::SchemaError(..) => (ErrorKind::Statement, "42703"),
        _ => (ErrorKind::Statement, "42000"),
    };
    QueryError { kind, sqlstate, message }
}

impl Session for FakeSession {
    fn query<'a>(&'a self, sql: &'a str) -> BoxFuture<'a, Result<QueryResult, QueryError>> {
        async move {
            if let Some(value) = sql.strip_prefix("SET legwork.as_of = ") {
                *self.as_of.lock() = Some(value.to_owned());
                return Ok(QueryResult {
                    schema: Arc::new(arrow::datatypes::Schema::empty()),
                    batches: futures::stream::empty().boxed(),
                    notices: Vec::new(),
                });
            }
            let options = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
            let frame = self.context.sql_with_options(sql, options).await.map_err(from_datafusion)?;
            let stream = frame.execute_stream().await.map_err(from_datafusion)?;
            let schema = stream.schema();
            let mut rows_left = self.rows_max.unwrap_or(usize::MAX);
            let batches = stream.map(move |batch| {
                let batch = batch.map_err(from_datafusion)?;
                rows_left = rows_left.checked_sub(batch.num_rows()).ok_or_else(|| QueryError {
                    kind: ErrorKind::Limit,
                    sqlstate: "54000",
                    message: "the result has too many rows".to_owned(),
                })?;
                Ok(batch)
            });
            // As the real engine's: it may not be polled after its end.
            let batches = futures::stream::unfold(batches.boxed(), |mut batches| async {
                batches.next().await.map(|batch| (batch, batches))
            });
            let notices = self.notices.clone();
            let Some(timeout) = self.timeout else {
                return Ok(QueryResult { schema, notices, batches: batches.boxed() });
            };
            let late = async move {
                tokio::time::sleep(timeout).await;
                let message = "the query ran too long".to_owned();
                Err(QueryError { kind: ErrorKind::Limit, sqlstate: "57014", message })
            };
            let mut batches = batches.boxed();
            let mut late = Box::pin(late.fuse());
            let batches = async_stream(move |cx| {
                if let std::task::Poll::Ready(error) = late.poll_unpin(cx) {
                    return std::task::Poll::Ready(Some(error));
                }
                batches.poll_next_unpin(cx)
            });
            Ok(QueryResult { schema, notices, batches })
        }
        .boxed()
    }

    fn context(&self) -> &SessionContext {
        &self.context
    }
}

fn async_stream<T: Send + 'static>(
    poll: impl FnMut(&mut std::task::Context<'_>) -> std::task::Poll<Option<T>> + Send + 'static,
) -> futures::stream::BoxStream<'static, T> {
    futures::stream::poll_fn(poll).boxed()
}
