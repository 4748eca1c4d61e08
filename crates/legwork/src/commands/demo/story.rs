//! How far the story of a demo has been told, in a small file, and where another run goes on.
//!
//! The story is the same for the same seed, reps and start, so a run goes on by telling it to itself in silence up to where it is. What was told
//! last may not be in a checkpoint, so it is told again; events keep their ids, and lanes know those that they have.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use legwork_types::time::HOUR_US;
use serde::{Deserialize, Serialize};

use crate::commands::simulate::Place;
use crate::exit::Failure;

/// Version of the file. To be raised also when the simulation tells another story than before: events of the two would share their ids.
const VERSION: u32 = 1;
/// How much of the story remains to be told at most when a run begins.
pub(super) const BEHIND_US_MAX: i64 = 8 * HOUR_US;
/// What to do about a history that does not suit.
pub(super) const WAY_OUT: &str = "--fresh forgets that history and begins anew, --data DIR keeps another one elsewhere";

/// A story as the file has it. Times are of the story, microseconds since 1970-01-01 UTC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Told {
    version: u32,
    pub(super) seed: u64,
    pub(super) reps: u32,
    pub(super) start_us: i64,
    /// What was sent through this time is in checkpoints.
    kept_us: i64,
    /// Everything was sent through this time.
    told_us: i64,
}

impl Told {
    /// A story that begins at `start_us`, nothing of which has been told.
    pub(super) fn new(seed: u64, reps: u32, start_us: i64) -> Told {
        let before_us = Place::beginning(start_us).told_us;
        Told { version: VERSION, seed, reps, start_us, kept_us: before_us, told_us: before_us }
    }

    /// The story of the folder; none when there was none. *Errors:* it is another one; a file that is damaged, or of another version.
    pub(super) fn read(path: &Path, seed: u64, reps: u32) -> Result<Option<Told>> {
        let text = match std::fs::read(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            text => text.with_context(|| format!("reading {}", path.display()))?,
        };
        let told = parse(&text).map_err(|why| Failure::Usage(format!("{} {why}: {WAY_OUT}", path.display())))?;
        if (seed, reps) != (told.seed, told.reps) {
            bail!(Failure::Usage(format!(
                "{} is of the story of {} reps with seed {}, which has a folder of its own: {WAY_OUT}",
                path.display(),
                told.reps,
                told.seed
            )));
        }
        Ok(Some(told))
    }

    /// Writes the file, whole or not at all.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let new = path.with_extension("json.new");
        let written = serde_json::to_vec(self).map_err(std::io::Error::from);
        let written = written.and_then(|text| std::fs::write(&new, text)).and_then(|()| std::fs::rename(&new, path));
        written.with_context(|| format!("writing {}", path.display()))
    }

    /// Where to go on at this wall time.
    pub(super) fn place(&self, now_us: i64) -> Place {
        let from_us = self.told_us.max(now_us.saturating_sub(BEHIND_US_MAX));
        // What has not begun has nothing to leave out.
        let from_us = if self.is_untold() { self.told_us } else { from_us };
        Place { kept_us: self.kept_us, told_us: self.told_us, from_us }
    }

    /// Whether nothing of it has been sent.
    pub(super) fn is_untold(&self) -> bool {
        self.told_us < self.start_us
    }
}

/// *Errors:* what is wrong with the file.
fn parse(text: &[u8]) -> Result<Told, String> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let damaged = |error: serde_json::Error| format!("is damaged ({error})");
    match serde_json::from_slice(text).map_err(damaged)? {
        Versioned { version: VERSION } => {}
        Versioned { version } if version > VERSION => {
            return Err(format!("was written by a newer Legwork (version {version}, this one knows {VERSION})"));
        }
        Versioned { version } => {
            return Err(format!(
                "is of a story that this Legwork tells no more (version {version}, this one tells {VERSION})"
            ));
        }
    }
    let told: Told = serde_json::from_slice(text).map_err(damaged)?;
    let is_sound = told.start_us - 1 <= told.kept_us && told.kept_us <= told.told_us;
    if is_sound { Ok(told) } else { Err("is damaged (its times are in no order)".to_owned()) }
}

/// Follows a story while it is told, and knows what of it can no longer be lost.
#[derive(Debug)]
pub(super) struct Progress {
    path: PathBuf,
    told: Told,
    /// When it was noted how far the story was, oldest first, as far back as the margin.
    noted: VecDeque<(Instant, i64)>,
    margin: Duration,
}

impl Progress {
    /// `margin`: what was sent so long ago is in a checkpoint.
    pub(super) fn new(path: PathBuf, told: Told, margin: Duration) -> Progress {
        Progress { path, told, noted: VecDeque::new(), margin }
    }

    /// Writes down that everything was sent through `told_us`. To be called about once a second.
    pub(super) fn note(&mut self, told_us: i64, now: Instant) -> Result<()> {
        let before = self.told.clone();
        self.noted.push_back((now, told_us));
        while let Some((at, kept_us)) = self.noted.front()
            && now.duration_since(*at) >= self.margin
        {
            self.told.kept_us = self.told.kept_us.max(*kept_us);
            self.noted.pop_front();
        }
        self.told.told_us = self.told.told_us.max(told_us);
        if self.told == before { Ok(()) } else { self.told.write(&self.path) }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const START_US: i64 = 1_800_000_000_000_000;

    fn told(kept_us: i64, told_us: i64) -> Told {
        Told { kept_us, told_us, ..Told::new(7, 200, START_US) }
    }

    #[test]
    fn a_story_is_written_and_read_and_another_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("story.json");
        assert_eq!(Told::read(&path, 7, 200).unwrap(), None);
        let told = told(START_US + 1, START_US + 2);
        told.write(&path).unwrap();
        assert_eq!(Told::read(&path, 7, 200).unwrap().as_ref(), Some(&told));
        for (seed, reps) in [(7, 60), (8, 200)] {
            let refused = Told::read(&path, seed, reps).unwrap_err().to_string();
            assert!(refused.contains("200 reps with seed 7") && refused.contains("--fresh"), "{refused}");
        }
    }

    #[test]
    fn files_that_cannot_be_understood_are_refused_with_the_way_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("story.json");
        let whole = serde_json::to_string(&told(START_US, START_US)).unwrap();
        let cases = [
            (String::new(), "damaged"),
            (whole[..whole.len() / 2].to_owned(), "damaged"),
            (whole.replace("\"seed\":7,", ""), "damaged"),
            (serde_json::to_string(&told(START_US + 2, START_US + 1)).unwrap(), "in no order"),
            ("{\"version\": 2, \"what\": \"else\"}".to_owned(), "newer Legwork"),
            ("{\"version\": 0}".to_owned(), "tells no more"),
        ];
        for (text, why) in cases {
            std::fs::write(&path, &text).unwrap();
            let refused = Told::read(&path, 7, 200).unwrap_err().to_string();
            assert!(refused.contains(why) && refused.contains("--fresh") && refused.contains("--data"), "{refused}");
        }
    }

    #[test]
    fn a_story_goes_on_where_it_was_and_is_at_most_so_far_behind() {
        let told = told(START_US + HOUR_US, START_US + 2 * HOUR_US);
        let soon = told.place(START_US + 9 * HOUR_US);
        assert_eq!(soon, Place { kept_us: START_US + HOUR_US, told_us: told.told_us, from_us: told.told_us });
        let edge = told.place(told.told_us + BEHIND_US_MAX);
        assert_eq!(edge.from_us, told.told_us);
        let late = told.place(told.told_us + BEHIND_US_MAX + 5);
        assert_eq!(late, Place { from_us: told.told_us + 5, ..soon });
        // A wall clock that was set back.
        assert_eq!(told.place(START_US), soon);
    }

    #[test]
    fn a_story_that_was_not_told_yet_begins_with_its_first_event() {
        let new = Told::new(7, 200, START_US);
        assert!(new.is_untold());
        assert_eq!(new.place(START_US + 24 * HOUR_US), Place::beginning(START_US));
    }

    #[test]
    fn what_was_sent_is_taken_for_kept_after_the_margin_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("story.json");
        let (start, margin) = (Instant::now(), Duration::from_secs(60));
        let told = told(START_US + 5, START_US + 1_000);
        told.write(&path).unwrap();
        let mut progress = Progress::new(path.clone(), told, margin);
        let mut note = |second: u64, told_us: i64| {
            progress.note(START_US + told_us, start + Duration::from_secs(second)).unwrap();
            let told = Told::read(&path, 7, 200).unwrap().unwrap();
            (told.kept_us - START_US, told.told_us - START_US)
        };
        // Until what may be lost has been sent again, it stays where it was.
        assert_eq!(note(0, 1_000), (5, 1_000));
        assert_eq!(note(1, 1_010), (5, 1_010));
        assert_eq!(note(59, 1_590), (5, 1_590));
        assert_eq!(note(60, 1_600), (1_000, 1_600));
        assert_eq!(note(61, 1_610), (1_010, 1_610));
        assert_eq!(note(200, 9_000), (1_610, 9_000));
    }
}
