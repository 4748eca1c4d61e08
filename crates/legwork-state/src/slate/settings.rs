//! SlateDB's settings for many small databases that write seldom: its defaults ask the object store 11,695 times an hour for a lane at rest,
//! these some 67. Figures in these comments were measured with 200 lanes.

use std::collections::HashMap;
use std::time::Duration;

use slatedb::config::{
    CompactionWorkerOptions, CompactorOptions, CompressionCodec, GarbageCollectorDirectoryOptions,
    GarbageCollectorOptions, Settings, SizeTieredCompactionSchedulerOptions,
};

/// Attempts of one request to the object store before the claim is given up; between them 0.1 to 2 s.
pub(super) const RETRIES: u32 = 8;
/// A memtable of this size becomes an object: more makes restarts slow and takes memory in every lane.
pub(super) const L0_BYTES: usize = 1 << 20;
/// Objects of memtables that wait for compaction. Beyond it memtables pile up, then writes wait for the owner to look what its compactor did.
pub(super) const L0_MAX: usize = 512;
/// Of those, as many as one compaction takes: it reads them all at once.
const SOURCES_MAX: usize = 128;
/// More of them than come in two polls of the compactor: whoever claims a lane has it compacted first.
const BACKLOG_MIN: usize = 64;
/// Checkpoints in a poll of the compactor.
const CHECKPOINTS_A_POLL: u32 = 30;
/// Polls are not further apart, and not closer together.
const POLL_MAX: Duration = Duration::from_secs(300);
const POLL_MIN: Duration = Duration::from_secs(10);
/// Claims after which the memtable is made an object even if nobody wrote much: each leaves a fence, and each claim reads what came since.
pub(super) const LIGHT_CLAIMS: u64 = 8;
/// Checkpoints after which a lane that writes little makes its memtable an object: a restart reads one file a checkpoint since then.
pub(super) const LIGHT_CHECKPOINTS: u32 = 16;

/// What differs between places and tests.
#[derive(Clone, Debug)]
pub(super) struct Tuning {
    /// How often the compactor looks for work.
    pub(super) compaction_poll: Duration,
    /// How often garbage is collected.
    pub(super) gc_interval: Duration,
    /// Garbage younger than this stays.
    pub(super) gc_min_age: Duration,
    /// How often an owner that writes nothing looks for what its compactor did.
    pub(super) manifest_poll: Duration,
    /// What a compaction has replaced is kept so long. An owner that has not looked since reads it still, so this is longer than
    /// [`Tuning::manifest_poll`].
    pub(super) checkpoint_lifetime: Duration,
    /// So many objects are compacted before a lane is opened.
    pub(super) backlog_min: usize,
    /// Objects that wait for compaction, at most.
    pub(super) l0_max: usize,
    /// Boundary files speed up listing buckets; on a local folder they keep manifests from ever being deleted.
    pub(super) has_boundary_files: bool,
}

impl Tuning {
    pub(super) fn new(is_local: bool, checkpoint_every: Duration) -> Tuning {
        let poll = (checkpoint_every * CHECKPOINTS_A_POLL).clamp(POLL_MIN, POLL_MAX);
        Tuning {
            compaction_poll: poll,
            gc_interval: Duration::from_secs(3_600),
            gc_min_age: Duration::from_secs(600),
            manifest_poll: 2 * poll,
            checkpoint_lifetime: 3 * poll,
            backlog_min: BACKLOG_MIN,
            l0_max: L0_MAX,
            has_boundary_files: !is_local,
        }
    }

    pub(super) fn database(&self) -> Settings {
        Settings {
            // A commit flushes by itself; a timer would only ask for nothing.
            flush_interval: None,
            manifest_poll_interval: self.manifest_poll,
            // No filters: hot state is scanned, and keys of cold state that are asked for exist.
            min_filter_keys: u32::MAX,
            l0_sst_size_bytes: L0_BYTES,
            l0_flush_parallelism: 1,
            l0_max_ssts: self.l0_max,
            l0_max_ssts_per_key: self.l0_max,
            max_unflushed_bytes: 32 << 20,
            compression_codec: Some(CompressionCodec::Lz4),
            object_store_max_retries: Some(RETRIES),
            garbage_collector_options: Some(self.garbage()),
            ..Settings::default()
        }
    }

    pub(super) fn compactor(&self) -> CompactorOptions {
        let scheduler = SizeTieredCompactionSchedulerOptions {
            // Without it what was deleted stays in the largest run, and a store of seven days grows for weeks.
            sorted_run_consolidation_threshold: 3,
            // All that came since the last time at once.
            max_compaction_sources: SOURCES_MAX,
            ..SizeTieredCompactionSchedulerOptions::default()
        };
        CompactorOptions {
            poll_interval: self.compaction_poll,
            max_concurrent_compactions: 1,
            scheduler_options: HashMap::from(scheduler),
            checkpoint_lifetime: self.checkpoint_lifetime,
            object_store_max_retries: Some(RETRIES),
            worker: Some(CompactionWorkerOptions {
                max_concurrent_compactions: 1,
                compactions_poll_interval: self.compaction_poll,
                max_subcompactions: 1,
                max_sst_size: 64 << 20,
                // For each source of each compaction, and the lanes of an instance compact at the same time.
                max_fetch_tasks: 1,
                bytes_to_fetch: 256 << 10,
                min_filter_keys: u32::MAX,
                compression_codec: Some(CompressionCodec::Lz4),
                object_store_max_retries: Some(RETRIES),
                ..CompactionWorkerOptions::default()
            }),
            ..CompactorOptions::default()
        }
    }

    fn garbage(&self) -> GarbageCollectorOptions {
        let folder = Some(GarbageCollectorDirectoryOptions {
            interval: Some(self.gc_interval),
            min_age: self.gc_min_age,
            dry_run: false,
        });
        GarbageCollectorOptions {
            manifest_options: folder,
            wal_options: folder,
            // A fence that is deleted lets an owner that was asleep acknowledge what nobody will ever read, and how old one is would be told by
            // the clock of whoever collects. They are empty, and nobody reads those behind the last object.
            wal_fence_options: None,
            compacted_options: folder,
            compactions_options: folder,
            // Databases are never cloned.
            detach_options: None,
            boundary_files_enabled: self.has_boundary_files,
            object_store_max_retries: Some(RETRIES),
            ..GarbageCollectorOptions::default()
        }
    }
}
