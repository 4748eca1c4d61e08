//! Telling files apart by what they hold.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Bytes read at once.
const CHUNK: usize = 1 << 20;
/// Offset basis and prime of the 128-bit hash. *Source:* Fowler, Noll, Vo, RFC 9923.
const FNV_BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
const FNV_PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;

/// A hash of bytes that is the same on every machine and in every version. Made to find files that were changed by accident, not by an
/// adversary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fingerprint(u128);

impl Default for Fingerprint {
    fn default() -> Fingerprint {
        Fingerprint(FNV_BASIS)
    }
}

impl Fingerprint {
    /// Of a file's bytes as they lie there. *Errors:* those of reading it.
    pub fn of_file(path: &Path) -> io::Result<Fingerprint> {
        let mut file = File::open(path)?;
        let mut chunk = vec![0; CHUNK];
        let mut fingerprint = Fingerprint::default();
        loop {
            match file.read(&mut chunk) {
                Ok(0) => return Ok(fingerprint),
                Ok(n_bytes) => fingerprint = fingerprint.and(&chunk[..n_bytes]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// With these bytes following.
    #[must_use]
    pub fn and(self, bytes: &[u8]) -> Fingerprint {
        Fingerprint(bytes.iter().fold(self.0, |hash, byte| (hash ^ u128::from(*byte)).wrapping_mul(FNV_PRIME)))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn the_hash_is_that_of_its_specification() {
        let of = |text: &str| Fingerprint::default().and(text.as_bytes()).to_string();
        assert_eq!(of(""), "6c62272e07bb014262b821756295c58d");
        assert_eq!(of("a"), "d228cb696f1a8caf78912b704e4a8964");
        assert_eq!(of("foobar"), "343e1662793c64bf6f0d3597ba446f18");
    }

    #[test]
    fn a_file_has_the_hash_of_its_bytes() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let bytes: Vec<u8> = (0..CHUNK + 7).map(|n| (n % 251) as u8).collect();
        file.write_all(&bytes).unwrap();
        assert_eq!(Fingerprint::of_file(file.path()).unwrap(), Fingerprint::default().and(&bytes));
        assert!(Fingerprint::of_file(Path::new("/no/such/file")).is_err());
    }
}
