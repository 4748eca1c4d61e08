//! How memory is allocated, and when what was freed goes back to the system.
#![allow(unsafe_code, reason = "jemalloc reads its settings from a symbol of this name")]

use tikv_jemallocator::Jemalloc;

// librdkafka makes an object a message and frees it on another thread; glibc's malloc doubles what that costs.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// A thread of jemalloc's own gives back what has lain free for a second, whichever thread freed it: what a compaction or a query took is
/// not kept for the next one. Few arenas, since what one has free the others do not use.
#[unsafe(export_name = "malloc_conf")]
static SETTINGS: &[u8] = b"background_thread:true,dirty_decay_ms:1000,muzzy_decay_ms:0,narenas_ratio:2\0";
