//! Rows on stdout: as a table, CSV, JSON, Arrow or Parquet.

use std::io::{self, Write};

use anyhow::{Context, Result};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::ipc::writer::StreamWriter;
use arrow::util::pretty::pretty_format_batches_with_schema;
use clap::ValueEnum;
use futures::{Stream, StreamExt};
use legwork_server::http::{as_text, csv_schema};

/// How rows are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A table to read.
    Table,
    /// Comma-separated values with a header.
    Csv,
    /// An array of objects.
    Json,
    /// An Arrow IPC stream.
    Arrow,
    /// A Parquet file.
    Parquet,
}

/// Prints all batches; those of a table are collected first, to know its widths. *Returns* how many rows there were.
pub(crate) async fn print<E>(
    format: Format,
    schema: SchemaRef,
    batches: impl Stream<Item = Result<RecordBatch, E>>,
    out: impl Write + Send,
) -> Result<usize>
where
    E: std::error::Error + Send + Sync + 'static,
{
    let mut n_rows = 0;
    let counted = batches.inspect(|batch| n_rows += batch.as_ref().map_or(0, RecordBatch::num_rows));
    write(format, schema, counted, out).await?;
    Ok(n_rows)
}

async fn write<E>(
    format: Format,
    schema: SchemaRef,
    batches: impl Stream<Item = Result<RecordBatch, E>>,
    out: impl Write + Send,
) -> Result<()>
where
    E: std::error::Error + Send + Sync + 'static,
{
    let mut out = io::BufWriter::new(out);
    let mut batches = std::pin::pin!(batches);
    match format {
        Format::Table => {
            let mut all = Vec::new();
            while let Some(batch) = batches.next().await {
                all.push(batch?);
            }
            writeln!(out, "{}", pretty_format_batches_with_schema(schema, &all)?)?;
            let n_rows: usize = all.iter().map(RecordBatch::num_rows).sum();
            writeln!(out, "({n_rows} row{})", if n_rows == 1 { "" } else { "s" })?;
        }
        Format::Csv => {
            let schema = csv_schema(&schema);
            let mut writer = arrow::csv::WriterBuilder::new().with_header(true).build(&mut out);
            writer.write(&RecordBatch::new_empty(schema.clone()))?;
            while let Some(batch) = batches.next().await {
                writer.write(&as_text(&batch?, &schema)?)?;
            }
        }
        Format::Json => {
            let mut writer = arrow::json::WriterBuilder::new()
                .with_explicit_nulls(true)
                .build::<_, arrow::json::writer::JsonArray>(&mut out);
            while let Some(batch) = batches.next().await {
                writer.write(&batch?)?;
            }
            writer.finish()?;
            drop(writer);
            writeln!(out)?;
        }
        Format::Arrow => {
            let mut writer = StreamWriter::try_new(&mut out, &schema)?;
            while let Some(batch) = batches.next().await {
                writer.write(&batch?)?;
            }
            writer.finish()?;
        }
        Format::Parquet => {
            let mut writer = parquet::arrow::ArrowWriter::try_new(&mut out, schema, None)?;
            while let Some(batch) = batches.next().await {
                writer.write(&batch?)?;
            }
            writer.close()?;
        }
    }
    out.flush().context("writing to stdout")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, ListBuilder, StringBuilder};
    use arrow::error::ArrowError;

    use super::*;

    #[tokio::test]
    async fn lists_in_csv_have_semicolons() -> Result<()> {
        let mut signals = ListBuilder::new(StringBuilder::new());
        signals.append_value([Some("age"), Some("no, touch")]);
        signals.append_null();
        let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
        let batch = RecordBatch::try_from_iter([("id", ids), ("signals", Arc::new(signals.finish()) as _)])?;
        let (schema, mut out) = (batch.schema(), Vec::new());
        let n_rows = print(Format::Csv, schema, futures::stream::iter([Ok::<_, ArrowError>(batch)]), &mut out).await?;
        assert_eq!((n_rows, String::from_utf8(out)?.as_str()), (2, "id,signals\n1,\"age;no, touch\"\n2,\n"));
        Ok(())
    }
}
