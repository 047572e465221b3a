//! Enters: rules for a rewrite and a head, any of them nonsense. Leaves: a panic where a copy is not well-formed, has
//! a line too many, or is not what the model says.

use mirror_agent::pipeline::{
    http::{RequestHead, Version},
    rewrite::{Chosen, CopyFacts, Rewrite, Rules, TraceFlags},
};

use self::model::{Given, Parts, expected};
use crate::input::Input;

#[path = "../../../mirror-agent/src/pipeline/rewrite/tests/model.rs"]
mod model;

/// Edits of one input: more cost time and reach nothing else.
const MOST_EDITS: u8 = 12;

const ID: &[u8; 38] = b"0123456789abcdef-0002-0000000000000abc";

const MARKERS: [(&str, &str); 4] = [
    ("x-mirror-id", "0123456789abcdef-0002-0000000000000abc"),
    ("x-shadow", "true"),
    ("x-mirror-experiment", "e"),
    ("x-mirror-match", "sampled"),
];

/// A head that was well-formed is so behind the rewrite, and says what the model says. Any bytes at all gain no line
/// but those configured.
pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let given = given(&mut input);
    let head = input.rest();
    let rules = Rules {
        experiment: "e",
        replace_prefix: &given.prefixes,
        remove_query: &given.remove_query,
        set_query: &given.set_query,
        host: given.host.as_deref(),
        remove_headers: &given.remove,
        set_headers: &given.set,
        add_headers: &given.add,
        trace: if given.clear { TraceFlags::Clear } else { TraceFlags::Keep },
    };
    let Ok(rewrite) = Rewrite::new(&rules) else { return };
    let mut copy = Vec::new();
    let live = RequestHead::parse(head);
    let has_marker = live.is_ok_and(|head| head.facts.has_marker);
    rewrite.write(&mut copy, head, CopyFacts { id: ID, chosen: Chosen::Sampled, has_marker });
    let feeds = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count();
    let configured = given.set.len() + given.add.len() + usize::from(given.host.is_some());
    assert!(feeds(&copy) <= feeds(head) + configured + MARKERS.len(), "a line too many");
    let Ok(live) = live else { return };
    let parsed = RequestHead::parse(&copy);
    assert!(parsed.is_ok(), "not well-formed: {}", copy.escape_ascii());
    let Ok(parsed) = parsed else { return };
    let mut expected = expected(&given, &parts(&live));
    expected
        .fields
        .extend(MARKERS.map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())));
    assert_eq!(parts(&parsed), expected);
    assert_eq!(parsed.facts.framing, live.facts.framing, "another framing");
    assert_eq!(parsed.facts.keep_alive, live.facts.keep_alive, "another end of the connection");
}

/// Takes edits off the input: how many, then for each what it is, a name and a value.
fn given(input: &mut Input<'_>) -> Given {
    let mut given = Given::default();
    for _ in 0..input.byte() % MOST_EDITS {
        let choice = input.byte();
        let mut text = || {
            let len = usize::from(input.byte() & 0x1f);
            String::from_utf8_lossy(input.take(len)).into_owned()
        };
        let name = text();
        match choice % 8 {
            0 => given.prefixes.push((name, text())),
            1 => given.host = Some(name),
            2 => given.remove.push(name),
            3 => given.set.push((name, text())),
            4 => given.add.push((name, text())),
            5 => given.remove_query.push(name),
            6 => given.set_query.push((name, text())),
            _ => given.clear = true,
        }
    }
    given
}

fn parts(head: &RequestHead<'_>) -> Parts {
    Parts {
        method: head.method.to_vec(),
        target: head.target.to_vec(),
        is_old: head.version == Version::Http10,
        fields: head.headers().map(|(name, value)| (name.to_vec(), value.to_vec())).collect(),
    }
}
