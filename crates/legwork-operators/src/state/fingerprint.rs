//! Hashes that are stored: the same in every version and on every machine.

/// 128 bits over a chain of fields, each hashed with what came before as its seed, so that the limits between fields count too.
/// *Source:* MurmurHash3 x64 128, Austin Appleby, public domain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    h1: u64,
    h2: u64,
}

const C1: u64 = 0x87c3_7b91_1142_53d5;
const C2: u64 = 0x4cf5_ad43_2745_937f;

fn mix_k1(k1: u64) -> u64 {
    k1.wrapping_mul(C1).rotate_left(31).wrapping_mul(C2)
}

fn mix_k2(k2: u64) -> u64 {
    k2.wrapping_mul(C2).rotate_left(33).wrapping_mul(C1)
}

fn finish(mut k: u64) -> u64 {
    k = (k ^ (k >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    k = (k ^ (k >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    k ^ (k >> 33)
}

/// Little-endian; missing bytes are 0.
fn word(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(word)
}

impl Fingerprint {
    /// With the next field.
    pub(crate) fn bytes(self, bytes: &[u8]) -> Fingerprint {
        let Fingerprint { mut h1, mut h2 } = self;
        let (blocks, tail) = bytes.as_chunks::<16>();
        for block in blocks {
            h1 ^= mix_k1(word(&block[..8]));
            h1 = h1.rotate_left(27).wrapping_add(h2).wrapping_mul(5).wrapping_add(0x52dc_e729);
            h2 ^= mix_k2(word(&block[8..]));
            h2 = h2.rotate_left(31).wrapping_add(h1).wrapping_mul(5).wrapping_add(0x3849_5ab5);
        }
        let (low, high) = tail.split_at(tail.len().min(8));
        h2 ^= mix_k2(word(high));
        h1 ^= mix_k1(word(low));
        h1 ^= bytes.len() as u64;
        h2 ^= bytes.len() as u64;
        h1 = h1.wrapping_add(h2);
        h2 = h2.wrapping_add(h1);
        (h1, h2) = (finish(h1), finish(h2));
        h1 = h1.wrapping_add(h2);
        Fingerprint { h1, h2: h2.wrapping_add(h1) }
    }

    /// With a text.
    pub(crate) fn text(self, text: &str) -> Fingerprint {
        self.bytes(text.as_bytes())
    }

    /// With a text that may be missing.
    pub(crate) fn opt_text(self, text: Option<&str>) -> Fingerprint {
        match text {
            Some(text) => self.text(text).bytes(&[1]),
            None => self.bytes(&[0]),
        }
    }

    /// With a whole number, or bits.
    pub(crate) fn int(self, int: i64) -> Fingerprint {
        self.bytes(&int.to_le_bytes())
    }

    /// With a whole number, or bits, that may be missing.
    pub(crate) fn opt_int(self, int: Option<i64>) -> Fingerprint {
        match int {
            Some(int) => self.int(int),
            None => self.bytes(&[0]),
        }
    }

    /// 64 of the bits.
    pub(crate) fn u64(self) -> u64 {
        self.h1
    }

    /// 96 of the bits.
    pub(crate) fn words(self) -> [u32; 3] {
        [(self.h1 >> 32) as u32, self.h1 as u32, (self.h2 >> 32) as u32]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_murmur3() {
        assert_eq!(Fingerprint::default().text(""), Fingerprint::default());
        let fox = Fingerprint::default().text("The quick brown fox jumps over the lazy dog");
        assert_eq!((fox.h1, fox.h2), (0xe34b_bc7b_bc07_1b6c, 0x7a43_3ca9_c49a_9347));
        let fields = |a: &str, b: &str| Fingerprint::default().text(a).text(b);
        assert_ne!(fields("ab", "c"), fields("a", "bc"));
        assert_ne!(Fingerprint::default().opt_text(None), Fingerprint::default().opt_text(Some("")));
    }
}
