//! GPX: track points as pings. Routes and waypoints are plans and places, no fixes, and are not read.

use std::fmt;
use std::io::BufReader;
use std::sync::Arc;

use legwork_types::{Kind, Reject, gps};
use xml::attribute::OwnedAttribute;
use xml::escape::{escape_str_attribute, escape_str_pcdata};
use xml::name::OwnedName;
use xml::reader::{Error, ErrorKind, EventReader, ParserConfig2, XmlEvent};

use super::builder::{Cell, RowBuilder};
use super::csv::{PAYLOAD_BYTES_MAX, read_error};
use super::input::Bytes;
use super::lines::LINE_BYTES_MAX;
use super::places::Places;
use super::{FileBatch, FileError, FileInput, RowSource, Target};

/// From the root to a track point.
const PATH: [&str; 4] = ["gpx", "trk", "trkseg", "trkpt"];
const IN_TRACK: usize = 2;
const IN_POINT: usize = 4;

/// The fields of a ping that a track point may have.
const FIELDS: [usize; 6] = [gps::DEVICE_ID, gps::EVENT_TIME, gps::LAT, gps::LON, gps::ALTITUDE_M, gps::SPEED_MPS];

/// A track point as it is written; what it lacks is empty.
#[derive(Default)]
struct Point {
    lat: String,
    lon: String,
    time: String,
    altitude_m: String,
    speed_mps: String,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, r#"<trkpt lat="{}" lon="{}">"#, escape_str_attribute(&self.lat), escape_str_attribute(&self.lon))?;
        let children = [("ele", &self.altitude_m), ("time", &self.time), ("speed", &self.speed_mps)];
        for (name, text) in children.into_iter().filter(|(_, text)| !text.is_empty()) {
            write!(f, "<{name}>{}</{name}>", escape_str_pcdata(text))?;
        }
        f.write_str("</trkpt>")
    }
}

pub(crate) struct GpxRows {
    target: Arc<Target>,
    events: EventReader<BufReader<Bytes>>,
    namespace: Option<String>,
    /// Elements that are open, and how many of them, from the root on, are those of [`PATH`].
    n_open: usize,
    n_matched: usize,
    /// Name of the file, and of the track that is read.
    stem: Arc<str>,
    device: Arc<str>,
    point: Point,
    text: String,
    rows: RowBuilder,
    rejects: Vec<Reject>,
}

impl GpxRows {
    pub(crate) fn open(bytes: Bytes, target: Arc<Target>, input: &FileInput) -> Result<GpxRows, FileError> {
        if target.kind != Kind::Gps || !input.map.is_empty() {
            return Err(FileError::GpxOnlyGps { path: target.path.clone(), kind: target.kind });
        }
        let stem: Arc<str> = Arc::from(stem(&target));
        let config = ParserConfig2::new().max_data_length(LINE_BYTES_MAX).max_attribute_length(LINE_BYTES_MAX);
        let mut rows = GpxRows {
            events: EventReader::new_with_config(BufReader::new(bytes), config),
            namespace: None,
            n_open: 0,
            n_matched: 0,
            device: stem.clone(),
            stem,
            point: Point::default(),
            text: String::new(),
            rows: RowBuilder::new(target.kind.schema(), FIELDS),
            rejects: Vec::new(),
            target,
        };
        while rows.n_open == 0 && rows.read()? {}
        if rows.n_matched == 0 {
            return Err(rows.corrupt("its root is no gpx element".to_owned()));
        }
        Ok(rows)
    }

    fn corrupt(&self, detail: String) -> FileError {
        FileError::Corrupt { path: self.target.path.clone(), format: "GPX", detail }
    }

    /// Reads the next piece. *Returns* whether there is more.
    fn read(&mut self) -> Result<bool, FileError> {
        match self.events.next() {
            Ok(XmlEvent::StartElement { name, attributes, .. }) => self.begin(name, attributes),
            Ok(XmlEvent::Characters(text) | XmlEvent::CData(text)) => self.text.push_str(&text),
            Ok(XmlEvent::EndElement { name }) => self.end(&name),
            Ok(XmlEvent::EndDocument) => return Ok(false),
            Ok(_) => {}
            Err(error) => return Err(self.failed(&error)),
        }
        Ok(true)
    }

    fn failed(&self, error: &Error) -> FileError {
        match error.kind() {
            ErrorKind::Io(source) => {
                read_error(&self.target, "GPX", std::io::Error::new(source.kind(), source.to_string()))
            }
            _ => self.corrupt(error.to_string()),
        }
    }

    fn begin(&mut self, name: OwnedName, attributes: Vec<OwnedAttribute>) {
        self.text.clear();
        if self.n_matched == self.n_open && PATH.get(self.n_matched) == Some(&name.local_name.as_str()) {
            self.n_matched += 1;
            match self.n_matched {
                1 => self.namespace = name.namespace,
                IN_TRACK => self.device = self.stem.clone(),
                IN_POINT => {
                    self.point = Point::default();
                    for OwnedAttribute { name, value } in attributes {
                        match name.local_name.as_str() {
                            "lat" => self.point.lat = value,
                            "lon" => self.point.lon = value,
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        self.n_open += 1;
    }

    fn end(&mut self, name: &OwnedName) {
        self.n_open -= 1;
        if self.n_open < self.n_matched {
            self.n_matched = self.n_open;
            if self.n_open + 1 == IN_POINT {
                self.row();
            }
        } else if self.n_open == self.n_matched && name.namespace == self.namespace {
            let text = self.text.trim();
            match (self.n_open, name.local_name.as_str()) {
                (IN_TRACK, "name") if !text.is_empty() => self.device = Arc::from(text),
                (IN_POINT, "time") => text.clone_into(&mut self.point.time),
                (IN_POINT, "ele") => text.clone_into(&mut self.point.altitude_m),
                (IN_POINT, "speed") => text.clone_into(&mut self.point.speed_mps),
                _ => {}
            }
        }
        self.text.clear();
    }

    fn row(&mut self) {
        let Point { lat, lon, time, altitude_m, speed_mps } = &self.point;
        let cells = [&*self.device, time, lat, lon, altitude_m, speed_mps];
        for (column, text) in cells.into_iter().enumerate() {
            self.rows.push(column, Cell::Text(text.as_bytes()));
        }
        let row = self.rows.row();
        if let Err(fault) = self.rows.end_row(None) {
            let mut payload = self.point.to_string().into_bytes();
            payload.truncate(PAYLOAD_BYTES_MAX);
            self.rejects.push(self.target.reject(row, fault, payload));
        }
    }
}

impl RowSource for GpxRows {
    fn next_batch(&mut self) -> Option<Result<FileBatch, FileError>> {
        let error = loop {
            if self.rows.n_rows() >= self.target.batch_rows {
                break None;
            }
            match self.read() {
                Ok(true) => {}
                Ok(false) => break None,
                Err(error) => break Some(error),
            }
        };
        if self.rows.n_rows() == 0 {
            return error.map(Err);
        }
        // An error comes again when it is asked for what follows.
        let (columns, offsets) = self.rows.finish();
        let places = Places::new(&self.target.path, "track point");
        Some(Ok(self.target.batch(columns, offsets, std::mem::take(&mut self.rejects), places)))
    }
}

/// Name of the file without its endings.
fn stem(target: &Target) -> String {
    let name = target.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let lower = name.to_ascii_lowercase();
    let n_bytes = lower.strip_suffix(".gz").unwrap_or(&lower).strip_suffix(".gpx").unwrap_or(&lower).len();
    name.get(..n_bytes).unwrap_or(&name).to_owned()
}
