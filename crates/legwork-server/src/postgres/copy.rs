//! `COPY (query) TO STDOUT` in the formats binary, text and csv: a query whose rows leave as copy data. Nothing is read from the client.

use std::fmt::Debug;

use bytes::{BufMut, Bytes, BytesMut};
use datafusion::sql::sqlparser::ast::{
    CopyLegacyCsvOption, CopyLegacyOption, CopyOption, CopySource, CopyTarget, Statement,
};
use futures::stream::BoxStream;
use futures::{Sink, SinkExt, StreamExt};
use pgwire::api::portal::Format;
use pgwire::api::results::{FieldInfo, Tag};
use pgwire::error::{PgWireError, PgWireResult};
use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::copy::{CopyData, CopyDone, CopyOutResponse};
use pgwire::messages::data::DataRow;
use pgwire::messages::response::CommandComplete;

use super::error::{error, unsupported};
use super::statement::engine_text;

/// Signature, flags without OIDs, no header extension: PostgreSQL's documentation of COPY, "Binary Format".
const BINARY_HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// In place of a number of columns: the end.
const BINARY_TRAILER: [u8; 2] = [0xff, 0xff];

/// How copy data is written.
#[derive(Clone, Debug, PartialEq, Eq)]
enum CopyFormat {
    Binary,
    Text,
    Csv { quote: u8, escape: u8 },
}

/// A `COPY ... TO STDOUT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CopyOut {
    /// The query for the engine.
    pub(crate) text: String,
    format: CopyFormat,
    delimiter: u8,
    null: String,
    header: bool,
}

/// Options as given, before defaults.
#[derive(Default)]
struct Options {
    format: Option<String>,
    delimiter: Option<char>,
    null: Option<String>,
    header: bool,
    quote: Option<char>,
    escape: Option<char>,
}

impl Options {
    fn add(&mut self, option: &CopyOption) -> PgWireResult<()> {
        match option {
            CopyOption::Format(name) => self.format = Some(name.value.to_ascii_lowercase()),
            CopyOption::Delimiter(delimiter) => self.delimiter = Some(*delimiter),
            CopyOption::Null(null) => self.null = Some(null.clone()),
            CopyOption::Header(header) => self.header = *header,
            CopyOption::Quote(quote) => self.quote = Some(*quote),
            CopyOption::Escape(escape) => self.escape = Some(*escape),
            CopyOption::Encoding(encoding) if encoding.to_ascii_lowercase().replace('-', "") == "utf8" => {}
            other => return Err(unsupported(format!("COPY option {other} is not supported"))),
        }
        Ok(())
    }

    fn add_legacy(&mut self, option: &CopyLegacyOption) -> PgWireResult<()> {
        match option {
            CopyLegacyOption::Binary => self.format = Some("binary".to_owned()),
            CopyLegacyOption::Delimiter(delimiter) => self.delimiter = Some(*delimiter),
            CopyLegacyOption::Null(null) => self.null = Some(null.clone()),
            CopyLegacyOption::Header => self.header = true,
            CopyLegacyOption::Csv(options) => {
                self.format = Some("csv".to_owned());
                for option in options {
                    match option {
                        CopyLegacyCsvOption::Header => self.header = true,
                        CopyLegacyCsvOption::Quote(quote) => self.quote = Some(*quote),
                        CopyLegacyCsvOption::Escape(escape) => self.escape = Some(*escape),
                        other => return Err(unsupported(format!("COPY option {other} is not supported"))),
                    }
                }
            }
            other => return Err(unsupported(format!("COPY option {other} is not supported"))),
        }
        Ok(())
    }
}

fn one_byte(what: &str, value: Option<char>, default: u8) -> PgWireResult<u8> {
    match value {
        None => Ok(default),
        Some(value) if value.is_ascii() && !"\r\n\0\\".contains(value) => Ok(value as u8),
        Some(value) => {
            Err(error("22023", format!("COPY {what} {value:?} is not a single-byte character that may stand there")))
        }
    }
}

impl CopyOut {
    /// *Errors:* 42501 for files and programs, 0A000 for options that are not supported.
    pub(crate) fn new(
        source: &CopySource,
        target: &CopyTarget,
        options: &[CopyOption],
        legacy_options: &[CopyLegacyOption],
    ) -> PgWireResult<CopyOut> {
        if !matches!(target, CopyTarget::Stdout) {
            return Err(error("42501", "COPY writes to STDOUT only, not to files or programs of the server"));
        }
        let mut given = Options::default();
        options.iter().try_for_each(|option| given.add(option))?;
        legacy_options.iter().try_for_each(|option| given.add_legacy(option))?;
        let (format, delimiter, null) = match given.format.as_deref() {
            None | Some("text") => (CopyFormat::Text, b'\t', "\\N"),
            Some("csv") => {
                let quote = one_byte("QUOTE", given.quote, b'"')?;
                let escape = one_byte("ESCAPE", given.escape, quote)?;
                (CopyFormat::Csv { quote, escape }, b',', "")
            }
            Some("binary") => (CopyFormat::Binary, 0, ""),
            Some(other) => return Err(error("22023", format!("COPY format {other:?} is not text, csv or binary"))),
        };
        let delimiter = one_byte("DELIMITER", given.delimiter, delimiter)?;
        let null = given.null.unwrap_or_else(|| null.to_owned());
        if null.contains(['\r', '\n']) {
            return Err(error("22023", "COPY NULL must not contain line breaks"));
        }
        Ok(CopyOut { text: query_text(source), format, delimiter, null, header: given.header })
    }

    /// How values are encoded.
    pub(crate) fn value_format(&self) -> Format {
        if self.format == CopyFormat::Binary { Format::UnifiedBinary } else { Format::UnifiedText }
    }

    fn header_line(&self, fields: &[FieldInfo], line: &mut BytesMut) {
        for (idx, field) in fields.iter().enumerate() {
            self.begin_value(idx, line);
            self.write_value(field.name().as_bytes(), line);
        }
        line.put_u8(b'\n');
    }

    fn begin_value(&self, idx: usize, line: &mut BytesMut) {
        if idx > 0 {
            line.put_u8(self.delimiter);
        }
    }

    fn write_value(&self, value: &[u8], line: &mut BytesMut) {
        match self.format {
            CopyFormat::Csv { quote, escape } => {
                let special = |byte: &u8| [self.delimiter, quote, escape, b'\n', b'\r'].contains(byte);
                if value == self.null.as_bytes() || value == b"\\." || value.iter().any(special) {
                    line.put_u8(quote);
                    for &byte in value {
                        if byte == quote || byte == escape {
                            line.put_u8(escape);
                        }
                        line.put_u8(byte);
                    }
                    line.put_u8(quote);
                } else {
                    line.put_slice(value);
                }
            }
            _ => {
                for &byte in value {
                    let escaped = match byte {
                        b'\\' => b'\\',
                        b'\n' => b'n',
                        b'\r' => b'r',
                        b'\t' => b't',
                        0x08 => b'b',
                        0x0b => b'v',
                        0x0c => b'f',
                        _ if byte == self.delimiter => byte,
                        _ => {
                            line.put_u8(byte);
                            continue;
                        }
                    };
                    line.put_slice(&[b'\\', escaped]);
                }
            }
        }
    }

    /// One row as copy data, appended to what is in `line`. A row holds length and value of each field, which is what binary copy data
    /// wants too.
    fn row(&self, row: &DataRow, line: &mut BytesMut) {
        if self.format == CopyFormat::Binary {
            line.put_i16(row.field_count);
            line.put_slice(&row.data);
            return;
        }
        let mut rest: &[u8] = &row.data;
        let mut idx = 0;
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            self.begin_value(idx, line);
            match usize::try_from(i32::from_be_bytes(*length)) {
                Ok(length) => {
                    let (value, after) = after.split_at(length);
                    self.write_value(value, line);
                    rest = after;
                }
                Err(_) => {
                    line.put_slice(self.null.as_bytes());
                    rest = after;
                }
            }
            idx += 1;
        }
        line.put_u8(b'\n');
    }
}

fn query_text(source: &CopySource) -> String {
    match source {
        CopySource::Query(query) => engine_text(&mut Statement::Query(query.clone())),
        CopySource::Table { table_name, columns } if columns.is_empty() => format!("SELECT * FROM {table_name}"),
        CopySource::Table { table_name, columns } => {
            let columns: Vec<String> = columns.iter().map(ToString::to_string).collect();
            format!("SELECT {} FROM {table_name}", columns.join(", "))
        }
    }
}

/// Sends the whole answer: header, one message a row, end. An error ends the copy as `ErrorResponse`, which clients read in its place.
pub(crate) async fn send<C>(
    client: &mut C,
    copy: &CopyOut,
    fields: &[FieldInfo],
    mut rows: BoxStream<'static, PgWireResult<DataRow>>,
) -> PgWireResult<()>
where
    C: Sink<PgWireBackendMessage> + Unpin,
    C::Error: Debug,
    PgWireError: From<C::Error>,
{
    let is_binary = copy.format == CopyFormat::Binary;
    let n_columns = i16::try_from(fields.len()).map_err(|_| error("54011", "too many columns"))?;
    let response = CopyOutResponse::new(i8::from(is_binary), n_columns, vec![i16::from(is_binary); fields.len()]);
    client.feed(PgWireBackendMessage::CopyOutResponse(response)).await?;
    let mut line = BytesMut::new();
    if is_binary {
        // Goes out with the first row, or with the end, as PostgreSQL does it.
        line.put_slice(BINARY_HEADER);
    } else if copy.header {
        copy.header_line(fields, &mut line);
        client.feed(copy_data(line.split().freeze())).await?;
    }
    let mut n_rows = 0;
    while let Some(row) = rows.next().await {
        copy.row(&row?, &mut line);
        client.feed(copy_data(line.split().freeze())).await?;
        n_rows += 1;
    }
    if is_binary {
        line.put_slice(&BINARY_TRAILER);
        client.feed(copy_data(line.split().freeze())).await?;
    }
    client.feed(PgWireBackendMessage::CopyDone(CopyDone::new())).await?;
    let complete = CommandComplete::from(Tag::new("COPY").with_rows(n_rows));
    client.feed(PgWireBackendMessage::CommandComplete(complete)).await?;
    Ok(())
}

fn copy_data(bytes: Bytes) -> PgWireBackendMessage {
    PgWireBackendMessage::CopyData(CopyData::new(bytes))
}
