//! What a client is told about rows that its answer may lack.

use std::collections::{BTreeMap, BTreeSet};

use legwork_types::MissingLane;

/// Lanes that a notice names.
const LANES_MAX: usize = 8;
/// Notices of one answer.
const NOTICES_MAX: usize = 8;

/// One notice for each reason, within bounds.
pub(crate) fn of(missing: &[MissingLane]) -> Vec<String> {
    let mut by_reason: BTreeMap<&str, BTreeSet<(&str, Option<i32>)>> = BTreeMap::new();
    for MissingLane { topic, partition, reason, .. } in missing {
        by_reason.entry(reason).or_default().insert((topic, *partition));
    }
    let mut notices: Vec<String> =
        by_reason.iter().take(NOTICES_MAX).map(|(reason, lanes)| notice(reason, lanes)).collect();
    let left: BTreeSet<_> = by_reason.values().skip(NOTICES_MAX).flatten().copied().collect();
    if !left.is_empty() {
        notices.push(notice("see pipeline_lanes", &left));
    }
    notices
}

fn notice(reason: &str, lanes: &BTreeSet<(&str, Option<i32>)>) -> String {
    let name = |(topic, partition): &(&str, Option<i32>)| match partition {
        Some(partition) => format!("{topic}/{partition}"),
        None => format!("{topic}/*"),
    };
    let mut names = lanes.iter().take(LANES_MAX).map(name).collect::<Vec<_>>().join(", ");
    if let Some(n_more @ 1..) = lanes.len().checked_sub(LANES_MAX) {
        names.push_str(&format!(" and {n_more} more"));
    }
    let lanes = if lanes.len() == 1 { "lane" } else { "lanes" };
    format!("this answer may lack rows of {lanes} {names}: {reason}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing(topic: &str, partition: Option<i32>, reason: &str) -> MissingLane {
        MissingLane { topic: topic.into(), partition, reason: reason.to_owned(), coming_for: None }
    }

    #[test]
    fn lanes_of_one_reason_are_told_together_and_once() {
        let all = [missing("b", Some(1), "halted"), missing("a", None, "coming"), missing("b", Some(0), "halted")];
        let told = of(&[all.clone(), all].concat());
        assert_eq!(
            told,
            ["this answer may lack rows of lane a/*: coming", "this answer may lack rows of lanes b/0, b/1: halted"]
        );
        assert!(of(&[]).is_empty());
    }

    #[test]
    fn many_lanes_are_counted() {
        let same: Vec<MissingLane> = (0..100).map(|partition| missing("t", Some(partition), "coming")).collect();
        let told = of(&same);
        assert!(told.len() == 1 && told[0].ends_with("t/7 and 92 more: coming"), "{told:?}");
        let each: Vec<MissingLane> =
            (0..100).map(|partition| missing("t", Some(partition), &format!("halted {partition:02}"))).collect();
        let told = of(&each);
        assert_eq!(told.len(), NOTICES_MAX + 1);
        assert!(told[NOTICES_MAX].contains("t/8, ") && told[NOTICES_MAX].contains(" and 84 more: see"), "{told:?}");
    }
}
