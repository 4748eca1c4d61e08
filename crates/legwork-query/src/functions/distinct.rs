//! `count(DISTINCT ...)` in little memory.

use std::hash::BuildHasher;
use std::mem::size_of_val;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Int64Array, ListArray};
use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, FieldRef};
use arrow::row::{RowConverter, SortField};
use datafusion::common::{Result, ScalarValue, resources_datafusion_err};
use datafusion::functions_aggregate::count::Count;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::format_state_name;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, EmitTo, GroupsAccumulator, ReversedUDAF,
    SetMonotonicity, Signature, StatisticsArgs,
};
use foldhash::quality::RandomState;
use hashbrown::HashTable;

/// DataFusion's `count`, but for distinct values of other types than integers: there it keeps a hash table, of 10 KB and more, for
/// each group, and counts rows such as `(a, b)` as boxed values of half a kilobyte and more. Ours keeps one table for all groups.
pub(super) fn count() -> AggregateUDF {
    AggregateUDF::from(LeanCount { inner: Count::new() })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct LeanCount {
    inner: Count,
}

/// Whether distinct values of a type are counted here.
fn is_ours(is_distinct: bool, fields: &[FieldRef]) -> bool {
    let [field] = fields else { return false };
    let data_type = field.data_type();
    is_distinct
        && !data_type.is_integer()
        && !data_type.is_null()
        && RowConverter::supports_fields(&[SortField::new(data_type.clone())])
}

impl AggregateUDFImpl for LeanCount {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(arg_types)
    }

    fn is_nullable(&self) -> bool {
        self.inner.is_nullable()
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        if !is_ours(args.is_distinct, args.input_fields) {
            return self.inner.state_fields(args);
        }
        let name = format_state_name(args.name, "count distinct");
        Ok(vec![Arc::new(Field::new(name, DataType::List(row_field()), false))])
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if !is_ours(args.is_distinct, args.expr_fields) {
            return self.inner.accumulator(args);
        }
        Ok(Box::new(Total(DistinctRows::new(args.expr_fields[0].data_type())?)))
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        is_ours(args.is_distinct, args.expr_fields) || self.inner.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        if !is_ours(args.is_distinct, args.expr_fields) {
            return self.inner.create_groups_accumulator(args);
        }
        Ok(Box::new(DistinctRows::new(args.expr_fields[0].data_type())?))
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.inner.create_sliding_accumulator(args)
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        self.inner.reverse_expr()
    }

    fn default_value(&self, data_type: &DataType) -> Result<ScalarValue> {
        self.inner.default_value(data_type)
    }

    fn value_from_stats(&self, args: &StatisticsArgs) -> Option<ScalarValue> {
        self.inner.value_from_stats(args)
    }

    fn set_monotonicity(&self, data_type: &DataType) -> SetMonotonicity {
        self.inner.set_monotonicity(data_type)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }
}

/// A distinct value as it is handed from one stage of a query to the next: in Arrow's row format.
fn row_field() -> FieldRef {
    Arc::new(Field::new_list_field(DataType::Binary, false))
}

/// Where a value of a group stands in [`DistinctRows::bytes`].
#[derive(Debug, Clone, Copy)]
struct Value {
    start: usize,
    len: u32,
    group: u32,
}

impl Value {
    fn of(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.start..self.start + self.len as usize]
    }
}

/// The distinct values of all groups: equal ones have equal bytes in Arrow's row format.
struct DistinctRows {
    converter: RowConverter,
    values: HashTable<Value>,
    bytes: Vec<u8>,
    /// Values by group.
    counts: Vec<i64>,
    hasher: RandomState,
}

impl DistinctRows {
    fn new(data_type: &DataType) -> Result<DistinctRows> {
        Ok(DistinctRows {
            converter: RowConverter::new(vec![SortField::new(data_type.clone())])?,
            values: HashTable::new(),
            bytes: Vec::new(),
            counts: Vec::new(),
            hasher: RandomState::default(),
        })
    }

    fn add(&mut self, group: usize, row: &[u8]) -> Result<()> {
        let (Ok(number), Ok(len)) = (u32::try_from(group), u32::try_from(row.len())) else {
            return Err(resources_datafusion_err!("more groups or longer values than count(DISTINCT) takes"));
        };
        if self.put(Value { start: self.bytes.len(), len, group: number }, row) {
            self.counts[group] += 1;
        }
        Ok(())
    }

    /// Keeps a value unless its group has it. Whether it is new.
    fn put(&mut self, new: Value, row: &[u8]) -> bool {
        let DistinctRows { values, bytes, hasher, .. } = self;
        let hash = |group: u32, row: &[u8]| hasher.hash_one((group, row));
        let is_same = |value: &Value| value.group == new.group && value.of(bytes) == row;
        if values.find(hash(new.group, row), is_same).is_some() {
            return false;
        }
        bytes.extend_from_slice(row);
        values.insert_unique(hash(new.group, row), new, |value| hash(value.group, value.of(bytes)));
        true
    }

    /// Adds the values that are not null and pass the filter. *Shape:* `group_of(row)` is under `n_groups`.
    fn add_all(
        &mut self,
        column: &ArrayRef,
        filter: Option<&BooleanArray>,
        n_groups: usize,
        group_of: impl Fn(usize) -> usize,
    ) -> Result<()> {
        self.counts.resize(n_groups, 0);
        let rows = self.converter.convert_columns(std::slice::from_ref(column))?;
        let nulls = column.logical_nulls();
        let counts = |row| {
            nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row))
                && filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row))
        };
        (0..column.len()).filter(|&row| counts(row)).try_for_each(|row| self.add(group_of(row), rows.row(row).data()))
    }

    /// Adds what [`DistinctRows::take`] gave. *Shape:* a list of values a row, `group_of(row)` is under `n_groups`.
    fn merge(&mut self, lists: &ArrayRef, n_groups: usize, group_of: impl Fn(usize) -> usize) -> Result<()> {
        self.counts.resize(n_groups, 0);
        for (row, list) in lists.as_list::<i32>().iter().enumerate() {
            let Some(list) = list else { continue };
            list.as_binary::<i32>().iter().flatten().try_for_each(|value| self.add(group_of(row), value))?;
        }
        Ok(())
    }

    /// Takes the first groups' values out; those that stay are renumbered. *Shape:* a list of values a group. *Errors:* values of more
    /// than 2 GiB.
    fn take(&mut self, emit_to: EmitTo) -> Result<ListArray> {
        let too_many = |_| resources_datafusion_err!("distinct values of more than 2 GiB");
        let (values, bytes) = (std::mem::take(&mut self.values), std::mem::take(&mut self.bytes));
        let counts = emit_to.take_needed(&mut self.counts);
        let n_taken = counts.iter().sum::<i64>() as usize;
        let mut next: Vec<usize> = Vec::with_capacity(counts.len());
        let mut lists: Vec<i32> = vec![0];
        for count in &counts {
            let end = lists[lists.len() - 1] as usize;
            next.push(end);
            lists.push(i32::try_from(end + *count as usize).map_err(too_many)?);
        }

        let mut taken = vec![Value { start: 0, len: 0, group: 0 }; n_taken];
        for value in values {
            match next.get_mut(value.group as usize) {
                Some(place) => {
                    taken[*place] = value;
                    *place += 1;
                }
                None => {
                    let group = value.group - counts.len() as u32;
                    self.put(Value { start: self.bytes.len(), group, ..value }, value.of(&bytes));
                }
            }
        }

        let mut ends: Vec<i32> = Vec::with_capacity(n_taken + 1);
        let mut sorted: Vec<u8> = Vec::with_capacity(taken.iter().map(|value| value.len as usize).sum());
        ends.push(0);
        for value in taken {
            sorted.extend_from_slice(value.of(&bytes));
            ends.push(i32::try_from(sorted.len()).map_err(too_many)?);
        }
        let ends = OffsetBuffer::new(ScalarBuffer::from(ends));
        let rows = BinaryArray::try_new(ends, Buffer::from_vec(sorted), None)?;
        Ok(ListArray::try_new(row_field(), OffsetBuffer::new(ScalarBuffer::from(lists)), Arc::new(rows), None)?)
    }

    fn bytes_held(&self) -> usize {
        size_of_val(self)
            + self.converter.size()
            + self.values.allocation_size()
            + self.bytes.capacity()
            + self.counts.capacity() * size_of::<i64>()
    }
}

impl GroupsAccumulator for DistinctRows {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.add_all(&values[0], opt_filter, total_num_groups, |row| group_indices[row])
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let counts = match emit_to {
            EmitTo::All => {
                (self.values, self.bytes) = Default::default();
                std::mem::take(&mut self.counts)
            }
            EmitTo::First(n) => {
                let counts = self.counts[..n].to_vec();
                self.take(emit_to)?;
                counts
            }
        };
        Ok(Arc::new(Int64Array::from(counts)))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(vec![Arc::new(self.take(emit_to)?)])
    }

    fn merge_batch(&mut self, values: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        self.merge(&values[0], total_num_groups, |row| group_indices[row])
    }

    fn convert_to_state(&self, values: &[ArrayRef], opt_filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let n_rows = values[0].len();
        let mut alone = DistinctRows::new(values[0].data_type())?;
        alone.add_all(&values[0], opt_filter, n_rows, |row| row)?;
        alone.state(EmitTo::All)
    }

    fn size(&self) -> usize {
        self.bytes_held()
    }
}

/// The distinct values of all rows: one group.
struct Total(DistinctRows);

impl std::fmt::Debug for Total {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Total").field("n_values", &self.0.values.len()).finish_non_exhaustive()
    }
}

impl Accumulator for Total {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.0.add_all(&values[0], None, 1, |_| 0)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::from(self.0.values.len() as i64))
    }

    fn size(&self) -> usize {
        self.0.bytes_held()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.0.counts.resize(1, 0);
        Ok(vec![ScalarValue::List(Arc::new(self.0.take(EmitTo::All)?))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.0.merge(&states[0], 1, |_| 0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use arrow::array::StringArray;
    use proptest::prelude::*;

    use super::*;

    type Naive = BTreeMap<usize, BTreeSet<String>>;

    /// *Shape:* groups with values; `n_groups` is one more than the largest.
    fn fed(rows: &[(usize, Option<String>, bool)], n_groups: usize) -> (DistinctRows, Naive) {
        let mut counter = DistinctRows::new(&DataType::Utf8).unwrap();
        let mut naive = Naive::new();
        for batch in rows.chunks(7) {
            let column: ArrayRef = Arc::new(batch.iter().map(|(_, text, _)| text.as_deref()).collect::<StringArray>());
            let groups: Vec<usize> = batch.iter().map(|(group, _, _)| *group).collect();
            let filter: BooleanArray = batch.iter().map(|(_, _, passes)| Some(*passes)).collect();
            counter.update_batch(&[column], &groups, Some(&filter), n_groups).unwrap();
            let passing = batch.iter().filter(|(_, _, passes)| *passes);
            for (group, text) in passing.filter_map(|(group, text, _)| Some((*group, text.clone()?))) {
                naive.entry(group).or_default().insert(text);
            }
        }
        (counter, naive)
    }

    fn sizes(naive: &Naive, groups: std::ops::Range<usize>) -> Vec<i64> {
        groups.map(|group| naive.get(&group).map_or(0, |values| values.len() as i64)).collect()
    }

    fn evaluated(counter: &mut DistinctRows, emit_to: EmitTo) -> Vec<i64> {
        counter.evaluate(emit_to).unwrap().as_primitive::<arrow::datatypes::Int64Type>().values().to_vec()
    }

    proptest! {
        /// Groups that leave early, as sorted ones do, take their values along, and states merge without counting anything twice.
        #[test]
        fn groups_leave_and_merge(
            rows in prop::collection::vec((0..6_usize, prop::option::of("[ab]{0,2}"), prop::bool::weighted(0.8)), 2..120),
            n_first in 0..=6_usize,
        ) {
            let (mut counter, naive) = fed(&rows, 6);
            prop_assert_eq!(evaluated(&mut counter, EmitTo::First(n_first)), sizes(&naive, 0..n_first));
            prop_assert_eq!(evaluated(&mut counter, EmitTo::All), sizes(&naive, n_first..6));

            // Each row as a group of its own, as it is handed on where grouping early does not pay.
            let column: ArrayRef = Arc::new(rows.iter().map(|(_, text, _)| text.as_deref()).collect::<StringArray>());
            let groups: Vec<usize> = rows.iter().map(|(group, _, _)| *group).collect();
            let filter: BooleanArray = rows.iter().map(|(_, _, passes)| Some(*passes)).collect();
            let alone = counter.convert_to_state(&[column], Some(&filter)).unwrap();
            let mut merged = DistinctRows::new(&DataType::Utf8).unwrap();
            merged.merge_batch(&alone, &groups, 6).unwrap();
            prop_assert_eq!(evaluated(&mut merged, EmitTo::All), sizes(&naive, 0..6));

            let (mut left, _) = fed(&rows[..rows.len() / 2], 6);
            let (mut right, _) = fed(&rows[rows.len() / 2..], 6);
            let (first, rest) = (left.state(EmitTo::First(n_first)).unwrap(), left.state(EmitTo::All).unwrap());
            right.merge_batch(&first, &(0..n_first).collect::<Vec<_>>(), 6).unwrap();
            right.merge_batch(&rest, &(n_first..6).collect::<Vec<_>>(), 6).unwrap();
            prop_assert_eq!(evaluated(&mut right, EmitTo::All), sizes(&naive, 0..6));
        }
    }
}
