//! Enters: invented services. Leaves: what a judge makes of them.

mod books;
mod control;
mod gate;
mod learned;
mod portion;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use super::*;
use crate::pipeline::{
    Answer, Timing,
    compare::{Divergence, FieldPair},
    reason::{DivergenceKind, UntimedReason, VerdictState},
};

/// A small generator of random numbers (SplitMix64).
pub(super) struct Random(pub(super) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn chance(&mut self, share: f64) -> bool {
        self.unit() < share
    }

    fn below(&mut self, most: u64) -> u64 {
        self.next() % most
    }
}

/// Bugs that a shadow may have.
#[derive(Clone, Copy, Debug, Default)]
struct Bugs {
    rounding: bool,
    missing: bool,
    type_change: bool,
    reordered: bool,
    wrong_status: bool,
    header_lost: bool,
    slow_tail: bool,
}

impl Bugs {
    const ALL: Self = Self {
        rounding: true,
        missing: true,
        type_change: true,
        reordered: true,
        wrong_status: true,
        header_lost: true,
        slow_tail: true,
    };
}

/// Where bugs show, by endpoint and path.
const BUG_PLACES: [(&str, &str); 6] = [
    ("POST /quotes", "$.total"),
    ("GET /orders/{id}", "$.delivery.carrier"),
    ("GET /loyalty/{id}", "$.points"),
    ("GET /search", "$.results"),
    ("GET /shipping/{id}", "status"),
    ("GET /products/{id}", "header:cache-control"),
];

/// A service in two versions, the noise of all its answers, and the judge of the second.
struct World {
    random: Random,
    judge: Judge,
    has_control: bool,
    bugs: Bugs,
    number: u64,
    explained: Vec<String>,
}

impl World {
    fn new(seed: u64, has_control: bool, bugs: Bugs, gate: Option<GateConfig>) -> Self {
        let config = JudgeConfig { gate, ..JudgeConfig::default() };
        let judge = Judge::new(&config, has_control);
        Self { random: Random(seed), judge, has_control, bugs, number: 0, explained: Vec::new() }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_nanos(self.number * 2_500_000)
    }

    fn summary(&mut self) -> Summary {
        let now = self.now();
        self.judge.summary(now)
    }

    fn run(&mut self, exchanges: u64) {
        for _ in 0..exchanges {
            self.exchange();
        }
    }

    fn accept_all(&mut self) -> Vec<Proposal> {
        let now = self.now();
        let names: Vec<_> = self.judge.proposals(now).into_iter().map(|proposal| proposal.name).collect();
        let accepted = self.judge.accept(&names);
        assert_eq!(accepted.len(), names.len());
        self.explained.extend(accepted.iter().map(|proposal| proposal.path.to_string()));
        accepted
    }

    fn exchange(&mut self) {
        self.number += 1;
        let (method, target) = match self.random.below(1000) {
            0..300 => ("GET", format!("/orders/{}", self.number)),
            300..550 => ("GET", format!("/products/{}", self.number)),
            550..750 => ("GET", "/search?q=1".to_owned()),
            750..900 => ("POST", "/quotes".to_owned()),
            900..998 => ("GET", format!("/loyalty/{}", self.number)),
            _ => ("GET", format!("/shipping/{}", self.number)),
        };
        let endpoint = self.judge.endpoint(method.as_bytes(), target.as_bytes());
        let at = self.now();
        let (status, mut divergences) = self.bugs_of(&endpoint);
        divergences.extend(self.noise_of(&endpoint));
        let compared = Ok(self.compared(divergences));
        let control_compared = Ok(Compared { divergences: self.noise_of(&endpoint), ..Compared::default() });
        let live = self.answer(200, false);
        let shadow = self.answer(status, self.bugs.slow_tail);
        let control = self.answer(200, false);
        self.judge.observe(&Seen {
            at,
            endpoint: &endpoint,
            live: &live,
            shadow: &shadow,
            compared: &compared,
            control: self.has_control.then_some((&control, &control_compared)),
        });
    }

    /// What a comparison says that knows the rules that were accepted.
    fn compared(&self, mut divergences: Vec<Divergence>) -> Compared {
        let before = divergences.len();
        divergences.retain(|divergence| {
            let is_noise = !BUG_PLACES.iter().any(|(_, path)| *path == &*divergence.path);
            !(is_noise && self.explained.iter().any(|path| *path == *divergence.path))
        });
        let explained = (divergences.len() < before)
            .then(|| crate::pipeline::compare::Explained { rule: 0, path: Arc::from("$") });
        Compared { divergences, explained: explained.into_iter().collect(), ..Compared::default() }
    }

    fn bugs_of(&mut self, endpoint: &str) -> (u16, Vec<Divergence>) {
        let mut found = Vec::new();
        let mut status = 200;
        match endpoint {
            "POST /quotes" if self.bugs.rounding && self.random.chance(0.05) => {
                let cents = self.random.below(9000) as f64 / 100.0;
                let (live, other) = (format!("{:.5}", cents + 0.00005), format!("{:.4}", cents + 0.0001));
                found.push(divergence(DivergenceKind::Value, "$.total", &live, &other));
            }
            "GET /orders/{id}" if self.bugs.missing && self.random.chance(0.01) => {
                found.push(lacking(DivergenceKind::Missing, "$.delivery.carrier", "\"dhl\""));
            }
            "GET /loyalty/{id}" if self.bugs.type_change => {
                found.push(divergence(DivergenceKind::Type, "$.points", "12", "\"12\""));
            }
            "GET /search" if self.bugs.reordered && self.random.chance(0.1) => {
                let sku = self.random.below(50);
                let (live, other) = (format!("{{\"sku\":{sku}}}"), format!("{{\"sku\":{}}}", sku + 1));
                found.push(divergence(DivergenceKind::Order, "$.results", &live, &other));
            }
            "GET /shipping/{id}" if self.bugs.wrong_status => {
                status = 404;
                found.push(divergence(DivergenceKind::Status, "status", "200", "404"));
            }
            "GET /products/{id}" if self.bugs.header_lost && self.random.chance(0.025) => {
                found.push(lacking(DivergenceKind::Header, "header:cache-control", "max-age=60"));
            }
            _ => {}
        }
        (status, found)
    }

    /// What two copies of the same version never agree on.
    fn noise_of(&mut self, endpoint: &str) -> Vec<Divergence> {
        use DivergenceKind::{Header, Order, Value};
        let seconds = self.number / 400 % 50;
        let timestamp =
            |offset: u64| format!("\"2026-11-21T17:05:{:02}.{:06}Z\"", seconds + offset, self.number);
        let mut found = vec![
            divergence(Value, "$.generated_at", &timestamp(0), &timestamp(3)),
            divergence(
                Value,
                "$.served_ms",
                &format!("17952803{:05}", self.number % 90_000),
                &format!("17952803{:05}", self.number % 90_000 + 7),
            ),
        ];
        let mut uuid =
            || format!("{:08x}-1111-4222-8333-{:012x}", self.random.next() >> 32, self.random.next() >> 16);
        found.push(divergence(Value, "$.trace_id", &uuid(), &uuid()));
        let mut hex = |length: usize| {
            format!("{:032x}", u128::from(self.random.next()) << 64 | u128::from(self.random.next()))
                [..length]
                .to_owned()
        };
        found.push(divergence(Header, "header:x-request-id", &hex(24), &hex(24)));
        found.push(divergence(
            Header,
            "header:etag",
            &format!("W/\"{}\"", hex(16)),
            &format!("W/\"{}\"", hex(16)),
        ));
        let cookie = |id: String| format!("session={id}; Path=/; HttpOnly");
        found.push(divergence(Header, "header:set-cookie", &cookie(hex(20)), &cookie(hex(20))));
        let hosts = ["\"shop-a1b2c-1d2e3\"", "\"shop-99f0a-7c4d5\"", "\"shop-5c3d2-e8f90\""];
        let (live, other) = (self.random.below(3) as usize, self.random.below(3) as usize);
        if live != other {
            found.push(divergence(Value, "$.served_by", hosts[live], hosts[other]));
        }
        if endpoint == "GET /search" {
            let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
            let mut cursor = || -> String {
                (0..43).map(|_| char::from(letters[self.random.below(64) as usize])).collect()
            };
            found.push(divergence(Value, "$.next_cursor", &cursor(), &cursor()));
            if self.random.chance(0.4) {
                found.push(divergence(Value, "$.results[].score", "0.7300000000000001", "0.73"));
            }
        }
        if endpoint == "GET /products/{id}" && self.random.chance(0.83) {
            let tags = ["\"new\"", "\"red\"", "\"sale\""];
            let first = self.random.below(3);
            let second = (first + 1 + self.random.below(2)) % 3;
            found.push(divergence(Order, "$.tags", tags[first as usize], tags[second as usize]));
        }
        found
    }

    fn answer(&mut self, status: u16, is_slow: bool) -> Answered {
        let mut time = 20.0 + (0..4).map(|_| self.random.unit()).sum::<f64>() - 2.0;
        // The slowest tenth of them.
        if is_slow && time > 20.75 {
            time *= 1.2;
        }
        answered(status, Duration::from_secs_f64(time / 1000.0))
    }
}

fn answered(status: u16, took: Duration) -> Answered {
    let asked_at = Timestamp::from_nanos(1_000_000_000);
    let first_byte_at = asked_at.after(took);
    let last_byte_at = first_byte_at.after(Duration::from_micros(50));
    let timing = Timing { asked_at, first_byte_at, last_byte_at, round_trip: Duration::from_micros(10) };
    Answered::Whole(Answer { status, head: Bytes::new(), content: Bytes::new(), timing: Ok(timing) })
}

fn divergence(kind: DivergenceKind, path: &str, live: &str, other: &str) -> Divergence {
    Divergence {
        kind,
        path: Arc::from(path),
        place: path.to_owned(),
        other_place: None,
        live: Some(live.to_owned()),
        other: Some(other.to_owned()),
    }
}

fn lacking(kind: DivergenceKind, path: &str, live: &str) -> Divergence {
    Divergence { other: None, ..divergence(kind, path, live, "") }
}

/// Observes an exchange of one endpoint that takes no time.
fn observe(judge: &mut Judge, target: &str, divergences: Vec<Divergence>) -> Judged {
    let endpoint = judge.endpoint(b"GET", target.as_bytes());
    let answer = answered(200, Duration::from_millis(20));
    judge.observe(&Seen {
        at: Timestamp::ZERO,
        endpoint: &endpoint,
        live: &answer,
        shadow: &answer,
        compared: &Ok(Compared { divergences, ..Compared::default() }),
        control: None,
    })
}

fn state(summary: &Summary) -> VerdictState {
    summary.verdict.as_ref().unwrap().state
}

/// How the state of a check by this name of the whole reads.
fn check(summary: &Summary, name: CheckName) -> &Check {
    let verdict = summary.verdict.as_ref().unwrap();
    verdict.checks.iter().find(|check| check.endpoint.is_none() && check.name == name).unwrap()
}
