//! Enters: services with a control. Leaves: whether noise is told from bugs.

use super::*;

#[test]
fn every_bug_is_found_and_ranked_above_all_noise() {
    let seed = 3;
    let mut world = World::new(seed, true, Bugs::ALL, Some(GateConfig::default()));
    world.run(30_000);
    let summary = world.summary();
    assert_eq!(state(&summary), VerdictState::Fail, "seed {seed}");
    for (endpoint, path) in BUG_PLACES {
        let place = summary.places.iter().find(|place| &*place.endpoint == endpoint && &*place.path == path);
        assert!(place.is_some_and(|place| place.counts), "seed {seed}: {endpoint} {path}: {place:?}");
    }
    let is_bug = |cluster: &ClusterSummary| {
        let has = |(endpoint, path): &(&str, &str)| {
            *endpoint == &*cluster.endpoint && cluster.paths.iter().any(|known| **known == **path)
        };
        BUG_PLACES.iter().any(has)
    };
    let bugs = summary.clusters.iter().take_while(|cluster| is_bug(cluster)).count();
    assert!(bugs >= 6, "seed {seed}: {bugs} of {:#?}", &summary.clusters[..8.min(summary.clusters.len())]);
    assert!(summary.places.iter().filter(|place| place.counts).count() == 6, "seed {seed}");
}

#[test]
fn equal_versions_never_fail_however_often_one_looks() {
    for seed in 0..4 {
        let mut world = World::new(seed, true, Bugs::default(), Some(GateConfig::default()));
        for _ in 0..10 {
            world.run(500);
            let summary = world.summary();
            assert_ne!(state(&summary), VerdictState::Fail, "seed {seed}: {:#?}", summary.verdict);
        }
        let summary = world.summary();
        assert_eq!(state(&summary), VerdictState::Pass, "seed {seed}: {:?}", summary.verdict);
        assert!(summary.whole.divergence.point < 0.002, "seed {seed}: {:?}", summary.whole.divergence);
    }
}

#[test]
fn exchanges_of_noise_alone_are_noise() {
    let mut world = World::new(1, true, Bugs::default(), None);
    world.run(5000);
    let summary = world.summary();
    assert!(summary.whole.results["noise"] > 4990, "{:?}", summary.whole.results);
    assert!(summary.verdict.is_none() && !summary.burn && summary.proposals.is_empty());
}

#[test]
fn handful_of_samples_convicts_nothing() {
    let mut judge = Judge::new(&JudgeConfig::default(), true);
    let answer = answered(200, Duration::from_millis(20));
    let endpoint = judge.endpoint(b"GET", b"/");
    let nothing = Ok(Compared::default());
    for n in 0..200 {
        let divergences =
            if n % 40 == 0 { vec![divergence(DivergenceKind::Value, "$.a", "1", "2")] } else { vec![] };
        judge.observe(&Seen {
            at: Timestamp::ZERO,
            endpoint: &endpoint,
            live: &answer,
            shadow: &answer,
            compared: &Ok(Compared { divergences, ..Compared::default() }),
            control: Some((&answer, &nothing)),
        });
    }
    let summary = judge.summary(Timestamp::ZERO);
    assert!(summary.places.iter().all(|place| !place.counts));
    assert_eq!(summary.whole.divergence.low, Some(0.0));
    assert_eq!(summary.whole.results["divergent"], 5);
}

#[test]
fn bug_at_a_place_that_is_noisy_is_found_by_its_excess() {
    let mut random = Random(5);
    let mut judge =
        Judge::new(&JudgeConfig { gate: Some(GateConfig::default()), ..JudgeConfig::default() }, true);
    let endpoint = judge.endpoint(b"GET", b"/");
    let answer = answered(200, Duration::from_millis(20));
    let mut compared = |share: f64| {
        let divergences = random.chance(share).then(|| divergence(DivergenceKind::Order, "$.a", "1", "2"));
        Ok(Compared { divergences: divergences.into_iter().collect(), ..Compared::default() })
    };
    for _ in 0..20_000 {
        let (shadow, control) = (compared(0.5), compared(0.2));
        judge.observe(&Seen {
            at: Timestamp::ZERO,
            endpoint: &endpoint,
            live: &answer,
            shadow: &answer,
            compared: &shadow,
            control: Some((&answer, &control)),
        });
    }
    let summary = judge.summary(Timestamp::ZERO);
    let figure = summary.whole.divergence;
    assert!(figure.low.unwrap() > 0.2 && figure.high.unwrap() < 0.4, "{figure:?}");
    assert_eq!(state(&summary), VerdictState::Fail);
}

#[test]
fn what_a_cut_list_leaves_out_convicts_nothing() {
    for misses_places in [true, false] {
        let mut judge = Judge::new(&JudgeConfig::default(), true);
        let endpoint = judge.endpoint(b"GET", b"/");
        let answer = answered(200, Duration::from_millis(20));
        let compared = |path: &str| {
            let divergences = vec![divergence(DivergenceKind::Type, path, "1", "true")];
            Ok(Compared { divergences, misses_places, ..Compared::default() })
        };
        for _ in 0..1000 {
            judge.observe(&Seen {
                at: Timestamp::ZERO,
                endpoint: &endpoint,
                live: &answer,
                shadow: &answer,
                compared: &compared("$.z"),
                control: Some((&answer, &compared("$.a"))),
            });
        }
        let summary = judge.summary(Timestamp::ZERO);
        let convicted = summary.places.iter().filter(|place| place.counts).count();
        assert_eq!(convicted, usize::from(!misses_places), "{:?}", summary.places);
    }
}

#[test]
fn control_that_cannot_be_compared_decides_nothing() {
    let config = JudgeConfig { gate: Some(GateConfig::default()), ..JudgeConfig::default() };
    let mut judge = Judge::new(&config, true);
    for _ in 0..3000 {
        observe(&mut judge, "/a", vec![divergence(DivergenceKind::Type, "$.a", "1", "true")]);
    }
    let summary = judge.summary(Timestamp::ZERO);
    assert_eq!(state(&summary), VerdictState::NotEnoughData);
    assert_eq!(check(&summary, CheckName::Divergence).reason, Some(UndecidedReason::NoControl));
}
