//! The short way for records of plain fields: one pass that checks a body and appends its values.
//!
//! Pings are such records. `arrow-avro` behind a walk costs three times as much for them; it serves every other record. A field is
//! plain when it is a string, boolean, int, long, float or double, or a union of one of them and null.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, BooleanBufferBuilder, Float32Array, Float64Array, Int32Array, Int64Array, StringArray,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::error::ArrowError;

use super::plan::{ColumnPlan, Plan, Source};
use super::walk::{Fault, Node, Program, Walked, Walker, unzigzag};

/// Reads bodies of one writer into columns of the writer's own types.
#[derive(Debug)]
pub(crate) struct Direct {
    steps: Vec<Step>,
    columns: Vec<DirectColumn>,
    n_rows: usize,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Skip(Node),
    Read { column_idx: usize },
}

#[derive(Debug)]
struct DirectColumn {
    values: Values,
    /// Of a union: which branch is null, and which rows are not.
    optional: Option<(u64, BooleanBufferBuilder)>,
}

#[derive(Debug)]
enum Values {
    Bool(BooleanBufferBuilder),
    Int(Vec<i32>),
    Long(Vec<i64>),
    Float(Vec<f32>),
    Double(Vec<f64>),
    Text { ends: Vec<i32>, bytes: Vec<u8> },
}

impl Direct {
    /// None when a needed field is not plain.
    pub(crate) fn new(plan: &Plan, program: &Program) -> Option<Direct> {
        let n_needed = plan.needed.iter().filter(|&&needed| needed).count();
        let mut sources: Vec<Option<&Source>> = vec![None; n_needed];
        for column in &plan.columns {
            if let ColumnPlan::Read { decoded_idx, source } = column {
                sources[*decoded_idx] = Some(source);
            }
        }
        let mut columns = Vec::with_capacity(n_needed);
        let mut steps = Vec::with_capacity(plan.needed.len());
        for (&node, &is_needed) in program.fields().iter().zip(&plan.needed) {
            if !is_needed {
                steps.push(Step::Skip(node));
                continue;
            }
            let source = sources[columns.len()]?;
            steps.push(Step::Read { column_idx: columns.len() });
            columns.push(match (source, node) {
                (Source::Optional(inner), Node::Optional { null_branch, .. }) => DirectColumn {
                    values: Values::of(inner)?,
                    optional: Some((null_branch * 2, BooleanBufferBuilder::new(0))),
                },
                (source, _) => DirectColumn { values: Values::of(source)?, optional: None },
            });
        }
        Some(Direct { steps, columns, n_rows: 0 })
    }

    /// Checks a body and appends its values. *Errors:* what was wrong; the body then leaves no trace.
    #[inline]
    pub(crate) fn push(&mut self, program: &Program, body: &[u8]) -> Result<(), Fault> {
        let mut walker = Walker::new(program, body);
        for (field_idx, step) in self.steps.iter().enumerate() {
            let walked = match *step {
                Step::Skip(node) => walker.value(node, 0),
                Step::Read { column_idx } => self.columns[column_idx].read(&mut walker),
            };
            if let Err((reason, what)) = walked {
                self.roll_back();
                return Err(Fault { reason, what, field_idx: Some(field_idx) });
            }
        }
        if let Err(fault) = walker.finish() {
            self.roll_back();
            return Err(fault);
        }
        self.n_rows += 1;
        Ok(())
    }

    #[cold]
    fn roll_back(&mut self) {
        for column in &mut self.columns {
            column.truncate(self.n_rows);
        }
    }

    /// The columns of all bodies since the last call, in the writer's order. *Errors:* none that a checked body could cause.
    pub(crate) fn finish(&mut self) -> Result<Vec<ArrayRef>, ArrowError> {
        self.n_rows = 0;
        self.columns.iter_mut().map(DirectColumn::finish).collect()
    }
}

impl DirectColumn {
    #[inline]
    fn read(&mut self, walker: &mut Walker<'_, '_>) -> Walked<()> {
        if let Some((null_branch, valid)) = &mut self.optional {
            let is_valid = walker.optional(*null_branch)?;
            valid.append(is_valid);
            if !is_valid {
                self.values.push_empty();
                return Ok(());
            }
        }
        match &mut self.values {
            Values::Text { ends, bytes } => {
                bytes.extend_from_slice(walker.string()?);
                ends.push(bytes.len() as i32);
            }
            Values::Long(values) => values.push(unzigzag(walker.varint()?)),
            Values::Double(values) => values.push(f64::from_le_bytes(walker.array()?)),
            Values::Float(values) => values.push(f32::from_le_bytes(walker.array()?)),
            Values::Int(values) => values.push(walker.int()?),
            Values::Bool(values) => values.append(walker.boolean()?),
        }
        Ok(())
    }

    fn truncate(&mut self, n_rows: usize) {
        if let Some((_, valid)) = &mut self.optional {
            valid.truncate(n_rows);
        }
        match &mut self.values {
            Values::Bool(values) => values.truncate(n_rows),
            Values::Int(values) => values.truncate(n_rows),
            Values::Long(values) => values.truncate(n_rows),
            Values::Float(values) => values.truncate(n_rows),
            Values::Double(values) => values.truncate(n_rows),
            Values::Text { ends, bytes } => {
                ends.truncate(n_rows + 1);
                bytes.truncate(ends[ends.len() - 1] as usize);
            }
        }
    }

    fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        let nulls = self.optional.as_mut().map(|(_, valid)| NullBuffer::new(valid.finish()));
        Ok(match &mut self.values {
            Values::Bool(values) => Arc::new(BooleanArray::new(values.finish(), nulls)),
            Values::Int(values) => Arc::new(Int32Array::try_new(take(values).into(), nulls)?),
            Values::Long(values) => Arc::new(Int64Array::try_new(take(values).into(), nulls)?),
            Values::Float(values) => Arc::new(Float32Array::try_new(take(values).into(), nulls)?),
            Values::Double(values) => Arc::new(Float64Array::try_new(take(values).into(), nulls)?),
            Values::Text { ends, bytes } => {
                let offsets = OffsetBuffer::new(ScalarBuffer::from(take(ends)));
                ends.push(0);
                Arc::new(StringArray::try_new(offsets, Buffer::from_vec(take(bytes)), nulls)?)
            }
        })
    }
}

/// What was gathered, leaving room for as much again: batches of a lane are alike.
fn take<T>(values: &mut Vec<T>) -> Vec<T> {
    let room = Vec::with_capacity(values.len());
    std::mem::replace(values, room)
}

impl Values {
    fn of(source: &Source) -> Option<Values> {
        Some(match source {
            Source::Bool => Values::Bool(BooleanBufferBuilder::new(0)),
            Source::Int => Values::Int(Vec::new()),
            Source::Long | Source::Time(_) => Values::Long(Vec::new()),
            Source::Float => Values::Float(Vec::new()),
            Source::Double => Values::Double(Vec::new()),
            Source::Text => Values::Text { ends: vec![0], bytes: Vec::new() },
            _ => return None,
        })
    }

    #[inline]
    fn push_empty(&mut self) {
        match self {
            Values::Text { ends, bytes } => ends.push(bytes.len() as i32),
            Values::Long(values) => values.push(0),
            Values::Double(values) => values.push(0.0),
            Values::Float(values) => values.push(0.0),
            Values::Int(values) => values.push(0),
            Values::Bool(values) => values.append(false),
        }
    }
}
