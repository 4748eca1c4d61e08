//! A result with its limits: time, rows, bytes.

use std::time::Duration;

use arrow::array::{Array, RecordBatch};
use datafusion::common::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::JoinHandle;
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
    batches: mpsc::Receiver<Result<RecordBatch, DataFusionError>>,
    task: JoinHandle<()>,
    limits: Limits,
    n_rows: usize,
    n_bytes: usize,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The rows of `batches` until they end or a limit is reached; an error is the last item. They are computed on `executor`, one batch ahead:
/// the deadline holds although the computation may not come to an end of its own. Dropping it frees all that the query holds.
pub(crate) fn limited(
    mut batches: SendableRecordBatchStream,
    limits: Limits,
    permit: OwnedSemaphorePermit,
    executor: &Handle,
) -> BoxStream<'static, Result<RecordBatch, QueryError>> {
    let (send, receive) = mpsc::channel(1);
    let task = executor.spawn(async move {
        // Returned when this task ends, so that a query counts as running until its client has it all or has gone, and it has stopped.
        let _permit = permit;
        while let Some(batch) = batches.next().await {
            if send.send(batch).await.is_err() {
                return;
            }
        }
    });
    let running = Running { batches: receive, task, limits, n_rows: 0, n_bytes: 0 };
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
        let batch = match timeout_at(self.limits.deadline, self.batches.recv()).await {
            Err(_) => return Some(Err(self.limits.timed_out())),
            Ok(None) => return self.end().await,
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

    /// No more rows: all of them are there, or the task broke down.
    async fn end(&mut self) -> Option<Result<RecordBatch, QueryError>> {
        let broken = (&mut self.task).await.err()?;
        Some(Err(error::bug(format!("the query broke down: {broken}"))))
    }
}

/// Bytes of the rows themselves, not of the buffers that they may be a small slice of.
fn slice_bytes(column: &dyn Array) -> usize {
    column.to_data().get_slice_memory_size().unwrap_or_else(|_| column.get_array_memory_size())
}
