//! Enters: parts that are answered or let go, by one thread or several. Leaves: exactly one exchange each.

use std::{
    sync::{Arc, Barrier},
    thread,
    time::Duration,
};

use super::{super::*, answer, comparing};
use crate::{
    io::replay::tests::request,
    pipeline::{ExchangeId, Timestamp},
};

fn shared(count: usize, bytes: usize) -> Shared {
    Shared { queue: Arc::new(CompareQueue::new(count, bytes)), budget: Arc::default() }
}

fn open(comparing: &Arc<Comparing>, id: u64) -> Arc<OpenExchange> {
    let mut request = request(b"GET / HTTP/1.1\r\n\r\n", 18);
    request.id = ExchangeId(id);
    OpenExchange::open(comparing, 3, &request).unwrap()
}

fn give(comparing: &Arc<Comparing>, part: Part, content: &str) {
    part.answered(answer("", content), comparing.budget().charge());
}

fn pop(shared: &Shared) -> Option<Exchange> {
    shared.queue.pop(Duration::ZERO)
}

fn text(answered: &Answered) -> String {
    match answered {
        Answered::Whole(answer) => String::from_utf8_lossy(&answer.content).into_owned(),
        Answered::Partly { reason, .. } | Answered::Not(reason) => format!("{{{}}}", reason.as_str()),
    }
}

fn texts(exchange: &Exchange) -> Vec<String> {
    let others = exchange.answers.iter().map(|(_, answered)| answered);
    [&exchange.live].into_iter().chain(others).map(text).collect()
}

/// Every order of so many things.
fn orders(count: usize) -> Vec<Vec<usize>> {
    if count == 0 {
        return vec![Vec::new()];
    }
    let shorter = orders(count - 1);
    let with = |order: &Vec<usize>, place: usize| {
        let mut order = order.clone();
        order.insert(place, count - 1);
        order
    };
    shorter.iter().flat_map(|order| (0..count).map(|place| with(order, place)).collect::<Vec<_>>()).collect()
}

#[test]
fn exchange_comes_out_once_with_every_answer_in_whatever_order_they_come() {
    for order in orders(4) {
        // Live, a target that answers, one that does not, one that gets no copy.
        let shared = Shared::default();
        let comparing = comparing(Some(ComparisonConfig::default()), &[&[], &[], &[]], &shared);
        let mut live = Some(open(&comparing, 0xabc));
        let mut parts: Vec<_> = (0..3).map(|target| live.as_ref().map(|open| open.part(target))).collect();
        for step in order {
            assert!(pop(&shared).is_none());
            match step {
                0 => live.take().unwrap().live_answered(answer("", "live")),
                1 => give(&comparing, parts[0].take().unwrap(), "one"),
                2 => parts[1].take().unwrap().sent(),
                _ => drop(parts[2].take()),
            }
        }
        let exchange = pop(&shared).unwrap();
        assert_eq!(texts(&exchange), ["live", "one", "{no_answer}", "{no_copy}"]);
        assert_eq!(exchange.answers.iter().map(|(target, _)| *target).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(exchange.id_text(), "0000000000000001-0003-0000000000000abc");
        assert!(pop(&shared).is_none());
        drop(exchange);
        assert_eq!(shared.budget.used(), 0);
    }
}

#[test]
fn live_answer_that_does_not_come_is_a_timeout_and_the_first_counts() {
    let shared = Shared::default();
    let comparing = comparing(Some(ComparisonConfig::default()), &[&[]], &shared);
    let part = open(&comparing, 1).part(0);
    give(&comparing, part, "one");
    assert_eq!(texts(&pop(&shared).unwrap()), ["{timeout}", "one"]);
    let live = open(&comparing, 2);
    live.live_answered(answer("", "first"));
    live.live_answered(answer("", "second"));
    drop(live);
    assert_eq!(texts(&pop(&shared).unwrap()), ["first", "{no_copy}"]);
}

#[test]
fn awaited_answers_are_bounded_by_count_and_by_age() {
    let shared = Shared::default();
    let comparing = comparing(Some(ComparisonConfig::default()), &[&[]], &shared);
    let mut awaiting = Awaiting::new(2, Duration::from_secs(30));
    let at = |seconds: u64| Timestamp::from_nanos(seconds * 1_000_000_000);
    for id in 1..=3 {
        awaiting.open(ExchangeId(id), open(&comparing, id), at(id));
    }
    assert_eq!((awaiting.len(), texts(&pop(&shared).unwrap())[0].as_str()), (2, "{busy}"));
    awaiting.expire(at(31));
    assert_eq!(awaiting.len(), 2);
    awaiting.expire(at(32));
    assert_eq!((awaiting.len(), texts(&pop(&shared).unwrap())[0].as_str()), (1, "{timeout}"));
    // A request that two experiments took.
    awaiting.open(ExchangeId(3), open(&comparing, 3), at(32));
    awaiting.answered(ExchangeId(3), &answer("", "live"));
    awaiting.answered(ExchangeId(3), &answer("", "late"));
    assert_eq!([0, 1].map(|_| texts(&pop(&shared).unwrap())[0].clone()), ["live", "live"]);
    for id in 10..10_000 {
        awaiting.open(ExchangeId(id), open(&comparing, id), at(33));
        awaiting.answered(ExchangeId(id), &answer("", "live"));
        drop(pop(&shared));
    }
    assert!(awaiting.is_empty());
    drop(awaiting);
    assert_eq!(shared.budget.used(), 0);
}

#[test]
fn what_does_not_fit_the_queue_is_counted_and_gone() {
    for (count, bytes) in [(2, usize::MAX), (100, 2500)] {
        let shared = shared(count, bytes);
        let comparing = comparing(Some(ComparisonConfig::default()), &[&[]], &shared);
        for id in 0..5 {
            drop(open(&comparing, id));
        }
        assert_eq!(shared.queue.len(), 2);
        assert_eq!(comparing.shed()[IncomparableReason::Busy.index()], 3);
        drop(pop(&shared));
        drop(open(&comparing, 6));
        assert_eq!((shared.queue.len(), comparing.shed()[IncomparableReason::Busy.index()]), (2, 3));
        shared.queue.close();
        drop(open(&comparing, 7));
        drop((pop(&shared), pop(&shared)));
        assert_eq!((pop(&shared).is_none(), shared.queue.bytes(), shared.budget.used()), (true, 0, 0));
        assert_eq!(comparing.shed()[IncomparableReason::Busy.index()], 4);
    }
}

#[test]
fn without_memory_nothing_is_opened_and_a_live_answer_is_not_kept() {
    let shared = Shared { queue: Arc::default(), budget: Arc::new(Budget::new(1100)) };
    let comparing = comparing(Some(ComparisonConfig::default()), &[&[]], &shared);
    let live = open(&comparing, 1);
    assert!(OpenExchange::open(&comparing, 0, &request(b"x", 1)).is_none());
    assert_eq!(comparing.shed()[IncomparableReason::Memory.index()], 1);
    live.live_answered(answer("", &"x".repeat(200)));
    drop(live);
    let exchange = pop(&shared).unwrap();
    assert_eq!((texts(&exchange)[0].as_str(), exchange.live.status()), ("{memory}", Some(200)));
}

#[test]
fn excluded_requests_and_those_read_for_sessions_alone_are_not_handed_on() {
    let shared = Shared::default();
    let with_sessions = comparing(None, &[&[super::cookie("sid")]], &shared);
    drop(open(&with_sessions, 1));
    assert!(shared.queue.is_empty());
    let rule = crate::pipeline::policy::Rule::of_methods(crate::pipeline::policy::Methods::All);
    let excluding = Comparing::new(
        (ExperimentId(1), "orders"),
        Some(ComparisonConfig::default()),
        Some(Exclusion::new(vec![rule])),
        Vec::new(),
        (1, shared.clone()),
    );
    let request = request(b"GET / HTTP/1.1\r\n\r\n", 18);
    assert!(OpenExchange::open(&Arc::new(excluding), 0, &request).is_none());
    assert_eq!(shared.budget.used(), 0);
}

#[test]
fn threads_that_answer_at_once_make_one_exchange_each() {
    const EXCHANGES: u64 = 20_000;
    const TARGETS: usize = 2;
    let shared = shared(usize::MAX, usize::MAX);
    let comparing = comparing(Some(ComparisonConfig::default()), &[&[], &[]], &shared);
    let barrier = Arc::new(Barrier::new(TARGETS + 1));
    let opened: Vec<_> = (0..EXCHANGES).map(|id| open(&comparing, id)).collect();
    let of_targets: Vec<_> = (0..TARGETS)
        .map(|target| {
            let parts: Vec<_> = opened.iter().map(|open| open.part(target)).collect();
            let (comparing, barrier) = (Arc::clone(&comparing), Arc::clone(&barrier));
            thread::spawn(move || {
                barrier.wait();
                for (number, mut part) in parts.into_iter().enumerate() {
                    match number % 3 {
                        0 => give(&comparing, part, "one"),
                        1 => part.sent(),
                        _ => drop(part),
                    }
                }
            })
        })
        .collect();
    let consumer = {
        let queue = Arc::clone(&shared.queue);
        thread::spawn(move || {
            let mut seen = vec![0_u32; usize::try_from(EXCHANGES).unwrap()];
            while let Some(exchange) = queue.pop(Duration::from_secs(5)) {
                let number = exchange.request.id.0;
                seen[usize::try_from(number).unwrap()] += 1;
                let expected = ["one", "{no_answer}", "{no_copy}"][usize::try_from(number % 3).unwrap()];
                assert_eq!(texts(&exchange), ["live", expected, expected]);
                if seen.iter().all(|count| *count > 0) {
                    break;
                }
            }
            seen
        })
    };
    barrier.wait();
    for open in opened {
        open.live_answered(answer("", "live"));
    }
    of_targets.into_iter().for_each(|thread| thread.join().unwrap());
    assert!(consumer.join().unwrap().iter().all(|count| *count == 1));
    assert_eq!((shared.queue.len(), shared.queue.bytes(), shared.budget.used()), (0, 0, 0));
    assert!(comparing.shed().iter().all(|count| *count == 0));
}
