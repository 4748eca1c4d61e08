//! Pings that came late, as they wait to be put among the others.

use std::borrow::Cow;

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

    /// Whether the chunk that begins at `first_us` may have a ping at a time. `n_pings` and `bytes_from`, which gives the bytes from one on, are
    /// the chunk's, to which pings may have been appended since the last call.
    pub(crate) fn may_have<'a>(
        &mut self,
        first_us: i64,
        n_pings: u32,
        time_us: i64,
        bytes_from: impl FnOnce(usize) -> Cow<'a, [u8]>,
    ) -> bool {
        let at = self.times.iter().position(|(chunk_us, _)| *chunk_us == first_us).unwrap_or_else(|| {
            self.times.push((first_us, Times::default()));
            self.times.len() - 1
        });
        self.times[at].1.may_have(n_pings, time_us, bytes_from)
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
    fn may_have<'a>(&mut self, n_pings: u32, time_us: i64, bytes_from: impl FnOnce(usize) -> Cow<'a, [u8]>) -> bool {
        let n_new = n_pings.saturating_sub(self.hashes.len() as u32);
        if n_new > 0 {
            let mut reader = Reader::resume(bytes_from(self.mark.byte()), n_new, self.mark);
            self.hashes.reserve_exact(n_new as usize);
            self.hashes.extend(reader.by_ref().map(|ping| hash(ping.time_us)));
            self.mark = reader.mark();
        }
        self.hashes.contains(&hash(time_us))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::track::codec::Writer;
    use crate::track::ping::{NO_REP, NO_TIME};

    fn ping(time_us: i64) -> Ping {
        Ping {
            time_us,
            sent_us: NO_TIME,
            lat: 48.0 + time_us as f64 * 1e-7,
            lon: 11.0,
            odometer_m: f64::NAN,
            accuracy_m: 5.0,
            speed_mps: f32::NAN,
            battery_pct: f32::NAN,
            rep: NO_REP,
            mock: false,
        }
    }

    proptest! {
        #[test]
        fn times_are_found_also_after_others_were_appended(times in proptest::collection::btree_set(0i64..1 << 40, 1..300),
                                                           cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..5)) {
            let times: Vec<i64> = times.into_iter().collect();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(times.len())).collect();
            cuts.push(times.len());
            cuts.sort_unstable();
            let (mut deferred, mut writer, mut n_pings) = (Deferred::default(), Writer::new(), 0);
            for cut in cuts {
                times[n_pings..cut].iter().for_each(|time_us| writer.push(&ping(*time_us)));
                n_pings = cut;
                let mut may_have = |time_us| deferred.may_have(times[0], n_pings as u32, time_us, |first| writer.bytes_from(first));
                prop_assert!(times[..n_pings].iter().all(|time_us| may_have(*time_us)));
                let n_found = (0..1000).filter(|n| may_have((1 << 41) + n * 7_777_777)).count();
                prop_assert!(n_found < 50, "{n_found} of 1000 are taken for others");
            }
        }
    }
}
