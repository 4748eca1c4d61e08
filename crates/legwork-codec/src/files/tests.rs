//! Each format by example, then all of them against each other.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::array::{TimestampMillisecondArray, TimestampNanosecondArray};
use arrow::datatypes::{DataType, Field, Float32Type, Float64Type, Schema, TimestampMicrosecondType};
use expect_test::expect;
use legwork_types::{Kind, RejectReason, gps};
use proptest::prelude::*;

use super::test_rows::{Row, batch_of, rows};
use super::*;

const ARRIVAL_US: i64 = 1_700_000_000_000_000;

fn input(kind: Kind, path: &Path) -> FileInput {
    FileInput { kind, path: path.to_owned(), map: Vec::new(), arrival_us: ARRIVAL_US, batch_rows: 3 }
}

fn map(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(field, column)| ((*field).to_owned(), (*column).to_owned())).collect()
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

/// Everything in a file.
struct All {
    columns: RecordBatch,
    offsets: Vec<i64>,
    rejects: Vec<Reject>,
    /// Where the good rows stand, and the bad ones.
    places: (Vec<String>, Vec<String>),
    error: Option<FileError>,
}

fn read(input: FileInput) -> Result<All, FileError> {
    let kind = input.kind;
    let batch_rows = input.batch_rows;
    let mut reader = FileReader::open(input)?;
    let mut all = All {
        columns: RecordBatch::new_empty(kind.schema()),
        offsets: vec![],
        rejects: vec![],
        places: Default::default(),
        error: None,
    };
    let mut batches = Vec::new();
    while let Some(batch) = reader.next() {
        match batch {
            Ok(batch) => {
                assert_eq!(batch.events.columns.schema(), kind.schema());
                assert_eq!(batch.events.n_rows(), batch.events.offsets.len());
                assert_eq!(batch.events.arrival_us, vec![ARRIVAL_US; batch.events.n_rows()]);
                assert!(batch.events.n_rows() + batch.rejects.len() <= batch_rows);
                all.offsets.extend(&batch.events.offsets);
                let place = |offset: i64| batch.places.of(offset).to_string().rsplit('/').next().unwrap().to_owned();
                all.places.0.extend(batch.events.offsets.iter().map(|offset| place(*offset)));
                all.places.1.extend(batch.rejects.iter().map(|reject| place(reject.offset)));
                all.rejects.extend(batch.rejects);
                batches.push(batch.events.columns);
            }
            Err(error) => all.error = Some(error),
        }
    }
    let (n_bytes, n_bytes_total) = reader.progress();
    assert_eq!(Some(n_bytes), n_bytes_total);
    all.columns = arrow::compute::concat_batches(&kind.schema(), &batches).unwrap();
    Ok(all)
}

/// Positions, times and what was wrong.
fn shown(all: &All) -> String {
    let columns = all.columns.project(&[gps::DEVICE_ID, gps::EVENT_TIME, gps::LAT, gps::LON, gps::ACCURACY_M]).unwrap();
    let mut text = arrow::util::pretty::pretty_format_batches(&[columns]).unwrap().to_string();
    text += &format!("\nrows {:?} at {}\n", all.offsets, all.places.0.join(", "));
    for (reject, place) in all.rejects.iter().zip(&all.places.1) {
        let payload = String::from_utf8_lossy(&reject.payload);
        text += &format!("{} at {place}: {}: {}: {payload:?}\n", reject.offset, reject.reason, reject.detail);
    }
    text
}

const MESSY: &str = "\u{feff}\"device_id\",Event_Time,lat,lon,accuracy_m,note\r
a,2024-01-01T00:00:00Z,1.5,2.5,10,\r
\"b, \"\"the\"\" van\",2024-01-01 00:00:01.25,-1.5,2,,\"two
lines\"\r
c,1704067200000000,north,2,3,x\r
d,1704067200000000,1,2,3\r
,1704067200000000,1,2,3,x\r
\r
e,,1,2,3,x\r
\"f,1704067200000000,1,2,3,x
g,1704067200000000,1,2,3.25,\"x\"
h,1704067200000000,1,2,3,\"x\"y
i,1704067200000000,1,2,3,5\" pipe
\"j\"";

#[test]
fn csv_with_everything_wrong() {
    let folder = Folder::new();
    let all = read(input(Kind::Gps, &folder.write("messy.csv", MESSY))).unwrap();
    expect![[r#"
        +--------------+--------------------------+------+-----+------------+
        | device_id    | event_time               | lat  | lon | accuracy_m |
        +--------------+--------------------------+------+-----+------------+
        | a            | 2024-01-01T00:00:00Z     | 1.5  | 2.5 | 10.0       |
        | b, "the" van | 2024-01-01T00:00:01.250Z | -1.5 | 2.0 |            |
        | g            | 2024-01-01T00:00:00Z     | 1.0  | 2.0 | 3.25       |
        | i            | 2024-01-01T00:00:00Z     | 1.0  | 2.0 | 3.0        |
        +--------------+--------------------------+------+-----+------------+
        rows [0, 1, 7, 9] at messy.csv line 2, messy.csv line 3, messy.csv line 11, messy.csv line 13
        2 at messy.csv line 5: wrong_type: lat is no number: "c,1704067200000000,north,2,3,x"
        3 at messy.csv line 6: malformed: expected 6 cells, found 5: "d,1704067200000000,1,2,3"
        4 at messy.csv line 7: missing_field: device_id is needed and is missing: ",1704067200000000,1,2,3,x"
        5 at messy.csv line 9: missing_field: event_time is needed and is missing: "e,,1,2,3,x"
        6 at messy.csv line 10: malformed: a quoted cell does not end where a cell ends: "\"f,1704067200000000,1,2,3,x"
        8 at messy.csv line 12: malformed: a quoted cell does not end where a cell ends: "h,1704067200000000,1,2,3,\"x\"y"
        10 at messy.csv line 14: malformed: expected 6 cells, found 1: "\"j\""
    "#]]
    .assert_eq(&shown(&all));
    let mut zip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    zip.write_all(MESSY.as_bytes()).unwrap();
    let zipped = read(input(Kind::Gps, &folder.write("messy.csv.gz", zip.finish().unwrap()))).unwrap();
    assert_eq!(shown(&zipped).replace(".csv.gz", ".csv"), shown(&all));
}

#[test]
fn ndjson_with_everything_wrong() {
    let folder = Folder::new();
    let text = br#"{"device_id": "a", "event_time": "2024-01-01T00:00:00Z", "lat": 1.5, "lon": 2.5, "accuracy_m": 10, "extra": {"x": [1]}}
{"lon": "2", "LAT": "-1.5", "event_time": 1704067200000000, "device_id": "b \"the\" \u00e4"}

{"device_id": "c", "event_time": 1704067200000000, "lat": true, "lon": 2}
{"device_id": "d", "event_time": 1704067200000000, "lat": 1}
{"device_id": "e", "event_time": 1704067200000000, "lat": 1, "lon": null}
{"device_id": "f", "event_time": 1704067200000000, "lat": 1, "lon": 2
{"device_id": "g", "event_time": 1704067200000000, "lat": 1, "lon": 2, "lat": 3}
[1, 2]
{"device_id": 17, "event_time": 1704067200000000, "lat": 1, "lon": [2]}
{"device_id": 17, "event_time": 1704067200000000.0, "lat": 1, "lon": 2} x
{"device_id": 17, "event_time": 1704067200000000, "lat": 1e1, "lon": 2, "accuracy_m": null}"#;
    let all = read(input(Kind::Gps, &folder.write("messy.ndjson", text))).unwrap();
    expect![[r#"
        +-----------+----------------------+------+-----+------------+
        | device_id | event_time           | lat  | lon | accuracy_m |
        +-----------+----------------------+------+-----+------------+
        | a         | 2024-01-01T00:00:00Z | 1.5  | 2.5 | 10.0       |
        | b "the" ä | 2024-01-01T00:00:00Z | -1.5 | 2.0 |            |
        | 17        | 2024-01-01T00:00:00Z | 10.0 | 2.0 |            |
        +-----------+----------------------+------+-----+------------+
        rows [0, 1, 10] at messy.ndjson line 1, messy.ndjson line 2, messy.ndjson line 12
        2 at messy.ndjson line 4: wrong_type: lat is no number: "{\"device_id\": \"c\", \"event_time\": 1704067200000000, \"lat\": true, \"lon\": 2}"
        3 at messy.ndjson line 5: missing_field: lon is needed and is missing: "{\"device_id\": \"d\", \"event_time\": 1704067200000000, \"lat\": 1}"
        4 at messy.ndjson line 6: missing_field: lon is needed and is missing: "{\"device_id\": \"e\", \"event_time\": 1704067200000000, \"lat\": 1, \"lon\": null}"
        5 at messy.ndjson line 7: malformed: no JSON object: Eof error at byte 69: "{\"device_id\": \"f\", \"event_time\": 1704067200000000, \"lat\": 1, \"lon\": 2"
        6 at messy.ndjson line 8: malformed: lat is given twice: "{\"device_id\": \"g\", \"event_time\": 1704067200000000, \"lat\": 1, \"lon\": 2, \"lat\": 3}"
        7 at messy.ndjson line 9: malformed: no JSON object: Data error at byte 0: "[1, 2]"
        8 at messy.ndjson line 10: wrong_type: lon is no number: "{\"device_id\": 17, \"event_time\": 1704067200000000, \"lat\": 1, \"lon\": [2]}"
        9 at messy.ndjson line 11: malformed: no JSON object: Syntax error at byte 73: "{\"device_id\": 17, \"event_time\": 1704067200000000.0, \"lat\": 1, \"lon\": 2} x"
    "#]].assert_eq(&shown(&all));
}

fn parquet(path: &Path, batch: &RecordBatch) {
    let file = std::fs::File::create(path).unwrap();
    let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
}

fn ocf(path: &Path, batch: &RecordBatch) {
    let file = std::fs::File::create(path).unwrap();
    let bare: Vec<Field> =
        batch.schema().fields().iter().map(|f| Field::new(f.name(), f.data_type().clone(), f.is_nullable())).collect();
    let schema = Schema::new(bare);
    let batch = RecordBatch::try_new(Arc::new(schema.clone()), batch.columns().to_vec()).unwrap();
    let mut writer = arrow_avro::writer::AvroWriter::new(file, schema).unwrap();
    writer.write(&batch).unwrap();
    writer.finish().unwrap();
}

/// Other types than ours, with bad rows among them.
fn foreign() -> RecordBatch {
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("junk", Arc::new(Int64Array::from(vec![1, 2, 3, 4, 5]))),
        ("unit", Arc::new(Int64Array::from(vec![Some(1), Some(2), Some(3), None, Some(5)]))),
        (
            "event_time",
            Arc::new(
                TimestampMillisecondArray::from(vec![1, 1_704_067_200_123, -1, 4, i64::MAX]).with_timezone("+02:00"),
            ),
        ),
        ("lat", Arc::new(StringArray::from(vec!["1.5", "-1", "south", "4", "5"]))),
        ("lon", Arc::new(Int64Array::from(vec![1, 2, 3, 4, 5]))),
        ("accuracy_m", Arc::new(Float64Array::from(vec![Some(1.25), None, None, None, None]))),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true))).unwrap()
}

#[test]
fn parquet_and_ocf_of_other_types() {
    let folder = Folder::new();
    let path = folder.0.path().join("foreign.parquet");
    parquet(&path, &foreign());
    let all = read(FileInput { map: map(&[("device_id", "unit")]), ..input(Kind::Gps, &path) }).unwrap();
    expect![[r#"
        +-----------+--------------------------+------+-----+------------+
        | device_id | event_time               | lat  | lon | accuracy_m |
        +-----------+--------------------------+------+-----+------------+
        | 1         | 1970-01-01T00:00:00.001Z | 1.5  | 1.0 | 1.25       |
        | 2         | 2024-01-01T00:00:00.123Z | -1.0 | 2.0 |            |
        +-----------+--------------------------+------+-----+------------+
        rows [0, 1] at foreign.parquet row 1, foreign.parquet row 2
        2 at foreign.parquet row 3: wrong_type: lat is no number: "{\"unit\":3,\"event_time\":\"1969-12-31T23:59:59.999Z\",\"lat\":\"south\",\"lon\":3}"
        3 at foreign.parquet row 4: missing_field: device_id is needed and is missing: "{\"event_time\":\"1970-01-01T00:00:00.004Z\",\"lat\":\"4\",\"lon\":4}"
        4 at foreign.parquet row 5: wrong_type: event_time is no time (such as 2026-01-05T08:00:00Z, UTC where no zone is given, or microseconds as an integer): "{\"unit\":5,\"event_time\":\"ERROR: Cast error: Failed to convert 9223372036854775807 to datetime for Timestamp(ms, \"UTC\")\",\"lat\":\"5\",\"lon\":5}"
    "#]].assert_eq(&shown(&all));
    let path = folder.0.path().join("foreign.avro");
    ocf(&path, &foreign());
    let avro = read(FileInput { map: map(&[("device_id", "unit")]), ..input(Kind::Gps, &path) }).unwrap();
    assert_eq!(avro.columns, all.columns);
    assert_eq!(avro.offsets, all.offsets);
}

#[test]
fn a_cut_ocf_is_damaged_wherever_it_ends() {
    let folder = Folder::new();
    let path = folder.0.path().join("whole.avro");
    ocf(&path, &foreign());
    let whole = std::fs::read(&path).unwrap();
    // Where a marker ends the file is whole as far as anybody can tell: behind the header, and at its end.
    let marker = &whole[whole.len() - 16..];
    for n_bytes in 1..=whole.len() {
        let input = FileInput {
            map: map(&[("device_id", "unit")]),
            ..input(Kind::Gps, &folder.write("cut.avro", &whole[..n_bytes]))
        };
        let ends_well = read(input).is_ok_and(|all| all.error.is_none());
        assert_eq!(ends_well, whole[..n_bytes].ends_with(marker), "{n_bytes} of {} bytes", whole.len());
    }
}

#[test]
fn times_of_any_unit_and_money_of_any_type() {
    let folder = Folder::new();
    let text = |value: &str| Arc::new(StringArray::from(vec![value])) as ArrayRef;
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("event_time", Arc::new(TimestampNanosecondArray::from(vec![1_704_067_200_123_456_789]))),
        ("order_id", text("o")),
        ("product_id", text("p")),
        ("quantity", Arc::new(Int64Array::from(vec![3]))),
        ("amount", Arc::new(Float64Array::from(vec![0.1 + 0.2]))),
        ("currency", text("EUR")),
        ("kind", text("sale")),
        ("sequence", Arc::new(Float64Array::from(vec![7.0]))),
    ];
    let path = folder.0.path().join("orders.parquet");
    parquet(&path, &RecordBatch::try_from_iter(columns).unwrap());
    let all = read(input(Kind::Orders, &path)).unwrap();
    assert!(all.rejects.is_empty());
    let json = String::from_utf8(crate::encode::encode_json(&all.columns, 0)).unwrap();
    expect![[r#"{"event_id":"","source":"","event_time":"2024-01-01T00:00:00.123456Z","sequence":7,"order_id":"o","product_id":"p","quantity":3.0,"amount":"0.3000","currency":"EUR","kind":"sale"}"#]].assert_eq(&json);
}

const GPX: &str = r#"<?xml version="1.0"?><gpx version="1.1" creator="test" xmlns="http://www.topografix.com/GPX/1/1">
<wpt lat="9" lon="9"><name>a place</name></wpt>
<trk><name>van 7</name><trkseg>
<trkpt lat="52.5" lon="13.4"><ele>34.5</ele><time>2024-01-01T00:00:00Z</time></trkpt>
<trkpt lat="52.6" lon="13.5"></trkpt></trkseg></trk>
<trk><trkseg><trkpt lat="52.7" lon="13.6"><time>2024-01-01T02:00:01.5+02:00</time></trkpt></trkseg></trk></gpx>"#;

#[test]
fn gpx_tracks_become_pings() {
    let folder = Folder::new();
    let all = read(input(Kind::Gps, &folder.write("Morning.gpx", GPX))).unwrap();
    expect![[r#"
        +-----------+--------------------------+------+------+------------+
        | device_id | event_time               | lat  | lon  | accuracy_m |
        +-----------+--------------------------+------+------+------------+
        | van 7     | 2024-01-01T00:00:00Z     | 52.5 | 13.4 |            |
        | Morning   | 2024-01-01T00:00:01.500Z | 52.7 | 13.6 |            |
        +-----------+--------------------------+------+------+------------+
        rows [0, 2] at Morning.gpx track point 1, Morning.gpx track point 3
        1 at Morning.gpx track point 2: missing_field: event_time is needed and is missing: "<trkpt lat=\"52.6\" lon=\"13.5\"></trkpt>"
    "#]]
    .assert_eq(&shown(&all));
    assert_eq!(all.columns.column(gps::ALTITUDE_M).null_count(), 1);
    let error = FileReader::open(input(Kind::Calls, &folder.write("b.gpx", GPX))).unwrap_err();
    assert!(matches!(error, FileError::GpxOnlyGps { .. }));
}

#[test]
fn a_damaged_gpx_says_where() {
    let folder = Folder::new();
    let mut reader = FileReader::open(input(Kind::Gps, &folder.write("a.gpx", &GPX[..283]))).unwrap();
    assert_eq!(reader.next().unwrap().unwrap().events.n_rows(), 1);
    let error = reader.next().unwrap().unwrap_err();
    assert!(matches!(error, FileError::Corrupt { .. }) && !error.is_usage());
    assert!(error.to_string().contains("a.gpx is damaged or no GPX: 5:"), "{error}");
    assert!(reader.next().is_none());
    for (text, why) in [("", "1:1 "), ("{}", "1:1 "), ("<kml/>", "its root is no gpx element"), ("<gpx", "1:5 ")] {
        let error = FileReader::open(input(Kind::Gps, &folder.write("b.gpx", text))).unwrap_err();
        assert!(error.to_string().contains(&format!("b.gpx is damaged or no GPX: {why}")), "{error}");
    }
}

#[test]
fn a_bad_track_point_costs_only_itself() {
    let folder = Folder::new();
    let text = r#"<gpx version="1.1" xmlns="http://www.topografix.com/GPX/1/1"><trk><trkseg>
        <trkpt lat="91" lon="180"><time>2024-01-01T00:00:00Z</time><cadence>5</cadence></trkpt>
        <trkpt lat="north" lon="1"><time>2024-01-01T00:00:01Z</time></trkpt>
        <trkpt lon="1"><time>2024-01-01T00:00:02Z</time></trkpt>
        <trkpt lat="1" lon="1"><time>today &amp; now</time></trkpt>
        <trkpt lat="1" lon="1"><time>2024-01-01T00:00:03Z</time><ele>high</ele></trkpt>
        <trkpt lat="1" lon="1"><time>2024-01-01T00:00:04Z</time></trkpt>
        </trkseg></trk></gpx>"#;
    let all = read(input(Kind::Gps, &folder.write("a.gpx", text))).unwrap();
    expect![[r#"
        +-----------+----------------------+------+-------+------------+
        | device_id | event_time           | lat  | lon   | accuracy_m |
        +-----------+----------------------+------+-------+------------+
        | a         | 2024-01-01T00:00:00Z | 91.0 | 180.0 |            |
        | a         | 2024-01-01T00:00:04Z | 1.0  | 1.0   |            |
        +-----------+----------------------+------+-------+------------+
        rows [0, 5] at a.gpx track point 1, a.gpx track point 6
        1 at a.gpx track point 2: wrong_type: lat is no number: "<trkpt lat=\"north\" lon=\"1\"><time>2024-01-01T00:00:01Z</time></trkpt>"
        2 at a.gpx track point 3: missing_field: lat is needed and is missing: "<trkpt lat=\"\" lon=\"1\"><time>2024-01-01T00:00:02Z</time></trkpt>"
        3 at a.gpx track point 4: wrong_type: event_time is no time (such as 2026-01-05T08:00:00Z, UTC where no zone is given, or microseconds as an integer): "<trkpt lat=\"1\" lon=\"1\"><time>today &amp; now</time></trkpt>"
        4 at a.gpx track point 5: wrong_type: altitude_m is no number: "<trkpt lat=\"1\" lon=\"1\"><ele>high</ele><time>2024-01-01T00:00:03Z</time></trkpt>"
    "#]]
    .assert_eq(&shown(&all));
}

/// The points of all tracks as the gpx crate reads them: device, time, latitude, longitude, altitude, speed.
fn points_of_crate(text: &str, stem: &str) -> Vec<String> {
    let tracks = ::gpx::read(text.as_bytes()).unwrap().tracks.into_iter().flat_map(|track| {
        let device = track.name.filter(|name| !name.trim().is_empty()).unwrap_or_else(|| stem.to_owned());
        let points = track.segments.into_iter().flat_map(|segment| segment.points);
        points.map(move |point| {
            let time_us = parse::time_us(point.time.unwrap().format().unwrap().as_bytes());
            let (at, altitude_m) = (point.point(), point.elevation.map(|m| m as f32));
            let speed_mps = point.speed.map(|mps| mps as f32);
            format!("{} {:?} {} {} {altitude_m:?} {speed_mps:?}", device.trim(), time_us, at.y(), at.x())
        })
    });
    tracks.collect()
}

fn points_of(all: &All) -> Vec<String> {
    let column = |idx: usize| all.columns.column(idx);
    let f32s = |idx: usize, row: usize| {
        let values = column(idx).as_primitive::<Float32Type>();
        values.is_valid(row).then(|| values.value(row))
    };
    let point = |row: usize| {
        let device = column(gps::DEVICE_ID).as_string::<i32>().value(row);
        let time_us = Some(column(gps::EVENT_TIME).as_primitive::<TimestampMicrosecondType>().value(row));
        let [lat, lon] = [gps::LAT, gps::LON].map(|idx| column(idx).as_primitive::<Float64Type>().value(row));
        let (altitude_m, speed_mps) = (f32s(gps::ALTITUDE_M, row), f32s(gps::SPEED_MPS, row));
        format!("{device} {time_us:?} {lat} {lon} {altitude_m:?} {speed_mps:?}")
    };
    (0..all.columns.num_rows()).map(point).collect()
}

#[test]
fn good_gpx_is_read_as_the_gpx_crate_does() {
    let folder = Folder::new();
    let point = |inner: &str| format!(r#"<trkpt lat="-33.8567844" lon="151.213108">{inner}</trkpt>"#);
    let track = |name: &str, points: &str| format!("<trk>{name}<trkseg>{points}</trkseg><trkseg/></trk>");
    let times = ["2024-01-01T00:00:00Z", "2024-02-29T23:59:59.123456-03:30", "1999-12-31T12:00:00"];
    let points: String = times
        .iter()
        .map(|time| point(&format!("<ele>-12.375</ele><time>{time}</time><hdop>1.5</hdop><name>no device</name>")))
        .collect();
    let foreign = "<extensions><x:time xmlns:x=\"urn:x\">never</x:time><x:a xmlns:x=\"urn:x\"><speed>9</speed></x:a></extensions>";
    let foreign = point(&format!("<ele></ele><time>2024-01-01T00:00:09Z</time>{foreign}"));
    let names = ["", "<name/>", "<name> a &lt;b&gt; &#228; </name>", "<name><![CDATA[c & d]]></name><desc>e</desc>"];
    let tracks: String = names.iter().map(|name| track(name, &format!("{points}{foreign}"))).collect();
    let places = r#"<wpt lat="1" lon="2"><time>2024-01-01T00:00:00Z</time></wpt><rte><rtept lat="1" lon="2"/></rte>"#;
    let speed = track("", &point("<time>2024-01-01T00:00:00Z</time><speed>1.25</speed>"));
    for text in [
        format!(r#"<?xml version="1.0" encoding="UTF-8"?><!-- c --><gpx version="1.1">{places}{tracks}</gpx>"#),
        format!(r#"<gpx version="1.1" xmlns="http://www.topografix.com/GPX/1/1">{tracks}{places}</gpx>"#),
        r#"<g:gpx version="1.0" xmlns:g="http://www.topografix.com/GPX/1/0"></g:gpx>"#.to_owned(),
        format!(r#"<gpx version="1.0" xmlns="http://www.topografix.com/GPX/1/0">{speed}</gpx>"#),
    ] {
        let all = read(input(Kind::Gps, &folder.write("van.gpx", &text))).unwrap();
        assert_eq!(all.rejects.len(), 0);
        assert_eq!(points_of(&all), points_of_crate(&text, "van"), "{text}");
    }
}

#[test]
fn columns_are_renamed_shared_and_missed_with_a_hint() {
    let folder = Folder::new();
    let path = folder.write("a.csv", "lat,lng,datetime,uid\n39.9,116.3,2008-10-23 05:53:05,001\n");
    let all = read(FileInput {
        map: map(&[("device_id", "uid"), ("rep_id", "UID"), ("event_time", "datetime"), ("lon", "lng")]),
        ..input(Kind::Gps, &path)
    })
    .unwrap();
    let json = String::from_utf8(crate::encode::encode_json(&all.columns, 0)).unwrap();
    expect![[r#"{"event_id":"","source":"","event_time":"2008-10-23T05:53:05Z","device_id":"001","rep_id":"001","lat":39.9,"lon":116.3}"#]].assert_eq(&json);
    let message = |map| FileReader::open(FileInput { map, ..input(Kind::Gps, &path) }).unwrap_err().to_string();
    let hints = [
        message(vec![]),
        message(map(&[("device", "uid")])),
        message(map(&[("device_id", "uuid")])),
        message(map(&[("lat", "lng"), ("lat", "lat")])),
    ]
    .map(|hint| hint.replace(folder.0.path().to_str().unwrap(), ""));
    expect![[r#"
        /a.csv lacks event_time, device_id, lon for kind gps: its columns are lat, lng, datetime, uid; name the right ones with --map FIELD=COLUMN
        --map device=uid: kind gps has no field device; did you mean device_id?
        --map device_id=uuid: /a.csv has no column uuid; did you mean uid?
        --map names the field lat twice"#]].assert_eq(&hints.join("\n"));
    for (header, separators) in [("device_id;event_time;lat;lon", "semicolons"), ("device_id\tlat", "tabs")] {
        let path = folder.write("c.csv", format!("{header}\n"));
        let hint = FileReader::open(input(Kind::Gps, &path)).unwrap_err().to_string();
        assert!(hint.ends_with(&format!("and these seem to be by {separators}")), "{hint}");
    }
    let path = folder.write("b.csv", [b"\x1b[2J\x07,".as_slice(), &[b'x'; 5_000], b"\n"].concat());
    let hint = FileReader::open(input(Kind::Gps, &path)).unwrap_err().to_string();
    assert!(!hint.contains('\x1b') && hint.contains("\\u{1b}") && hint.len() < 1_000, "{hint}");
    let path = folder.write("a.json", "{\"latitude\": 1, \"uid\": 7}\n");
    let hint = FileReader::open(input(Kind::Gps, &path)).unwrap_err().to_string();
    assert!(hint.contains("lacks event_time, device_id, lat, lon") && hint.contains("latitude, uid"), "{hint}");
}

#[test]
fn wrong_files_are_refused() {
    let folder = Folder::new();
    let refused = |name: &str, bytes: &[u8]| match read(input(Kind::Gps, &folder.write(name, bytes))) {
        Err(error) => error,
        Ok(all) => all.error.unwrap(),
    };
    assert!(matches!(refused("a.txt", b""), FileError::UnknownFormat { .. }));
    assert!(matches!(refused("a.parquet.gz", b""), FileError::UnknownFormat { .. }));
    assert!(matches!(refused("a.csv", b""), FileError::Corrupt { .. }));
    assert!(matches!(refused("a.parquet", b"no"), FileError::Corrupt { .. }));
    assert!(matches!(refused("a.avro", b"no"), FileError::Corrupt { .. }));
    assert!(matches!(refused("a.json", b" [{}]"), FileError::Corrupt { .. }));
    let missing = FileReader::open(input(Kind::Gps, &folder.0.path().join("none.csv"))).unwrap_err();
    assert!(matches!(missing, FileError::Io { .. }));
    let folder_itself = folder.0.path().join("folder.csv");
    std::fs::create_dir(&folder_itself).unwrap();
    assert!(matches!(FileReader::open(input(Kind::Gps, &folder_itself)).unwrap_err(), FileError::Io { .. }));
}

#[test]
fn a_cut_gzip_gives_its_rows_first() {
    let folder = Folder::new();
    let mut zip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
    zip.write_all(b"device_id,event_time,lat,lon\n").unwrap();
    (0..100_000).for_each(|row| writeln!(zip, "d{row},{row},1,2").unwrap());
    let mut bytes = zip.finish().unwrap();
    bytes.truncate(bytes.len() / 2);
    let all = read(FileInput { batch_rows: 8_192, ..input(Kind::Gps, &folder.write("a.csv.gz", bytes)) }).unwrap();
    assert!(all.offsets.len() > 10_000);
    assert!(matches!(all.error, Some(FileError::Corrupt { .. })));
}

#[test]
fn lines_beyond_the_bounds_cost_only_themselves() {
    let folder = Folder::new();
    let long = "x".repeat(9 * 1024 * 1024);
    let text = format!("device_id,event_time,lat,lon\na,1,1,1\n{long},1,1,1\nb,1,1,1\n\"{long},1,1,1\nc,1,1,1\n");
    let all = read(input(Kind::Gps, &folder.write("a.csv", text))).unwrap();
    assert_eq!(all.rejects[0].reason, RejectReason::Oversized);
    assert!(all.rejects[0].payload.len() <= 64 * 1024);
    let devices = all.columns.column(gps::DEVICE_ID).clone();
    assert_eq!(devices.as_ref(), &StringArray::from(vec!["a", "b", "c"]) as &dyn Array);
    let text = format!(
        "{{\"device_id\":\"a\",\"event_time\":1,\"lat\":1,\"lon\":1}}\n{long}\n\n{{\"device_id\":\"b\",\"event_time\":1,\"lat\":1,\"lon\":1}}"
    );
    let all = read(input(Kind::Gps, &folder.write("a.jsonl", text))).unwrap();
    assert_eq!((all.offsets, all.rejects.len()), (vec![0, 2], 1));
}

#[test]
fn lists_from_every_format() {
    let folder = Folder::new();
    let csv = folder.write(
        "a.csv",
        "calendar_id,time_zone,working_hours,holidays\nc,UTC,mon 09:00-17:00; tue 09:00-12:00,2024-12-25;2025-01-01\n",
    );
    let json = folder.write(
        "a.json",
        r#"{"calendar_id":"c","time_zone":"UTC","working_hours":["mon 09:00-17:00","tue 09:00-12:00"],"holidays":["2024-12-25",20089]}
{"calendar_id":"c","time_zone":"UTC","working_hours":[1]}
{"calendar_id":"c","time_zone":"UTC","working_hours":{"mon":1}}"#,
    );
    let from_csv = read(input(Kind::Calendars, &csv)).unwrap();
    let from_json = read(input(Kind::Calendars, &json)).unwrap();
    assert_eq!(from_csv.columns, from_json.columns);
    assert_eq!(from_csv.columns.num_rows(), 1);
    assert_eq!(from_json.rejects.len(), 2);
}

fn csv_text(kind: Kind, rows: &[Row]) -> String {
    let line = |cells: Vec<String>| cells.join(",") + "\n";
    let mut text = line(kind.schema().fields().iter().map(|f| f.name().clone()).collect());
    for row in rows {
        let quoted =
            |cell: &Option<String>| cell.as_ref().map_or(String::new(), |c| format!("\"{}\"", c.replace('"', "\"\"")));
        text += &line(row.iter().map(quoted).collect());
    }
    text
}

fn json_text(kind: Kind, rows: &[Row]) -> String {
    let mut text = String::new();
    for row in rows {
        let mut object = serde_json::Map::new();
        for (field, cell) in kind.schema().fields().iter().zip(row) {
            let Some(cell) = cell else { continue };
            let value = match field.data_type() {
                DataType::List(_) => cell.split(';').map(serde_json::Value::from).collect(),
                _ => serde_json::Value::from(cell.as_str()),
            };
            object.insert(field.name().clone(), value);
        }
        text += &serde_json::Value::Object(object).to_string();
        text.push('\n');
    }
    text
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn all_formats_agree((kind, rows) in proptest::sample::select(Kind::ALL.to_vec()).prop_flat_map(|kind| (Just(kind), rows(kind)))) {
        let folder = Folder::new();
        let expected = batch_of(kind, &rows);
        let path = |name: &str| folder.0.path().join(name);
        folder.write("rows.csv", csv_text(kind, &rows));
        folder.write("rows.ndjson", json_text(kind, &rows));
        folder.write("own.ndjson", (0..rows.len()).flat_map(|row| [crate::encode::encode_json(&expected, row), b"\n".to_vec()]).flatten().collect::<Vec<u8>>());
        parquet(&path("rows.parquet"), &expected);
        ocf(&path("rows.avro"), &expected);
        for name in ["rows.csv", "rows.ndjson", "own.ndjson", "rows.parquet", "rows.avro"] {
            let all = read(input(kind, &path(name))).unwrap();
            prop_assert!(all.rejects.is_empty() && all.error.is_none(), "{} {:?} {:?}", name, all.rejects, all.error);
            prop_assert_eq!(&all.columns, &expected, "{}", name);
            prop_assert_eq!(all.offsets, (0..rows.len() as i64).collect::<Vec<_>>());
        }
    }

    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(proptest::sample::select(b"\",\n\r{}[]:a1.-\\ \xff".to_vec()), 0..400)) {
        let folder = Folder::new();
        let header = b"device_id,event_time,lat,lon\n";
        let all = read(input(Kind::Gps, &folder.write("a.csv", [header.as_slice(), &bytes].concat()))).unwrap();
        prop_assert!(all.error.is_none());
        let mut numbers: Vec<i64> = all.offsets.iter().copied().chain(all.rejects.iter().map(|reject| reject.offset)).collect();
        numbers.sort_unstable();
        prop_assert_eq!(&numbers, &(0..numbers.len() as i64).collect::<Vec<_>>());
        let _ = read(input(Kind::Gps, &folder.write("a.ndjson", &bytes)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn damaged_tables_are_refused_and_do_no_harm(flips in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4), keep in 0.1..1.0f64) {
        let folder = Folder::new();
        for (name, write) in [("a.avro", ocf as fn(&Path, &RecordBatch)), ("a.parquet", parquet)] {
            let path = folder.0.path().join(name);
            write(&path, &foreign());
            let mut bytes = std::fs::read(&path).unwrap();
            for (place, byte) in &flips {
                let place = place.index(bytes.len());
                bytes[place] = *byte;
            }
            // In half of the cases the whole file is kept.
            bytes.truncate((bytes.len() as f64 * (keep * 2.0).min(1.0)) as usize);
            std::fs::write(&path, bytes).unwrap();
            let batches = FileReader::open(FileInput { map: map(&[("device_id", "unit")]), ..input(Kind::Gps, &path) });
            if let Ok(mut reader) = batches {
                while let Some(Ok(_)) = reader.next() {}
                prop_assert!(reader.next().is_none());
            }
        }
    }
}

/// Recorded tracks that lie beside the project during its development and are not part of it.
#[test]
fn recorded_tracks_are_read_whole() {
    let name = "shared/data/geolife_sample.csv.gz";
    let found =
        Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|folder| folder.join(name)).find(|path| path.exists());
    let Some(path) = found else {
        eprintln!("NOT TESTED: no {name} beside the workspace");
        return;
    };
    let map = map(&[("device_id", "uid"), ("event_time", "datetime"), ("lon", "lng")]);
    let all = read(FileInput { map, batch_rows: 8_192, ..input(Kind::Gps, &path) }).unwrap();
    assert_eq!((all.offsets.len(), all.rejects.len()), (217_653, 0));
    let json = String::from_utf8(crate::encode::encode_json(&all.columns, 0)).unwrap();
    assert_eq!(
        json,
        r#"{"event_id":"","source":"","event_time":"2008-10-23T05:53:05Z","device_id":"001","lat":39.984094,"lon":116.319236}"#
    );
}

/// Rows a second by format: `cargo t legwork-codec -- --ignored --nocapture rows_a_second`.
#[test]
#[ignore = "a measurement"]
fn rows_a_second() {
    const N_ROWS: usize = 5_000_000;
    let folder = Folder::new();
    let path = |name: &str| folder.0.path().join(name);
    let (mut csv, mut json) = (String::from("device_id,event_time,lat,lon,speed_mps\n"), String::new());
    for row in 0..N_ROWS {
        let (device, time) =
            (row % 10_000, chrono::DateTime::from_timestamp(1_700_000_000 + row as i64 / 700, 0).unwrap());
        let (lat, lon, speed) =
            (52.0 + (row % 977) as f64 / 1e4, 13.0 + (row % 1009) as f64 / 1e4, (row % 300) as f64 / 10.0);
        let time = time.format("%Y-%m-%dT%H:%M:%SZ");
        csv += &format!("dev-{device:05},{time},{lat:.6},{lon:.6},{speed:.1}\n");
        json += &format!(
            "{{\"device_id\":\"dev-{device:05}\",\"event_time\":\"{time}\",\"lat\":{lat:.6},\"lon\":{lon:.6},\"speed_mps\":{speed:.1}}}\n"
        );
    }
    folder.write("a.csv", &csv);
    folder.write("a.ndjson", &json);
    let mut zip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    zip.write_all(csv.as_bytes()).unwrap();
    folder.write("a.csv.gz", zip.finish().unwrap());
    drop((csv, json));
    let mut reader = FileReader::open(FileInput { batch_rows: N_ROWS, ..input(Kind::Gps, &path("a.csv")) }).unwrap();
    let parts: Vec<RecordBatch> =
        std::iter::from_fn(|| reader.next()).map(|batch| batch.unwrap().events.columns).collect();
    let columns = arrow::compute::concat_batches(&Kind::Gps.schema(), &parts).unwrap();
    parquet(&path("a.parquet"), &columns);
    ocf(&path("a.avro"), &columns);
    for name in ["a.csv", "a.csv.gz", "a.ndjson", "a.parquet", "a.avro"] {
        let start = std::time::Instant::now();
        let mut reader =
            FileReader::open(FileInput { batch_rows: BATCH_ROWS, ..input(Kind::Gps, &path(name)) }).unwrap();
        let n_rows: usize = std::iter::from_fn(|| reader.next()).map(|batch| batch.unwrap().events.n_rows()).sum();
        assert_eq!(n_rows, N_ROWS);
        eprintln!("{name}: {:.2} M rows/s", N_ROWS as f64 / start.elapsed().as_secs_f64() / 1e6);
    }
    let start = std::time::Instant::now();
    let mut n_bytes = 0;
    crate::encode::Encoder::new(Kind::Gps).encode(&columns, 1, &mut |_, body| n_bytes += body.len());
    let rate = N_ROWS as f64 / start.elapsed().as_secs_f64() / 1e6;
    eprintln!("Avro bodies written: {rate:.2} M rows/s, {} bytes each", n_bytes / N_ROWS);
}
