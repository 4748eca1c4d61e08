//! What there is to do about the files of a table: a pure function.

use std::collections::BTreeMap;

use crate::files::FileRole;

/// A file of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileInfo {
    pub(crate) path: String,
    pub(crate) day: i32,
    pub(crate) n_bytes: u64,
    pub(crate) role: FileRole,
    /// When it was committed.
    pub(crate) modified_ms: i64,
}

/// What to do with files of one day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// All its files go.
    Drop { day: i32, paths: Vec<String> },
    /// Some of its files become one, or few.
    Merge { day: i32, paths: Vec<String> },
    /// All its files become files in the final form.
    Resolve { day: i32, paths: Vec<String> },
}

/// By what to decide.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) now_ms: i64,
    pub(crate) late_horizon_ms: i64,
    pub(crate) retention_ms: Option<i64>,
    pub(crate) file_bytes_target: u64,
}

const DAY_MS: i64 = 86_400_000;
/// Files of one size class that are merged together on a day that still fills.
const MERGED_MIN: usize = 8;
/// Files that late corrections may add to a finished day before it is rewritten at once.
const LATE_FILES_MAX: usize = 8;
/// A finished day is rewritten when what was added to it is this old.
const LATE_FILES_AGE_MS: i64 = 3_600_000;
/// Smallest size class; each next is four times as large.
const CLASS_BYTES_MIN: u64 = 64 * 1024;

impl Rules {
    /// Whether the whole of a day is longer ago than `age_ms`.
    fn is_older(&self, day: i32, age_ms: i64) -> bool {
        let end_ms = (i64::from(day) + 1) * DAY_MS;
        end_ms.saturating_add(age_ms) <= self.now_ms
    }
}

fn size_class(n_bytes: u64) -> u32 {
    (n_bytes / CLASS_BYTES_MIN).checked_ilog2().map_or(0, |power| power / 2 + 1)
}

/// What to do now. After it is done there may be more: ask again until nothing is left.
pub(crate) fn plan(files: &[FileInfo], rules: &Rules) -> Vec<Task> {
    let mut days: BTreeMap<i32, Vec<&FileInfo>> = BTreeMap::new();
    for file in files {
        days.entry(file.day).or_default().push(file);
    }
    let mut tasks = Vec::new();
    for (day, files) in days {
        let paths = |files: &[&FileInfo]| files.iter().map(|file| file.path.clone()).collect::<Vec<_>>();
        if rules.retention_ms.is_some_and(|retention_ms| rules.is_older(day, retention_ms)) {
            tasks.push(Task::Drop { day, paths: paths(&files) });
        } else if rules.is_older(day, rules.late_horizon_ms) {
            if is_to_resolve(&files, rules) {
                tasks.push(Task::Resolve { day, paths: paths(&files) });
            }
        } else {
            let groups = to_merge(&files, rules, day);
            tasks.extend(groups.into_iter().map(|group| Task::Merge { day, paths: paths(&group) }));
        }
    }
    tasks
}

fn is_to_resolve(files: &[&FileInfo], rules: &Rules) -> bool {
    let open: Vec<_> = files.iter().filter(|file| file.role != FileRole::Resolved).collect();
    let oldest_ms = open.iter().map(|file| file.modified_ms).min();
    let is_first = open.len() == files.len();
    let is_old = oldest_ms.is_some_and(|ms| ms.saturating_add(LATE_FILES_AGE_MS) <= rules.now_ms);
    !open.is_empty() && (is_first || is_old || open.len() > LATE_FILES_MAX)
}

/// Groups of files of about one size, so that a row is rewritten once for each factor of four that its file grows.
fn to_merge<'a>(files: &[&'a FileInfo], rules: &Rules, day: i32) -> Vec<Vec<&'a FileInfo>> {
    // On a day that is over only late rows come, and readers are worth more than rewriting.
    let is_over = rules.is_older(day, LATE_FILES_AGE_MS);
    let n_files_min = if is_over { 2 } else { MERGED_MIN };
    let mut classes: BTreeMap<u32, Vec<&FileInfo>> = BTreeMap::new();
    for file in files.iter().filter(|file| file.n_bytes < rules.file_bytes_target / 2) {
        classes.entry(size_class(file.n_bytes)).or_default().push(file);
    }
    let mut groups = Vec::new();
    for files in classes.into_values() {
        let (mut group, mut n_bytes) = (Vec::new(), 0);
        for file in files {
            group.push(file);
            n_bytes += file.n_bytes;
            if n_bytes >= rules.file_bytes_target {
                groups.push(std::mem::take(&mut group));
                n_bytes = 0;
            }
        }
        groups.push(group);
    }
    groups.retain(|group| group.len() >= n_files_min);
    groups
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW_MS: i64 = 20_000 * DAY_MS + DAY_MS / 2;
    const RULES: Rules = Rules {
        now_ms: NOW_MS,
        late_horizon_ms: 7 * DAY_MS,
        retention_ms: Some(60 * DAY_MS),
        file_bytes_target: 128 << 20,
    };

    fn file(day: i32, n_bytes: u64, role: FileRole, n: usize) -> FileInfo {
        FileInfo { path: format!("{day}/{n}"), day, n_bytes, role, modified_ms: NOW_MS }
    }

    fn files(day: i32, n_bytes: u64, n_files: usize) -> Vec<FileInfo> {
        (0..n_files).map(|n| file(day, n_bytes, FileRole::Part, n)).collect()
    }

    #[test]
    fn days_are_treated_by_their_age() {
        let day = |day: i32| plan(&files(day, 1_000, 3), &RULES);
        assert!(day(20_000).is_empty(), "three files of today are not worth it");
        assert_eq!(plan(&files(20_000, 1_000, 8), &RULES).len(), 1);
        assert!(matches!(day(19_999)[..], [Task::Merge { day: 19_999, ref paths }] if paths.len() == 3));
        assert!(matches!(day(19_993)[..], [Task::Merge { .. }]), "its last hour is not yet seven days ago");
        assert!(matches!(day(19_992)[..], [Task::Resolve { day: 19_992, .. }]));
        assert!(matches!(day(19_940)[..], [Task::Resolve { .. }]));
        assert!(matches!(day(19_939)[..], [Task::Drop { day: 19_939, .. }]));
        assert!(matches!(plan(&files(1, 1, 3), &Rules { retention_ms: None, ..RULES })[..], [Task::Resolve { .. }]));
    }

    #[test]
    fn a_finished_day_is_rewritten_for_late_rows_after_a_while() {
        let mut files = vec![file(19_900, 1_000, FileRole::Resolved, 0)];
        let rules = Rules { retention_ms: None, ..RULES };
        assert!(plan(&files, &rules).is_empty());
        files.push(file(19_900, 1_000, FileRole::Part, 1));
        assert!(plan(&files, &rules).is_empty(), "it has just come");
        let later = Rules { now_ms: NOW_MS + LATE_FILES_AGE_MS, ..rules };
        assert!(matches!(plan(&files, &later)[..], [Task::Resolve { ref paths, .. }] if paths.len() == 2));
        files.extend((2..12).map(|n| file(19_900, 1_000, FileRole::Part, n)));
        assert_eq!(plan(&files, &rules).len(), 1, "so many are not waited with");
    }

    proptest! {
        #[test]
        fn merging_ends_and_rewrites_little(n_commits in 1_usize..1_500, n_bytes in 1_000_u64..400_000) {
            let (mut files, mut n_written, mut next) = (Vec::new(), 0_u64, 0_usize);
            for n in 0..n_commits {
                files.push(file(20_000, n_bytes, FileRole::Part, n));
                next = next.max(n + 1);
                for task in plan(&files, &RULES) {
                    let Task::Merge { paths, .. } = task else { panic!("{task:?}") };
                    let (merged, kept): (Vec<_>, Vec<_>) = files.into_iter().partition(|file| paths.contains(&file.path));
                    prop_assert_eq!(merged.len(), paths.len());
                    let sum: u64 = merged.iter().map(|file| file.n_bytes).sum();
                    n_written += sum;
                    files = kept;
                    files.push(file(20_000, sum, FileRole::Merged, 1_000_000 + next));
                    next += 1;
                }
            }
            let n_bytes_all = n_bytes * n_commits as u64;
            prop_assert_eq!(files.iter().map(|file| file.n_bytes).sum::<u64>(), n_bytes_all);
            prop_assert!(files.len() <= 64, "{} files", files.len());
            prop_assert!(n_written <= 6 * n_bytes_all, "each byte {} times", n_written / n_bytes_all);
        }
    }
}
