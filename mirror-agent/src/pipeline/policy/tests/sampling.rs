//! Enters: many users. Leaves: how many of them, and which, are in a sample.

use proptest::prelude::*;

use super::*;

const USERS: u32 = 4000;

fn by_user() -> SampleBy {
    SampleBy::Header("x-user".to_owned())
}

/// Whether each of the users is in; a request's own draw must make no difference.
fn members(policy: &Policy, seed: u32, draw: u64) -> Vec<bool> {
    let flow = flow_of("192.0.2.1:40000");
    let is_in = |user: u32| {
        let raw = format!("GET / HTTP/1.1\r\nx-user: user-{seed}-{user}\r\n\r\n");
        decide_bytes(policy, &flow, raw.as_bytes(), mix(draw ^ u64::from(user))).is_ok()
    };
    (0..USERS).map(is_in).collect()
}

fn count(members: &[bool]) -> f64 {
    f64::from(u32::try_from(members.iter().filter(|is_in| **is_in).count()).unwrap())
}

/// Six standard deviations of a binomial distribution: exceeded once in 500 million draws.
fn bound(probability: f64) -> f64 {
    6.0 * (f64::from(USERS) * probability * (1.0 - probability)).sqrt() + 0.5
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_share_is_within_the_binomial_bound(
        name in "[a-z0-9-]{1,20}",
        percent in prop_oneof![0.0..=100.0_f64, 0.0..=1.0_f64],
        seed in any::<u32>(),
    ) {
        let policy = sampling(&name, percent, &by_user(), WithoutKey::Skip);
        let taken = count(&members(&policy, seed, 1));
        let probability = percent / 100.0;
        prop_assert!(
            (taken - f64::from(USERS) * probability).abs() <= bound(probability),
            "{taken} of {USERS} for {percent} %"
        );
    }

    #[test]
    fn a_user_is_in_or_out_everywhere_and_always(
        name in "[a-z0-9-]{1,20}",
        percent in 0.0..=100.0_f64,
        seed in any::<u32>(),
        draws in any::<[u64; 2]>(),
        before in 0_usize..3,
    ) {
        let here = sampling(&name, percent, &by_user(), WithoutKey::Skip);
        // Another agent: other experiments before it, another number.
        let mut others: Vec<Experiment> = vec![Experiment { ports: vec![1], ..Experiment::default() }; before];
        others.push(Experiment { id: ExperimentId(77), ..here.experiments()[0].clone() });
        let there = Policy::new(others);
        prop_assert_eq!(members(&here, seed, draws[0]), members(&there, seed, draws[1]));
    }

    #[test]
    fn raising_the_percentage_keeps_those_who_were_in(
        name in "[a-z0-9-]{1,20}",
        percents in any::<[u8; 2]>(),
        seed in any::<u32>(),
    ) {
        let [less, more] = [percents[0].min(percents[1]), percents[0].max(percents[1])]
            .map(|percent| f64::from(percent) * 100.0 / 255.0)
            .map(|percent| members(&sampling(&name, percent, &by_user(), WithoutKey::Skip), seed, 1));
        prop_assert!(less.iter().zip(&more).all(|(was_in, is_in)| !was_in || *is_in));
    }

    #[test]
    fn experiments_are_independent(
        names in ("[a-z0-9-]{1,20}", "[a-z0-9-]{1,20}"),
        percents in (5.0..=95.0_f64, 5.0..=95.0_f64),
        seed in any::<u32>(),
    ) {
        prop_assume!(names.0 != names.1);
        let first = members(&sampling(&names.0, percents.0, &by_user(), WithoutKey::Skip), seed, 1);
        let second = members(&sampling(&names.1, percents.1, &by_user(), WithoutKey::Skip), seed, 1);
        let both: Vec<_> = first.iter().zip(&second).map(|(first, second)| *first && *second).collect();
        let probability = percents.0 * percents.1 / 10_000.0;
        prop_assert!((count(&both) - f64::from(USERS) * probability).abs() <= bound(probability));
    }
}

#[test]
fn experiments_that_draw_for_each_request_are_independent() {
    let [first, second] = ["a", "b"].map(|name| sampling(name, 50.0, &SampleBy::Request, WithoutKey::Skip));
    let both: Vec<_> = members(&first, 1, 5)
        .iter()
        .zip(members(&second, 1, 5))
        .map(|(first, second)| *first && second)
        .collect();
    assert!((count(&both) - f64::from(USERS) / 4.0).abs() <= bound(0.25), "{}", count(&both));
}

#[test]
fn the_sample_of_requests_is_as_large_as_asked_for() {
    for (percent, low, high) in
        [(0.0, 0, 0), (0.5, 400, 600), (10.0, 9_700, 10_300), (100.0, 100_000, 100_000)]
    {
        let policy = sampling("a", percent, &SampleBy::Request, WithoutKey::Skip);
        let is_taken = |id: &u64| decide(&policy, "GET / HTTP/1.1", mix(7 ^ *id)).is_ok();
        let taken = (0..100_000).filter(is_taken).count();
        assert!((low..=high).contains(&taken), "{percent} %: {taken}");
    }
    assert_eq!(Share::from_percent(100.1), None);
    assert_eq!(Share::from_percent(f64::NAN), None);
}

#[test]
fn who_is_in_is_the_same_in_every_release() {
    let policy = sampling("orders-v2", 10.0, &by_user(), WithoutKey::Skip);
    // As a SipHash-2-4 written for this alone says.
    let is_in = |user: &u32| decide(&policy, &format!("GET / HTTP/1.1\r\nx-user: {user}"), 1).is_ok();
    let members: Vec<_> = (0..100).filter(is_in).collect();
    assert_eq!(members, [0, 9, 17, 39, 41, 47, 66, 74, 78, 91, 98]);
    assert_eq!(connection_key("orders-v2"), 16_762_020_554_962_428_150);
}
