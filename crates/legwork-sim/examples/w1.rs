//! Writes the reference workload W1 as Parquet (zstd, a row group a million rows) or CSV, by the ending of `--out`; in arrival order.
//!
//!     cargo run -p legwork-sim --example w1 -- --out w1.parquet --out w1.csv --reps 10000 --pings 500 --seed 1 --span 2h

use std::fs::File;
use std::io::BufWriter;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail};
use arrow::array::{ArrayRef, RecordBatch};
use clap::Parser;
use legwork_sim::w1::{W1, W1Config};
use legwork_types::gps;
use legwork_types::time::{HOUR_US, MINUTE_US, SECOND_US};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

/// The columns of W1; the others of a fix are all null.
const COLUMNS: [usize; 7] =
    [gps::DEVICE_ID, gps::REP_ID, gps::EVENT_TIME, gps::LAT, gps::LON, gps::ACCURACY_M, gps::SPEED_MPS];
const ROW_GROUP_ROWS: usize = 1_000_000;

#[derive(Debug, Parser)]
#[command(about = "Writes the reference workload W1 to files")]
struct Arguments {
    /// Files to write; `.parquet` or `.csv`.
    #[arg(long, required = true)]
    out: Vec<PathBuf>,
    /// Reps, each with one device.
    #[arg(long, default_value_t = 10_000)]
    reps: u32,
    /// Fixes of each rep.
    #[arg(long, default_value_t = 500)]
    pings: u32,
    /// Seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Event time covered: 90s, 30m, 2h.
    #[arg(long, default_value = "2h", value_parser = parse_duration)]
    span: i64,
    /// A fix arrives up to so much late.
    #[arg(long, default_value = "30s", value_parser = parse_duration)]
    disorder: i64,
    /// Event time of the beginning, microseconds since 1970-01-01 UTC.
    #[arg(long, default_value_t = W1Config::default().start_us)]
    start_us: i64,
}

fn parse_duration(text: &str) -> Result<i64, String> {
    let (number, unit) = text.split_at(text.len().saturating_sub(1));
    let unit_us = match unit {
        "s" => SECOND_US,
        "m" => MINUTE_US,
        "h" => HOUR_US,
        _ => return Err(format!("expected a whole number with s, m or h, found {text:?}")),
    };
    number.parse::<i64>().map(|number| number * unit_us).map_err(|cause| format!("{text:?}: {cause}"))
}

enum Output {
    Parquet(ArrowWriter<File>),
    Csv(arrow::csv::Writer<BufWriter<File>>),
}

impl Output {
    fn create(path: &PathBuf, example: &RecordBatch) -> anyhow::Result<Output> {
        let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
        match path.extension().and_then(|ending| ending.to_str()) {
            Some("parquet") => {
                let properties = WriterProperties::builder()
                    .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
                    .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
                    .build();
                Ok(Output::Parquet(ArrowWriter::try_new(file, example.schema(), Some(properties))?))
            }
            Some("csv") => Ok(Output::Csv(arrow::csv::Writer::new(BufWriter::new(file)))),
            _ => bail!("expected a file ending in .parquet or .csv, found {}", path.display()),
        }
    }

    fn write(&mut self, batch: &RecordBatch) -> anyhow::Result<()> {
        match self {
            Output::Parquet(writer) => writer.write(batch)?,
            Output::Csv(writer) => writer.write(batch)?,
        }
        Ok(())
    }

    fn close(self) -> anyhow::Result<()> {
        match self {
            Output::Parquet(writer) => drop(writer.close()?),
            Output::Csv(writer) => drop(writer.into_inner().into_inner()?),
        }
        Ok(())
    }
}

/// The columns of W1 out of a canonical batch, without the docs that canonical schemas carry.
fn compact(batch: &RecordBatch) -> anyhow::Result<RecordBatch> {
    let schema = batch.schema();
    let columns =
        COLUMNS.map(|column| (schema.field(column).name().clone(), Arc::clone(batch.column(column)) as ArrayRef));
    Ok(RecordBatch::try_from_iter(columns)?)
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let config = W1Config {
        seed: arguments.seed,
        n_reps: arguments.reps,
        pings_per_rep: arguments.pings,
        start_us: arguments.start_us,
        span_us: arguments.span,
        disorder_us: arguments.disorder,
        ..W1Config::default()
    };
    let empty = compact(&RecordBatch::new_empty(legwork_types::Kind::Gps.schema()))?;
    let mut outputs =
        arguments.out.iter().map(|path| Output::create(path, &empty)).collect::<anyhow::Result<Vec<_>>>()?;
    for batch in W1::new(config) {
        let batch = compact(&batch)?;
        outputs.iter_mut().try_for_each(|output| output.write(&batch))?;
    }
    outputs.into_iter().try_for_each(Output::close)
}
