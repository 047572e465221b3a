//! Enters: exchanges made up. Leaves: whether what is kept of them is bounded, fair, and without secrets.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;

use super::{Evidence, Record, Told};
use crate::{
    io::{config::EvidenceConfig, replay::tests::request},
    pipeline::{
        Answer, Answered,
        compare::{Compared, Divergence},
        reason::{ComparisonResult, DivergenceKind, IncomparableReason, UntimedReason},
        redact::{RedactRules, Redactor},
    },
};

/// A record of an exchange with `secret` in each place where a secret is known.
pub(in crate::io) fn record(exchange: &str, secret: &str, result: ComparisonResult) -> Record {
    let answer = |price: &str| {
        Answered::Whole(Answer {
            status: 200,
            head: Bytes::from(format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nset-cookie: sid={secret}\r\n\r\n"
            )),
            content: Bytes::from(format!("{{\"price\":{price},\"token\":\"{secret}\"}}")),
            timing: Err(UntimedReason::Unknown),
        })
    };
    let raw = format!(
        "POST /orders?token={secret} HTTP/1.1\r\nAuthorization: Bearer {secret}\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Transfer-Encoding: chunked\r\n\r\n{:x}\r\npassword={secret}\r\n0\r\n\r\n",
        secret.len() + 9
    );
    let request = request(raw.as_bytes(), raw.find("\r\n\r\n").unwrap() + 4);
    let divergence = |place: &str, live: &str, other: &str| Divergence {
        kind: DivergenceKind::Value,
        path: Arc::from(place),
        place: place.to_owned(),
        other_place: None,
        live: Some(live.to_owned()),
        other: Some(other.to_owned()),
    };
    let compared = Ok(Compared {
        divergences: vec![divergence("$.price", "1", "1.5"), divergence("$.token", secret, "x")],
        ..Compared::default()
    });
    let told = Told {
        at: UNIX_EPOCH,
        exchange,
        experiment: "orders",
        target: "v2",
        endpoint: "POST /orders",
        request: &request,
        live: &answer("1"),
        shadow: &answer("1.5"),
        control: Some(&Answered::Not(IncomparableReason::NoAnswer)),
        compared: &compared,
        result,
        reason: None,
        cluster: Some(7),
    };
    Record::new(&told, &Redactor::new(&RedactRules::default(), [1, 2]).unwrap(), 10_000)
}

fn config(clusters: usize, samples: usize, bytes: u64) -> EvidenceConfig {
    EvidenceConfig { clusters, samples, retention: Duration::from_secs(100), bytes }
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn sample(evidence: &mut Evidence, cluster: u64, now: SystemTime, draw: u64) {
    if let Some(slot) = evidence.observe(cluster, now, draw, || format!("cluster {cluster}")) {
        evidence.keep(slot, Arc::new(record(&draw.to_string(), "s3cret", ComparisonResult::Divergent)));
    }
}

#[test]
fn a_record_tells_what_happened_without_the_secrets() {
    let record = record("id-1", "s3cret-value", ComparisonResult::Divergent);
    let json = serde_json::to_string(&record).unwrap();
    assert!(!json.contains("s3cret"), "{json}");
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (&value["exchange"], &value["result"], &value["time"]),
        (&"id-1".into(), &"divergent".into(), &"1970-01-01T00:00:00.000Z".into())
    );
    assert_eq!(
        (&value["cluster"], &value["divergences"][0]["shadow"]),
        (&"0000000000000007".into(), &"1.5".into())
    );
    assert!(
        value["request"]["content"]["text"].as_str().unwrap().starts_with("password=redacted-"),
        "{value}"
    );
    assert_eq!((&value["shadow"]["status"], &value["control"]["reason"]), (&200.into(), &"no_answer".into()));
    // What was equal on both sides is seen to be.
    let (live, shadow) = (&value["live"]["message"], &value["shadow"]["message"]);
    assert_eq!(live["headers"], shadow["headers"]);
    assert_eq!(value["divergences"][1]["live"], value["request"]["line"].as_str().unwrap()[19..36]);
    assert!(record.bytes() > 500 && record.bytes() < 10_000, "{}", record.bytes());
}

#[test]
fn a_cluster_counts_all_and_keeps_a_few() {
    let mut evidence = Evidence::new(config(10, 3, 1 << 20));
    for number in 0..100 {
        sample(&mut evidence, 1, at(number), u64::MAX - number);
    }
    let cluster = evidence.cluster(1).unwrap();
    assert_eq!((cluster.count, cluster.samples.len(), cluster.title.as_str()), (100, 3, "cluster 1"));
    assert_eq!((cluster.first_seen, cluster.last_seen), (at(0), at(99)));
    let held: usize = cluster.samples.iter().map(|record| record.bytes()).sum();
    assert_eq!(evidence.bytes(), u64::try_from(held).unwrap());
}

#[test]
fn each_exchange_has_the_same_chance_to_be_kept() {
    const EXCHANGES: u64 = 20;
    const ROUNDS: u64 = 3000;
    let mut kept = [0_u64; EXCHANGES as usize];
    let any = Arc::new(record("", "x", ComparisonResult::Divergent));
    let mut draw = 7_u64;
    for _ in 0..ROUNDS {
        let mut evidence = Evidence::new(config(1, 3, u64::MAX));
        let mut slots = [None; 3];
        for number in 0..EXCHANGES {
            draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let mixed = (draw >> 33) ^ draw;
            if let Some(slot) = evidence.observe(1, at(0), mixed.rotate_left(17), String::new) {
                // Nothing is kept, so the reservoir has to be filled by hand.
                slots[slot.index] = Some(number);
                if evidence.clusters[&1].samples.len() <= slot.index {
                    evidence.keep(slot, Arc::clone(&any));
                }
            }
        }
        for number in slots.into_iter().flatten() {
            kept[usize::try_from(number).unwrap()] += 1;
        }
    }
    // 3,000 rounds of 3 in 20: 450 each, with a standard deviation of 20.
    assert!(kept.iter().all(|count| (350..550).contains(count)), "{kept:?}");
}

#[test]
fn clusters_not_seen_for_longest_make_room() {
    let mut evidence = Evidence::new(config(2, 1, 1 << 20));
    for (cluster, now) in [(1, 0), (2, 1), (1, 2), (3, 3)] {
        sample(&mut evidence, cluster, at(now), 0);
    }
    let left: Vec<_> = evidence.clusters().iter().map(|(number, cluster)| (*number, cluster.count)).collect();
    assert_eq!((left, evidence.evicted()), (vec![(1, 2), (3, 1)], 1));
}

#[test]
fn clusters_are_forgotten_behind_their_retention() {
    let mut evidence = Evidence::new(config(10, 1, 1 << 20));
    sample(&mut evidence, 1, at(1000), 0);
    sample(&mut evidence, 2, at(1050), 0);
    evidence.expire(at(1100));
    assert_eq!(evidence.clusters().len(), 2);
    evidence.expire(at(1101));
    assert!(evidence.cluster(1).is_none() && evidence.cluster(2).is_some());
    // The clock was set back.
    evidence.expire(at(0));
    assert_eq!(evidence.clusters().len(), 1);
    evidence.expire(at(5000));
    assert_eq!((evidence.clusters().len(), evidence.bytes()), (0, 0));
}

#[test]
fn samples_take_no_more_bytes_than_they_may() {
    let one = u64::try_from(record("1", "s3cret", ComparisonResult::Divergent).bytes()).unwrap();
    let mut evidence = Evidence::new(config(100, 3, one * 2 + one / 2));
    for cluster in 0..50 {
        sample(&mut evidence, cluster, at(cluster), 0);
        assert!(evidence.bytes() <= one * 2 + one / 2);
    }
    let with_samples: Vec<_> = evidence
        .clusters()
        .iter()
        .filter(|(_, cluster)| !cluster.samples.is_empty())
        .map(|(number, _)| *number)
        .collect();
    assert_eq!((with_samples, evidence.clusters().len()), (vec![48, 49], 50));
    let mut small = Evidence::new(config(10, 3, 10));
    sample(&mut small, 1, at(0), 0);
    assert_eq!((small.bytes(), small.cluster(1).unwrap().samples.len()), (0, 0));
}
