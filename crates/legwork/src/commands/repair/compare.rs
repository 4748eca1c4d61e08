//! Rows as they are beside rows as they should be: what is to be written, and what is to be left to the lane.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use arrow::row::{RowConverter, Rows, SortField};
use legwork_lake::{IS_DELETED, REVISION};
use legwork_types::Table;
use legwork_types::time::DAY_US;

/// The span in which the rows of a key are final: its lane writes them no more, and everything that they were made of is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Zone {
    /// Rows from here on.
    pub(super) from_us: i64,
    /// Rows that end by then.
    pub(super) until_us: i64,
    /// Events before this time change no rows beyond.
    pub(super) reach_us: i64,
}

/// Columns between which a row of a table lies.
pub(super) fn span_of(table: Table) -> Option<(&'static str, &'static str)> {
    Some(match table {
        Table::DeviceMovement | Table::RepEmails | Table::RepMessages => ("window_start", "window_end"),
        Table::Stays => ("stay_start", "stay_end"),
        Table::Trips => ("trip_start", "trip_end"),
        Table::Touches => ("event_time", "event_time"),
        Table::DeviceCoverage => ("day_start", "day_start"),
        // A late event is no newest one.
        _ => return None,
    })
}

/// Columns that more events can only make larger, of tables whose rows never go for them. None: rows may go.
fn growing(table: Table) -> Option<&'static [&'static str]> {
    match table {
        Table::DeviceMovement => Some(&["n_pings"]),
        Table::RepEmails => Some(&["n_sent", "n_received", "n_opened", "n_clicked", "n_bounced", "n_replied"]),
        Table::RepMessages => Some(&["n_messages"]),
        Table::Touches => Some(&[]),
        _ => None,
    }
}

/// What there is to do about the rows of a table.
#[derive(Clone, Debug, Default)]
pub(super) struct Difference {
    /// Rows to write, in place of what is there or anew. *Shape:* as the computed ones.
    pub(super) written: Vec<RecordBatch>,
    /// Rows to retract. *Shape:* as those that are there.
    pub(super) retracted: Vec<RecordBatch>,
    /// Keys whose rows at the zone's end depend on what is still to come.
    pub(super) not_final: BTreeSet<String>,
    /// Keys whose rows count events that are not stored any more.
    pub(super) incomplete: BTreeSet<String>,
}

/// Rows of one table, ready to be compared.
struct Side {
    rows: RecordBatch,
    identities: Rows,
    values: Rows,
    places: Vec<Place>,
    by_key: HashMap<String, Vec<usize>>,
}

#[derive(Clone, Debug)]
struct Place {
    key: String,
    start_us: i64,
    end_us: i64,
}

impl Place {
    fn is_within(&self, zone: &Zone) -> bool {
        self.start_us >= zone.from_us && self.end_us <= zone.until_us
    }

    /// Whether it lies across one of the zone's ends.
    fn is_across(&self, zone: &Zone) -> bool {
        let is_across = |time_us: i64| self.start_us < time_us && self.end_us > time_us;
        is_across(zone.from_us) || is_across(zone.until_us)
    }
}

/// Compares the rows of a table that are there with those that were computed. `key`: the column that names whose row it is. Keys without a
/// zone are left alone.
pub(super) fn compare(
    table: Table,
    key: &str,
    there: &[RecordBatch],
    computed: &[RecordBatch],
    zones: &HashMap<String, Zone>,
) -> Result<Difference> {
    let sides = Sides::new(table, key, there, computed)?;
    let mut difference = Difference::default();
    for (name, zone) in zones {
        let (old, new) = (sides.old.of(name), sides.new.of(name));
        let across = |side: &Side, rows: &[usize]| -> BTreeSet<Vec<u8>> {
            let rows = rows.iter().filter(|row| side.places[**row].is_across(zone));
            rows.map(|row| side.identities.row(*row).as_ref().to_vec()).collect()
        };
        // Parts of coverage follow from how pings were stored; they say nothing of what is still to come. Nor do rows that were lost with all
        // before them: what lies across the end comes with a later repair.
        let says_nothing =
            table == Table::DeviceCoverage || old.iter().all(|row| sides.old.places[*row].start_us >= zone.until_us);
        if !says_nothing && across(&sides.old, old) != across(&sides.new, new) {
            difference.not_final.insert(name.clone());
        } else if sides.has_lost(table, old, new, zone)? {
            difference.incomplete.insert(name.clone());
        }
    }
    let is_left = |place: &Place| {
        let zone = zones.get(&place.key).filter(|zone| place.is_within(zone));
        zone.is_none() || difference.not_final.contains(&place.key) || difference.incomplete.contains(&place.key)
    };
    let (written, retracted) = match table {
        Table::DeviceCoverage => sides.differing_days(&is_left)?,
        _ => sides.differing_rows(&is_left),
    };
    difference.written.extend(pick(&sides.new.rows, written)?);
    difference.retracted.extend(pick(&sides.old.rows, retracted)?);
    Ok(difference)
}

struct Sides {
    old: Side,
    new: Side,
}

impl Sides {
    fn new(table: Table, key: &str, there: &[RecordBatch], computed: &[RecordBatch]) -> Result<Sides> {
        let schema = table.schema();
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        let values: Vec<&str> = names.iter().copied().filter(|name| *name != REVISION).collect();
        let converter = |names: &[&str]| {
            let field = |name: &&str| Ok(SortField::new(schema.field_with_name(name)?.data_type().clone()));
            let fields = names.iter().map(field).collect::<Result<Vec<_>, arrow::error::ArrowError>>()?;
            RowConverter::new(fields)
        };
        // The day of a row follows from its key and values: those of its table that move a row between days move its key.
        let identity: Vec<&str> = match table.def().day {
            Some(day) if !table.def().key.contains(&day) => table.def().key.iter().copied().chain([day]).collect(),
            _ => table.def().key.to_vec(),
        };
        let (identities, all) = (converter(&identity)?, converter(&values)?);
        let side = |batches: &[RecordBatch]| -> Result<Side> {
            let rows = match batches.first() {
                Some(first) => concat_batches(&first.schema(), batches)?,
                None => RecordBatch::new_empty(table.version_schema()),
            };
            let columns = |names: &[&str]| -> Result<Vec<ArrayRef>> {
                names
                    .iter()
                    .map(|name| rows.column_by_name(name).cloned().with_context(|| format!("no column {name}")))
                    .collect()
            };
            let places = places(table, key, &rows)?;
            let mut by_key: HashMap<String, Vec<usize>> = HashMap::new();
            for (row, place) in places.iter().enumerate() {
                by_key.entry(place.key.clone()).or_default().push(row);
            }
            Ok(Side {
                by_key,
                identities: identities.convert_columns(&columns(&identity)?)?,
                values: all.convert_columns(&columns(&values)?)?,
                places,
                rows,
            })
        };
        Ok(Sides { old: side(there)?, new: side(computed)? })
    }

    /// Rows to write, rows to retract.
    fn differing_rows(&self, is_left: &dyn Fn(&Place) -> bool) -> (Vec<u32>, Vec<u32>) {
        let find = |side: &Side| -> HashMap<Vec<u8>, usize> {
            let rows = (0..side.places.len()).filter(|row| !is_left(&side.places[*row]));
            rows.map(|row| (side.identities.row(row).as_ref().to_vec(), row)).collect()
        };
        let (old, new) = (find(&self.old), find(&self.new));
        let is_same = |new_row: usize, old_row: usize| self.new.values.row(new_row) == self.old.values.row(old_row);
        let written = new.iter().filter(|(key, row)| old.get(*key).is_none_or(|old_row| !is_same(**row, *old_row)));
        let retracted = old.iter().filter(|(key, _)| !new.contains_key(*key));
        let sorted = |rows: &mut dyn Iterator<Item = usize>| {
            let mut rows: Vec<u32> = rows.map(|row| row as u32).collect();
            rows.sort_unstable();
            rows
        };
        (sorted(&mut written.map(|(_, row)| *row)), sorted(&mut retracted.map(|(_, row)| *row)))
    }

    /// Coverage comes in parts that follow from how pings were stored: days are compared by their sums, and replaced as a whole.
    fn differing_days(&self, is_left: &dyn Fn(&Place) -> bool) -> Result<(Vec<u32>, Vec<u32>)> {
        type Days = BTreeMap<(String, i64), (BTreeMap<String, i64>, Vec<u32>)>;
        let sum = |side: &Side| -> Result<Days> {
            let (cells, pings) = (strings(&side.rows, "h3_cell")?, counts(&side.rows, "n_pings")?);
            let mut days = Days::new();
            for (row, place) in side.places.iter().enumerate().filter(|(_, place)| !is_left(place)) {
                let (by_cell, rows) = days.entry((place.key.clone(), place.start_us)).or_default();
                *by_cell.entry(cells.value(row).to_owned()).or_default() += pings.value(row);
                rows.push(row as u32);
            }
            Ok(days)
        };
        let (old, new) = (sum(&self.old)?, sum(&self.new)?);
        let differs = |day: &(String, i64)| old.get(day).map(|day| &day.0) != new.get(day).map(|day| &day.0);
        let rows =
            |days: &Days| days.iter().filter(|(day, _)| differs(day)).flat_map(|(_, day)| day.1.clone()).collect();
        let (written, retracted): (Vec<u32>, Vec<u32>) = (rows(&new), rows(&old));
        // A part that is there under the same key is replaced by its new version.
        let kept: BTreeSet<Vec<u8>> =
            written.iter().map(|row| self.new.identities.row(*row as usize).as_ref().to_vec()).collect();
        let retracted =
            retracted.into_iter().filter(|row| !kept.contains(self.old.identities.row(*row as usize).as_ref()));
        Ok((written, retracted.collect()))
    }

    /// Whether rows that are there count more than what is stored.
    fn has_lost(&self, table: Table, old: &[usize], new: &[usize], zone: &Zone) -> Result<bool> {
        let Some(growing) = growing(table) else { return Ok(false) };
        let new: HashMap<&[u8], usize> = new.iter().map(|row| (self.new.identities.row(*row).data(), *row)).collect();
        for row in old.iter().filter(|row| self.old.places[**row].is_within(zone)) {
            let Some(new_row) = new.get(self.old.identities.row(*row).data()) else { return Ok(true) };
            for column in growing {
                let (old, new) = (counts(&self.old.rows, column)?, counts(&self.new.rows, column)?);
                if new.value(*new_row) < old.value(*row) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}

impl Side {
    fn of(&self, key: &str) -> &[usize] {
        self.by_key.get(key).map_or(&[], Vec::as_slice)
    }
}

fn places(table: Table, key: &str, rows: &RecordBatch) -> Result<Vec<Place>> {
    let (start, end) = span_of(table).ok_or_else(|| anyhow!("{} is not repaired: this is a bug", table.name()))?;
    let (keys, starts, ends) = (strings(rows, key)?, times(rows, start)?, times(rows, end)?);
    let whole_day = if table == Table::DeviceCoverage { DAY_US } else { 0 };
    let place = |row: usize| Place {
        key: keys.value(row).to_owned(),
        start_us: starts.value(row),
        end_us: if ends.is_valid(row) { ends.value(row) + whole_day } else { i64::MAX },
    };
    Ok((0..rows.num_rows()).map(place).collect())
}

fn strings<'a>(rows: &'a RecordBatch, name: &str) -> Result<&'a arrow::array::StringArray> {
    rows.column_by_name(name).and_then(|column| column.as_string_opt()).with_context(|| format!("no text {name}"))
}

fn times<'a>(rows: &'a RecordBatch, name: &str) -> Result<&'a arrow::array::TimestampMicrosecondArray> {
    let column = rows.column_by_name(name).and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>());
    column.with_context(|| format!("no time {name}"))
}

fn counts<'a>(rows: &'a RecordBatch, name: &str) -> Result<&'a Int64Array> {
    let column = rows.column_by_name(name).and_then(|column| column.as_primitive_opt::<Int64Type>());
    column.with_context(|| format!("no count {name}"))
}

fn pick(rows: &RecordBatch, picked: Vec<u32>) -> Result<Option<RecordBatch>> {
    match picked.is_empty() {
        true => Ok(None),
        false => Ok(Some(take_record_batch(rows, &UInt32Array::from(picked))?)),
    }
}

/// The rows of these keys.
pub(super) fn of_keys(rows: &RecordBatch, key: &str, keys: &HashMap<String, Zone>) -> Result<RecordBatch> {
    let of = strings(rows, key)?;
    let wanted: BooleanArray = (0..rows.num_rows()).map(|row| Some(keys.contains_key(of.value(row)))).collect();
    Ok(arrow::compute::filter_record_batch(rows, &wanted)?)
}

/// Rows as versions. *Shape:* [`Table::version_schema`].
pub(super) fn versions(table: Table, rows: &RecordBatch, revision: i64, is_deleted: bool) -> Result<RecordBatch> {
    let schema = table.version_schema();
    let n_rows = rows.num_rows();
    let columns = schema.fields().iter().map(|field| -> Result<ArrayRef> {
        Ok(match field.name().as_str() {
            REVISION => Arc::new(Int64Array::from(vec![revision; n_rows])),
            IS_DELETED => Arc::new(BooleanArray::from(vec![is_deleted; n_rows])),
            name => rows.column_by_name(name).cloned().with_context(|| format!("no column {name}"))?,
        })
    });
    let columns = columns.collect::<Result<Vec<_>>>()?;
    Ok(RecordBatch::try_new(schema.clone(), columns)?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use arrow::array::{StringArray, TimestampMicrosecondArray, new_null_array};

    use super::*;

    const HOUR: i64 = 3_600_000_000;

    /// (device, start hour, end hour, pings).
    fn rows(table: Table, rows: &[(&str, i64, i64, i64)]) -> RecordBatch {
        let schema = table.version_schema();
        let (start, end) = span_of(table).unwrap();
        let times = |of: &dyn Fn(usize) -> i64| -> ArrayRef {
            Arc::new(TimestampMicrosecondArray::from_iter_values((0..rows.len()).map(of)).with_timezone("UTC"))
        };
        let columns = schema.fields().iter().map(|field| -> ArrayRef {
            match field.name().as_str() {
                "device_id" => Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.0))),
                "h3_cell" => Arc::new(StringArray::from_iter_values(rows.iter().map(|row| format!("cell{}", row.2)))),
                "n_pings" => Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.3))),
                "revision" => Arc::new(Int64Array::from(vec![1; rows.len()])),
                "is_deleted" | "is_open" => Arc::new(BooleanArray::from(vec![false; rows.len()])),
                name if name == start || name.starts_with("first") || name.starts_with("last") => {
                    times(&|row| rows[row].1 * HOUR)
                }
                "part" => times(&|row| rows[row].3),
                name if name == end => times(&|row| rows[row].2 * HOUR),
                _ if field.is_nullable() => new_null_array(field.data_type(), rows.len()),
                _ if field.data_type() == &arrow::datatypes::DataType::Int64 => {
                    Arc::new(Int64Array::from(vec![0; rows.len()]))
                }
                _ => Arc::new(arrow::array::Float64Array::from(vec![0.0; rows.len()])),
            }
        });
        RecordBatch::try_new(schema.clone(), columns.collect()).unwrap()
    }

    fn zones(until_hour: i64) -> HashMap<String, Zone> {
        let zone = Zone { from_us: 0, until_us: until_hour * HOUR, reach_us: 0 };
        ["a", "b"].into_iter().map(|key| (key.to_owned(), zone)).collect()
    }

    fn starts(batches: &[RecordBatch], table: Table) -> Vec<(String, i64)> {
        let of = |rows: &RecordBatch| places(table, "device_id", rows).unwrap();
        batches.iter().flat_map(of).map(|place| (place.key, place.start_us / HOUR)).collect()
    }

    fn found(table: Table, old: &[(&str, i64, i64, i64)], new: &[(&str, i64, i64, i64)], until: i64) -> Difference {
        compare(table, "device_id", &[rows(table, old)], &[rows(table, new)], &zones(until)).unwrap()
    }

    fn key(name: &str, hour: i64) -> (String, i64) {
        (name.to_owned(), hour)
    }

    #[test]
    fn what_differs_is_written_and_what_is_gone_is_retracted() {
        let old = [("a", 1, 3, 5), ("a", 5, 6, 5), ("b", 1, 2, 5), ("other", 1, 2, 5)];
        let new = [("a", 1, 2, 4), ("a", 5, 6, 5), ("a", 7, 8, 9), ("b", 2, 3, 5)];
        let difference = found(Table::Stays, &old, &new, 20);
        assert_eq!(starts(&difference.written, Table::Stays), [key("a", 1), key("a", 7), key("b", 2)]);
        assert_eq!(starts(&difference.retracted, Table::Stays), [key("b", 1)]);
        assert!(difference.not_final.is_empty() && difference.incomplete.is_empty());
        let again = found(Table::Stays, &new, &new, 20);
        assert!(again.written.is_empty() && again.retracted.is_empty());
    }

    #[test]
    fn rows_that_the_lane_still_writes_are_left_to_it() {
        let (old, new) = ([("a", 1, 3, 5), ("a", 5, 9, 5)], [("a", 1, 3, 6), ("a", 5, 9, 7)]);
        let difference = found(Table::Stays, &old, &new, 8);
        assert_eq!(starts(&difference.written, Table::Stays), [key("a", 1)]);
        let new = [("a", 1, 3, 6), ("a", 4, 9, 7)];
        let difference = found(Table::Stays, &old, &new, 8);
        assert!(difference.written.is_empty() && difference.not_final.contains("a"));
    }

    #[test]
    fn rows_that_were_lost_come_back_up_to_the_zones_end() {
        let new = [("a", 1, 3, 5), ("a", 4, 6, 5), ("a", 7, 9, 5), ("a", 10, 11, 5)];
        for table in [Table::DeviceMovement, Table::Stays] {
            let difference = found(table, &[("a", 10, 11, 5)], &new, 8);
            assert_eq!(starts(&difference.written, table), [key("a", 1), key("a", 4)]);
            assert!(difference.not_final.is_empty() && difference.retracted.is_empty());
            let difference = found(table, &[("a", 4, 6, 5), ("a", 10, 11, 5)], &new, 8);
            assert!(difference.written.is_empty() && difference.not_final.contains("a"), "not all were lost");
        }
    }

    #[test]
    fn pings_that_are_stored_no_more_are_never_taken_from_anybody() {
        for new in [vec![("a", 1, 2, 4), ("b", 1, 2, 6)], vec![("b", 1, 2, 6)]] {
            let difference = found(Table::DeviceMovement, &[("a", 1, 2, 5), ("b", 1, 2, 5)], &new, 20);
            assert_eq!(starts(&difference.written, Table::DeviceMovement), [key("b", 1)]);
            assert!(difference.retracted.is_empty() && difference.incomplete.contains("a"));
        }
    }

    #[test]
    fn coverage_is_compared_by_its_sums() {
        // As (device, day, cell, pings), where the part is told by the pings.
        let old = [("a", 0, 1, 5), ("a", 0, 1, 6), ("a", 24, 1, 5)];
        let same = [("a", 0, 1, 11), ("a", 24, 1, 5)];
        let difference = found(Table::DeviceCoverage, &old, &same, 48);
        assert!(difference.written.is_empty() && difference.retracted.is_empty());
        let more = [("a", 0, 1, 12), ("a", 24, 1, 5)];
        let difference = found(Table::DeviceCoverage, &old, &more, 48);
        assert_eq!((difference.written[0].num_rows(), difference.retracted[0].num_rows()), (1, 2));
        let difference = found(Table::DeviceCoverage, &old, &more, 23);
        assert!(difference.written.is_empty(), "the day is not over for the lane");
    }
}
