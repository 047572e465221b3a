//! Enters: services with one fault. Leaves: whether the gate holds them up, and only them.

use super::*;

fn gated(seed: u64, has_control: bool, bugs: Bugs) -> World {
    World::new(seed, has_control, bugs, Some(GateConfig::default()))
}

#[test]
fn slow_tail_is_found_with_five_thousand_exchanges() {
    for has_control in [true, false] {
        for seed in 0..2 {
            let mut world = gated(seed, has_control, Bugs { slow_tail: true, ..Bugs::default() });
            world.run(5000);
            let summary = world.summary();
            let p95 = check(&summary, CheckName::P95);
            assert_eq!(p95.state, VerdictState::Fail, "seed {seed}: {p95:?}");
            let ratio = summary.whole.p95.ratio.unwrap();
            assert!(ratio.low.unwrap() > 1.1 && ratio.point < 1.25, "{ratio:?}");
        }
    }
}

#[test]
fn equal_service_times_pass() {
    let mut world = gated(1, true, Bugs::default());
    world.run(3000);
    let summary = world.summary();
    assert_eq!(check(&summary, CheckName::P95).state, VerdictState::Pass);
    let time =
        summary.whole.times.iter().find(|time| time.of == Of::Live && time.phase == Phase::Last).unwrap();
    assert!(time.p50.low.unwrap() <= 0.02004 && 0.02004 <= time.p50.high.unwrap(), "{time:?}");
    assert!((summary.whole.round_trips["live"] - 1e-5).abs() < 1e-9);
}

#[test]
fn nothing_is_said_before_there_are_enough_samples() {
    let mut world = gated(1, true, Bugs::ALL);
    world.run(900);
    let summary = world.summary();
    assert_eq!(state(&summary), VerdictState::NotEnoughData);
    assert_eq!(summary.verdict.unwrap().reasons, ["too_few_samples"]);
}

#[test]
fn errors_beyond_the_limit_fail() {
    let config = JudgeConfig { gate: Some(GateConfig::default()), ..JudgeConfig::default() };
    let mut judge = Judge::new(&config, false);
    let endpoint = judge.endpoint(b"GET", b"/a");
    let live = answered(200, Duration::from_millis(20));
    let none = Answered::Not(IncomparableReason::NoAnswer);
    let unknown = Answered::Not(IncomparableReason::NoCopy);
    for n in 0..4000_u32 {
        let (shadow, compared) = match n {
            _ if n % 50 == 0 => (&none, Err(IncomparableReason::NoAnswer)),
            _ if n % 50 == 1 => (&unknown, Err(IncomparableReason::NoCopy)),
            _ => (&live, Ok(Compared::default())),
        };
        let seen = Seen {
            at: Timestamp::ZERO,
            endpoint: &endpoint,
            live: &live,
            shadow,
            compared: &compared,
            control: None,
        };
        judge.observe(&seen);
    }
    let summary = judge.summary(Timestamp::ZERO);
    assert_eq!(check(&summary, CheckName::Errors).state, VerdictState::Fail);
    assert_eq!(check(&summary, CheckName::Divergence).state, VerdictState::Pass);
    let errors = &summary.whole.errors;
    assert_eq!((errors.known["shadow"], errors.errors["shadow"], errors.errors["live"]), (3920, 80, 0));
    assert_eq!(summary.whole.incomparable["no_copy"], 80);
}

#[test]
fn target_that_does_not_end_its_answers_fails_and_live_does_not() {
    let cut = Answered::Partly {
        status: 200,
        reason: IncomparableReason::Aborted,
        timing: Err(UntimedReason::Unknown),
    };
    let whole = answered(200, Duration::from_millis(20));
    for (is_live, expected) in [(false, VerdictState::Fail), (true, VerdictState::Pass)] {
        let config = JudgeConfig { gate: Some(GateConfig::default()), ..JudgeConfig::default() };
        let mut judge = Judge::new(&config, false);
        let endpoint = judge.endpoint(b"GET", b"/a");
        for n in 0..4000_u32 {
            let is_cut = n % 20 == 0;
            let compared = if is_cut { Err(IncomparableReason::Aborted) } else { Ok(Compared::default()) };
            let seen = Seen {
                at: Timestamp::ZERO,
                endpoint: &endpoint,
                live: if is_cut && is_live { &cut } else { &whole },
                shadow: if is_cut && !is_live { &cut } else { &whole },
                compared: &compared,
                control: None,
            };
            judge.observe(&seen);
        }
        assert_eq!(check(&judge.summary(Timestamp::ZERO), CheckName::Errors).state, expected);
    }
}

#[test]
fn rare_endpoint_that_always_diverges_fails() {
    let mut world = gated(1, true, Bugs { wrong_status: true, ..Bugs::default() });
    world.run(30_000);
    let summary = world.summary();
    assert_eq!(state(&summary), VerdictState::Fail);
    assert_eq!(summary.verdict.unwrap().reasons, ["divergence GET /shipping/{id}"]);
    assert!(summary.whole.divergence.high.unwrap() < 0.01 && !summary.burn);
}

#[test]
fn window_forgets_what_was_wrong() {
    let window = Some(Duration::from_secs(12));
    let gate = GateConfig { window, min_samples: 100, ..GateConfig::default() };
    let mut judge = Judge::new(&JudgeConfig { gate: Some(gate), ..JudgeConfig::default() }, false);
    let endpoint = judge.endpoint(b"GET", b"/a");
    let answer = answered(200, Duration::from_millis(20));
    let wrong = Compared {
        divergences: vec![divergence(DivergenceKind::Type, "$.a", "1", "true")],
        ..Compared::default()
    };
    let mut states = Vec::new();
    for n in 0..30_000_u64 {
        let at = Timestamp::from_nanos(n * 1_000_000);
        let compared = Ok(if n < 5000 { wrong.clone() } else { Compared::default() });
        judge.observe(&Seen {
            at,
            endpoint: &endpoint,
            live: &answer,
            shadow: &answer,
            compared: &compared,
            control: None,
        });
        if n == 4999 || n == 29_999 {
            states.push(state(&judge.summary(at)));
        }
    }
    assert_eq!(states, [VerdictState::Fail, VerdictState::Pass]);
}

#[test]
fn untimed_answers_are_counted_and_decide_nothing() {
    let config = JudgeConfig { gate: Some(GateConfig::default()), ..JudgeConfig::default() };
    let mut judge = Judge::new(&config, false);
    let endpoint = judge.endpoint(b"GET", b"/a");
    let live = answered(200, Duration::from_millis(20));
    let shadow = Answered::Whole(Answer {
        status: 200,
        head: Bytes::new(),
        content: Bytes::new(),
        timing: Err(UntimedReason::Pipelined),
    });
    for _ in 0..5000 {
        let compared = Ok(Compared::default());
        judge.observe(&Seen {
            at: Timestamp::ZERO,
            endpoint: &endpoint,
            live: &live,
            shadow: &shadow,
            compared: &compared,
            control: None,
        });
    }
    let summary = judge.summary(Timestamp::ZERO);
    assert_eq!(summary.whole.untimed["pipelined"], 5000);
    assert_eq!(summary.verdict.as_ref().unwrap().reasons, ["untimed"]);
    assert!(summary.whole.times.is_empty());
}
