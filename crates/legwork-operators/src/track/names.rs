//! Device and rep names as dense ids.

use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

/// Names that are looked up together: one after the other, most of the time would be spent waiting for memory.
pub(crate) const TOGETHER: usize = 16;
/// So many names stay in the processor's caches by themselves.
const CACHED_MAX: usize = 32_768;

/// Names in a segment, so that appending while a snapshot is read copies little.
const SEGMENT_LEN: usize = 1024;

#[derive(Clone, Debug, Default)]
struct Segment {
    text: String,
    ends: Vec<u32>,
}

impl Segment {
    #[inline]
    fn get(&self, idx: usize) -> &str {
        let start = if idx == 0 { 0 } else { self.ends[idx - 1] as usize };
        &self.text[start..self.ends[idx] as usize]
    }
}

/// Names by id; cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    segments: Vec<Arc<Segment>>,
}

impl Names {
    #[inline]
    pub(crate) fn get(&self, id: u32) -> &str {
        self.segments[id as usize / SEGMENT_LEN].get(id as usize % SEGMENT_LEN)
    }

    fn len(&self) -> usize {
        self.segments.last().map_or(0, |last| (self.segments.len() - 1) * SEGMENT_LEN + last.ends.len())
    }

    fn push(&mut self, name: &str) -> u32 {
        let id = self.len();
        if id.is_multiple_of(SEGMENT_LEN) {
            if let Some(full) = self.segments.last_mut().and_then(Arc::get_mut) {
                full.text.shrink_to_fit();
            }
            self.segments.push(Arc::new(Segment { text: String::new(), ends: Vec::with_capacity(16) }));
        }
        let segment = Arc::make_mut(self.segments.last_mut().expect("a segment was pushed"));
        segment.text.push_str(name);
        segment.ends.push(u32::try_from(segment.text.len()).expect("names of a segment take less than 4 GiB"));
        u32::try_from(id).expect("fewer than 4 billion names")
    }
}

/// Gives each name an id, in the order of first sight.
#[derive(Debug, Default)]
pub(crate) struct Interner {
    names: Names,
    ids: HashTable<u32>,
    hasher: FixedState,
    last: Option<u32>,
}

impl Interner {
    #[inline]
    pub(crate) fn intern(&mut self, name: &str) -> u32 {
        if let Some(last) = self.last.filter(|&last| self.names.get(last) == name) {
            return last;
        }
        let (names, hasher) = (&self.names, &self.hasher);
        let hash = hasher.hash_one(name);
        let found = self.ids.find(hash, |&id| names.get(id) == name).copied();
        let id = found.unwrap_or_else(|| {
            let id = self.names.push(name);
            let names = &self.names;
            self.ids.insert_unique(hash, id, |&id| hasher.hash_one(names.get(id)));
            id
        });
        self.last = Some(id);
        id
    }

    /// Reads what [`Interner::intern`] will look at for these names, at most [`TOGETHER`]: first the entries of all, then their ends, then their
    /// texts, so that the processor fetches them at the same time.
    pub(crate) fn touch<'a>(&self, names: impl Iterator<Item = &'a str>) {
        if self.names.len() <= CACHED_MAX {
            return;
        }
        let mut hashes = [None; TOGETHER];
        hashes.iter_mut().zip(names).for_each(|(hash, name)| *hash = Some(self.hasher.hash_one(name)));
        let entry = |hash: Option<u64>| self.ids.find(hash?, |_| true).copied();
        let ids = hashes.map(entry);
        let ends = ids.map(|id| {
            let segment = self.names.segments.get(id? as usize / SEGMENT_LEN)?;
            let end = *segment.ends.get(id? as usize % SEGMENT_LEN)?;
            Some((segment, end))
        });
        let texts = ends.map(|end| {
            let (segment, end) = end?;
            segment.text.as_bytes().get((end as usize).checked_sub(1)?)
        });
        std::hint::black_box(texts.iter().flatten().fold(0, |sum, byte| sum ^ **byte));
    }

    pub(crate) fn find(&self, name: &str) -> Option<u32> {
        self.ids.find(self.hasher.hash_one(name), |&id| self.names.get(id) == name).copied()
    }

    /// The next new id.
    pub(crate) fn len(&self) -> u32 {
        self.names.len() as u32
    }

    pub(crate) fn names(&self) -> &Names {
        &self.names
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        let text: usize = self.names.segments.iter().map(|s| s.text.capacity() + s.ends.capacity() * 4 + 64).sum();
        text + self.ids.capacity() * 5
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_be_touched_before_they_are_known() {
        let mut interner = Interner::default();
        interner.intern("");
        (0..=CACHED_MAX).for_each(|i| {
            interner.intern(&format!("device-{i}"));
        });
        let names: Vec<String> = (0..40_000).map(|i| format!("device-{i}")).chain([String::new()]).collect();
        names.chunks(TOGETHER).for_each(|names| interner.touch(names.iter().map(String::as_str)));
        assert_eq!(
            (interner.find("device-0"), interner.find("device-39999"), interner.find("")),
            (Some(1), None, Some(0))
        );
    }

    #[test]
    fn ids_are_dense_and_stable() {
        let mut interner = Interner::default();
        let names: Vec<String> = (0..3000).map(|i| format!("device-{i}")).collect();
        for round in 0..2 {
            for (i, name) in names.iter().enumerate() {
                assert_eq!(interner.intern(name), i as u32, "round {round}");
            }
        }
        let frozen = interner.names().clone();
        assert_eq!(interner.intern(""), 3000);
        assert_eq!(interner.find("device-2999"), Some(2999));
        assert_eq!(interner.find("other"), None);
        assert_eq!((frozen.get(1024), frozen.len(), interner.names().get(3000)), ("device-1024", 3000, ""));
    }
}
