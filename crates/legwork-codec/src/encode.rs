//! Canonical batches to Avro bodies in our own schemas, and to JSON: what producers of ours write.
//!
//! Columns are downcast once a batch; a row's body is assembled in one reused buffer.

use arrow::array::{
    Array, AsArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int32Array, Int64Array,
    ListArray, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type, SchemaRef,
    TimestampMicrosecondType,
};
use chrono::{DateTime, NaiveDate, SecondsFormat, TimeDelta};
use legwork_types::Kind;
use serde_json::{Map, Value};

/// First byte of Confluent's framing; the schema's id follows in four bytes, big-endian.
const MAGIC: u8 = 0;

/// Writes Confluent-framed Avro bodies of one kind.
#[derive(Debug)]
pub struct Encoder {
    schema: SchemaRef,
    body: Vec<u8>,
}

impl Encoder {
    /// For batches with the columns of [`Kind::schema`]; the writer's schema is [`Kind::avro`].
    pub fn new(kind: Kind) -> Encoder {
        Encoder { schema: kind.schema(), body: Vec::new() }
    }

    /// Hands (row, framed body) of each row to `sink`, in order. *Shape:* N rows in canonical columns.
    ///
    /// Panics when the columns are not canonical: batches are checked where they are made.
    pub fn encode(&mut self, batch: &RecordBatch, schema_id: u32, sink: &mut dyn FnMut(usize, &[u8])) {
        let columns: Vec<(Values<'_>, Option<&dyn Array>)> = batch
            .columns()
            .iter()
            .zip(self.schema.fields())
            .map(|(array, field)| (Values::of(array.as_ref()), field.is_nullable().then_some(array.as_ref())))
            .collect();
        assert_eq!(columns.len(), self.schema.fields().len(), "a canonical batch has a column a field");
        for row in 0..batch.num_rows() {
            self.body.clear();
            self.body.push(MAGIC);
            self.body.extend_from_slice(&schema_id.to_be_bytes());
            for (values, nullable) in &columns {
                match nullable {
                    // Unions are ["null", T]: the branch's number, then its value.
                    Some(array) if array.is_null(row) => {
                        self.body.push(0);
                        continue;
                    }
                    Some(_) => self.body.push(2),
                    None => {}
                }
                values.write(row, &mut self.body);
            }
            sink(row, &self.body);
        }
    }
}

/// A column, downcast.
enum Values<'a> {
    Text(&'a StringArray),
    Long(&'a Int64Array),
    Int(&'a Int32Array),
    Double(&'a Float64Array),
    Float(&'a Float32Array),
    Bool(&'a BooleanArray),
    Time(&'a TimestampMicrosecondArray),
    Day(&'a Date32Array),
    Money(&'a Decimal128Array),
    List(&'a ListArray, Box<Values<'a>>),
}

impl<'a> Values<'a> {
    /// Panics when the type is none of the canonical ones.
    fn of(array: &'a dyn Array) -> Values<'a> {
        match array.data_type() {
            DataType::Utf8 => Values::Text(array.as_string()),
            DataType::Int64 => Values::Long(array.as_primitive::<Int64Type>()),
            DataType::Int32 => Values::Int(array.as_primitive::<Int32Type>()),
            DataType::Float64 => Values::Double(array.as_primitive::<Float64Type>()),
            DataType::Float32 => Values::Float(array.as_primitive::<Float32Type>()),
            DataType::Boolean => Values::Bool(array.as_boolean()),
            DataType::Timestamp(..) => Values::Time(array.as_primitive::<TimestampMicrosecondType>()),
            DataType::Date32 => Values::Day(array.as_primitive::<Date32Type>()),
            DataType::Decimal128(..) => Values::Money(array.as_primitive::<Decimal128Type>()),
            DataType::List(_) => {
                let lists: &ListArray = array.as_list();
                Values::List(lists, Box::new(Values::of(lists.values().as_ref())))
            }
            other => panic!("{other} is no canonical type"),
        }
    }

    /// Appends a value in Avro's binary encoding (specification 1.12, "Binary encoding"). The row is not null.
    #[inline]
    fn write(&self, row: usize, body: &mut Vec<u8>) {
        match self {
            Values::Text(texts) => bytes(texts.value(row).as_bytes(), body),
            Values::Long(longs) => long(longs.value(row), body),
            Values::Int(ints) => long(i64::from(ints.value(row)), body),
            Values::Double(doubles) => body.extend_from_slice(&doubles.value(row).to_le_bytes()),
            Values::Float(floats) => body.extend_from_slice(&floats.value(row).to_le_bytes()),
            Values::Bool(flags) => body.push(u8::from(flags.value(row))),
            Values::Time(times) => long(times.value(row), body),
            Values::Day(days) => long(i64::from(days.value(row)), body),
            Values::Money(amounts) => {
                let unscaled = amounts.value(row).to_be_bytes();
                bytes(&unscaled[redundant_bytes(&unscaled)..], body);
            }
            Values::List(lists, items) => {
                let range = item_range(lists, row);
                if !range.is_empty() {
                    long(range.len() as i64, body);
                    range.for_each(|item| items.write(item, body));
                }
                body.push(0);
            }
        }
    }

    /// The value as JSON. The row is not null.
    fn json(&self, row: usize) -> Value {
        match self {
            Values::Text(texts) => texts.value(row).into(),
            Values::Long(longs) => longs.value(row).into(),
            Values::Int(ints) => ints.value(row).into(),
            Values::Double(doubles) => doubles.value(row).into(),
            // Through its own shortest text, so that 0.1 does not become 0.10000000149011612.
            Values::Float(floats) => floats.value(row).to_string().parse::<f64>().map_or(Value::Null, Value::from),
            Values::Bool(flags) => flags.value(row).into(),
            Values::Time(times) => time_json(times.value(row)),
            Values::Day(days) => day_json(days.value(row)),
            Values::Money(amounts) => amounts.value_as_string(row).into(),
            Values::List(lists, items) => item_range(lists, row).map(|item| items.json(item)).collect(),
        }
    }
}

fn item_range(lists: &ListArray, row: usize) -> std::ops::Range<usize> {
    let offsets = lists.value_offsets();
    offsets[row] as usize..offsets[row + 1] as usize
}

/// Zigzag, then seven bits a byte, the lowest first.
#[inline]
fn long(value: i64, body: &mut Vec<u8>) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        body.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    body.push(rest as u8);
}

#[inline]
fn bytes(value: &[u8], body: &mut Vec<u8>) {
    long(value.len() as i64, body);
    body.extend_from_slice(value);
}

/// Leading bytes of a two's complement number that only repeat its sign.
fn redundant_bytes(number: &[u8; 16]) -> usize {
    let is_redundant = |pair: &[u8]| matches!((pair[0], pair[1] >> 7), (0x00, 0) | (0xff, 1));
    number.windows(2).take_while(|pair| is_redundant(pair)).count()
}

/// RFC 3339 in UTC; the number of microseconds where the year has no four digits.
fn time_json(time_us: i64) -> Value {
    match DateTime::from_timestamp_micros(time_us) {
        Some(time) if (0..10_000).contains(&chrono::Datelike::year(&time)) => {
            time.to_rfc3339_opts(SecondsFormat::AutoSi, true).into()
        }
        _ => time_us.into(),
    }
}

/// `YYYY-MM-DD`; the number of days where the year has no four digits.
fn day_json(day: i32) -> Value {
    let date = TimeDelta::try_days(i64::from(day)).and_then(|since| NaiveDate::default().checked_add_signed(since));
    match date {
        Some(date) if (0..10_000).contains(&chrono::Datelike::year(&date)) => date.to_string().into(),
        _ => day.into(),
    }
}

/// A row as one JSON object, for topics in JSON: times in RFC 3339, days as `YYYY-MM-DD`, amounts as text (a number would lose digits in
/// most readers); fields that are null, NaN or infinite are left out.
///
/// Panics when the columns are not canonical or there is no such row.
pub fn encode_json(batch: &RecordBatch, row: usize) -> Vec<u8> {
    let schema = batch.schema_ref();
    let mut object = Map::with_capacity(batch.num_columns());
    for (array, field) in batch.columns().iter().zip(schema.fields()) {
        if array.is_null(row) {
            continue;
        }
        let value = Values::of(array.as_ref()).json(row);
        if !value.is_null() {
            object.insert(field.name().clone(), value);
        }
    }
    Value::Object(object).to_string().into_bytes()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use apache_avro::reader::datum::GenericDatumReader;
    use apache_avro::types::Value as Avro;
    use proptest::prelude::*;

    use super::*;
    use crate::files::test_rows::{batch_of, rows};

    /// The unscaled number of an Avro decimal.
    fn amount(decimal: &apache_avro::Decimal) -> i128 {
        let bytes = Vec::<u8>::try_from(decimal).unwrap();
        let sign = if bytes.first().is_some_and(|byte| byte & 0x80 != 0) { -1i128 } else { 0 };
        bytes.iter().fold(sign, |value, byte| (value << 8) | i128::from(*byte))
    }

    fn agree(array: &dyn Array, row: usize, nullable: bool, avro: &Avro) {
        let avro = match avro {
            Avro::Union(branch, inner) => {
                assert!(nullable);
                assert_eq!(*branch == 0, array.is_null(row));
                inner.as_ref()
            }
            other => other,
        };
        if array.is_null(row) {
            assert_eq!(avro, &Avro::Null);
            return;
        }
        match (Values::of(array), avro) {
            (Values::Text(texts), Avro::String(text)) => assert_eq!(texts.value(row), text),
            (Values::Long(longs), Avro::Long(long)) => assert_eq!(longs.value(row), *long),
            (Values::Int(ints), Avro::Int(int)) => assert_eq!(ints.value(row), *int),
            (Values::Double(doubles), Avro::Double(double)) => {
                assert_eq!(doubles.value(row).to_bits(), double.to_bits());
            }
            (Values::Float(floats), Avro::Float(float)) => assert_eq!(floats.value(row).to_bits(), float.to_bits()),
            (Values::Bool(flags), Avro::Boolean(flag)) => assert_eq!(flags.value(row), *flag),
            (Values::Time(times), Avro::TimestampMicros(time)) => assert_eq!(times.value(row), *time),
            (Values::Day(days), Avro::Date(day)) => assert_eq!(days.value(row), *day),
            (Values::Money(amounts), Avro::Decimal(decimal)) => assert_eq!(amounts.value(row), amount(decimal)),
            (Values::List(lists, _), Avro::Array(items)) => {
                let own = lists.value(row);
                assert_eq!(own.len(), items.len());
                items.iter().enumerate().for_each(|(at, item)| agree(own.as_ref(), at, false, item));
            }
            (_, other) => panic!("{} against {other:?}", array.data_type()),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn apache_avro_reads_what_is_written(
            (kind, rows) in proptest::sample::select(Kind::ALL.to_vec()).prop_flat_map(|kind| (Just(kind), rows(kind))),
            schema_id in any::<u32>(),
        ) {
            let batch = batch_of(kind, &rows);
            let schema = apache_avro::Schema::parse_str(kind.avro()).unwrap();
            let reader = GenericDatumReader::builder(&schema).build().unwrap();
            let mut n_rows = 0;
            Encoder::new(kind).encode(&batch, schema_id, &mut |row, framed| {
                assert_eq!(row, n_rows);
                n_rows += 1;
                assert_eq!(framed[0], 0);
                assert_eq!(framed[1..5], schema_id.to_be_bytes());
                let mut body = &framed[5..];
                let Avro::Record(fields) = reader.read_value(&mut body).unwrap() else { panic!("no record") };
                assert!(body.is_empty(), "{} bytes are left", body.len());
                for (column, (name, value)) in fields.iter().enumerate() {
                    assert_eq!(name, batch.schema_ref().field(column).name());
                    agree(batch.column(column).as_ref(), row, batch.schema_ref().field(column).is_nullable(), value);
                }
            });
            prop_assert_eq!(n_rows, rows.len());
        }
    }

    #[test]
    fn golden_bytes_of_a_cost() {
        use arrow::array::ArrayRef;
        use std::sync::Arc;
        let text = |value: &str| Arc::new(StringArray::from(vec![value])) as ArrayRef;
        let columns = vec![
            text("c1"),
            text("erp"),
            Arc::new(TimestampMicrosecondArray::from(vec![1]).with_timezone("UTC")),
            Arc::new(Int64Array::from(vec![None::<i64>])),
            text("t"),
            text("sales"),
            Arc::new(Decimal128Array::from(vec![-129]).with_data_type(legwork_types::money())),
            text("EUR"),
        ];
        let batch = RecordBatch::try_new(Kind::Costs.schema(), columns).unwrap();
        let mut framed = Vec::new();
        Encoder::new(Kind::Costs).encode(&batch, 7, &mut |_, bytes| framed.extend_from_slice(bytes));
        assert_eq!(framed, b"\x00\x00\x00\x00\x07\x04c1\x06erp\x02\x00\x02t\x0asales\x04\xff\x7f\x06EUR");
        let json = String::from_utf8(encode_json(&batch, 0)).unwrap();
        assert_eq!(
            json,
            r#"{"event_id":"c1","source":"erp","event_time":"1970-01-01T00:00:00.000001Z","team_id":"t","kind":"sales","amount":"-0.0129","currency":"EUR"}"#
        );
    }
}
