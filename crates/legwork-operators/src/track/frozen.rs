//! Devices in few bytes, while nothing is heard of them.

use crate::track::codec::Reader;
use crate::track::device::Device;
use crate::track::fold::Params;
use crate::track::ping::NO_REP;
use crate::track::reps::Reps;
use crate::track::varint::{Take, put};

/// A device with more pings is not frozen; each is folded again when it thaws.
const PINGS_MAX: u32 = 64;

const WAS_LIVE: u8 = 1;

impl Device {
    /// Itself in few bytes, where it holds so few pings that folding them again costs little, and nothing waits for a checkpoint.
    pub(crate) fn freeze(&self, params: &Params) -> Option<Box<[u8]>> {
        let is_settled = self.past.is_none() && self.deferred.is_none() && self.handed.is_none();
        if !is_settled || self.n_open > PINGS_MAX {
            return None;
        }
        let pings = self.open.bytes();
        let revisions: Vec<u32> = self.rows.movement(params.window_us).map(|row| row.revision).collect();
        let mut bytes = Vec::with_capacity(24 + 4 * revisions.len() + pings.len());
        bytes.push(if self.was_live { WAS_LIVE } else { 0 });
        bytes.extend_from_slice(&self.lane_then_us.to_le_bytes());
        bytes.extend_from_slice(&self.battery_pct.to_le_bytes());
        put(&mut bytes, u64::from(self.n_open));
        put(&mut bytes, self.reps.iter().count() as u64);
        self.reps.iter().for_each(|rep| put(&mut bytes, u64::from(rep)));
        put(&mut bytes, revisions.len() as u64);
        revisions.into_iter().for_each(|revision| put(&mut bytes, u64::from(revision)));
        bytes.extend_from_slice(&pings);
        Some(bytes.into_boxed_slice())
    }

    /// What [`Device::freeze`] made few bytes of.
    pub(crate) fn thaw(params: &Params, frozen: &[u8]) -> Device {
        thaw(params, &mut Take(frozen)).expect("a frozen device is whole")
    }
}

fn thaw(params: &Params, take: &mut Take<'_>) -> Option<Device> {
    let mut device = Device::new();
    let was_live = take.byte()? & WAS_LIVE != 0;
    let lane_then_us = i64::from_le_bytes(take.array()?);
    let battery_pct = f32::from_le_bytes(take.array()?);
    let n_pings = take.u32()?;
    let mut reps = Reps::new();
    for _ in 0..take.number()? {
        reps.local(take.u32().filter(|rep| *rep != NO_REP)?);
    }
    let n_rows = take.number()?;
    let revisions = (0..n_rows).map(|_| take.u32()).collect::<Option<Vec<u32>>>()?;
    for ping in Reader::new(take.0, n_pings) {
        device.fold(params, &ping, 0);
    }
    for (row_idx, revision) in revisions.into_iter().enumerate() {
        device.rows.set_revision(row_idx, revision);
    }
    if let Some(clock_us) = device.clock_us() {
        device.rows.retire(params.window_us, device.state.open_from_us(params, clock_us));
    }
    (device.lane_then_us, device.battery_pct) = (lane_then_us, battery_pct);
    (device.reps, device.was_live) = (reps, was_live);
    Some(device)
}
