//! Devices in blocks: what a snapshot shares with the writer until the writer changes it.

use std::sync::Arc;

use crate::track::device::Device;

/// Devices in a block. Copied as a whole when one of them changes while a snapshot holds it.
const BLOCK_LEN: usize = 64;

/// Devices with consecutive ids.
#[derive(Clone, Debug, Default)]
pub(crate) struct Block {
    pub(crate) first_id: u32,
    pub(crate) devices: Vec<Device>,
}

/// All devices of a lane.
#[derive(Clone, Debug, Default)]
pub(crate) struct Blocks {
    pub(crate) list: Vec<Arc<Block>>,
}

impl Blocks {
    /// A device to change; ids are dense, a new one is the next.
    #[inline]
    pub(crate) fn get_mut(&mut self, id: u32) -> &mut Device {
        let (block_idx, device_idx) = (id as usize / BLOCK_LEN, id as usize % BLOCK_LEN);
        if block_idx == self.list.len() {
            self.list.push(Arc::new(Block { first_id: id, devices: Vec::new() }));
        }
        let block = Arc::make_mut(&mut self.list[block_idx]);
        if device_idx == block.devices.len() {
            block.devices.push(Device::new());
        }
        &mut block.devices[device_idx]
    }

    pub(crate) fn get(&self, id: u32) -> &Device {
        &self.list[id as usize / BLOCK_LEN].devices[id as usize % BLOCK_LEN]
    }

    /// Bytes held: (pings with their states, rows, the devices themselves).
    pub(crate) fn memory_bytes(&self) -> (usize, usize, usize) {
        let devices = self.list.iter().flat_map(|block| &block.devices);
        let (pings, rows) =
            devices.map(Device::heap_bytes).fold((0, 0), |sum, device| (sum.0 + device.0, sum.1 + device.1));
        let hulls = self.list.iter().map(|block| block.devices.capacity() * size_of::<Device>()).sum();
        (pings, rows, hulls)
    }
}
