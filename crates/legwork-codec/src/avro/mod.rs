//! Avro bodies of one writer's schema to canonical columns: in one pass where all needed fields are plain, else through one
//! `arrow-avro` decoder behind a walk.

mod convert;
mod direct;
mod names;
mod plan;
mod walk;

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, StringArray, new_null_array};
use arrow::compute::concat_batches;
use arrow::error::ArrowError;
use arrow_avro::reader::ReaderBuilder;
use arrow_avro::schema::{AvroSchema, Fingerprint, FingerprintAlgorithm, SchemaStore};
use legwork_types::{Kind, RejectReason};

use self::direct::Direct;
use self::names::Names;
use self::plan::{ColumnPlan, Plan};
use self::walk::{Fault, Program};
use crate::columns::Columns;
use crate::registry::WriterSchema;

/// Rows that a decoder is asked to hold; it allocates as it fills.
const ROWS_MAX: usize = 1 << 30;
/// Bytes of the framing: magic 0 and the schema id, big endian.
pub(crate) const FRAMING_BYTES: usize = 5;

/// Decodes framed messages of one writer's schema.
#[derive(Debug)]
pub(crate) struct WriterDecoder {
    kind: Kind,
    schema_id: u32,
    program: Program,
    plan: Plan,
    decoder: arrow_avro::reader::Decoder,
    /// Reads records of plain fields instead of the decoder.
    direct: Option<Direct>,
    /// Framing and needed fields of one message, where not all fields are needed.
    cut: Option<Vec<u8>>,
    /// Message index of each row, in the order of decoding.
    rows: Vec<u32>,
    /// A body that had been walked failed in the decoder: what it holds is lost and the rows are decoded again one by one.
    is_broken: bool,
}

impl WriterDecoder {
    /// *Errors:* why the writer's schema cannot be resolved with the kind's.
    pub(crate) fn new(kind: Kind, writer: &WriterSchema) -> Result<WriterDecoder, String> {
        let names = Names::collect(writer.schema(), writer.references());
        let plan = Plan::resolve(kind, writer.schema(), &names)?;
        let program = Program::compile(writer.schema(), &names)?;
        let decoder = decoder(&plan, writer.id())?;
        let direct = Direct::new(&plan, &program);
        let cut = plan.needed.contains(&false).then(|| framing(writer.id()));
        Ok(WriterDecoder {
            kind,
            schema_id: writer.id(),
            program,
            plan,
            decoder,
            direct,
            cut,
            rows: Vec::new(),
            is_broken: false,
        })
    }

    /// Decodes one framed message. *Errors:* the reason and what was found where; the message then leaves no trace.
    #[inline]
    pub(crate) fn push(&mut self, message_idx: u32, framed: &[u8]) -> Result<(), (RejectReason, String)> {
        if let Some(direct) = &mut self.direct {
            direct.push(&self.program, &framed[FRAMING_BYTES..]).map_err(|fault| describe(&self.plan, fault))?;
            self.rows.push(message_idx);
            return Ok(());
        }
        let bytes: &[u8] = match &mut self.cut {
            None => {
                self.program.walk(&framed[FRAMING_BYTES..]).map_err(|fault| describe(&self.plan, fault))?;
                framed
            }
            Some(cut) => {
                cut_fields(&self.program, &self.plan, framed, cut)?;
                cut
            }
        };
        if !self.is_broken {
            self.is_broken = !matches!(self.decoder.decode(bytes), Ok(n_bytes) if n_bytes == bytes.len());
        }
        self.rows.push(message_idx);
        Ok(())
    }

    /// Number of messages that wait for [`WriterDecoder::finish`].
    pub(crate) fn n_rows(&self) -> usize {
        self.rows.len()
    }

    /// The canonical columns of all messages since the last call; rows that cannot be are among the faults. `framed` gives a
    /// message's bytes again, in case they have to be decoded one by one.
    pub(crate) fn finish<'m>(&mut self, framed: impl Fn(u32) -> &'m [u8]) -> Columns {
        let rows = std::mem::take(&mut self.rows);
        let mut columns = Columns::empty(self.kind);
        let decoded = match &mut self.direct {
            _ if std::mem::take(&mut self.is_broken) => None,
            Some(direct) => direct.finish().ok(),
            None => self.decoder.flush().ok().flatten().map(|batch| batch.columns().to_vec()),
        };
        let decoded = decoded.filter(|arrays| arrays.iter().all(|array| array.len() == rows.len()));
        match decoded.and_then(|arrays| self.canonical(&arrays, &rows, &mut columns.faults).ok()) {
            Some(arrays) => {
                columns.arrays = arrays;
                columns.message_rows = rows;
                columns
            }
            None => self.one_by_one(&rows, framed),
        }
    }

    fn one_by_one<'m>(&mut self, rows: &[u32], framed: impl Fn(u32) -> &'m [u8]) -> Columns {
        let mut columns = Columns::empty(self.kind);
        let mut batches = Vec::new();
        for &message_idx in rows {
            // A decoder that has failed holds parts of rows.
            match decoder(&self.plan, self.schema_id) {
                Ok(fresh) => self.decoder = fresh,
                Err(detail) => return columns.all_faulty(rows, RejectReason::IncompatibleSchema, &detail),
            }
            match self.decode_alone(framed(message_idx)) {
                Ok(batch) => {
                    batches.push(batch);
                    columns.message_rows.push(message_idx);
                }
                Err(detail) => columns.faults.push((message_idx, RejectReason::Malformed, detail)),
            }
        }
        let Some(schema) = batches.first().map(RecordBatch::schema) else { return columns };
        let message_rows = std::mem::take(&mut columns.message_rows);
        let arrays = concat_batches(&schema, &batches)
            .and_then(|batch| self.canonical(batch.columns(), &message_rows, &mut columns.faults));
        match arrays {
            Ok(arrays) => {
                columns.arrays = arrays;
                columns.message_rows = message_rows;
                columns
            }
            Err(error) => columns.all_faulty(&message_rows, RejectReason::IncompatibleSchema, &error.to_string()),
        }
    }

    fn decode_alone(&mut self, framed: &[u8]) -> Result<RecordBatch, String> {
        const FAILED: &str = "the body cannot be decoded";
        let mut cut = framing(self.schema_id);
        cut_fields(&self.program, &self.plan, framed, &mut cut).map_err(|(_, detail)| detail)?;
        match self.decoder.decode(&cut) {
            Ok(n_bytes) if n_bytes == cut.len() => {}
            _ => return Err(FAILED.to_owned()),
        }
        let batch = self.decoder.flush().ok().flatten().filter(|batch| batch.num_rows() == 1).ok_or(FAILED)?;
        self.canonical(batch.columns(), &[0], &mut Vec::new()).map_err(|_| FAILED.to_owned())?;
        Ok(batch)
    }

    fn canonical(
        &self,
        decoded: &[ArrayRef],
        rows: &[u32],
        faults: &mut Vec<(u32, RejectReason, String)>,
    ) -> Result<Vec<ArrayRef>, ArrowError> {
        let schema = self.kind.schema();
        let mut found = Vec::new();
        let columns =
            schema.fields().iter().zip(&self.plan.columns).map(|(field, column)| {
                found.clear();
                let array = match column {
                    ColumnPlan::Missing if field.is_nullable() => new_null_array(field.data_type(), rows.len()),
                    ColumnPlan::Missing => Arc::new(StringArray::from_iter_values(std::iter::repeat_n("", rows.len()))),
                    ColumnPlan::Read { decoded_idx, source } => {
                        convert::convert(&decoded[*decoded_idx], source, field.data_type(), &mut found)?
                    }
                };
                faults.extend(found.iter().map(|&(row, reason, what)| {
                    (rows[row as usize], reason, format!("field {}: {what}", field.name()))
                }));
                debug_assert_eq!(array.len(), rows.len());
                Ok(array)
            });
        columns.collect()
    }
}

fn decoder(plan: &Plan, schema_id: u32) -> Result<arrow_avro::reader::Decoder, String> {
    let mut store = SchemaStore::new_with_type(FingerprintAlgorithm::Id);
    let fingerprint = Fingerprint::Id(schema_id);
    store.set(fingerprint, AvroSchema::new(plan.decoded_avro.clone())).map_err(|e| e.to_string())?;
    ReaderBuilder::new()
        .with_batch_size(ROWS_MAX)
        .with_writer_schema_store(store)
        .with_active_fingerprint(fingerprint)
        .build_decoder()
        .map_err(|e| e.to_string())
}

fn framing(schema_id: u32) -> Vec<u8> {
    let mut framing = vec![0];
    framing.extend(schema_id.to_be_bytes());
    framing
}

/// Copies the needed fields behind the framing in `cut`. Neighbours are copied at once.
fn cut_fields(program: &Program, plan: &Plan, framed: &[u8], cut: &mut Vec<u8>) -> Result<(), (RejectReason, String)> {
    let body = &framed[FRAMING_BYTES..];
    cut.truncate(FRAMING_BYTES);
    let mut pending: Range<usize> = 0..0;
    let walked = program.walk_fields(body, |field_idx, range| {
        if !plan.needed[field_idx] {
            return;
        }
        if range.start != pending.end {
            cut.extend_from_slice(&body[pending.clone()]);
            pending.start = range.start;
        }
        pending.end = range.end;
    });
    walked.map_err(|fault| describe(plan, fault))?;
    cut.extend_from_slice(&body[pending]);
    Ok(())
}

fn describe(plan: &Plan, fault: Fault) -> (RejectReason, String) {
    let detail = match fault.field_idx.and_then(|field_idx| plan.field_names.get(field_idx)) {
        Some(name) => format!("{} in field {name}", fault.what),
        None => fault.what.to_owned(),
    };
    (fault.reason, detail)
}

#[cfg(test)]
mod tests;
