//! Pings that came late, as they wait to be put among the others.

use crate::track::codec::{Mark, Reader};
use crate::track::ping::Ping;

/// Accepted pings of a device that are not among the others yet.
#[derive(Clone, Debug, Default)]
pub(crate) struct Deferred {
    /// In the order of arrival.
    pub(crate) pings: Vec<Ping>,
    /// Of chunks that some of them fall in, by the chunk's first ping: most late pings are told from all others there at little cost.
    times: Vec<(i64, Times)>,
}

impl Deferred {
    pub(crate) fn of(pings: Vec<Ping>) -> Deferred {
        Deferred { pings, times: Vec::new() }
    }

    /// Whether the chunk that begins at `first_us` may have a ping at a time. `n_pings` and `bytes` are the chunk's, to which pings may have
    /// been appended since the last call.
    pub(crate) fn may_have(&mut self, first_us: i64, bytes: &[u8], n_pings: u32, time_us: i64) -> bool {
        let at = self.times.iter().position(|(chunk_us, _)| *chunk_us == first_us).unwrap_or_else(|| {
            self.times.push((first_us, Times::default()));
            self.times.len() - 1
        });
        self.times[at].1.may_have(bytes, n_pings, time_us)
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        let times = self.times.iter().map(|(_, times)| times.hashes.capacity() * size_of::<u16>());
        size_of::<Deferred>()
            + self.pings.capacity() * size_of::<Ping>()
            + self.times.capacity() * size_of::<(i64, Times)>()
            + times.sum::<usize>()
    }
}

/// The times of a chunk's pings, hashed to 16 bits: of 256 others one in 256 times is taken for one of them.
#[derive(Clone, Debug, Default)]
struct Times {
    hashes: Vec<u16>,
    /// Up to where they were read.
    mark: Mark,
}

fn hash(time_us: i64) -> u16 {
    // Fibonacci hashing: the upper bits of the product depend on all bits of the time.
    ((time_us as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 48) as u16
}

impl Times {
    fn may_have(&mut self, bytes: &[u8], n_pings: u32, time_us: i64) -> bool {
        let n_new = n_pings.saturating_sub(self.hashes.len() as u32);
        if n_new > 0 {
            let mut reader = Reader::resume(bytes, n_new, self.mark);
            self.hashes.reserve_exact(n_new as usize);
            self.hashes.extend(reader.by_ref().map(|ping| hash(ping.time_us)));
            self.mark = reader.mark();
        }
        self.hashes.contains(&hash(time_us))
    }
}
