//! Ping by ping: what was counted and why.

use crate::track::fold::{Decision, Journal, Share};
use crate::track::ping::Ping;

/// A ping with what it adds to its row. The shares of a row's pings, added in order, are the row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Explained {
    pub(crate) ping: Ping,
    pub(crate) raw_m: f64,
    pub(crate) decision: Decision,
    pub(crate) share: Share,
    /// Time since the last kept fix.
    leg_us: i64,
}

impl Explained {
    pub(crate) fn is_kept(&self) -> bool {
        !matches!(self.decision, Decision::Invalid | Decision::Mock | Decision::Accuracy | Decision::Speed)
    }
}

/// Writes down what the fold decides, and corrects it where the fold takes something back.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    pub(crate) pings: Vec<Explained>,
    /// Position after the fix from which on the device may stand still.
    after_still: usize,
    /// Position after the anchor.
    after_anchor: usize,
}

impl Trace {
    fn position(&self, time_us: i64) -> Option<usize> {
        self.pings.binary_search_by_key(&time_us, |explained| explained.ping.time_us).ok()
    }
}

impl Journal for Trace {
    fn ping(&mut self, ping: &Ping, raw_m: f64) {
        self.pings.push(Explained {
            ping: *ping,
            raw_m,
            decision: Decision::Invalid,
            share: Share::default(),
            leg_us: 0,
        });
    }

    fn decided(&mut self, decision: Decision, share: Share, leg_us: i64) {
        if let Some(last) = self.pings.last_mut() {
            (last.decision, last.share, last.leg_us) = (decision, share, leg_us);
        }
    }

    fn rejected(&mut self, time_us: i64) {
        if let Some(at) = self.position(time_us) {
            (self.pings[at].decision, self.pings[at].share) = (Decision::Speed, Share::default());
        }
    }

    fn still(&mut self, start_us: i64) {
        let after = self.position(start_us).map_or(0, |at| at + 1);
        (self.after_still, self.after_anchor) = (after, after);
    }

    fn counted(&mut self) {
        let last = self.pings.len() - 1;
        for between in self.pings[..last].iter_mut().skip(self.after_anchor) {
            if between.decision == Decision::Jitter {
                between.share.still_us = 0;
            }
        }
        self.after_anchor = last + 1;
    }

    fn stands(&mut self, approach_m: f64) {
        for member in self.pings.iter_mut().skip(self.after_still).filter(|e| e.is_kept()) {
            member.share = Share { still_us: member.leg_us, ..Share::default() };
            member.decision = Decision::Stay;
        }
        if let Some(last) = self.pings.last_mut() {
            last.share.distance_m = approach_m;
        }
    }
}
