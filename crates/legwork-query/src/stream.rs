//! A result with its limits: time, rows, bytes.

use std::time::Duration;

use arrow::array::{Array, RecordBatch};
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};

use crate::QueryError;
use crate::error;

/// What holds until the last row.
pub(crate) struct Limits {
    pub(crate) deadline: Instant,
    pub(crate) timeout: Duration,
    pub(crate) rows_max: usize,
    pub(crate) bytes_max: usize,
    pub(crate) memory_bytes_max: usize,
}

impl Limits {
    pub(crate) fn timed_out(&self) -> QueryError {
        let message = format!("the query took longer than {:?}: read less, or raise query.timeout", self.timeout);
        error::limit("57014", message)
    }
}

struct Running {
    batches: SendableRecordBatchStream,
    limits: Limits,
    n_rows: usize,
    n_bytes: usize,
    // Returned when the stream is dropped, so that a query counts as running until its client has it all or has gone.
    _permit: OwnedSemaphorePermit,
}

/// The rows of `batches` until they end or a limit is reached; an error is the last item. Dropping it frees all that the query holds.
pub(crate) fn limited(
    batches: SendableRecordBatchStream,
    limits: Limits,
    permit: OwnedSemaphorePermit,
) -> BoxStream<'static, Result<RecordBatch, QueryError>> {
    let running = Running { batches, limits, n_rows: 0, n_bytes: 0, _permit: permit };
    stream::unfold(Some(running), |running| async move {
        let mut running = running?;
        let item = running.next().await?;
        let next = item.is_ok().then_some(running);
        Some((item, next))
    })
    .boxed()
}

impl Running {
    async fn next(&mut self) -> Option<Result<RecordBatch, QueryError>> {
        let batch = match timeout_at(self.limits.deadline, self.batches.next()).await {
            Err(_) => return Some(Err(self.limits.timed_out())),
            Ok(None) => return None,
            Ok(Some(Err(failed))) => return Some(Err(error::of_query(&failed, &[], self.limits.memory_bytes_max))),
            Ok(Some(Ok(batch))) => batch,
        };
        self.n_rows += batch.num_rows();
        self.n_bytes += batch.columns().iter().map(|column| slice_bytes(column.as_ref())).sum::<usize>();
        if self.n_rows > self.limits.rows_max {
            let message =
                format!("the result has more than {} rows: add LIMIT, or raise query.rows_max", self.limits.rows_max);
            return Some(Err(error::limit("54000", message)));
        }
        if self.n_bytes > self.limits.bytes_max {
            let n_mib = self.limits.bytes_max >> 20;
            let message = format!(
                "the result has more than {n_mib} MiB: ask for fewer columns or rows, or raise query.result_bytes_max"
            );
            return Some(Err(error::limit("54000", message)));
        }
        Some(Ok(batch))
    }
}

/// Bytes of the rows themselves, not of the buffers that they may be a small slice of.
fn slice_bytes(column: &dyn Array) -> usize {
    column.to_data().get_slice_memory_size().unwrap_or_else(|_| column.get_array_memory_size())
}
