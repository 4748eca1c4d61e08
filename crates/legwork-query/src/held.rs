//! What the expressions of one query hold: DataFusion's memory limit sees operators, not the values that an expression makes.

use std::sync::{Arc, Weak};

use arrow::array::{Array, ArrayRef};
use datafusion::common::{DataFusionError, Result};
use datafusion::logical_expr::ColumnarValue;
use parking_lot::Mutex;

/// Results below this are not followed, bytes: they go with their batch.
const FOLLOWED_BYTES_MIN: u64 = 64 << 10;

/// The account of one query.
#[derive(Debug)]
pub(crate) struct Held {
    bytes_max: u64,
    values: Mutex<Values>,
}

#[derive(Debug, Default)]
struct Values {
    /// Bytes of constants, made while a query is planned; they stay with its plan.
    constants: u64,
    arrays: Vec<(Weak<dyn Array>, u64)>,
}

/// More text or lists than a query may make. *Source:* [`crate::functions`].
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct TooLarge(pub(crate) String);

impl TooLarge {
    pub(crate) fn error(message: String) -> DataFusionError {
        DataFusionError::External(Box::new(TooLarge(message)))
    }
}

impl Default for Held {
    /// Without a limit: where no query runs.
    fn default() -> Held {
        Held::new(usize::MAX)
    }
}

impl Held {
    pub(crate) fn new(bytes_max: usize) -> Held {
        Held { bytes_max: bytes_max as u64, values: Mutex::default() }
    }

    /// Whether there is room for more. *Errors:* [`TooLarge`].
    pub(crate) fn check(&self) -> Result<()> {
        match self.values.lock().n_bytes() > self.bytes_max {
            true => Err(TooLarge::error(format!(
                "the expressions of the query make more than {} MiB of text and lists at a time: make them shorter, or raise \
                 query.memory_bytes_max",
                self.bytes_max >> 20
            ))),
            false => Ok(()),
        }
    }

    /// Takes what a function made into account. *Errors:* as [`Held::check`].
    pub(crate) fn add(&self, made: &ColumnarValue) -> Result<()> {
        let n_bytes = match made {
            ColumnarValue::Array(array) => array.get_array_memory_size() as u64,
            ColumnarValue::Scalar(scalar) => scalar.size() as u64,
        };
        if n_bytes < FOLLOWED_BYTES_MIN {
            return Ok(());
        }
        match made {
            ColumnarValue::Array(array) => self.values.lock().follow(array, n_bytes),
            ColumnarValue::Scalar(_) => self.values.lock().constants += n_bytes,
        }
        self.check()
    }
}

impl Values {
    fn follow(&mut self, array: &ArrayRef, n_bytes: u64) {
        self.arrays.push((Arc::downgrade(array), n_bytes));
    }

    fn n_bytes(&mut self) -> u64 {
        self.arrays.retain(|(array, _)| array.strong_count() > 0);
        self.arrays.iter().map(|(_, n_bytes)| n_bytes).sum::<u64>() + self.constants
    }
}
