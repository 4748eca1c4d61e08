//! What only the store on an object store can get wrong.

mod claims;
mod faults;
mod kill;
mod look;
mod measure;
mod objects;

use std::sync::Arc;
use std::time::Duration;

use legwork_types::LaneId;
use object_store_014::ObjectStore;
use object_store_014::memory::InMemory;
use object_store_014::path::Path;

use slatedb::db_cache::foyer::{FoyerCache, FoyerCacheOptions};

use super::settings::Tuning;
use super::url::{self, Place};
use super::{SlateConfig, SlateStore};
use crate::tests::backings::Backing;
use crate::tests::{delete, head, heads, noise, put};
use crate::{Checkpoint, StateStore, StoreError};

/// A bucket in memory.
#[derive(Debug)]
pub(crate) struct Objects(pub(crate) Arc<dyn ObjectStore>);

impl Default for Objects {
    fn default() -> Objects {
        Objects(Arc::new(InMemory::new()))
    }
}

impl Objects {
    pub(crate) fn store(&self) -> SlateStore {
        let place = Place { objects: Arc::clone(&self.0), root: Path::from("some/prefix"), folder: None };
        SlateStore::over(place, SlateConfig::new("memory://")).unwrap()
    }
}

impl Backing for Objects {
    fn open(&self) -> Arc<dyn StateStore> {
        Arc::new(self.store())
    }
}

/// A local folder.
#[derive(Debug)]
pub(crate) struct Folder(tempfile::TempDir);

impl Default for Folder {
    fn default() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }
}

impl Backing for Folder {
    fn open(&self) -> Arc<dyn StateStore> {
        Arc::new(folder_store(self.0.path()))
    }
}

/// A bucket of the S3 server at `LEGWORK_STATE_S3` (such as moto's, <http://127.0.0.1:5000>), under a prefix of its own.
#[derive(Debug)]
pub(crate) struct Bucket {
    endpoint: String,
    prefix: String,
}

impl Bucket {
    /// None without a server.
    pub(crate) fn from_env() -> Option<Bucket> {
        let endpoint = std::env::var("LEGWORK_STATE_S3").ok()?;
        let prefix = format!("{:016x}", rand_seed());
        Some(Bucket { endpoint, prefix })
    }
}

/// Differs from test to test and from run to run.
fn rand_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0)
}

impl Backing for Bucket {
    fn open(&self) -> Arc<dyn StateStore> {
        let options = [
            ("endpoint", self.endpoint.as_str()),
            ("allow_http", "true"),
            ("region", "us-east-1"),
            ("access_key_id", "test"),
            ("secret_access_key", "test"),
        ];
        let options = options.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let config = SlateConfig { options, ..SlateConfig::new(format!("s3://legwork/{}", self.prefix)) };
        Arc::new(SlateStore::over(url::resolve(&config.url, &config.options).unwrap(), config).unwrap())
    }
}

/// A store in a local folder.
fn folder_store(folder: &std::path::Path) -> SlateStore {
    let config = SlateConfig::new(::url::Url::from_directory_path(folder).unwrap());
    let place = url::resolve(&config.url, &config.options).unwrap();
    SlateStore::over(place, config).unwrap()
}

fn usual() -> Tuning {
    Tuning::new(true, Duration::from_secs(10))
}

/// Compaction and garbage collection all the time.
fn quick() -> Tuning {
    Tuning {
        compaction_poll: Duration::from_millis(100),
        gc_interval: Duration::from_millis(300),
        gc_min_age: Duration::from_secs(2),
        manifest_poll: Duration::from_secs(1),
        checkpoint_lifetime: Duration::from_secs(2),
        ..usual()
    }
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_is_named_with_the_way_out() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), b"").unwrap();
    let url = format!("file://{}/file/store", folder.path().display());
    let error = SlateStore::open(SlateConfig::new(url)).await.unwrap_err();
    let StoreError::Unavailable { detail } = &error else { panic!("{error:?}") };
    assert!(detail.contains("set store.url to a folder that this user may write"), "{detail}");
}

#[tokio::test]
async fn wrong_urls_and_options_are_refused() {
    for (url, options, expected) in [
        ("ftp://host/folder", None, "ftp:// is not known"),
        ("s3://", None, "cannot be used"),
        ("s3://bucket/prefix", Some(("regoin", "eu-west-1")), "\"regoin\" is no option"),
        ("/some/folder", Some(("region", "eu-west-1")), "a local folder has none"),
    ] {
        let options = options.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let config = SlateConfig { options, ..SlateConfig::new(url) };
        let error = SlateStore::open(config).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{url}: {error}");
    }
}

#[tokio::test]
async fn half_written_files_of_killed_writers_are_swept() {
    let folder = Folder::default();
    let store = folder_store(folder.0.path());
    store.claim(&crate::tests::lane()).await.unwrap().lane.release().await.unwrap();
    let wal = folder.0.path().join("lanes/field.gps-pings.v1/3/wal");
    for (name, age_s) in [("1.sst#1", 3_600), ("2.sst#1", 0)] {
        let file = std::fs::File::create(wal.join(name)).unwrap();
        file.set_modified(std::time::SystemTime::now() - Duration::from_secs(age_s)).unwrap();
    }
    store.claim(&crate::tests::lane()).await.unwrap();
    let staged = std::fs::read_dir(&wal).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(staged.filter(|name| name.contains('#')).collect::<Vec<_>>(), ["2.sst#1"], "the other may be under way");
}

/// Folders of a lane whose first claim was killed at once.
#[tokio::test]
async fn a_lane_without_a_database_is_no_lane() {
    let folder = Folder::default();
    std::fs::create_dir_all(folder.0.path().join("lanes/field.calls.v1/0/manifest")).unwrap();
    std::fs::create_dir_all(folder.0.path().join("lanes/field.calls.v1/one/manifest")).unwrap();
    let store = folder_store(folder.0.path());
    assert_eq!(heads(&store).await, []);
    store.remove(&LaneId::new("field.calls.v1", 0)).await.unwrap();
    assert_eq!(store.claim(&LaneId::new("field.calls.v1", 0)).await.unwrap().head, None);
}

/// One of three lanes is damaged on the disk: the others are told as ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_lane_does_not_hide_the_others() {
    let folder = Folder::default();
    let store = folder_store(folder.0.path());
    let id = |partition| LaneId::new("field.calls.v1", partition);
    for partition in 0..3 {
        let owner = store.claim(&id(partition)).await.unwrap();
        owner.lane.commit(Checkpoint { head: head(1), ..Checkpoint::default() }).await.unwrap();
        owner.lane.release().await.unwrap();
    }
    let objects = folder.0.path().join("lanes/field.calls.v1/1/compacted");
    for object in std::fs::read_dir(objects).unwrap() {
        let path = object.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.iter_mut().for_each(|byte| *byte ^= 0x55);
        std::fs::write(path, bytes).unwrap();
    }
    let store = folder_store(folder.0.path());
    let [(_, first), (damaged, error), (_, last)] = &store.lanes().await.unwrap()[..] else { panic!("three lanes") };
    assert!(first.as_ref().unwrap() == &head(1) && last.as_ref().unwrap() == &head(1) && *damaged == id(1));
    let error = error.as_ref().unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
    assert!(error.to_string().contains("run legwork lanes accept field.calls.v1/1"), "{error}");
}

/// Compaction and garbage collection at work under an owner: what is stored stays bounded, and what is read stays right.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_forgotten_leaves_the_store() {
    use futures::TryStreamExt;
    let objects = Objects::default();
    let mut store = objects.store();
    store.tuning = Tuning { gc_min_age: Duration::ZERO, ..quick() };
    let owner = store.claim(&crate::tests::lane()).await.unwrap();
    let chunk = |number: u32| noise(number.into(), 20_000);
    let mut number = 0;
    let deadline = std::time::Instant::now() + Duration::from_secs(120);
    let (mut written, mut stored) = (0, usize::MAX);
    // 200 KB live; each checkpoint adds 20 KB and forgets as much.
    while stored > written / 3 || written < 20_000_000 {
        assert!(std::time::Instant::now() < deadline, "{stored} bytes stored of {written} written");
        for _ in 0..40 {
            number += 1;
            let mut checkpoint = Checkpoint { head: head(number), ..Checkpoint::default() };
            checkpoint.cold.push(put(&number.to_be_bytes(), &chunk(number)));
            checkpoint.cold.extend(number.checked_sub(10).map(|old| delete(&old.to_be_bytes())));
            owner.lane.commit(checkpoint).await.unwrap();
            written += 20_000;
        }
        let sizes = objects.0.list(None).map_ok(|object| object.size as usize).try_collect::<Vec<_>>().await.unwrap();
        stored = sizes.iter().sum();
        let keys = (number - 12..=number).map(|number| number.to_be_bytes().to_vec()).collect();
        let found = owner.lane.read(keys).await.unwrap();
        let expected = (number - 12..=number).map(|old| (old > number - 10).then(|| chunk(old)));
        assert_eq!(found, expected.collect::<Vec<_>>());
    }
    let owner = objects.store().claim(&crate::tests::lane()).await.unwrap();
    assert_eq!(owner.head, Some(head(number)));
    assert_eq!(owner.lane.read(vec![number.to_be_bytes().to_vec()]).await.unwrap(), [Some(chunk(number))]);
}

/// An owner that rests while its compactor works: it may have to claim its lane again, but nothing is called damaged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_rests_is_not_told_of_damage() {
    let usual = usual();
    assert!(usual.checkpoint_lifetime > usual.manifest_poll, "or it would have to claim its lane again each time");
    let keys = || (1..=6u32).map(|number| number.to_be_bytes().to_vec()).collect::<Vec<_>>();
    let values = || (1..=6).map(|seed| Some(noise(seed, 1_100_000))).collect::<Vec<_>>();
    // Whether the owner falls behind is a matter of moments.
    for _ in 0..10 {
        let objects = Objects::default();
        let mut store = objects.store();
        // The other way round, and nothing is cached.
        store.tuning = Tuning { manifest_poll: Duration::from_secs(3_600), gc_min_age: Duration::ZERO, ..quick() };
        store.cache = Arc::new(FoyerCache::new_with_opts(FoyerCacheOptions { max_capacity: 1, shards: 1 }));
        let owner = store.claim(&crate::tests::lane()).await.unwrap();
        for (number, (key, value)) in (1..).zip(keys().iter().zip(values())) {
            let mut checkpoint = Checkpoint { head: head(number), ..Checkpoint::default() };
            checkpoint.cold.push(put(key, &value.unwrap()));
            owner.lane.commit(checkpoint).await.unwrap();
        }
        four_are_collected(&objects.0).await;
        let read = owner.lane.read(keys()).await;
        let owner = store.claim(&crate::tests::lane()).await.unwrap();
        assert!(owner.lane.read(keys()).await.unwrap() == values());
        match read {
            Ok(read) => assert!(read == values()),
            Err(StoreError::Unavailable { .. }) => return,
            Err(error) => panic!("{error}"),
        }
    }
    panic!("no owner fell behind");
}

/// Owners that are killed before their compactor looks leave more and more objects behind, until a database would take no more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn owners_that_live_shortly_do_not_block_their_lane() {
    let objects = Objects::default();
    let open = || {
        let mut store = objects.store();
        store.config.claim_timeout = Duration::from_secs(20);
        store.tuning = Tuning { backlog_min: 4, l0_max: 6, ..usual() };
        store
    };
    for number in 1..=25 {
        let store = open();
        let owner = store.claim(&crate::tests::lane()).await.unwrap();
        assert_eq!(owner.head, (number > 1).then(|| head(number - 1)));
        let mut checkpoint = Checkpoint { head: head(number), ..Checkpoint::default() };
        checkpoint.cold.push(put(&number.to_be_bytes(), &noise(number.into(), 4_000_000)));
        owner.lane.commit(checkpoint).await.unwrap();
    }
    let keys = (1..=25u32).map(|number| number.to_be_bytes().to_vec()).collect();
    let values = (1..=25).map(|seed| Some(noise(seed, 4_000_000))).collect::<Vec<_>>();
    let owner = open().claim(&crate::tests::lane()).await.unwrap();
    assert!(owner.lane.read(keys).await.unwrap() == values);
}

/// Waits until compaction has replaced some objects and garbage collection has taken them: the oldest go first, the newest stays.
async fn four_are_collected(objects: &Arc<dyn ObjectStore>) {
    use futures::TryStreamExt;
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    let mut seen = std::collections::BTreeSet::new();
    loop {
        let now: Vec<_> = objects.list(None).map_ok(|object| object.location).try_collect().await.unwrap();
        let now: Vec<_> = now.into_iter().filter(|path| path.as_ref().contains("/compacted/")).collect();
        seen.extend(now.iter().cloned());
        if seen.len() >= now.len() + 4 {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "what was compacted was not collected");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn folders_may_have_any_name() {
    let parent = tempfile::tempdir().unwrap();
    for name in ["with space", "f\u{fc}r uns", "a#1", "per%20cent", "what?"] {
        let folder = parent.path().join(name);
        for url in [folder.to_str().unwrap().to_owned(), ::url::Url::from_directory_path(&folder).unwrap().to_string()]
        {
            let store = SlateStore::open(SlateConfig::new(url)).await.unwrap();
            let owner = store.claim(&crate::tests::lane()).await.unwrap();
            let number = owner.head.map_or(1, |head| head.number + 1);
            owner.lane.commit(Checkpoint { head: head(number), ..Checkpoint::default() }).await.unwrap();
            assert_eq!(heads(&store).await, [(crate::tests::lane(), head(number))]);
        }
        assert!(folder.join("lanes/field.gps-pings.v1/3/manifest").is_dir());
    }
    assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 5);
}
