//! What was handed over of a device at the last checkpoint, as far as it may have changed since.

use crate::track::chunk::Chunk;
use crate::track::device::Device;
use crate::track::ping::Ping;
use crate::track::rows::{Row, Stay, Trip};

/// A device as of the last checkpoint: the rows that have changed since, or vanished, or may in any batch.
#[derive(Clone, Debug)]
pub(crate) struct Handed {
    pub(crate) clock_us: Option<i64>,
    pub(crate) lane_then_us: i64,
    pub(crate) newest: Option<Ping>,
    pub(crate) rows: Vec<Row>,
    /// Those of chunks that are not as they were handed over, and of the open one.
    pub(crate) stays: Vec<Stay>,
    pub(crate) trips: Vec<Trip>,
    /// Chunks that are no more, or not as they were.
    pub(crate) chunks: Vec<Chunk>,
}

impl Handed {
    /// A device as it is now, handed over as such.
    pub(crate) fn of(device: &Device) -> Handed {
        let (stay, trip) = device.state.under_way();
        Handed {
            clock_us: device.clock_us(),
            lane_then_us: device.lane_then_us,
            newest: device.newest(),
            rows: device.rows.open_rows().collect(),
            stays: device.rows.stays().iter().copied().chain(stay).collect(),
            trips: device.rows.trips().iter().copied().chain(trip).collect(),
            chunks: Vec::new(),
        }
    }

    /// Keeps a row that changes or vanishes, unless it was kept before.
    pub(crate) fn keep_row(&mut self, row: &Row) {
        if !self.rows.iter().any(|held| (held.window_us, held.rep) == (row.window_us, row.rep)) {
            self.rows.push(*row);
        }
    }

    /// Keeps what was handed over of a chunk that changes.
    pub(crate) fn keep_chunk(&mut self, chunk: &Chunk) {
        let Some(body) = chunk.body.as_ref().filter(|_| chunk.stored != 0) else { return };
        self.chunks.push(chunk.clone());
        self.stays.extend(&body.stays);
        self.trips.extend(&body.trips);
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        size_of::<Handed>()
            + self.rows.capacity() * size_of::<Row>()
            + self.stays.capacity() * size_of::<Stay>()
            + self.trips.capacity() * size_of::<Trip>()
            + self.chunks.capacity() * size_of::<Chunk>()
            + self.chunks.iter().filter_map(|chunk| chunk.body.as_ref()).map(|body| body.memory_bytes()).sum::<usize>()
    }
}
