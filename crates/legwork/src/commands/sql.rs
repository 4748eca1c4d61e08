//! `legwork sql`: statements over a running Legwork, or over files run through the same lanes.

use std::io::{IsTerminal, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use futures::{FutureExt, StreamExt, TryStreamExt};
use indicatif::{ProgressBar, ProgressStyle};
use legwork_codec::files::FileInput;
use legwork_query::{Engine, NowSource, QueryOptions, Session, SqlEngine};
use legwork_runtime::{RawEvents, ReferenceDir, ReferenceTables, run_files};
use legwork_server::http::NOTICES;
use legwork_types::{Kind, LiveError, LiveTables, Lookup, SnapshotFuture};

use crate::args::{InputArgs, SqlArgs};
use crate::config::Config;
use crate::data;
use crate::exit::{self, Failure};
use crate::output::{self, Format};
use crate::service::{query_options, wall_clock_us};
use crate::topics;

/// A horizon that no file reaches, with room for sums.
pub(crate) const UNBOUNDED_US: i64 = i64::MAX / 4;

/// Rows of one batch read from a file.
const BATCH_ROWS: usize = 32_768;
/// Rejected rows that are told one by one.
const REJECTED_TOLD: usize = 3;

/// Statuses of HTTP that say that the same may work later: too many queries, lanes on their way, out of time.
const TEMPORARY: [u16; 3] = [429, 503, 504];
/// The same as SQLSTATEs.
const TEMPORARY_STATES: [&str; 6] = ["53000", "53300", "57014", "57P01", "57P03", "58030"];

pub(crate) async fn run(args: SqlArgs) -> Result<()> {
    let mut overrides = args.config.overrides();
    if let Some(window) = args.window {
        overrides.set.push(("time.window".to_owned(), window.to_string()));
    }
    let mut config = super::quiet(&overrides)?;
    let sql = statement(args.sql)?;
    if args.data.is_some() {
        data::place(&mut config, args.data.as_deref())?;
        return over_data(&config, &sql, args.as_of.as_deref(), args.format).await;
    }
    if args.files.input.is_empty() {
        return over_wire(&args.url, &sql, args.as_of.as_deref(), args.format).await.map(drop);
    }
    over_files(&config, &args.files, &sql, args.as_of.as_deref(), args.format).await.map(drop)
}

fn statement(argument: Option<String>) -> Result<String> {
    let sql = match argument {
        Some(sql) if sql != "-" => sql,
        None if std::io::stdin().is_terminal() => String::new(),
        _ => {
            let mut sql = String::new();
            std::io::stdin().read_to_string(&mut sql).context("reading the statement from stdin")?;
            sql
        }
    };
    if sql.trim().is_empty() {
        bail!(Failure::Usage(
            "no statement: give one, such as legwork sql 'SELECT * FROM rep_activity LIMIT 10'".to_owned()
        ));
    }
    Ok(sql)
}

/// Asks store and lake where they lie.
async fn over_data(config: &Config, sql: &str, as_of: Option<&str>, format: Format) -> Result<()> {
    let options = unlimited(config, None, as_of)?;
    legwork_query::check(sql)?;
    let kept = data::open_existing(config).await?;
    let live = data::stored_lanes(&kept, config, |_| true).await?;
    let engine = SqlEngine::with_history(live, kept.tables.clone(), options)?;
    let result = engine.session().query(sql).await?;
    warn(&result.notices);
    output::print(format, result.schema.clone(), result.batches, std::io::stdout()).await.map(drop)
}

/// Limits of a command that serves one person.
pub(crate) fn unlimited(config: &Config, now: Option<NowSource>, as_of: Option<&str>) -> Result<QueryOptions> {
    let options = query_options(config)?;
    let now = match as_of {
        Some(as_of) => NowSource::Fixed(topics::parse_time(as_of).map_err(Failure::Usage)?),
        None => now.unwrap_or(options.now),
    };
    let timeout = Duration::from_secs(24 * 3_600);
    Ok(QueryOptions { now, rows_max: usize::MAX, result_bytes_max: usize::MAX, timeout, ..options })
}

/// Runs files through the lanes, then asks them. *Returns* how many rows were printed.
pub(crate) async fn over_files(
    config: &Config,
    files: &InputArgs,
    sql: &str,
    as_of: Option<&str>,
    format: Format,
) -> Result<usize> {
    let options = unlimited(config, Some(NowSource::Event { known_us: None }), as_of)?;
    // A statement that is refused or wrong need not wait for the files.
    let wanted = SqlEngine::new(Arc::new(NoTables), options.clone())?.sql_session().tables_read(sql).await?;
    let wanted = Kind::events().filter(|kind| wanted.contains(kind.table())).collect();
    let config = config.clone();
    let inputs = inputs(&files.input, &files.map)?;
    let tables = tokio::task::spawn_blocking(move || run_inputs(&config, inputs, wanted)).await??;
    let engine = SqlEngine::new(tables, options)?;
    let session = engine.session();
    tell_rejected(session.as_ref()).await?;
    let result = session.query(sql).await?;
    output::print(format, result.schema.clone(), result.batches, std::io::stdout()).await
}

/// What is asked before files are run.
#[derive(Debug)]
struct NoTables;

impl LiveTables for NoTables {
    fn snapshot(&self, table: &str) -> SnapshotFuture {
        std::future::ready(Err(LiveError::UnknownTable { table: table.to_owned() })).boxed()
    }

    fn lookup(&self, lookup: Lookup) -> SnapshotFuture {
        self.snapshot(&lookup.table)
    }

    fn newest_event_time_us(&self) -> Option<i64> {
        None
    }
}

/// Says on stderr when an answer is about fewer rows than the files have.
async fn tell_rejected(session: &dyn Session) -> Result<()> {
    let counts = session.query("SELECT sum(n_rejected), sum(n_read) FROM pipeline_lanes").await?;
    let counts: Vec<_> = counts.batches.try_collect().await?;
    let count = |column: usize| {
        let numbers = counts.iter().flat_map(move |batch| batch.column(column).as_primitive::<Int64Type>());
        numbers.flatten().sum::<i64>()
    };
    if count(0) == 0 {
        return Ok(());
    }
    tracing::warn!(
        "{} of {} rows are rejected and counted nowhere; to see them: \
         SELECT reason, detail, convert_from(payload, 'UTF8') FROM rejected_events",
        count(0),
        count(1)
    );
    let first = format!(r#"SELECT detail FROM rejected_events ORDER BY topic, "offset" LIMIT {REJECTED_TOLD}"#);
    let mut first = session.query(&first).await?.batches;
    while let Some(batch) = first.try_next().await? {
        for detail in batch.column(0).as_string::<i32>().iter().flatten() {
            tracing::warn!("rejected: {detail}");
        }
    }
    Ok(())
}

fn run_inputs(config: &Config, inputs: Vec<FileInput>, wanted: Vec<Kind>) -> Result<Arc<dyn LiveTables>> {
    let mut lanes = topics::lanes(config);
    // Files are run through once, so nothing need be let go: every distance can be explained.
    lanes.operators.time.late_horizon_us = UNBOUNDED_US;
    lanes.raw_events = RawEvents::Only(wanted);
    let scratch = tempfile::tempdir().context("making a folder for what does not fit into memory")?;
    scratch.path().clone_into(&mut lanes.spill.dir);
    let (mut reference, inputs) = reference_inputs(config, inputs)?;
    for name in inputs.1 {
        reference.forget(name);
    }
    let bar = progress_bar();
    let tables = run_files(inputs.0, lanes, reference, &mut |progress| {
        bar.set_length(progress.bytes_total);
        bar.set_position(progress.bytes_read);
        bar.set_message(format!("{} events", progress.n_events));
    });
    bar.finish_and_clear();
    // The folder must outlive the tables, which read what was moved there: the process ends with this command.
    let _kept = scratch.keep();
    Ok(tables?)
}

type Inputs = (Vec<FileInput>, Vec<Kind>);

/// Reference data from the folder of the configuration; a file given for the same kind replaces it.
fn reference_inputs(config: &Config, inputs: Vec<FileInput>) -> Result<(ReferenceTables, Inputs)> {
    let (tables, errors) = ReferenceDir::new(config.reference.dir.clone()).refresh(wall_clock_us());
    for error in errors {
        tracing::warn!("{error}");
    }
    let given = inputs.iter().map(|input| input.kind).filter(|kind| kind.is_reference()).collect();
    Ok((tables.unwrap_or_default(), (inputs, given)))
}

pub(crate) fn progress_bar() -> ProgressBar {
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template("{wide_bar} {percent:>3}%  {bytes}/{total_bytes}  {msg}  {elapsed}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

/// Each file with those of the mappings that concern it.
pub(crate) fn inputs(files: &[(Kind, PathBuf)], map: &[(String, String)]) -> Result<Vec<FileInput>> {
    let mut used = vec![false; map.len()];
    let mut inputs = Vec::new();
    for (kind, path) in files {
        let mut own = Vec::new();
        for (idx, (field, column)) in map.iter().enumerate() {
            let field = match field.split_once('.') {
                Some((prefix, field)) => match prefix.parse::<Kind>() {
                    Ok(prefix) if prefix == *kind => field,
                    _ => continue,
                },
                None => field,
            };
            if kind.schema().index_of(field).is_ok() || files.len() == 1 {
                used[idx] = true;
                own.push((field.to_owned(), column.clone()));
            }
        }
        inputs.push(FileInput {
            kind: *kind,
            path: path.clone(),
            map: own,
            arrival_us: wall_clock_us(),
            batch_rows: BATCH_ROWS,
        });
    }
    if let Some(idx) = used.iter().position(|used| !used) {
        bail!(Failure::Usage(format!("--map {}={}: no input has a field {}", map[idx].0, map[idx].1, map[idx].0)));
    }
    Ok(inputs)
}

/// What is to be known beside the rows.
fn warn(notices: &[String]) {
    for notice in notices {
        eprintln!("warning: {notice}");
    }
}

/// Asks a running Legwork. *Returns* how many rows were printed.
pub(crate) async fn over_wire(url: &str, sql: &str, as_of: Option<&str>, format: Format) -> Result<usize> {
    if url.starts_with("postgres://") || url.starts_with("postgresql://") {
        return over_postgres(url, sql, as_of, format).await;
    }
    if !url.starts_with("http://") {
        bail!(Failure::Usage(format!(
            "{url:?} is no address of Legwork: expected http://host:port or postgres://host:port"
        )));
    }
    let endpoint = format!("{}/v1/sql", url.trim_end_matches('/'));
    let mut body = serde_json::json!({ "sql": sql });
    if let Some(as_of) = as_of {
        body["as_of"] = as_of.into();
    }
    let response = reqwest::Client::new()
        .post(&endpoint)
        .header("accept", "application/vnd.apache.arrow.stream")
        .json(&body)
        .send()
        .await
        .map_err(|error| {
            Failure::Temporary(format!("{url} does not answer: is `legwork demo` or `legwork up` running? ({error})"))
        })?;
    let status = response.status();
    if !status.is_success() {
        let text = response.text().await.unwrap_or_default();
        let detail = serde_json::from_str::<serde_json::Value>(&text)
            .ok()
            .and_then(|problem| Some(problem["detail"].as_str()?.to_owned()))
            .unwrap_or(text);
        if TEMPORARY.contains(&status.as_u16()) {
            bail!(Failure::Temporary(detail));
        }
        bail!("{detail}");
    }
    if let Some(notices) = response.headers().get(NOTICES) {
        warn(&serde_json::from_slice::<Vec<String>>(notices.as_bytes()).unwrap_or_default());
    }
    let bytes = response.bytes().await.context("reading the answer")?;
    let reader = arrow::ipc::reader::StreamReader::try_new(std::io::Cursor::new(bytes), None)?;
    let schema = reader.schema();
    output::print(format, schema, futures::stream::iter(reader), std::io::stdout()).await
}

/// Over the PostgreSQL protocol values come as text.
async fn over_postgres(url: &str, sql: &str, as_of: Option<&str>, format: Format) -> Result<usize> {
    use arrow::array::{RecordBatch, StringArray};
    use arrow::datatypes::{DataType, Field, Schema};
    use tokio_postgres::{AsyncMessage, SimpleQueryMessage};

    if matches!(format, Format::Arrow | Format::Parquet) {
        bail!(Failure::Usage(
            "over postgres:// values come as text: use the http:// address for --format arrow or parquet".to_owned()
        ));
    }
    let (client, mut connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.map_err(|error| {
        Failure::Temporary(format!("the PostgreSQL address does not answer: {}", exit::told(&error.into())))
    })?;
    let connection = tokio::spawn(async move {
        while let Some(Ok(message)) = std::future::poll_fn(|cx| connection.poll_message(cx)).await {
            if let AsyncMessage::Notice(notice) = message {
                warn(&[notice.message().to_owned()]);
            }
        }
    });
    if let Some(as_of) = as_of {
        let set = format!("SET legwork.as_of = '{}'", as_of.replace('\'', "''"));
        client.simple_query(&set).await.map_err(postgres_error)?;
    }
    let mut names: Vec<String> = Vec::new();
    let mut rows: Vec<Vec<Option<String>>> = Vec::new();
    for message in client.simple_query(sql).await.map_err(postgres_error)? {
        match message {
            SimpleQueryMessage::RowDescription(columns) => {
                names = columns.iter().map(|column| column.name().to_owned()).collect()
            }
            SimpleQueryMessage::Row(row) => {
                rows.push((0..row.len()).map(|idx| row.get(idx).map(str::to_owned)).collect())
            }
            _ => {}
        }
    }
    drop(client);
    connection.abort();
    let schema =
        Arc::new(Schema::new(names.iter().map(|name| Field::new(name, DataType::Utf8, true)).collect::<Vec<_>>()));
    let columns = (0..names.len())
        .map(|idx| Arc::new(rows.iter().map(|row| row[idx].as_deref()).collect::<StringArray>()) as _)
        .collect();
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows.len()));
    let batch = RecordBatch::try_new_with_options(schema.clone(), columns, &options)?;
    output::print(
        format,
        schema,
        futures::stream::iter([Ok::<_, arrow::error::ArrowError>(batch)]).boxed(),
        std::io::stdout(),
    )
    .await
}

fn postgres_error(error: tokio_postgres::Error) -> anyhow::Error {
    match error.as_db_error() {
        Some(db) if TEMPORARY_STATES.contains(&db.code().code()) => Failure::Temporary(db.message().to_owned()).into(),
        Some(db) => anyhow::anyhow!("{}", db.message()),
        None if error.is_closed() => Failure::Temporary(exit::told(&error.into())).into(),
        None => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::process::ExitCode;

    use super::*;

    /// The exit code of a statement whose answer has this status.
    async fn code_of(status: &'static str) -> Result<ExitCode> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        let url = format!("http://{}", listener.local_addr()?);
        let server = std::thread::spawn(move || -> std::io::Result<()> {
            let (mut stream, _) = listener.accept()?;
            let mut request = Vec::new();
            while !request.ends_with(b"}") {
                let mut bytes = [0; 4_096];
                let n = stream.read(&mut bytes)?;
                request.extend_from_slice(&bytes[..n]);
            }
            let body = r#"{"detail": "no"}"#;
            write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
        });
        let error = over_wire(&url, "SELECT 1", None, Format::Table).await.expect_err(status);
        server.join().map_err(|_| anyhow::anyhow!("the server panicked"))??;
        Ok(exit::code(&error))
    }

    #[tokio::test]
    async fn what_may_work_later_is_told_by_the_exit_code() -> Result<()> {
        for (status, code) in [
            ("429 Too Many Requests", ExitCode::from(75)),
            ("503 Service Unavailable", ExitCode::from(75)),
            ("504 Gateway Timeout", ExitCode::from(75)),
            ("400 Bad Request", ExitCode::FAILURE),
        ] {
            assert_eq!(code_of(status).await?, code, "{status}");
        }
        Ok(())
    }
}
