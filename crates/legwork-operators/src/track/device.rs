//! One device: its pings in event-time order, the fold's state, its rows.

use legwork_types::Verdict;

use crate::track::explain::{Explained, Trace};
use crate::track::fold::{Params, Silent, State, step};
use crate::track::names::Names;
use crate::track::ping::{NO_REP, Ping};
use crate::track::rows::DeviceRows;

/// What became of a ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It is the newest of its device.
    InOrder,
    /// It was put among older ones; [`Device::settle`] must be called.
    Reordered,
    /// It was not accepted.
    Refused(Verdict),
}

/// A device.
#[derive(Clone, Debug)]
pub(crate) struct Device {
    pub(crate) pings: Vec<Ping>,
    state: State,
    pub(crate) rows: DeviceRows,
    /// The lane's newest event time when the device's last event was read.
    pub(crate) lane_then_us: i64,
    is_dirty: bool,
}

fn rep_name(reps: &Names, rep: u32) -> Option<&str> {
    (rep != NO_REP).then(|| reps.get(rep))
}

impl Device {
    pub(crate) fn new() -> Device {
        Device {
            pings: Vec::new(),
            state: State::default(),
            rows: DeviceRows::default(),
            lane_then_us: i64::MIN,
            is_dirty: false,
        }
    }

    pub(crate) fn newest(&self) -> Option<&Ping> {
        self.pings.last()
    }

    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// Takes a ping. One that is the newest is folded at once, others wait for [`Device::settle`].
    pub(crate) fn take(
        &mut self,
        params: &Params,
        late_horizon_us: i64,
        reps: &Names,
        ping: Ping,
        revision: u32,
    ) -> Taken {
        let Some(newest) = self.pings.last() else {
            self.append(params, ping, revision);
            return Taken::InOrder;
        };
        if ping.time_us > newest.time_us {
            self.append(params, ping, revision);
            return Taken::InOrder;
        }
        if ping.time_us < newest.time_us.saturating_sub(late_horizon_us) {
            return Taken::Refused(Verdict::Late);
        }
        match self.pings.binary_search_by_key(&ping.time_us, |ping| ping.time_us) {
            Ok(at) => {
                let name = |rep| rep_name(reps, rep);
                let is_newest = at + 1 == self.pings.len();
                let held = &mut self.pings[at];
                let order = if is_newest { ping.order_of_newest(held, name) } else { ping.order_of_equals(held, name) };
                if order.is_le() {
                    return Taken::Refused(Verdict::Duplicate);
                }
                *held = ping;
            }
            Err(at) => self.pings.insert(at, ping),
        }
        self.is_dirty = true;
        Taken::Reordered
    }

    fn append(&mut self, params: &Params, ping: Ping, revision: u32) {
        if !self.is_dirty {
            step(params, &mut self.state, &mut self.rows, &ping, revision, &mut Silent);
        }
        self.pings.push(ping);
    }

    /// Folds again what pings out of order have changed. Rows that come out the same keep their revision.
    pub(crate) fn settle(&mut self, params: &Params, revision: u32) {
        if !std::mem::take(&mut self.is_dirty) {
            return;
        }
        let before = std::mem::take(&mut self.rows);
        self.state = State::default();
        for ping in &self.pings {
            step(params, &mut self.state, &mut self.rows, ping, revision, &mut Silent);
        }
        let mut olds = before.movement.iter().peekable();
        for row in &mut self.rows.movement {
            while olds.peek().is_some_and(|old| old.window_us < row.window_us) {
                olds.next();
            }
            let mut same_window = olds.clone().take_while(|old| old.window_us == row.window_us);
            if let Some(old) = same_window.find(|old| old.rep == row.rep) {
                row.keep_revision(old);
            }
        }
    }

    /// Every ping that is held, with what it adds.
    pub(crate) fn explain(&self, params: &Params) -> Vec<Explained> {
        let mut trace = Trace::default();
        let (mut state, mut rows) = (State::default(), DeviceRows::default());
        for ping in &self.pings {
            step(params, &mut state, &mut rows, ping, 0, &mut trace);
        }
        trace.pings
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.pings.capacity() * size_of::<Ping>() + self.rows.memory_bytes() + size_of::<Device>()
    }
}
