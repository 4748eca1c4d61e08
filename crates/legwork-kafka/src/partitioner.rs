//! Which partition a key belongs to.

use std::str::FromStr;

/// How producers choose the partition of a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Partitioner {
    /// The Java client's default, and ours.
    #[default]
    Murmur2,
    /// librdkafka's default (`consistent`).
    Crc32,
    /// Unknown or mixed: keys are not checked.
    Any,
}

impl Partitioner {
    /// Partition of `key` in a topic of `n_partitions`; none where the key does not decide it.
    #[inline]
    pub fn partition(self, key: &[u8], n_partitions: i32) -> Option<i32> {
        if n_partitions <= 0 {
            return None;
        }
        match self {
            Partitioner::Murmur2 => Some((murmur2(key) & 0x7fff_ffff) % n_partitions),
            // librdkafka sends messages with an empty key anywhere.
            Partitioner::Crc32 if key.is_empty() => None,
            Partitioner::Crc32 => Some((crc32(key) % n_partitions.unsigned_abs()) as i32),
            Partitioner::Any => None,
        }
    }

    /// Name in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Partitioner::Murmur2 => "murmur2",
            Partitioner::Crc32 => "crc32",
            Partitioner::Any => "any",
        }
    }
}

/// No partitioner has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown partitioner {found:?}: expected murmur2, crc32 or any")]
pub struct UnknownPartitioner {
    found: String,
}

impl FromStr for Partitioner {
    type Err = UnknownPartitioner;

    fn from_str(text: &str) -> Result<Partitioner, UnknownPartitioner> {
        [Partitioner::Murmur2, Partitioner::Crc32, Partitioner::Any]
            .into_iter()
            .find(|partitioner| partitioner.as_str() == text)
            .ok_or_else(|| UnknownPartitioner { found: text.to_owned() })
    }
}

/// MurmurHash2 (Austin Appleby, public domain), 32 bits, as Kafka's Java client computes it: seed 0x9747b28c, little-endian words.
#[inline]
pub fn murmur2(key: &[u8]) -> i32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;
    let mut hash = SEED ^ (key.len() as u32);
    let mut words = key.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes([word[0], word[1], word[2], word[3]]).wrapping_mul(M);
        k = (k ^ (k >> R)).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ k;
    }
    let tail = words.remainder();
    if !tail.is_empty() {
        let k = tail.iter().enumerate().fold(0, |k, (byte_idx, byte)| k | u32::from(*byte) << (8 * byte_idx));
        hash = (hash ^ k).wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    (hash ^ (hash >> 15)) as i32
}

/// CRC-32 as in zlib, which librdkafka partitions by.
#[inline]
pub fn crc32(key: &[u8]) -> u32 {
    crc32fast::hash(key)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn murmur2_equals_the_java_clients() {
        // Expected values of the Java client's own test and of librdkafka's, which was computed with it.
        for (key, expected) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
            ("kafka", 0xd067_cf64_u32 as i32),
            ("1234", 0x9fc9_7b14_u32 as i32),
            ("234", 0xe7c0_09ca_u32 as i32),
            ("4", 0x5a4b_5ca1),
            ("", 0x106e_08d9),
        ] {
            assert_eq!(murmur2(key.as_bytes()), expected, "{key}");
        }
        assert_eq!(Partitioner::Murmur2.partition(b"foobar", 8), Some((-790_332_482 & 0x7fff_ffff) % 8));
    }

    #[test]
    fn crc32_is_zlibs_and_unsigned() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(Partitioner::Crc32.partition(b"123456789", 7), Some((0xcbf4_3926_u32 % 7) as i32));
        assert_eq!(Partitioner::Crc32.partition(b"", 7), None);
        assert_eq!(Partitioner::Any.partition(b"x", 7), None);
    }

    #[test]
    fn names_parse_back() {
        for partitioner in [Partitioner::Murmur2, Partitioner::Crc32, Partitioner::Any] {
            assert_eq!(partitioner.as_str().parse(), Ok(partitioner));
        }
        assert!("fnv1a".parse::<Partitioner>().unwrap_err().to_string().contains("murmur2"));
    }
}
