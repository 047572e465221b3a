//! Enters: any exchanges. Leaves: whether the books balance, within their bounds.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
struct Step {
    path: u8,
    kinds: Vec<(u8, u8)>,
    control: Option<Vec<(u8, u8)>>,
    failure: Option<usize>,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let kinds = || prop::collection::vec((0..5_u8, 0..8_u8), 0..4);
    let step = (any::<u8>(), kinds(), prop::option::of(kinds()), prop::option::weighted(0.1, 0..14_usize))
        .prop_map(|(path, kinds, control, failure)| Step { path, kinds, control, failure });
    prop::collection::vec(step, 0..300)
}

fn compared(kinds: &[(u8, u8)]) -> Compared {
    let of = |(path, kind): &(u8, u8)| {
        divergence(DivergenceKind::ALL[usize::from(*kind)], &format!("$.p{path}"), "1", "2")
    };
    Compared { divergences: kinds.iter().map(of).collect(), ..Compared::default() }
}

fn run(steps: &[Step], has_control: bool) -> Judge {
    let config =
        JudgeConfig { max_endpoints: 20, gate: Some(GateConfig::default()), ..JudgeConfig::default() };
    let mut judge = Judge::new(&config, has_control);
    let answer = answered(200, Duration::from_millis(20));
    for (at, step) in (0..).zip(steps) {
        let endpoint = judge.endpoint(b"GET", format!("/things/name-{}x", step.path).as_bytes());
        let result = match step.failure {
            Some(reason) => Err(IncomparableReason::ALL[reason]),
            None => Ok(compared(&step.kinds)),
        };
        let control = step.control.as_ref().filter(|_| has_control).map(|kinds| Ok(compared(kinds)));
        judge.observe(&Seen {
            at: Timestamp::from_nanos(at),
            endpoint: &endpoint,
            live: &answer,
            shadow: &answer,
            compared: &result,
            control: control.as_ref().map(|control| (&answer, control)),
        });
    }
    judge
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn books_balance(steps in steps(), has_control: bool) {
        let mut judge = run(&steps, has_control);
        let summary = judge.summary(Timestamp::ZERO);
        let sum = |counts: &Counts| counts.values().sum::<u64>();
        let seen = u64::try_from(steps.len()).unwrap();
        prop_assert_eq!(summary.whole.exchanges, seen);
        prop_assert_eq!(sum(&summary.whole.results), seen);
        prop_assert_eq!(sum(&summary.whole.judged), seen);
        prop_assert_eq!(sum(&summary.whole.incomparable), summary.whole.results["incomparable"]);
        prop_assert_eq!(summary.endpoints.iter().map(|endpoint| endpoint.of.exchanges).sum::<u64>(), seen);
        for label in ComparisonResult::LABELS {
            let of_endpoints: u64 = summary.endpoints.iter().map(|endpoint| endpoint.of.results[label]).sum();
            prop_assert_eq!(of_endpoints, summary.whole.results[label]);
        }
        let of_clusters: u64 = summary.clusters.iter().map(|cluster| cluster.count).sum();
        prop_assert_eq!(of_clusters, summary.whole.results["divergent"]);
        prop_assert!(summary.endpoints.len() <= 21);
        let figure = summary.whole.divergence;
        prop_assert!(figure.low <= Some(figure.point) && Some(figure.point) <= figure.high);
    }

    #[test]
    fn same_exchanges_give_the_same_summary(steps in steps(), has_control: bool) {
        let text = || serde_json::to_string(&run(&steps, has_control).summary(Timestamp::ZERO)).unwrap();
        prop_assert_eq!(text(), text());
    }
}

#[test]
fn endpoints_that_become_one_keep_their_counts() {
    let mut judge = Judge::new(&JudgeConfig::default(), false);
    for n in 0..200 {
        let divergences = vec![divergence(DivergenceKind::Missing, "$.a", "1", "2")];
        observe(&mut judge, &format!("/people/p{n}-x/card"), divergences);
    }
    let summary = judge.summary(Timestamp::ZERO);
    let names: Vec<_> = summary.endpoints.iter().map(|endpoint| &*endpoint.endpoint).collect();
    assert_eq!(names, ["GET /people/{}/card"]);
    assert_eq!((summary.clusters.len(), summary.clusters[0].count), (1, 200));
    assert_eq!(summary.places[0].raw, 1.0);
}

#[test]
fn exchange_under_way_while_its_endpoint_was_renamed_counts_under_the_other_name() {
    let mut judge = Judge::new(&JudgeConfig::default(), false);
    let early = judge.endpoint(b"GET", b"/people/ann-x/card");
    for n in 0..200 {
        observe(&mut judge, &format!("/people/p{n}-x/card"), Vec::new());
    }
    let answer = answered(200, Duration::from_millis(20));
    let compared = Ok(Compared::default());
    let seen = Seen {
        at: Timestamp::ZERO,
        endpoint: &early,
        live: &answer,
        shadow: &answer,
        compared: &compared,
        control: None,
    };
    judge.observe(&seen);
    let summary = judge.summary(Timestamp::ZERO);
    assert_eq!((summary.endpoints.len(), summary.endpoints[0].of.exchanges), (1, 201));
}

#[test]
fn hostile_divergences_stay_within_bounds() {
    let mut random = Random(7);
    let mut judge = Judge::new(&JudgeConfig::default(), false);
    for _ in 0..5000 {
        let divergences = (0..random.below(10))
            .map(|_| divergence(DivergenceKind::Extra, &format!("$.x{}", random.below(5000)), "1", "2"))
            .collect();
        observe(&mut judge, "/a", divergences);
    }
    let summary = judge.summary(Timestamp::ZERO);
    assert!(summary.places.len() <= 200 && summary.clusters.len() <= 300, "{}", summary.clusters.len());
    let divergent = summary.whole.results["divergent"];
    assert_eq!(summary.clusters.iter().map(|cluster| cluster.count).sum::<u64>(), divergent);
}

#[test]
fn cluster_is_known_by_the_same_key_everywhere() {
    let key = |paths: [&str; 2]| {
        let mut judge = Judge::new(&JudgeConfig::default(), false);
        let divergences = paths.map(|path| divergence(DivergenceKind::Missing, path, "1", "2")).into();
        observe(&mut judge, "/a", divergences).cluster.unwrap()
    };
    assert_eq!(key(["$.a", "$.b"]), key(["$.b", "$.a"]));
    assert_ne!(key(["$.a", "$.b"]), key(["$.a", "$.c"]));
    assert_eq!(key(["$.a", "$.b"]).to_string().len(), 16);
}

#[test]
fn fields_are_told_on_both_sides() {
    let mut judge = Judge::new(&JudgeConfig::default(), false);
    let endpoint = judge.endpoint(b"GET", b"/a");
    let answer = answered(200, Duration::from_millis(20));
    for n in 0..500_u32 {
        let live = f64::from(n % 100);
        let fields = vec![FieldPair { field: 1, live: Some(live), other: Some(live * 1.1) }];
        let compared = Ok(Compared { fields, ..Compared::default() });
        judge.observe(&Seen {
            at: Timestamp::ZERO,
            endpoint: &endpoint,
            live: &answer,
            shadow: &answer,
            compared: &compared,
            control: None,
        });
    }
    let fields = judge.summary(Timestamp::ZERO).fields;
    assert_eq!((fields.len(), fields[0].live.count, fields[1].shadow.count), (2, 0, 500));
    assert!(fields[1].difference_interval.unwrap().lower > 0.0);
}
