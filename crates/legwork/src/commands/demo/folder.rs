//! The folder of a demo: what in it is ours, and that only one demo at a time has it.

use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::TempDir;

/// Held while a demo runs; the system lets it go however that ends.
const LOCK: &str = "demo.lock";
/// What earlier runs leave, besides the lock.
const OURS: [&str; 4] = ["store", "cache", "story.json", "story.json.new"];

/// A folder that nobody else has as long as this lives.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    _lock: File,
    /// It goes with the demo.
    _temporary: Option<TempDir>,
}

impl Folder {
    /// Takes the folder, and makes it if need be. `is_fresh`: what earlier runs left in it goes, and nothing else. *Returns* none while another
    /// demo has it.
    ///
    /// *Errors:* it cannot be made or written.
    pub(super) fn open(path: &Path, is_fresh: bool) -> Result<Option<Folder>> {
        std::fs::create_dir_all(path).with_context(|| format!("making the folder {}", path.display()))?;
        let lock_path = path.join(LOCK);
        let lock = File::options().create(true).truncate(false).write(true).open(&lock_path);
        let lock = lock.with_context(|| format!("opening {}", lock_path.display()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("locking {}", lock_path.display()));
            }
        }
        let folder = Folder { path: path.to_owned(), _lock: lock, _temporary: None };
        if is_fresh {
            OURS.iter().try_for_each(|name| folder.remove(name))?;
        }
        Ok(Some(folder))
    }

    /// One that nobody else has, and that is gone afterwards.
    pub(super) fn temporary() -> Result<Folder> {
        let temporary = TempDir::with_prefix("legwork-demo-").context("making a temporary folder")?;
        let folder = Folder::open(temporary.path(), false)?.context("a new folder is in use")?;
        Ok(Folder { _temporary: Some(temporary), ..folder })
    }

    /// Where lanes and, below, the lake are.
    pub(super) fn store(&self) -> PathBuf {
        self.path.join("store")
    }

    /// What may be lost.
    pub(super) fn cache(&self) -> PathBuf {
        self.path.join("cache")
    }

    /// Reference files of the user's.
    pub(super) fn reference(&self) -> PathBuf {
        self.path.join("reference")
    }

    /// How far the story has been told.
    pub(super) fn story(&self) -> PathBuf {
        self.path.join("story.json")
    }

    fn remove(&self, name: &str) -> Result<()> {
        let path = self.path.join(name);
        let removed = match path.symlink_metadata() {
            Ok(found) if found.is_dir() => std::fs::remove_dir_all(&path),
            Ok(_) => std::fs::remove_file(&path),
            Err(error) => Err(error),
        };
        match removed {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("removing {}", path.display()))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_demo_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = Folder::open(dir.path(), false).unwrap();
        assert!(first.is_some() && Folder::open(dir.path(), true).unwrap().is_none());
        drop(first);
        assert!(Folder::open(dir.path(), false).unwrap().is_some());
    }

    #[test]
    fn a_temporary_folder_goes_with_the_demo() {
        let folder = Folder::temporary().unwrap();
        let path = folder.path.clone();
        std::fs::create_dir_all(folder.store()).unwrap();
        drop(folder);
        assert!(!path.exists());
    }

    #[test]
    fn fresh_takes_away_what_is_ours_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        for name in OURS.into_iter().chain(["mine.txt"]) {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        std::fs::remove_file(dir.path().join("store")).unwrap();
        std::fs::create_dir_all(dir.path().join("store/lanes")).unwrap();
        std::fs::create_dir_all(dir.path().join("reference")).unwrap();
        drop(Folder::open(dir.path(), false).unwrap());
        assert!(dir.path().join("store/lanes").exists());
        drop(Folder::open(dir.path(), true).unwrap());
        let mut left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [LOCK, "mine.txt", "reference"]);
    }
}
