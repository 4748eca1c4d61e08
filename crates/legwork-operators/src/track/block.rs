//! Devices in blocks: what a snapshot shares with the writer until the writer changes it.

use std::borrow::Cow;
use std::sync::Arc;

use crate::track::device::Device;
use crate::track::fold::Params;

/// Devices in a block. Copied as a whole when one of them changes while a snapshot holds it.
const BLOCK_LEN: usize = 64;

/// A device, at hand or in few bytes while nothing is heard of it.
#[derive(Clone, Debug)]
enum Slot {
    Hot(Box<Device>),
    Frozen(Box<[u8]>),
}

/// Devices with consecutive ids.
#[derive(Clone, Debug, Default)]
pub(crate) struct Block {
    first_id: u32,
    slots: Vec<Slot>,
}

impl Block {
    /// The devices with their ids; frozen ones are thawed for the reader.
    pub(crate) fn devices(&self, params: &Params) -> impl Iterator<Item = (u32, Cow<'_, Device>)> {
        (self.first_id..).zip(self.slots.iter().map(|slot| slot.device(params)))
    }
}

impl Slot {
    fn device(&self, params: &Params) -> Cow<'_, Device> {
        match self {
            Slot::Hot(device) => Cow::Borrowed(device),
            Slot::Frozen(bytes) => Cow::Owned(Device::thaw(params, bytes)),
        }
    }
}

/// All devices of a lane.
#[derive(Clone, Debug, Default)]
pub(crate) struct Blocks {
    pub(crate) list: Vec<Arc<Block>>,
    n_devices: usize,
    /// The block that is looked at next for idle devices.
    sweep_at: usize,
}

impl Blocks {
    /// A device to change. Ids are dense, a new one is the next.
    #[inline]
    pub(crate) fn get_mut(&mut self, params: &Params, id: u32) -> &mut Device {
        let (block_idx, slot_idx) = (id as usize / BLOCK_LEN, id as usize % BLOCK_LEN);
        if id as usize == self.n_devices {
            self.n_devices += 1;
            if slot_idx == 0 {
                self.list.push(Arc::new(Block { first_id: id, slots: Vec::with_capacity(4) }));
            }
            let block = Arc::make_mut(&mut self.list[block_idx]);
            block.slots.push(Slot::Hot(Box::new(Device::new())));
        }
        let slot = &mut Arc::make_mut(&mut self.list[block_idx]).slots[slot_idx];
        if let Slot::Frozen(bytes) = slot {
            *slot = Slot::Hot(Box::new(Device::thaw(params, bytes)));
        }
        match slot {
            Slot::Hot(device) => device,
            Slot::Frozen(_) => unreachable!("it was thawed"),
        }
    }

    /// Fetches devices into the cache, all at once since no load waits for another's.
    #[inline]
    pub(crate) fn touch(&self, ids: &[u32]) {
        let hot = |id: &u32| {
            let slot = self.list.get(*id as usize / BLOCK_LEN)?.slots.get(*id as usize % BLOCK_LEN)?;
            if let Slot::Hot(device) = slot { Some(device) } else { None }
        };
        let hulls = ids.iter().filter_map(hot).fold(0, |sum, device| sum ^ device.touch());
        let ends = ids.iter().filter_map(hot).fold(0, |sum, device| sum ^ device.touch_ends());
        std::hint::black_box(hulls ^ ends);
    }

    pub(crate) fn get(&self, params: &Params, id: u32) -> Cow<'_, Device> {
        self.list[id as usize / BLOCK_LEN].slots[id as usize % BLOCK_LEN].device(params)
    }

    /// Freezes a device, if it is small enough.
    pub(crate) fn freeze(&mut self, params: &Params, id: u32) {
        let slot = &mut Arc::make_mut(&mut self.list[id as usize / BLOCK_LEN]).slots[id as usize % BLOCK_LEN];
        slot.freeze(params);
    }

    /// Looks at some blocks in turn, and freezes devices of which nothing was heard since the lane's clock was `idle_since_us`. Blocks
    /// that a snapshot holds are left for the next time.
    pub(crate) fn sweep(&mut self, params: &Params, n_blocks: usize, idle_since_us: i64) {
        for _ in 0..n_blocks.min(self.list.len()) {
            self.sweep_at = (self.sweep_at + 1) % self.list.len();
            let Some(block) = Arc::get_mut(&mut self.list[self.sweep_at]) else { continue };
            for slot in &mut block.slots {
                if matches!(slot, Slot::Hot(device) if device.lane_then_us <= idle_since_us) {
                    slot.freeze(params);
                }
            }
        }
    }

    /// Pings at hand, those of frozen devices left out.
    pub(crate) fn n_pings(&self) -> usize {
        let slots = self.list.iter().flat_map(|block| &block.slots);
        slots.map(|slot| if let Slot::Hot(device) = slot { device.n_pings() } else { 0 }).sum()
    }

    /// Bytes held: (pings with their states, rows, the devices themselves).
    pub(crate) fn memory_bytes(&self) -> (usize, usize, usize) {
        let (mut pings, mut rows, mut hulls) = (0, 0, 0);
        for block in &self.list {
            hulls += size_of::<Block>() + block.slots.capacity() * size_of::<Slot>();
            for slot in &block.slots {
                match slot {
                    Slot::Frozen(bytes) => hulls += bytes.len(),
                    Slot::Hot(device) => {
                        let (device_pings, device_rows) = device.heap_bytes();
                        pings += device_pings;
                        rows += device_rows;
                        hulls += size_of::<Device>();
                    }
                }
            }
        }
        (pings, rows, hulls)
    }
}

impl Slot {
    fn freeze(&mut self, params: &Params) {
        if let Slot::Hot(device) = self
            && let Some(bytes) = device.freeze(params)
        {
            *self = Slot::Frozen(bytes);
        }
    }
}
