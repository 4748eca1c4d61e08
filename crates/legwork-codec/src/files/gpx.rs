//! GPX: track points as pings. Routes and waypoints are plans and places, no fixes, and are not read.

use std::io::Read;
use std::sync::Arc;

use legwork_types::{Kind, Reject, gps};

use super::builder::{Cell, RowBuilder};
use super::csv::read_error;
use super::input::Bytes;
use super::places::Places;
use super::{FileBatch, FileError, FileInput, RowSource, Target};

/// The crate reads a file as a whole, at some ten times its size in memory: larger ones are refused.
const GPX_BYTES_MAX: u64 = 128 * 1024 * 1024;

struct Fix {
    device: Arc<str>,
    time: Option<String>,
    lat: f64,
    lon: f64,
    altitude_m: Option<f64>,
    speed_mps: Option<f64>,
}

pub(crate) struct GpxRows {
    target: Arc<Target>,
    fixes: std::vec::IntoIter<Fix>,
    rows: RowBuilder,
}

impl GpxRows {
    pub(crate) fn open(mut bytes: Bytes, target: Arc<Target>, input: &FileInput) -> Result<GpxRows, FileError> {
        if target.kind != Kind::Gps || !input.map.is_empty() {
            return Err(FileError::GpxOnlyGps { path: target.path.clone(), kind: target.kind });
        }
        let corrupt = |detail| FileError::Corrupt { path: target.path.clone(), format: "GPX", detail };
        let mut text = Vec::new();
        bytes
            .by_ref()
            .take(GPX_BYTES_MAX + 1)
            .read_to_end(&mut text)
            .map_err(|source| read_error(&target, "GPX", source))?;
        if text.len() as u64 > GPX_BYTES_MAX {
            return Err(corrupt("it is larger than 128 MiB; split it by tracks".to_owned()));
        }
        let gpx = ::gpx::read(text.as_slice()).map_err(|error| corrupt(error.to_string()))?;
        let fields = [gps::DEVICE_ID, gps::EVENT_TIME, gps::LAT, gps::LON, gps::ALTITUDE_M, gps::SPEED_MPS];
        let rows = RowBuilder::new(target.kind.schema(), fields);
        let fixes = fixes(gpx, &stem(&target)).into_iter();
        Ok(GpxRows { target, fixes, rows })
    }

    fn row(&mut self, fix: &Fix, rejects: &mut Vec<Reject>) {
        let optional = |value: Option<f64>| value.map_or(Cell::Null, Cell::Double);
        let time = fix.time.as_ref().map_or(Cell::Null, |time| Cell::Text(time.as_bytes()));
        let cells = [
            Cell::Text(fix.device.as_bytes()),
            time,
            Cell::Double(fix.lat),
            Cell::Double(fix.lon),
            optional(fix.altitude_m),
            optional(fix.speed_mps),
        ];
        for (column, cell) in cells.into_iter().enumerate() {
            self.rows.push(column, cell);
        }
        let row = self.rows.row();
        if let Err(fault) = self.rows.end_row(None) {
            let payload = format!(r#"<trkpt lat="{}" lon="{}"/>"#, fix.lat, fix.lon).into_bytes();
            rejects.push(self.target.reject(row, fault, payload));
        }
    }
}

impl RowSource for GpxRows {
    fn next_batch(&mut self) -> Option<Result<FileBatch, FileError>> {
        let mut rejects = Vec::new();
        while self.rows.n_rows() < self.target.batch_rows {
            let Some(fix) = self.fixes.next() else { break };
            self.row(&fix, &mut rejects);
        }
        if self.rows.n_rows() == 0 {
            return None;
        }
        let (columns, offsets) = self.rows.finish();
        Some(Ok(self.target.batch(columns, offsets, rejects, Places::new(&self.target.path, "track point"))))
    }
}

/// Name of the file without its endings.
fn stem(target: &Target) -> String {
    let name = target.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let lower = name.to_ascii_lowercase();
    let n_bytes = lower.strip_suffix(".gz").unwrap_or(&lower).strip_suffix(".gpx").unwrap_or(&lower).len();
    name.get(..n_bytes).unwrap_or(&name).to_owned()
}

fn fixes(gpx: ::gpx::Gpx, stem: &str) -> Vec<Fix> {
    let mut fixes = Vec::new();
    for track in gpx.tracks {
        let name = track.name.as_deref().map(str::trim).filter(|name| !name.is_empty());
        let device: Arc<str> = Arc::from(name.unwrap_or(stem));
        for point in track.segments.into_iter().flat_map(|segment| segment.points) {
            fixes.push(Fix {
                device: device.clone(),
                time: point.time.and_then(|time| time.format().ok()),
                lat: point.point().y(),
                lon: point.point().x(),
                altitude_m: point.elevation,
                speed_mps: point.speed,
            });
        }
    }
    fixes
}
