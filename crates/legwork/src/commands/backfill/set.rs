//! A set of files: what tells it from others, and what the store remembers of it.

use std::path::Path;

use anyhow::{Context, Result, bail};
use legwork_codec::files::{FileInput, Fingerprint};
use legwork_operators::OperatorConfig;
use legwork_runtime::lane_settings;
use legwork_state::Head;
use legwork_types::{Kind, LaneId};
use serde::{Deserialize, Serialize};

use crate::data::FILES;
use crate::exit::Failure;

/// A file of a set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SetFile {
    /// Its name without its folder.
    pub(super) name: String,
    pub(super) fingerprint: String,
    /// (field, column) that differ from each other, sorted.
    pub(super) map: Vec<(String, String)>,
}

/// What the head of a set's lane holds in the place of settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub(super) kind: String,
    /// What rows depend on besides the files.
    pub(super) settings: String,
    pub(super) files: Vec<SetFile>,
    /// Start of the first run, microseconds: the arrival time of all rows.
    pub(super) arrival_us: i64,
}

/// The files of one kind.
#[derive(Clone, Debug)]
pub(super) struct Set {
    pub(super) kind: Kind,
    pub(super) lane: LaneId,
    pub(super) inputs: Vec<FileInput>,
    pub(super) manifest: Manifest,
}

impl Set {
    /// Of these files, in an order that does not depend on how they were given. *Errors:* files that cannot be read, or are given twice.
    pub(super) fn new(kind: Kind, inputs: Vec<FileInput>, operators: &OperatorConfig) -> Result<Set> {
        let mut files = Vec::with_capacity(inputs.len());
        for input in inputs {
            let file = SetFile {
                name: name(&input.path),
                fingerprint: fingerprint(&input.path)?,
                map: {
                    let mut map = input.map.clone();
                    map.sort();
                    map
                },
            };
            files.push((file, input));
        }
        files.sort_by(|(a, _), (b, _)| (&a.fingerprint, &a.name).cmp(&(&b.fingerprint, &b.name)));
        if let Some([(a, _), (b, _)]) = files.array_windows().find(|[(a, _), (b, _)]| a.fingerprint == b.fingerprint) {
            bail!(Failure::Usage(format!("{} and {} hold the same bytes: give one of them", a.name, b.name)));
        }
        let (files, inputs): (Vec<_>, Vec<_>) = files.into_iter().unzip();
        let arrival_us = inputs.iter().map(|input| input.arrival_us).max().unwrap_or(0);
        let manifest = Manifest { kind: kind.to_string(), settings: lane_settings(kind, operators), files, arrival_us };
        Ok(Set { kind, lane: LaneId::new(format!("{FILES}{kind}-{}", manifest.identity()), 0), inputs, manifest })
    }

    /// Takes up what an earlier run of the set has begun: its rows then are the same to the last column.
    pub(super) fn resume(&mut self, before: &Manifest) {
        self.manifest.arrival_us = before.arrival_us;
        for input in &mut self.inputs {
            input.arrival_us = before.arrival_us;
        }
    }

    /// Refuses files that another set has put into the lake, or that have changed since. `others`: what the heads of the sets' lanes hold.
    pub(super) fn refuse_known_files(&self, others: &[(LaneId, Manifest)]) -> Result<()> {
        for (lane, other) in
            others.iter().filter(|(lane, other)| *lane != self.lane && other.kind == self.manifest.kind)
        {
            let names: Vec<&str> = other.files.iter().map(|file| file.name.as_str()).collect();
            let (set, settings) = (names.join(", "), &other.settings);
            for file in &self.manifest.files {
                if other.files.iter().any(|known| known.fingerprint == file.fingerprint) {
                    bail!(Failure::Usage(format!(
                        "{} is in the lake already, as a part of {lane} ({set}; {settings}): leave it out, or give the whole set as it was, with the \
                         same --map and settings, to go on with it",
                        file.name
                    )));
                }
                if other.files.iter().any(|known| known.name == file.name) {
                    bail!(Failure::Usage(format!(
                        "{} is not the file that is in the lake under this name, as a part of {lane} ({set}): its rows would be counted beside those \
                         of the other one. Rename it where it holds other events; where it holds corrected ones, use another --data",
                        file.name
                    )));
                }
            }
        }
        Ok(())
    }
}

/// The settings that a lane's rows were made with, also where the lane is a set of files.
pub(crate) fn settings_of_rows(head: &Head) -> String {
    Manifest::of(head).map_or_else(|| head.settings.clone(), |manifest| manifest.settings)
}

impl Manifest {
    /// A name for what the rows depend on, the same on every machine.
    fn identity(&self) -> String {
        let parts = [&self.kind, &self.settings].into_iter().chain(self.files.iter().flat_map(|file| {
            [&file.fingerprint].into_iter().chain(file.map.iter().flat_map(|(field, column)| [field, column]))
        }));
        // Each part with its length, so that no two lists of parts look alike.
        let hash = parts.fold(Fingerprint::default(), |hash, part| {
            hash.and(&(part.len() as u64).to_le_bytes()).and(part.as_bytes())
        });
        hash.to_string()[..16].to_owned()
    }

    /// What the head of a set's lane holds.
    pub(super) fn of(head: &Head) -> Option<Manifest> {
        serde_json::from_str(&head.settings).ok()
    }

    pub(super) fn to_text(&self) -> Result<String> {
        serde_json::to_string(self).context("writing down the set of files")
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

fn fingerprint(path: &Path) -> Result<String> {
    let fingerprint = Fingerprint::of_file(path).with_context(|| format!("reading {}", path.display()))?;
    Ok(fingerprint.to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn input(folder: &Path, name: &str, text: &str) -> FileInput {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        FileInput { kind: Kind::Calls, path, map: Vec::new(), arrival_us: 7, batch_rows: 10 }
    }

    fn set(inputs: Vec<FileInput>) -> Set {
        Set::new(Kind::Calls, inputs, &OperatorConfig::default()).unwrap()
    }

    #[test]
    fn a_set_is_told_by_what_its_files_hold() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (input(folder.path(), "a.csv", "1"), input(folder.path(), "b.csv", "2"));
        let both = set(vec![a.clone(), b.clone()]);
        assert_eq!(both.lane, set(vec![b.clone(), a.clone()]).lane);
        assert!(both.lane.topic.starts_with("files:calls-"));
        assert_ne!(both.lane, set(vec![a.clone()]).lane);
        let mapped = FileInput { map: vec![("rep_id".to_owned(), "who".to_owned())], ..a.clone() };
        assert_ne!(set(vec![mapped]).lane, set(vec![a.clone()]).lane);
        let mut operators = OperatorConfig::default();
        operators.time.window_us *= 2;
        assert_ne!(Set::new(Kind::Calls, vec![a.clone()], &operators).unwrap().lane, set(vec![a.clone()]).lane);
        let copy = input(folder.path(), "copy.csv", "1");
        assert!(Set::new(Kind::Calls, vec![a, copy], &OperatorConfig::default()).is_err());
    }

    #[test]
    fn files_that_are_known_or_changed_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let first = set(vec![input(folder.path(), "a.csv", "1"), input(folder.path(), "b.csv", "2")]);
        let head = Head { settings: first.manifest.to_text().unwrap(), ..Head::default() };
        assert_eq!(settings_of_rows(&head), first.manifest.settings);
        let of_topic = Head { settings: "time.window=300s".to_owned(), ..Head::default() };
        assert_eq!(settings_of_rows(&of_topic), "time.window=300s");
        let known = [(first.lane.clone(), Manifest::of(&head).unwrap())];
        assert!(first.refuse_known_files(&known).is_ok(), "the set itself goes on");
        let refusal = |set: &Set| set.refuse_known_files(&known).unwrap_err().to_string();
        assert!(refusal(&set(vec![input(folder.path(), "other.csv", "2")])).contains("is in the lake already"));
        assert!(refusal(&set(vec![input(folder.path(), "a.csv", "3")])).contains("not the file that is in the lake"));
        assert!(set(vec![input(folder.path(), "c.csv", "3")]).refuse_known_files(&known).is_ok());
    }
}
