//! Every combination of what can be found, against what must hold.

use super::*;

const TABLES: [&str; 2] = ["device_movement", "stays"];
const NUMBER: u32 = 3;

/// Everything that decides, small enough to enumerate.
#[derive(Clone, Debug)]
struct Case {
    head: Option<Head>,
    settings: String,
    topic: TopicSeen,
    n_partitions_of_others: Option<i32>,
    lake: BTreeMap<String, TableSeen>,
}

fn heads() -> Vec<Option<Head>> {
    let mut heads = vec![None];
    for lake_through in 0..=NUMBER {
        for topic_id in [None, Some("a")] {
            for known in [0, 1, NUMBER] {
                heads.push(Some(Head {
                    number: NUMBER,
                    topic_id: topic_id.map(str::to_owned),
                    next_offset: 10,
                    n_partitions: 4,
                    newest_us: 0,
                    counts: Vec::new(),
                    settings: "window=300".to_owned(),
                    lake_through,
                    lake_tables: (known > 0).then(|| (TABLES[0].to_owned(), known)).into_iter().collect(),
                }));
            }
        }
    }
    heads
}

fn topics() -> Vec<TopicSeen> {
    let mut topics = vec![TopicSeen::Missing];
    // The next offset, 10, lies before, at the start of, in, at the end of, after the log; an empty log before, at and after it.
    for (log_start, log_end) in [(11, 20), (10, 20), (5, 20), (5, 10), (5, 9), (12, 12), (10, 10), (3, 3), (0, 0)] {
        for topic_id in [None, Some("a"), Some("b")] {
            for n_partitions in [3, 4, 5] {
                let topic_id = topic_id.map(str::to_owned);
                topics.push(TopicSeen::Present { topic_id, log_start, log_end, n_partitions });
            }
        }
    }
    topics
}

fn lakes() -> Vec<BTreeMap<String, TableSeen>> {
    let seen: Vec<TableSeen> = [TableSeen::Missing, TableSeen::Unwritten]
        .into_iter()
        .chain((1..=NUMBER + 2).map(TableSeen::Through))
        .collect();
    let pairs = seen.iter().flat_map(|first| seen.iter().map(move |second| [*first, *second]));
    let named = |seen: [TableSeen; 2]| TABLES.map(str::to_owned).into_iter().zip(seen).collect();
    let mut lakes: Vec<_> = pairs.map(named).collect();
    lakes.push(BTreeMap::new());
    lakes
}

fn for_all(mut check: impl FnMut(&Case)) -> usize {
    let mut n_cases = 0;
    for head in heads() {
        for topic in topics() {
            for lake in lakes() {
                for settings in ["window=300", "window=60"] {
                    for n_partitions_of_others in [None, Some(4)] {
                        n_cases += 1;
                        let (head, topic, lake) = (head.clone(), topic.clone(), lake.clone());
                        check(&Case { head, settings: settings.to_owned(), topic, n_partitions_of_others, lake });
                    }
                }
            }
        }
    }
    n_cases
}

/// All pending rows that a lane of this head could have.
fn pending(head: Option<&Head>) -> Vec<PendingRows> {
    let numbers = 0..=head.map_or(0, |head| head.number);
    let rows = |number| TABLES.map(|table| PendingRows { number, table: table.to_owned(), rows: Vec::new() });
    numbers.filter(|_| head.is_some()).flat_map(rows).collect()
}

fn found<'a>(lane: &'a LaneId, case: &'a Case, pending: &'a [PendingRows]) -> Found<'a> {
    Found {
        lane,
        head: case.head.as_ref(),
        pending,
        settings: &case.settings,
        topic: &case.topic,
        n_partitions_of_others: case.n_partitions_of_others,
        lake: &case.lake,
    }
}

/// Every reason to halt that there is, by the letter, one line each.
fn reasons(case: &Case) -> Vec<&'static str> {
    let number = |table: &str| match case.lake.get(table) {
        Some(TableSeen::Through(number)) => *number,
        _ => 0,
    };
    let newest_in_lake = TABLES.map(number).into_iter().max().unwrap();
    let mut reasons = Vec::new();
    let mut reason = |holds: bool, text| {
        if holds {
            reasons.push(text)
        }
    };
    match (&case.head, &case.topic) {
        (None, TopicSeen::Missing) => {
            reason(newest_in_lake > 0, "StateMissing");
            reason(true, "TopicMissing");
        }
        (None, TopicSeen::Present { n_partitions, .. }) => {
            reason(newest_in_lake > 0, "StateMissing");
            reason(case.n_partitions_of_others.is_some_and(|n| n != *n_partitions), "PartitionsChanged");
        }
        (Some(head), topic) => {
            reason(newest_in_lake > head.number, "LakeAhead");
            reason(head.lake_tables.iter().any(|(table, known)| number(table) < *known), "LakeBehind");
            match topic {
                TopicSeen::Missing => reason(true, "TopicMissing"),
                TopicSeen::Present { topic_id, log_start, log_end, n_partitions } => {
                    let is_other = topic_id.is_some() && head.topic_id.is_some() && *topic_id != head.topic_id;
                    reason(is_other, "TopicRecreated");
                    reason(*n_partitions != head.n_partitions, "PartitionsChanged");
                    reason(head.next_offset < *log_start, "RetentionPassed");
                    reason(head.next_offset > *log_end, "AheadOfLog");
                }
            }
            reason(head.settings != case.settings, "SettingsChanged");
        }
    }
    reasons
}

#[test]
fn every_case_is_decided_right() {
    let lane = LaneId::new("field.gps-pings.v1", 2);
    let mut n_decided = [0; 3];
    let n_cases = for_all(|case| {
        let pending = pending(case.head.as_ref());
        let reasons = reasons(case);
        match decide(&found(&lane, case, &pending)) {
            Decision::Start => {
                n_decided[0] += 1;
                assert!(reasons.is_empty(), "{case:?}");
                assert_eq!(case.head, None, "never from the start over state");
                assert!(case.lake.values().all(|table| !matches!(table, TableSeen::Through(_))), "nor over tables");
            }
            Decision::Resume(resume) => {
                n_decided[1] += 1;
                assert!(reasons.is_empty(), "{case:?}");
                let head = case.head.as_ref().expect("never resumes without a checkpoint");
                assert_eq!(resume.next_offset, head.next_offset, "neither skips nor repeats");
                check_pending(&resume, head, case, &pending);
            }
            Decision::Halt(halt) => {
                n_decided[2] += 1;
                let name = format!("{halt:?}");
                assert!(reasons.iter().any(|reason| name.starts_with(reason)), "{halt:?} in {case:?}");
                let text = halt.to_string();
                assert!(text.contains("field.gps-pings.v1/2"), "{text}");
                let accept = text.contains("`legwork lanes accept field.gps-pings.v1/2`");
                assert!(accept || (name.starts_with("TopicMissing") && text.contains("restore")), "{text}");
            }
        }
    });
    assert_eq!(n_decided.iter().sum::<usize>(), n_cases);
    assert!(n_decided.iter().all(|n| *n > 50), "{n_decided:?} of {n_cases}");
}

/// Each pending row stands exactly once, and is committed exactly if it is in neither the lake nor carried.
fn check_pending(resume: &Resume, head: &Head, case: &Case, pending: &[PendingRows]) {
    for name in TABLES {
        let table = &resume.tables[name];
        let through = case.lake.get(name).map_or(0, |seen| seen.number());
        let all: Vec<u32> = [&table.carried, &table.in_lake, &table.missing].into_iter().flatten().copied().collect();
        let numbers: Vec<u32> = pending.iter().filter(|rows| rows.table == name).map(|rows| rows.number).collect();
        assert_eq!(all, numbers, "in order, each once");
        assert!(table.carried.iter().all(|number| *number <= head.lake_through));
        assert!(table.in_lake.iter().all(|number| *number > head.lake_through && *number <= through));
        assert!(table.missing.iter().all(|number| *number > head.lake_through && *number > through));
    }
}

#[test]
fn an_accepted_lane_goes_on_above_the_lake() {
    let lane = LaneId::new("field.gps-pings.v1", 2);
    let (mut n_kept, mut n_anew) = (0, 0);
    for_all(|case| {
        let rows = pending(case.head.as_ref());
        let found_case = found(&lane, case, &rows);
        let accepted = match accept(&found_case) {
            Ok(accepted) => accepted,
            Err(halt) => {
                assert_eq!((halt, &case.topic), (Halt::TopicMissing { lane: lane.clone() }, &TopicSeen::Missing));
                return;
            }
        };
        let head = accepted.head();
        assert!(case.head.as_ref().is_none_or(|old| head.number > old.number));
        assert!(case.lake.values().all(|table| table.number() < head.number), "new versions win");
        let TopicSeen::Present { log_start, .. } = case.topic else { panic!("{case:?}") };
        let is_healthy = matches!(decide(&found_case), Decision::Resume(_));
        let TopicSeen::Present { topic_id, .. } = &case.topic else { panic!("{case:?}") };
        let is_other =
            matches!((&case.head, topic_id), (Some(Head { topic_id: Some(was), .. }), Some(is)) if was != is);
        let rows = match &accepted {
            Accepted::Keep(head) => {
                n_kept += 1;
                let old = case.head.as_ref().unwrap();
                assert!(head.next_offset == old.next_offset || head.next_offset == log_start);
                assert!(!is_healthy || head.next_offset == old.next_offset, "nothing is read twice for nothing");
                assert_eq!((head.newest_us, head.lake_through), (old.newest_us, old.lake_through));
                let n_same = old.counts.len().min(Head::RENEWALS);
                assert_eq!(
                    (&head.counts[..n_same], is_other),
                    (&old.counts[..n_same], head.renewals() > old.renewals())
                );
                assert!(is_other || head.counts == old.counts);
                rows.clone()
            }
            Accepted::Anew(head) => {
                n_anew += 1;
                assert!(case.head.as_ref().is_none_or(|old| old.settings != case.settings));
                assert_eq!(head.next_offset, log_start);
                let renewals = case.head.as_ref().map_or(0, Head::renewals) + i64::from(is_other);
                assert!(head.renewals() == renewals && head.counts.iter().sum::<i64>() == renewals);
                Vec::new()
            }
        };
        let after = Case { head: Some(head.clone()), ..case.clone() };
        match decide(&found(&lane, &after, &rows)) {
            Decision::Resume(resume) => assert_eq!(resume.next_offset, head.next_offset),
            other => panic!("{other:?} after {accepted:?} of {case:?}"),
        }
    });
    assert!(n_kept > 1_000 && n_anew > 1_000);
}

#[test]
fn halts_say_what_was_found_and_what_to_do() {
    let lane = LaneId::new("field.calls.v1", 0);
    let halt = Halt::RetentionPassed { lane: lane.clone(), next_offset: 100, log_start: 250 };
    assert_eq!(
        halt.to_string(),
        "lane field.calls.v1/0 would go on at offset 100, but the topic begins at 250: 150 messages were deleted unread; restore them, \
         or `legwork lanes accept field.calls.v1/0` goes on without them; then keep more in the topic (retention.ms)"
    );
    let halt = Halt::LakeBehind { lane, table: "stays".to_owned(), known: 7, found: TableSeen::Missing };
    assert_eq!(
        halt.to_string(),
        "table stays of the lake had rows of lane field.calls.v1/0 through checkpoint 7, and now is gone: restore the table; \
         or `legwork lanes accept field.calls.v1/0` goes on, and `legwork repair --all` computes days beyond the late horizon anew from stored events, of pings, e-mails and messages"
    );
}
