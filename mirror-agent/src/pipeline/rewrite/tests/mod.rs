//! Enters: heads and rules. Leaves: proof that each edit does what it says, to the byte, and nothing else.

mod checks;
mod lines;
mod properties;
mod sampled_flag;
mod session;
mod targets;

use super::{Chosen, CopyFacts, MIRROR_ID_BYTES, Rewrite, Rules, TraceFlags, model::Given};
use crate::pipeline::http::RequestHead;

const ID: &[u8; MIRROR_ID_BYTES] = b"0123456789abcdef-0002-0000000000000abc";

/// The marker lines of an experiment named `e`.
const MARKERS: &str = "x-mirror-id: 0123456789abcdef-0002-0000000000000abc\r\nx-shadow: true\r\n\
                       x-mirror-experiment: e\r\nx-mirror-match: targeted\r\n";

impl Given {
    /// Rules by a line of text: parts with `; ` between, each a key, a name, and a value where there is one.
    fn parse(text: &str) -> Self {
        let mut given = Self::default();
        for part in text.split("; ").filter(|part| !part.is_empty()) {
            let mut words = part.splitn(3, ' ').map(str::to_owned);
            let mut word = || words.next().unwrap_or_default();
            let (key, name, value) = (word(), word(), word());
            match key.as_str() {
                "prefix" => given.prefixes.push((name, value)),
                "host" => given.host = Some(name),
                "remove" => given.remove.push(name),
                "set" => given.set.push((name, value)),
                "add" => given.add.push((name, value)),
                "-query" => given.remove_query.push(name),
                "+query" => given.set_query.push((name, value)),
                "clear" => given.clear = true,
                _ => panic!("{part}"),
            }
        }
        given
    }

    fn rules(&self) -> Rules<'_> {
        Rules {
            experiment: "e",
            replace_prefix: &self.prefixes,
            remove_query: &self.remove_query,
            set_query: &self.set_query,
            host: self.host.as_deref(),
            remove_headers: &self.remove,
            set_headers: &self.set,
            add_headers: &self.add,
            trace: if self.clear { TraceFlags::Clear } else { TraceFlags::Keep },
        }
    }

    fn rewrite(&self) -> Rewrite {
        Rewrite::new(&self.rules()).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// The head of the copy of a request with the head `head`.
fn copy_of(rewrite: &Rewrite, head: &[u8]) -> Vec<u8> {
    let mut out = b"kept".to_vec();
    let has_marker = RequestHead::parse(head).is_ok_and(|head| head.facts.has_marker);
    rewrite.write(&mut out, head, CopyFacts { id: ID, chosen: Chosen::Targeted, has_marker });
    out.strip_prefix(b"kept").unwrap().to_vec()
}

/// Holds the copies of heads against what is expected. Both are written without the empty line and the markers.
fn assert_copies(rows: &[(&str, &[u8], &[u8])]) {
    for (rules, lines, expected) in rows {
        let rewrite = Given::parse(rules).rewrite();
        let copy = copy_of(&rewrite, &[lines, &b"\r\n"[..]].concat());
        let expected = [expected, MARKERS.as_bytes(), b"\r\n"].concat();
        assert_eq!(
            copy.escape_ascii().to_string(),
            expected.escape_ascii().to_string(),
            "`{rules}` of {}",
            lines.escape_ascii()
        );
    }
}
