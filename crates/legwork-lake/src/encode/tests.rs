//! What is encoded here is what the library encodes: read back, and told by the footer.

use std::sync::Arc;

use arrow::array::{Int64Array, StringArray, TimestampMicrosecondArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Schema, TimeUnit};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::Encoding;
use parquet::file::properties::EnabledStatistics;
use parquet::schema::types::ColumnPath;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::footer::read_footer;

/// By name what a column is to be: `counted` and `timed` packed, `id` front-coded, all others with a dictionary.
fn properties(n_rows_max: usize) -> WriterProperties {
    let mut properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(n_rows_max))
        .set_statistics_enabled(EnabledStatistics::None);
    let encodings = [
        ("counted", Encoding::DELTA_BINARY_PACKED),
        ("timed", Encoding::DELTA_BINARY_PACKED),
        ("id", Encoding::DELTA_BYTE_ARRAY),
    ];
    for (name, encoding) in encodings {
        let column = ColumnPath::from(name);
        properties = properties.set_column_dictionary_enabled(column.clone(), false);
        properties = properties.set_column_encoding(column, encoding);
    }
    for name in ["counted", "timed", "told"] {
        properties = properties.set_column_statistics_enabled(ColumnPath::from(name), EnabledStatistics::Chunk);
    }
    properties.build()
}

#[derive(Clone, Debug)]
struct Row {
    counted: i64,
    timed: Option<i64>,
    id: String,
    told: String,
    maybe: Option<String>,
}

fn batch(rows: &[Row], is_nullable: bool) -> RecordBatch {
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let schema = Schema::new(vec![
        Field::new("counted", DataType::Int64, is_nullable),
        Field::new("timed", time, true),
        Field::new("id", DataType::Utf8, is_nullable),
        Field::new("told", DataType::Utf8, is_nullable),
        Field::new("maybe", DataType::Utf8, true),
    ]);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.counted))),
        Arc::new(rows.iter().map(|row| row.timed).collect::<TimestampMicrosecondArray>().with_timezone("UTC")),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.id))),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.told))),
        Arc::new(rows.iter().map(|row| row.maybe.as_deref()).collect::<StringArray>()),
    ];
    RecordBatch::try_new(Arc::new(schema), columns).unwrap()
}

fn read(file: Bytes) -> RecordBatch {
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
    let rows: Vec<RecordBatch> = reader.map(Result::unwrap).collect();
    concat_batches(&rows[0].schema(), &rows).unwrap()
}

/// Encodes `rows` in batches of at most `n_together`, here and by the library, and compares.
fn check(rows: &[Row], n_together: usize, n_rows_max: usize, is_nullable: bool) {
    let all = batch(rows, is_nullable);
    // Slices of what is longer than they are, as lanes have them.
    let parts: Vec<RecordBatch> =
        (0..rows.len()).step_by(n_together).map(|at| all.slice(at, n_together.min(rows.len() - at))).collect();
    let (schema, properties) = (all.schema(), properties(n_rows_max));
    let file = encode(&schema, &properties, &parts).unwrap();
    let mut library = ArrowWriter::try_new(Vec::new(), schema, Some(properties)).unwrap();
    parts.iter().for_each(|part| library.write(part).unwrap());
    let library = Bytes::from(library.into_inner().unwrap());

    assert_eq!(read(file.clone()), all);
    let [ours, theirs] = [&file, &library].map(|file| read_footer("t", file).unwrap());
    assert_eq!(ours.num_row_groups(), theirs.num_row_groups());
    for (ours, theirs) in ours.row_groups().iter().zip(theirs.row_groups()) {
        assert_eq!(ours.num_rows(), theirs.num_rows());
        for (ours, theirs) in ours.columns().iter().zip(theirs.columns()) {
            assert_eq!(ours.statistics(), theirs.statistics(), "{:?}", ours.column_path());
            assert_eq!(ours.num_values(), theirs.num_values());
        }
    }
}

/// Counts that go on, jump, and reach both ends.
fn counts() -> impl Strategy<Value = i64> {
    prop_oneof![
        any::<i64>(),
        -3_i64..3,
        1_790_000_000_000_000_i64..1_790_000_100_000_000,
        Just(i64::MIN),
        Just(i64::MAX)
    ]
}

fn texts() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), "[ab]{1,2}", "device-[0-9]{3}", "\\PC{0,12}", "x{60,70}"]
}

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let row =
        (counts(), prop::option::weighted(0.999, counts()), texts(), texts(), prop::option::weighted(0.99, texts()));
    let row = row.prop_map(|(counted, timed, id, told, maybe)| Row { counted, timed, id, told, maybe });
    // Each so many times in a row, so that there are runs.
    vec((row, prop_oneof![4 => 1_usize..4, 1 => 1_usize..300]), 1..60)
        .prop_map(|runs| runs.into_iter().flat_map(|(row, n_rows)| vec![row; n_rows]).collect())
}

proptest! {
    #[test]
    fn rows_come_back_and_the_footer_tells_what_the_library_would(
        rows in rows(),
        n_together in 1_usize..400,
        n_rows_max in prop_oneof![Just(1_000_000_usize), 1_usize..300],
        is_nullable: bool,
    ) {
        check(&rows, n_together, n_rows_max, is_nullable);
    }
}

#[test]
fn a_column_of_one_value_is_one_run() {
    let row = Row { counted: 7, timed: Some(7), id: "a".to_owned(), told: "a".to_owned(), maybe: Some(String::new()) };
    for n_rows in [1, 5, 8, 12, 16, 20, 1_000] {
        let rows = vec![row.clone(); n_rows];
        check(&rows, 7, 131_072, true);
        let texts = StringArray::from_iter_values(rows.iter().map(|row| &row.told));
        let mut indices = Vec::new();
        values::Dictionary::of(&[&texts]).unwrap().put_indices(&mut indices);
        // The width, and how often the only index comes.
        let n_rows = n_rows as u16 * 2;
        let run = if n_rows < 128 { vec![0, n_rows as u8] } else { vec![0, n_rows as u8 | 0x80, (n_rows >> 7) as u8] };
        assert_eq!(indices, run);
    }
}

#[test]
fn many_rows_are_a_page_of_one_chunk() {
    let rows: Vec<Row> = (0..70_000)
        .map(|idx| Row {
            counted: idx,
            timed: Some(1_790_000_000_000_000 + idx * 5_700 - idx * 7_919 % 30_000_000),
            id: format!("field.gps-pings.v1-3-{idx}"),
            told: format!("device-{:06}", idx * 7_919 % 2_500),
            maybe: Some("field.gps-pings.v1".to_owned()),
        })
        .collect();
    check(&rows, 512, 131_072, false);
    let file = encode(&batch(&rows, false).schema(), &properties(131_072), &[batch(&rows, false)]).unwrap();
    let footer = read_footer("t", &file).unwrap();
    let own = |name: &str| {
        let columns = footer.row_group(0).columns();
        let column = columns.iter().find(|column| column.column_path().string() == name).unwrap();
        (column.encodings().collect::<Vec<_>>(), column.compressed_size() / 70_000)
    };
    assert_eq!(own("counted"), (vec![Encoding::RLE, Encoding::DELTA_BINARY_PACKED], 0));
    assert_eq!(own("timed"), (vec![Encoding::RLE, Encoding::DELTA_BINARY_PACKED], 0));
    assert_eq!(own("id"), (vec![Encoding::RLE, Encoding::DELTA_BYTE_ARRAY], 1));
    assert_eq!(own("told"), (vec![Encoding::PLAIN, Encoding::RLE, Encoding::RLE_DICTIONARY], 2));
    assert_eq!(own("maybe").1, 0);
}

#[test]
fn strings_that_hardly_repeat_have_no_dictionary() {
    let rows: Vec<Row> = (0..20_000)
        .map(|idx| Row {
            counted: 0,
            timed: None,
            id: String::new(),
            told: format!("{idx} of a text that nobody wrote twice, and that takes more than a hundred bytes in all, so that a list of them grows long"),
            maybe: Some(format!("{}", idx / 2 + idx % 2 * 10_000)),
        })
        .collect();
    check(&rows, 1_000, 131_072, true);
}
