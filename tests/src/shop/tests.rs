//! Enters: requests of the traffic model. Leaves: proof that each bug and each source of noise does what it says, and no more.

use std::time::UNIX_EPOCH;

use serde_json::Value;

use super::*;

const ONE: Character = Character { version: Version::One, bugs: Bugs::NONE, seed: 1 };
const TWO: Character = Character { version: Version::Two, bugs: Bugs::NONE, seed: 2 };

/// An answer, taken apart.
struct Read {
    status: String,
    fields: Vec<(String, String)>,
    json: Option<Value>,
    content: Vec<u8>,
}

#[test]
fn versions_agree_on_every_request_but_for_noise() {
    let (one, two) = (Program::new(ONE), Program::new(TWO));
    for number in 0..2_000 {
        let differ = differences(&one, &two, number);
        let unexplained = differ.iter().find(|path| !Noise::ALL.iter().any(|noise| noise.is_at(path)));
        assert_eq!(unexplained, None, "request {number}");
    }
}

#[test]
fn every_source_of_noise_shows_between_copies_of_one_version() {
    let (one, other) = (Program::new(ONE), Program::new(Character { seed: 3, ..ONE }));
    let mut differ = (0..3_000).flat_map(|number| differences(&one, &other, number)).collect::<Vec<_>>();
    differ.sort_unstable();
    differ.dedup();
    for noise in Noise::ALL {
        assert!(differ.iter().any(|path| noise.is_at(path)), "{} in {differ:?}", noise.name());
    }
}

#[test]
fn each_bug_shows_where_it_says_and_as_often_as_it_counts() {
    let one = Program::new(ONE);
    for bug in Bug::ALL.into_iter().filter(|bug| bug.place().is_some()) {
        let two = Program::new(Character { bugs: Bugs::NONE.with(bug), ..TWO });
        let mut shown = 0;
        for number in 0..3_000 {
            let (place, raw) = Shopper::new(7).request(number);
            let endpoint = endpoint_of(place, &raw);
            let differ = differences(&one, &two, number);
            let is_explained = |path: &String| {
                bug.is_at(&endpoint, path) || Noise::ALL.iter().any(|noise| noise.is_at(path))
            };
            // An answer that is an error instead has none of the other's content.
            let is_error = differ.iter().any(|path| path == "status");
            let unexplained = differ.iter().find(|path| !is_error && !is_explained(path));
            assert_eq!(unexplained, None, "{} at {endpoint}", bug.name());
            shown += u64::from(differ.iter().any(|path| bug.is_at(&endpoint, path)));
        }
        assert!(shown >= 3, "{} shows {shown} times", bug.name());
        assert_eq!(two.changed_by(bug), shown, "{}", bug.name());
    }
}

#[test]
fn every_bug_meets_sixty_of_fifty_thousand_exchanges() {
    let two = Program::new(Character { bugs: Bugs::all(), ..TWO });
    for number in 0..50_000 {
        drop(two.answer(&Shopper::new(1).request(number).1, number, UNIX_EPOCH));
        assert!(two.service_time(number) < SERVICE_TIME * 4);
    }
    for bug in Bug::ALL {
        assert!(two.changed_by(bug) >= 60, "{}: {}", bug.name(), two.changed_by(bug));
    }
    // What the name says: 0.3 % of all requests.
    assert!((100..200).contains(&two.changed_by(Bug::MissingField)), "{}", two.changed_by(Bug::MissingField));
}

#[test]
fn slow_tail_is_a_fifth_longer_at_the_95th_percentile_and_the_same_at_the_median() {
    let times = |bugs| {
        let shop = Program::new(Character { bugs, ..ONE });
        let times = (0..20_000).map(|number| shop.service_time(number));
        let mut times = times.map(|time| time.as_secs_f64()).collect::<Vec<_>>();
        times.sort_by(f64::total_cmp);
        [times[10_000], times[19_000]]
    };
    let ([median, high], [slow_median, slow_high]) = (times(Bugs::NONE), times(Bugs::all()));
    assert!((0.0198..0.0202).contains(&median) && (0.0250..0.0262).contains(&high), "{median} {high}");
    assert!((slow_median / median - 1.0).abs() < 1e-9, "{slow_median} {median}");
    assert!((slow_high / high - 1.2).abs() < 0.01, "{slow_high} {high}");
}

#[test]
fn rounding_differs_at_the_fourth_decimal() {
    let (one, two) = (Program::new(ONE), Program::new(Character { bugs: Bugs::all(), ..TWO }));
    let quotes = (0..5_000).filter(|number| Shopper::new(7).request(*number).0 == Place::Quote);
    let mut largest = 0.0_f64;
    for number in quotes {
        let tax = |shop| read(shop, number).json.and_then(|json| json["tax"].as_f64()).unwrap();
        largest = largest.max((tax(&one) - tax(&two)).abs());
    }
    assert!((largest - 0.0001).abs() < 1e-9, "{largest}");
}

/// A shop's answer to the request with this number.
fn read(shop: &Program, number: u64) -> Read {
    // Each server looks at its own clock.
    let now = UNIX_EPOCH + Duration::from_micros(1_700_000_000_000_000 + 977 * shop.character().seed);
    let answer = shop.answer(&Shopper::new(7).request(number).1, number, now);
    let (head, content) = answer.split_at(http::head_len(&answer).unwrap());
    let text = std::str::from_utf8(head).unwrap();
    let status = text.lines().next().unwrap().to_owned();
    let field =
        |line: &str| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()));
    let fields = text.lines().skip(1).filter_map(field).collect::<Vec<_>>();
    // A stored block: 10 bytes before its own 5, and 8 behind it.
    let is_packed = http::header_has(head, "content-encoding", "gzip");
    let content = if is_packed { &content[15..content.len() - 8] } else { content }.to_vec();
    let json =
        http::header_has(head, "content-type", "json").then(|| serde_json::from_slice(&content).unwrap());
    Read { status, fields, json, content }
}

/// The templated paths at which two shops' answers to a request differ.
fn differences(one: &Program, other: &Program, number: u64) -> Vec<String> {
    let (one, other) = (read(one, number), read(other, number));
    let mut paths = Vec::new();
    if one.status != other.status {
        paths.push("status".to_owned());
    }
    for (name, value) in one.fields.iter().chain(&other.fields) {
        let has = |read: &Read| read.fields.iter().any(|(own, found)| own == name && found == value);
        if !(has(&one) && has(&other)) {
            paths.push(format!("header:{name}"));
        }
    }
    match (&one.json, &other.json) {
        (Some(one), Some(other)) => compare("$", one, other, &mut paths),
        _ if one.content != other.content => paths.push("body".to_owned()),
        _ => {}
    }
    paths.sort_unstable();
    paths.dedup();
    paths
}

fn compare(path: &str, one: &Value, other: &Value, paths: &mut Vec<String>) {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            for key in one.keys().chain(other.keys()) {
                let path = format!("{path}.{key}");
                match (one.get(key), other.get(key)) {
                    (Some(one), Some(other)) => compare(&path, one, other, paths),
                    _ => paths.push(path),
                }
            }
        }
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
            for (one, other) in one.iter().zip(other) {
                compare(&format!("{path}[]"), one, other, paths);
            }
        }
        _ if one != other => paths.push(path.to_owned()),
        _ => {}
    }
}

/// The endpoint as a report names it, as far as a bug's place needs it.
fn endpoint_of(place: Place, raw: &[u8]) -> String {
    let [method, target] = [http::first_word(raw), http::second_word(raw)].map(String::from_utf8_lossy);
    if place == Place::Orders { "GET /orders".to_owned() } else { format!("{method} {target}") }
}
