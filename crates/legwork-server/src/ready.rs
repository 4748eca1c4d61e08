//! Whether this process does its work, as its other parts see it.

use std::fmt::Debug;

use serde::Serialize;

/// Answers `/readyz`.
pub trait Readiness: Send + Sync + Debug {
    /// What holds now. Must be quick: it is asked on every probe.
    fn readiness(&self) -> ReadinessReport;
}

/// Whether the process is ready, and why not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ReadinessReport {
    /// Lanes are assigned, restored and progress.
    pub ready: bool,
    /// What is missing, one sentence each, naming the hop: empty when ready.
    pub reasons: Vec<String>,
}

impl ReadinessReport {
    /// Ready.
    pub fn ready() -> ReadinessReport {
        ReadinessReport { ready: true, reasons: Vec::new() }
    }

    /// Not ready for these reasons; ready when there are none.
    pub fn unless(reasons: Vec<String>) -> ReadinessReport {
        ReadinessReport { ready: reasons.is_empty(), reasons }
    }
}
