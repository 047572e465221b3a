//! Enters: services without a control. Leaves: whether noise is proposed, and only noise.

use super::*;

/// Where the invented services are noisy.
const NOISE: [&str; 10] = [
    "$.generated_at",
    "$.served_ms",
    "$.trace_id",
    "header:x-request-id",
    "header:etag",
    "header:set-cookie",
    "$.served_by",
    "$.next_cursor",
    "$.results[].score",
    "$.tags",
];

#[test]
fn all_noise_is_proposed_and_no_bug() {
    let seed = 3;
    let mut world = World::new(seed, false, Bugs::ALL, None);
    world.run(10_000);
    let now = world.now();
    let proposals = world.judge.proposals(now);
    let paths: Vec<&str> = proposals.iter().map(|proposal| &*proposal.path).collect();
    for path in NOISE {
        assert!(paths.contains(&path), "seed {seed}: {path} of {paths:?}");
    }
    for (_, path) in BUG_PLACES {
        assert!(!paths.contains(&path), "seed {seed}: {path}");
    }
    assert!(proposals.len() <= 13, "seed {seed}: {proposals:#?}");
}

#[test]
fn unreviewed_noise_decides_nothing() {
    for seed in 0..2 {
        let mut world = World::new(seed, false, Bugs::default(), Some(GateConfig::default()));
        for _ in 0..20 {
            world.run(250);
            let summary = world.summary();
            assert_eq!(state(&summary), VerdictState::NotEnoughData, "seed {seed}: {:#?}", summary.places);
        }
        let summary = world.summary();
        assert!(summary.verdict.unwrap().reasons.contains(&"unreviewed_noise".to_owned()));
    }
}

#[test]
fn equal_versions_pass_once_proposals_are_accepted() {
    let seed = 3;
    let mut world = World::new(seed, false, Bugs::default(), Some(GateConfig::default()));
    world.run(10_000);
    world.accept_all();
    for _ in 0..5 {
        world.run(1000);
        let summary = world.summary();
        assert_ne!(state(&summary), VerdictState::Fail, "seed {seed}: {:#?}", summary.verdict);
    }
    let summary = world.summary();
    assert_eq!(state(&summary), VerdictState::Pass, "seed {seed}: {:#?}", summary.verdict);
    assert_eq!(summary.whole.results["equal"] + summary.whole.results["divergent"], 0);
    assert!(summary.whole.judged["divergent"] > 9000);
}

#[test]
fn bugs_are_found_once_proposals_are_accepted() {
    let mut world = World::new(3, false, Bugs::ALL, Some(GateConfig::default()));
    world.run(10_000);
    world.accept_all();
    world.run(20_000);
    let summary = world.summary();
    assert_eq!(state(&summary), VerdictState::Fail);
    assert!(summary.burn);
    for (endpoint, path) in BUG_PLACES {
        let found = summary.clusters.iter().take(6).any(|cluster| {
            &*cluster.endpoint == endpoint && cluster.paths.iter().any(|known| &**known == path)
        });
        assert!(found, "{endpoint} {path}: {:#?}", &summary.clusters);
    }
}

#[test]
fn remedies_are_rules_of_the_comparison() {
    let mut world = World::new(3, false, Bugs::default(), None);
    world.run(3000);
    let accepted = world.accept_all();
    let remedy = |path: &str| &accepted.iter().find(|proposal| &*proposal.path == path).unwrap().remedy;
    use crate::pipeline::compare::{Action, ArrayForm, Place};
    let Remedy::Rule(rule) = remedy("$.results[].score") else { panic!() };
    assert_eq!(rule.place, Place::Path("$.results[*].score".to_owned()));
    assert!(matches!(&rule.action, Action::Tolerate(tolerance) if tolerance.relative == 1e-12));
    assert_eq!(rule.endpoint.as_deref(), Some("GET /search"));
    let Remedy::Rule(rule) = remedy("header:etag") else { panic!() };
    assert_eq!((&rule.place, &rule.endpoint), (&Place::Header("etag".to_owned()), &None));
    let Remedy::Array(rule) = remedy("$.tags") else { panic!() };
    assert_eq!((rule.path.as_str(), &rule.form), ("$.tags", &ArrayForm::Set));
    assert!(world.accept_all().is_empty());
}

#[test]
fn counters_are_proposed_and_wrong_numbers_are_not() {
    let mut judge = Judge::new(&JudgeConfig::default(), false);
    for n in 0..400_u32 {
        let (live, other) = (n.to_string(), (n * 2 + 9).to_string());
        let price = f64::from(n * 7 % 50);
        let divergences = vec![
            divergence(DivergenceKind::Value, "$.served", &live, &other),
            divergence(DivergenceKind::Value, "$.price", &price.to_string(), &(price + 0.5).to_string()),
        ];
        observe(&mut judge, "/a", divergences);
    }
    let proposals = judge.proposals(Timestamp::ZERO);
    let found: Vec<_> = proposals.iter().map(|proposal| (&*proposal.path, proposal.looks)).collect();
    assert_eq!(found, [("$.served", Looks::Counter)]);
}

#[test]
fn accepting_explains_what_was_counted_before() {
    let mut judge = Judge::new(&JudgeConfig::default(), false);
    let timestamp = |n: u32| format!("\"2026-11-21T17:{:02}:{:02}Z\"", n / 60 % 60, n % 60);
    for n in 0..100_u32 {
        observe(
            &mut judge,
            "/a",
            vec![divergence(DivergenceKind::Value, "$.at", &timestamp(n), &timestamp(n + 1))],
        );
    }
    assert_eq!(judge.summary(Timestamp::ZERO).whole.results["divergent"], 100);
    let name = judge.proposals(Timestamp::ZERO)[0].name.clone();
    assert!(judge.accept(&["unknown"]).is_empty());
    assert_eq!(judge.accept(&[name]).len(), 1);
    let summary = judge.summary(Timestamp::ZERO);
    assert_eq!((summary.whole.results["divergent"], summary.whole.results["noise"]), (0, 100));
    assert_eq!(summary.whole.judged["divergent"], 100);
    let judged = observe(
        &mut judge,
        "/a",
        vec![divergence(DivergenceKind::Value, "$.at", &timestamp(1), &timestamp(2))],
    );
    assert_eq!((judged.result, judged.cluster), (ComparisonResult::Noise, None));
}
