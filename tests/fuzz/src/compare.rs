//! Enters: two answers, and rules to compare them by. Leaves: a panic where what is told of them does not add up.

use mirror_agent::pipeline::{
    Answer,
    compare::{
        Action, ArrayForm, ArrayRule, CompareRules, Compared, Comparer, MAX_DIVERGENCES, NumberForm, Place,
        Rule, StatusClass, Tolerance, VALUE_BYTES,
    },
    reason::UntimedReason,
};

use crate::input::Input;

/// Longest content that is compared, in bytes.
const CONTENT_BYTES: usize = 64 * 1024;

/// Longest path and place, in bytes.
const PATH_BYTES: usize = 512;

/// Nothing panics, what is told is bounded, an answer is the same as itself, two answers differ from either side or from
/// none, and a path that is told can be the place of a rule.
pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let rules = rules(&mut input);
    let comparer = Comparer::new(&rules);
    assert!(comparer.is_ok(), "rules of our own cannot be applied: {comparer:?}");
    let Ok(comparer) = comparer else { return };
    let one = answer(&mut input);
    let other = answer(&mut input);

    let compare = |live: &Answer, other: &Answer| comparer.compare("GET /", &comparer.prepare(live)?, other);
    for answer in [&one, &other] {
        if let Ok(compared) = compare(answer, answer) {
            let same = Compared { fields: compared.fields.clone(), ..Compared::default() };
            assert_eq!(compared, same, "an answer is not the same as itself");
            assert!(compared.fields.iter().all(|pair| pair.live == pair.other));
        }
    }
    let (there, back) = (compare(&one, &other), compare(&other, &one));
    if let Ok(compared) = &there {
        check(&rules, compared);
        assert_eq!(there, compare(&one, &other), "compared twice, told otherwise");
    }
    if let (Ok(there), Ok(back)) = (&there, &back) {
        // A rule for a class of live's status is about live alone.
        if one.status / 100 == other.status / 100 {
            assert_eq!(there.divergences.is_empty(), back.divergences.is_empty(), "{there:#?}\n{back:#?}");
        }
        let is_same = |compared: &Compared| compared.divergences.is_empty() && compared.explained.is_empty();
        assert_eq!(is_same(there), is_same(back), "{there:#?}\n{back:#?}");
    }
}

fn check(rules: &CompareRules, compared: &Compared) {
    assert!(compared.divergences.len() <= MAX_DIVERGENCES);
    assert!(compared.explained.iter().all(|explained| explained.rule < rules.rules.len()));
    for divergence in &compared.divergences {
        assert!(
            divergence.path.len() <= PATH_BYTES && divergence.place.len() <= PATH_BYTES,
            "{divergence:#?}"
        );
        for value in [&divergence.live, &divergence.other] {
            assert!(value.as_ref().is_none_or(|value| value.len() <= VALUE_BYTES), "{divergence:#?}");
        }
        assert!(divergence.live.is_some() || divergence.other.is_some(), "{divergence:#?}");
        assert!(!divergence.path.contains(char::is_control), "{divergence:#?}");
        if divergence.path.starts_with('$') && !divergence.path.ends_with('…') {
            let fields = vec![divergence.path.as_ref().to_owned()];
            let comparer = Comparer::new(&CompareRules { fields, ..CompareRules::default() });
            assert!(comparer.is_ok(), "{} is no path: {comparer:?}", divergence.path);
        }
    }
}

/// Rules by a few choices.
fn rules(input: &mut Input<'_>) -> CompareRules {
    let form = input.byte();
    let path = |choice: u8| {
        ["$", "$.a", "$..a", "$.*", "$[*]", "$.a[*].b", "$..*", "$[0]", "$.a[].{}", "$['a b']"]
            [usize::from(choice % 10)]
        .to_owned()
    };
    let rules = (0..form >> 6).map(|number| {
        let (place, action) = (input.byte(), input.byte());
        Rule {
            name: number.to_string(),
            place: match place >> 4 & 7 {
                0 => Place::Header("a".to_owned()),
                1 => Place::Header("set-cookie".to_owned()),
                2 => Place::Form("a".to_owned()),
                3 => Place::Text,
                4 if place & 8 != 0 => Place::Status(StatusClass(1 + place % 5)),
                _ => Place::Path(path(place & 15)),
            },
            endpoint: if place & 0x80 == 0 { None } else { Some("GET /".to_owned()) },
            action: match action % 6 {
                0 => Action::Ignore,
                1 => Action::Tolerate(Tolerance { absolute: f64::from(action >> 4), relative: 0.0 }),
                2 => Action::Tolerate(Tolerance { absolute: 0.0, relative: f64::from(action >> 4) / 16.0 }),
                3 => Action::Timestamp,
                4 => Action::Uuid,
                _ => Action::Replace { pattern: "[0-9a-f]+|x*".to_owned(), with: "<$0$0>".to_owned() },
            },
        }
    });
    let rules = rules.collect();
    let array = match form & 3 {
        0 => None,
        1 => Some(ArrayForm::Ordered),
        2 => Some(ArrayForm::Set),
        _ => Some(ArrayForm::KeyedBy("a".to_owned())),
    };
    CompareRules {
        ignored_headers: if form & 4 == 0 { Vec::new() } else { vec!["x-*".to_owned()] },
        numbers: if form & 8 == 0 { NumberForm::Value } else { NumberForm::Text },
        arrays: array.into_iter().map(|form| ArrayRule { path: "$..*".to_owned(), form }).collect(),
        rules,
        fields: if form & 16 == 0 { Vec::new() } else { vec!["$..a".to_owned(), "$".to_owned()] },
        content_bytes: CONTENT_BYTES,
    }
}

/// An answer by the choices of its type, its coding and its status, a length, a head and a content.
fn answer(input: &mut Input<'_>) -> Answer {
    let (choice, status) = (input.byte(), input.byte());
    let content_type = [
        "application/json",
        "",
        "text/html",
        "application/x-ndjson",
        "application/x-www-form-urlencoded",
        "image/png",
        "multipart/mixed; boundary=a",
        "application/problem+json; charset=x",
    ][usize::from(choice & 7)];
    let coding =
        ["", "gzip", "deflate", "br", "zstd", "gzip, br", "identity", ""][usize::from(choice >> 3 & 7)];
    let lines = if choice & 0x40 == 0 { &b""[..] } else { input.take(48) };
    let (kind, coding) =
        (format!("content-type: {content_type}\r\n"), format!("content-encoding: {coding}\r\n"));
    let head = [b"HTTP/1.1 200 OK\r\n", kind.as_bytes(), coding.as_bytes(), lines, b"\r\n\r\n"].concat();
    let len = usize::from(input.word());
    let content = input.take(len).to_vec();
    Answer {
        status: [200, 200, 200, 204, 404, 500, 301, 200][usize::from(status & 7)],
        head: head.into(),
        content: content.into(),
        timing: Err(UntimedReason::Unknown),
    }
}
