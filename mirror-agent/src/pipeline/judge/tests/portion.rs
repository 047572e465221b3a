//! Enters: exchanges, seen by one judge or by several. Leaves: whether the sum of the several is the one.

use proptest::prelude::*;

use super::*;

/// An exchange of a small service: which of its endpoints, where its answers differ, and how long they took.
#[derive(Clone, Debug)]
struct Small {
    judge: usize,
    endpoint: u8,
    shadow: u8,
    control: u8,
    status: u16,
    millis: u64,
}

fn smalls() -> impl Strategy<Value = Vec<Small>> {
    let small = (0..3_usize, 0..3_u8, 0..8_u8, 0..8_u8, 0..10_u8, 1..200_u64).prop_map(
        |(judge, endpoint, shadow, control, status, millis)| Small {
            judge,
            endpoint,
            shadow,
            control,
            status: if status == 0 { 503 } else { 200 },
            millis,
        },
    );
    prop::collection::vec(small, 0..120)
}

/// Divergences by the bits of a number.
fn divergences(bits: u8) -> Vec<Divergence> {
    let all = [
        divergence(DivergenceKind::Value, "$.a", "\"x\"", "\"y\""),
        lacking(DivergenceKind::Missing, "$.b", "1"),
        divergence(DivergenceKind::Type, "$.c", "1", "\"1\""),
    ];
    all.into_iter().enumerate().filter(|(bit, _)| bits >> bit & 1 == 1).map(|(_, found)| found).collect()
}

fn take(judge: &mut Judge, small: &Small, has_control: bool) {
    let endpoint =
        judge.endpoint(b"GET", format!("/{}", ["a", "b", "c"][usize::from(small.endpoint)]).as_bytes());
    let compared = Ok(Compared { divergences: divergences(small.shadow), ..Compared::default() });
    let control_compared = Ok(Compared { divergences: divergences(small.control), ..Compared::default() });
    let (live, control) =
        (answered(200, Duration::from_millis(20)), answered(200, Duration::from_millis(25)));
    let shadow = answered(small.status, Duration::from_millis(small.millis));
    judge.observe(&Seen {
        at: NOW,
        endpoint: &endpoint,
        live: &live,
        shadow: &shadow,
        compared: &compared,
        control: has_control.then_some((&control, &control_compared)),
    });
}

const NOW: Timestamp = Timestamp::from_nanos(7_000_000_000);

fn config() -> JudgeConfig {
    let gate =
        GateConfig { min_samples: 20, window: Some(Duration::from_secs(3600)), ..GateConfig::default() };
    JudgeConfig { gate: Some(gate), ..JudgeConfig::default() }
}

fn judges(smalls: &[Small], has_control: bool) -> Vec<Judge> {
    let mut judges: Vec<_> = (0..3).map(|_| Judge::new(&config(), has_control)).collect();
    smalls.iter().for_each(|small| take(&mut judges[small.judge], small, has_control));
    judges
}

fn sum(portions: &[Portion]) -> Portion {
    let mut sum = Portion::default();
    portions.iter().for_each(|portion| sum.merge(portion));
    sum
}

/// What does not depend on what was known of noise while exchanges came.
fn counted(summary: &Summary) -> serde_json::Value {
    let of_scope = |scope: &ScopeSummary| {
        serde_json::json!({
            "exchanges": scope.exchanges,
            "incomparable": scope.incomparable,
            "errors": scope.errors.errors,
            "known": scope.errors.known,
            "times": scope.times.iter().map(|times| (times.count, times.p50.point, times.p99.point)).collect::<Vec<_>>(),
            "untimed": scope.untimed,
        })
    };
    let mut endpoints: Vec<_> = summary
        .endpoints
        .iter()
        .map(|endpoint| (endpoint.endpoint.to_string(), of_scope(&endpoint.of)))
        .collect();
    endpoints.sort_by(|one, other| one.0.cmp(&other.0));
    serde_json::json!([of_scope(&summary.whole), endpoints, summary.whole.errors, summary.whole.p95])
}

proptest! {
    #[test]
    fn merging_does_not_depend_on_order_or_grouping(smalls in smalls(), has_control: bool) {
        let portions: Vec<_> = judges(&smalls, has_control).iter_mut().map(|judge| judge.portion(NOW)).collect();
        let [a, b, c] = &portions[..] else { unreachable!() };
        let whole = sum(&portions);
        prop_assert_eq!(&sum(&[c.clone(), a.clone(), b.clone()]), &whole);
        prop_assert_eq!(&sum(&[a.clone(), sum(&[b.clone(), c.clone()])]), &whole);
        prop_assert_eq!(&sum(&[sum(&[b.clone(), a.clone()]), c.clone()]), &whole);
        let text = serde_json::to_string(&whole).unwrap();
        prop_assert_eq!(&serde_json::from_str::<Portion>(&text).unwrap(), &whole);
    }

    #[test]
    fn sum_of_three_judges_counts_what_one_counts_who_saw_all(smalls in smalls(), has_control: bool) {
        let portions: Vec<_> = judges(&smalls, has_control).iter_mut().map(|judge| judge.portion(NOW)).collect();
        let mut one = Judge::new(&config(), has_control);
        smalls.iter().for_each(|small| take(&mut one, small, has_control));
        let merged = Judge::of_portion(&config(), has_control, &sum(&portions), NOW).summary(NOW);
        prop_assert_eq!(counted(&merged), counted(&one.summary(NOW)));
    }

    #[test]
    fn one_who_travels_says_what_it_said_at_home(smalls in smalls(), has_control: bool) {
        let mut judge = Judge::new(&config(), has_control);
        smalls.iter().for_each(|small| take(&mut judge, small, has_control));
        let portion = judge.portion(NOW);
        let again = Judge::of_portion(&config(), has_control, &portion, NOW).summary(NOW);
        let (again, here) = (serde_json::to_value(again).unwrap(), serde_json::to_value(judge.summary(NOW)).unwrap());
        prop_assert_eq!(again, here);
    }
}

#[test]
fn verdict_of_the_sum_is_that_of_the_whole() {
    for (seed, bugs, expected) in
        [(1, Bugs::default(), VerdictState::Pass), (2, Bugs::ALL, VerdictState::Fail)]
    {
        let mut parts: Vec<_> = (0..4)
            .map(|part| World::new(seed * 10 + part, true, bugs, Some(GateConfig::default())))
            .collect();
        let mut portion = Portion::default();
        for part in &mut parts {
            part.run(1500);
            portion.merge(&part.judge.portion(NOW));
        }
        let config = JudgeConfig { gate: Some(GateConfig::default()), ..JudgeConfig::default() };
        let merged = Judge::of_portion(&config, true, &portion, NOW).summary(NOW);
        assert_eq!(state(&merged), expected, "seed {seed}: {:#?}", merged.verdict);
        assert_eq!(merged.whole.exchanges, 6000);
        // What four know together is known better than what one of them knows.
        let width = |figure: Figure| figure.high.unwrap() - figure.low.unwrap();
        let alone = parts[0].summary();
        assert!(width(merged.whole.divergence) < width(alone.whole.divergence), "seed {seed}");
    }
}

#[test]
fn noise_that_no_judge_could_know_alone_is_known_together() {
    let twice = |bits| Small { judge: 0, endpoint: 0, shadow: bits, control: bits, status: 200, millis: 20 };
    let mut portion = Portion::default();
    for _ in 0..3 {
        let mut judge = Judge::new(&JudgeConfig::default(), true);
        take(&mut judge, &twice(1), true);
        let alone = judge.summary(NOW);
        assert_eq!(alone.places[0].standing, Standing::Unclear);
        portion.merge(&judge.portion(NOW));
    }
    let merged = Judge::of_portion(&JudgeConfig::default(), true, &portion, NOW).summary(NOW);
    assert_eq!(merged.places[0].standing, Standing::Noise);
    assert_eq!(merged.whole.results["noise"], 3);
}

#[test]
fn who_has_seen_more_says_whether_values_look_like_noise() {
    let seen = |seed, exchanges| {
        let mut world = World::new(seed, false, Bugs::default(), None);
        world.run(exchanges);
        world.judge.portion(NOW)
    };
    let (much, little) = (seen(1, 3000), seen(2, 20));
    for portions in [[much.clone(), little.clone()], [little, much]] {
        let merged = Judge::of_portion(&JudgeConfig::default(), false, &sum(&portions), NOW).summary(NOW);
        let place = merged.places.iter().find(|place| &*place.path == "$.trace_id").unwrap();
        assert_eq!(place.standing, Standing::Proposed);
        assert!(merged.proposals.iter().any(|proposal| &*proposal.path == "$.trace_id"));
    }
}

#[test]
fn clusters_of_different_machines_join_by_their_key() {
    let small = Small { judge: 0, endpoint: 1, shadow: 2, control: 0, status: 200, millis: 20 };
    let (mut one, mut other) = (Judge::new(&config(), false), Judge::new(&config(), false));
    take(&mut one, &small, false);
    (0..4).for_each(|_| take(&mut other, &small, false));
    let key = one.summary(NOW).clusters[0].key;
    let merged = sum(&[one.portion(NOW), other.portion(NOW.after(Duration::from_secs(5)))]);
    let summary = Judge::of_portion(&config(), false, &merged, NOW).summary(NOW);
    let clusters: Vec<_> = summary.clusters.iter().map(|cluster| (cluster.key, cluster.count)).collect();
    assert_eq!(clusters, [(key, 5)]);
    assert_eq!(
        (summary.clusters[0].first_seen, summary.clusters[0].last_seen),
        (2_000_000_000, 7_000_000_000)
    );
}

#[test]
fn numbers_that_are_followed_add_up() {
    let judges = [&[1.0, 2.0][..], &[], &[9.0]].map(|values| {
        let mut judge = Judge::new(&config(), false);
        let endpoint = judge.endpoint(b"GET", b"/a");
        let whole = answered(200, Duration::from_millis(20));
        for value in values {
            let fields = vec![FieldPair { field: 1, live: Some(*value), other: Some(value + 1.0) }];
            let compared = Ok(Compared { fields, ..Compared::default() });
            let (live, shadow) = (&whole, &whole);
            let seen =
                Seen { at: NOW, endpoint: &endpoint, live, shadow, compared: &compared, control: None };
            judge.observe(&seen);
        }
        judge
    });
    let portions = judges.map(|mut judge| judge.portion(NOW));
    let text = serde_json::to_string(&sum(&portions)).unwrap();
    let again: Portion = serde_json::from_str(&text).unwrap();
    let fields = Judge::of_portion(&config(), false, &again, NOW).summary(NOW).fields;
    assert_eq!((fields.len(), fields[0].live.count, fields[1].live.count), (2, 0, 3));
    assert_eq!(
        (fields[1].live.sum, fields[1].shadow.mean, fields[1].difference),
        (12.0, Some(5.0), Some(1.0))
    );
    let wrong = text.replacen("\"sum\":12", "\"sum\":1e200", 1);
    assert_ne!(wrong, text);
    assert!(serde_json::from_str::<Portion>(&wrong).is_err());
}

#[test]
fn names_that_become_the_same_become_one() {
    let small = |endpoint, shadow| Small { judge: 0, endpoint, shadow, control: 0, status: 200, millis: 20 };
    let mut judge = Judge::new(&config(), false);
    for (endpoint, bits) in [(0, 2), (1, 2), (1, 4)] {
        take(&mut judge, &small(endpoint, bits), false);
    }
    let renamed = judge
        .portion(NOW)
        .renamed(|name| if name.starts_with('$') { "$.secret" } else { "GET /?" }.to_owned());
    let text = serde_json::to_string(&renamed).unwrap();
    assert_eq!(serde_json::from_str::<Portion>(&text).unwrap(), renamed, "its keys are right");
    let summary = Judge::of_portion(&config(), false, &renamed, NOW).summary(NOW);
    assert_eq!((summary.endpoints.len(), summary.whole.exchanges, summary.clusters.len()), (1, 3, 2));
    assert!(!text.contains("$.b") && !text.contains("/a"), "{text}");
}

#[test]
fn what_no_judge_would_say_is_refused() {
    let mut judge = Judge::new(&config(), false);
    take(&mut judge, &Small { judge: 0, endpoint: 0, shadow: 2, control: 0, status: 200, millis: 20 }, false);
    let text = serde_json::to_string(&judge.portion(NOW)).unwrap();
    assert!(serde_json::from_str::<Portion>(&text).is_ok());
    for (from, to) in [
        ("\"$.b\"".to_owned(), "\"$.c\"".to_owned()),
        ("\"GET /a\"".to_owned(), "\"GET /b\"".to_owned()),
        ("\"GET /a\"".to_owned(), format!("\"{}\"", "x".repeat(20_000))),
        ("\"both\":".to_owned(), "\"more\":1,\"both\":".to_owned()),
        ("\"both\":0".to_owned(), "\"both\":-1".to_owned()),
        ("\"statuses\":[200,200]".to_owned(), "\"statuses\":[200,201]".to_owned()),
    ] {
        let wrong = text.replacen(&from, &to, 1);
        assert_ne!(wrong, text, "{from}");
        assert!(serde_json::from_str::<Portion>(&wrong).is_err(), "{from}");
    }
}
