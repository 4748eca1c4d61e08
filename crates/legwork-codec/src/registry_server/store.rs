//! Subjects, versions, schemas and levels: what a registry knows, without HTTP. A change counts once it is in the log.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use apache_avro::Schema;
use serde_json::{Map, Value};

use super::compatibility::{Level, objections};
use super::error::RegistryError;
use super::log::{Change, Log};

/// A version of a subject.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    pub(crate) version: u32,
    pub(crate) id: u32,
    pub(crate) is_deleted: bool,
}

/// Which versions are meant, as in `/versions/{v}`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Which {
    Latest,
    Number(u32),
}

impl std::str::FromStr for Which {
    type Err = RegistryError;

    fn from_str(text: &str) -> Result<Which, RegistryError> {
        if text == "latest" || text == "-1" {
            return Ok(Which::Latest);
        }
        match text.parse() {
            Ok(number) if number > 0 && number <= i32::MAX as u32 => Ok(Which::Number(number)),
            _ => Err(RegistryError::InvalidVersion(text.to_owned())),
        }
    }
}

/// A schema with its parsed form.
#[derive(Debug)]
struct Known {
    text: String,
    parsed: Schema,
}

#[derive(Debug, Default)]
pub(crate) struct Store {
    /// By id.
    schemas: BTreeMap<u32, Known>,
    /// By what makes two schemas the same.
    ids: HashMap<String, u32>,
    subjects: BTreeMap<String, Vec<Version>>,
    level: Option<Level>,
    levels: BTreeMap<String, Level>,
    log: Option<Log>,
}

impl Store {
    pub(crate) fn open(path: &Path) -> Result<Store, RegistryError> {
        let mut store = Store::default();
        let log = Log::open(path, |change| store.apply(change))?;
        store.log = Some(log);
        Ok(store)
    }

    /// Logs a change, then makes it.
    fn commit(&mut self, change: Change) -> Result<(), RegistryError> {
        if let Some(log) = &mut self.log {
            log.append(&change)?;
        }
        self.apply(change)
    }

    fn apply(&mut self, change: Change) -> Result<(), RegistryError> {
        match change {
            Change::Register { subject, version, id, schema } => {
                let (parsed, identity) = parse(&schema)?;
                self.schemas.entry(id).or_insert(Known { text: schema, parsed });
                self.ids.insert(identity, id);
                self.subjects.entry(subject).or_default().push(Version { version, id, is_deleted: false });
            }
            Change::Delete { subject, versions, permanent } => {
                let Some(held) = self.subjects.get_mut(&subject) else { return Ok(()) };
                if permanent {
                    held.retain(|version| !versions.contains(&version.version));
                } else {
                    held.iter_mut().filter(|v| versions.contains(&v.version)).for_each(|v| v.is_deleted = true);
                }
                if held.is_empty() {
                    self.subjects.remove(&subject);
                }
            }
            Change::Level { subject, level } => {
                let level = level.as_deref().map(str::parse).transpose()?;
                match (subject, level) {
                    (None, level) => self.level = level,
                    (Some(subject), Some(level)) => drop(self.levels.insert(subject, level)),
                    (Some(subject), None) => drop(self.levels.remove(&subject)),
                }
            }
        }
        Ok(())
    }

    /// Subjects with versions, those with deleted ones only where asked for.
    pub(crate) fn subjects(&self, with_deleted: bool, prefix: &str) -> Vec<&str> {
        let is_shown = |versions: &[Version]| with_deleted || versions.iter().any(|version| !version.is_deleted);
        let all = self.subjects.iter().filter(|(subject, versions)| is_shown(versions) && subject.starts_with(prefix));
        all.map(|(subject, _)| subject.as_str()).collect()
    }

    pub(crate) fn versions(&self, subject: &str, with_deleted: bool) -> Result<Vec<&Version>, RegistryError> {
        let held = self.subjects.get(subject).map_or(&[][..], Vec::as_slice);
        let shown: Vec<&Version> = held.iter().filter(|version| with_deleted || !version.is_deleted).collect();
        if shown.is_empty() { Err(RegistryError::SubjectNotFound(subject.to_owned())) } else { Ok(shown) }
    }

    pub(crate) fn version(&self, subject: &str, which: Which, with_deleted: bool) -> Result<&Version, RegistryError> {
        let versions = self.versions(subject, with_deleted)?;
        match which {
            Which::Latest => versions.last().copied().ok_or(RegistryError::SchemaNotFound),
            Which::Number(number) => versions
                .into_iter()
                .find(|version| version.version == number)
                .ok_or_else(|| RegistryError::VersionNotFound(number.to_string())),
        }
    }

    /// Text of a schema.
    pub(crate) fn schema(&self, id: u32) -> Result<&str, RegistryError> {
        self.schemas.get(&id).map(|known| known.text.as_str()).ok_or(RegistryError::SchemaNotFound)
    }

    /// (subject, version) that use a schema.
    pub(crate) fn users(&self, id: u32, with_deleted: bool) -> Result<Vec<(&str, u32)>, RegistryError> {
        self.schema(id)?;
        let all = self.subjects.iter();
        Ok(all.flat_map(|(subject, versions)| uses(subject, versions, id, with_deleted)).collect())
    }

    /// The version of a subject that has this schema.
    pub(crate) fn look_up(&self, subject: &str, schema: &str, with_deleted: bool) -> Result<&Version, RegistryError> {
        let versions = self.versions(subject, with_deleted)?;
        let (_, identity) = parse(schema)?;
        let id = self.ids.get(&identity).ok_or(RegistryError::SchemaNotFound)?;
        versions.into_iter().rev().find(|version| version.id == *id).ok_or(RegistryError::SchemaNotFound)
    }

    /// Registers a schema as the next version of a subject, unless a version has it already. *Returns* its id.
    pub(crate) fn register(&mut self, subject: &str, schema: &str) -> Result<u32, RegistryError> {
        let (parsed, identity) = parse(schema)?;
        let known = self.ids.get(&identity).copied();
        let held = self.subjects.get(subject).map_or(&[][..], Vec::as_slice);
        if let Some(id) = known.filter(|id| held.iter().any(|version| !version.is_deleted && version.id == *id)) {
            return Ok(id);
        }
        let live: Vec<&Version> = held.iter().filter(|version| !version.is_deleted).collect();
        let level = self.level(Some(subject));
        let against = if level.is_transitive() { &live[..] } else { &live[live.len().saturating_sub(1)..] };
        let details = self.objections(level, &parsed, against);
        if !details.is_empty() {
            return Err(RegistryError::Incompatible { subject: subject.to_owned(), details });
        }
        let version = held.last().map_or(1, |last| last.version + 1);
        let id = known.unwrap_or_else(|| self.schemas.last_key_value().map_or(1, |(last, _)| last + 1));
        let schema = compact(schema)?;
        self.commit(Change::Register { subject: subject.to_owned(), version, id, schema })?;
        Ok(id)
    }

    /// What speaks against a schema: beside the version given, or beside all that the subject's level asks for.
    pub(crate) fn test(&self, subject: &str, which: Option<Which>, schema: &str) -> Result<Vec<String>, RegistryError> {
        let (parsed, _) = parse(schema)?;
        let level = self.level(Some(subject));
        let against = match which {
            Some(which) => vec![self.version(subject, which, false)?],
            None => {
                let live = self.versions(subject, false).unwrap_or_default();
                if level.is_transitive() { live } else { live.into_iter().next_back().into_iter().collect() }
            }
        };
        Ok(self.objections(level, &parsed, &against))
    }

    fn objections(&self, level: Level, new: &Schema, against: &[&Version]) -> Vec<String> {
        let known = |version: &&Version| self.schemas.get(&version.id).map(|known| (version.version, known));
        against
            .iter()
            .filter_map(known)
            .flat_map(|(version, known)| {
                objections(level, new, &known.parsed).into_iter().map(move |why| format!("version {version}: {why}"))
            })
            .collect()
    }

    /// The level that holds for a subject, or the one for all.
    pub(crate) fn level(&self, subject: Option<&str>) -> Level {
        let own = subject.and_then(|subject| self.levels.get(subject)).copied();
        own.or(self.level).unwrap_or_default()
    }

    pub(crate) fn own_level(&self, subject: &str) -> Result<Level, RegistryError> {
        self.levels.get(subject).copied().ok_or_else(|| RegistryError::NoSubjectLevel(subject.to_owned()))
    }

    pub(crate) fn set_level(&mut self, subject: Option<&str>, level: Option<Level>) -> Result<(), RegistryError> {
        let level = level.map(|level| level.as_str().to_owned());
        self.commit(Change::Level { subject: subject.map(str::to_owned), level })
    }

    /// Hides all versions of a subject, or removes hidden ones for good. *Returns* their numbers.
    pub(crate) fn delete_subject(&mut self, subject: &str, permanent: bool) -> Result<Vec<u32>, RegistryError> {
        let held = self.versions(subject, true)?;
        let is_live = held.iter().any(|version| !version.is_deleted);
        match (permanent, is_live) {
            (false, false) => return Err(RegistryError::SubjectSoftDeleted(subject.to_owned())),
            (true, true) => return Err(RegistryError::SubjectNotSoftDeleted(subject.to_owned())),
            _ => {}
        }
        let versions: Vec<u32> = held.iter().filter(|v| permanent || !v.is_deleted).map(|v| v.version).collect();
        self.commit(Change::Delete { subject: subject.to_owned(), versions: versions.clone(), permanent })?;
        Ok(versions)
    }

    /// Hides a version, or removes a hidden one for good. *Returns* its number.
    pub(crate) fn delete_version(
        &mut self,
        subject: &str,
        which: Which,
        permanent: bool,
    ) -> Result<u32, RegistryError> {
        let found = self.version(subject, which, true)?;
        let (version, is_deleted) = (found.version, found.is_deleted);
        match (permanent, is_deleted) {
            (false, true) => return Err(RegistryError::VersionSoftDeleted(subject.to_owned(), version)),
            (true, false) => return Err(RegistryError::VersionNotSoftDeleted(subject.to_owned(), version)),
            _ => {}
        }
        self.commit(Change::Delete { subject: subject.to_owned(), versions: vec![version], permanent })?;
        Ok(version)
    }
}

fn uses<'s>(
    subject: &'s str,
    versions: &'s [Version],
    id: u32,
    with_deleted: bool,
) -> impl Iterator<Item = (&'s str, u32)> {
    let is_used = move |version: &&Version| version.id == id && (with_deleted || !version.is_deleted);
    versions.iter().filter(is_used).map(move |version| (subject, version.version))
}

fn json(schema: &str) -> Result<Value, RegistryError> {
    // A bare name such as `string` is what some clients send for a primitive type.
    serde_json::from_str(schema).or_else(|error| match schema.trim() {
        name @ ("null" | "boolean" | "int" | "long" | "float" | "double" | "bytes" | "string") => Ok(name.into()),
        _ => Err(RegistryError::InvalidSchema(error.to_string())),
    })
}

/// The parsed schema, and what makes two schemas the same: their JSON, whatever its spaces and the order of its keys.
fn parse(schema: &str) -> Result<(Schema, String), RegistryError> {
    let json = json(schema)?;
    let parsed = Schema::parse(&json).map_err(|error| RegistryError::InvalidSchema(error.to_string()))?;
    Ok((parsed, sorted(json).to_string()))
}

fn compact(schema: &str) -> Result<String, RegistryError> {
    json(schema).map(|json| json.to_string())
}

fn sorted(json: Value) -> Value {
    match json {
        Value::Object(entries) => {
            let mut entries: Vec<(String, Value)> =
                entries.into_iter().map(|(key, value)| (key, sorted(value))).collect();
            entries.sort_by(|(a, _), (b, _)| a.cmp(b));
            match entries.as_slice() {
                // {"type": "string"} is "string".
                [(key, name @ Value::String(_))] if key == "type" => name.clone(),
                _ => Value::Object(entries.into_iter().collect::<Map<_, _>>()),
            }
        }
        Value::Array(items) => items.into_iter().map(sorted).collect(),
        other => other,
    }
}
