//! Topics that are left alone for a while because they take no letters.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Which topics fail, for how long they are left alone, and how much was left out meanwhile.
#[derive(Debug)]
pub(super) struct Pauses {
    pause_min: Duration,
    pause_max: Duration,
    failing: Mutex<HashMap<String, Failing>>,
}

#[derive(Debug)]
struct Failing {
    until: Instant,
    pause: Duration,
    n_left_out: usize,
}

impl Pauses {
    pub(super) fn new(pause_min: Duration, pause_max: Duration) -> Pauses {
        Pauses { pause_min, pause_max, failing: Mutex::default() }
    }

    /// Whether a topic is left alone now; what is left out of it is counted.
    pub(super) fn leaves_out(&self, topic: &str, n_letters: usize) -> bool {
        match self.failing.lock().get_mut(topic) {
            Some(failing) if Instant::now() < failing.until => {
                failing.n_left_out += n_letters;
                true
            }
            _ => false,
        }
    }

    /// Whether the last that was heard of a topic is that it failed.
    pub(super) fn was_failing(&self, topic: &str) -> bool {
        self.failing.lock().contains_key(topic)
    }

    /// Leaves a topic alone. *Returns* for how long.
    pub(super) fn failed(&self, topic: &str) -> Duration {
        let mut failing = self.failing.lock();
        let before = failing.remove(topic);
        let pause = before.as_ref().map_or(self.pause_min, |before| (before.pause * 2).min(self.pause_max));
        let n_left_out = before.map_or(0, |before| before.n_left_out);
        failing.insert(topic.to_owned(), Failing { until: Instant::now() + pause, pause, n_left_out });
        pause
    }

    /// The topic takes letters. *Returns* how many were left out, when it had failed before.
    pub(super) fn succeeded(&self, topic: &str) -> Option<usize> {
        self.failing.lock().remove(topic).map(|failing| failing.n_left_out)
    }
}
