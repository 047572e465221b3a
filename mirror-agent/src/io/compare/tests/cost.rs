//! Enters: answers that mean harm. Leaves: proof that the thread that compares is soon done with them.

use super::*;
use crate::pipeline::compare::{Action, CompareRules, Comparer, Place, Rule};

#[test]
fn differences_cost_the_same_however_deep_they_are() {
    let ignored = Rule {
        name: "numbers".to_owned(),
        place: Place::Path("$..[*]".to_owned()),
        endpoint: None,
        action: Action::Ignore,
    };
    for rules in [vec![], vec![ignored]] {
        let comparer = Comparer::new(&CompareRules { rules, ..CompareRules::default() }).unwrap();
        let time = |depth| {
            let [live, other] = ["1", "2"].map(|number| array(depth, number));
            let start = processor_time();
            comparer.compare("GET /", &comparer.prepare(&live).unwrap(), &other).unwrap();
            processor_time() - start
        };
        let least = |depth| (0..3).map(|_| time(depth)).min().unwrap();

        let (flat, deep) = (least(1), least(126));

        assert!(deep < 4 * flat, "{deep:?} against {flat:?}");
    }
}

/// An answer with an array of so much of `number`, within as many objects as `depth` says.
fn array(depth: usize, number: &str) -> Answer {
    let (begin, end) = ("{\"é\":".repeat(depth), "}".repeat(depth));
    let content = format!("{begin}[{}]{end}", vec![number; 20_000].join(","));
    let Answered::Whole(answer) = answer("content-type: application/json\r\n", &content) else {
        panic!("an answer that is not whole");
    };
    answer
}

/// For how long this thread has run.
fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}
