//! Enters: JSON text. Leaves: a tree of its values, or nothing.

use bytes::Bytes;

use super::tree::{Id, Member, Shape, Text, Tree, Value, range};

/// Deepest nesting that is parsed: what is nested deeper is no JSON to us, but text. The walks over a tree recurse, and
/// this bounds their stack.
pub(in crate::pipeline::compare) const MAX_DEPTH: usize = 128;

/// Most values of a tree. One takes 28 bytes, so this bounds the memory that a few bytes of text can make into many.
const MAX_VALUES: usize = 1 << 20;

impl Tree {
    /// Parses one value with nothing but whitespace around it; `None` where it is no JSON, or beyond what is parsed.
    pub(in crate::pipeline::compare) fn parse(source: &Bytes) -> Option<Self> {
        let mut parser = Parser::new(source)?;
        parser.tree.root = parser.value(0)?;
        parser.skip_whitespace();
        if parser.rest.is_empty() { Some(parser.tree) } else { None }
    }

    /// Parses lines of one value each, empty ones aside, as an array of them.
    pub(in crate::pipeline::compare) fn parse_lines(source: &Bytes) -> Option<Self> {
        let mut parser = Parser::new(source)?;
        loop {
            parser.skip_whitespace();
            if parser.rest.is_empty() {
                break;
            }
            let line = parser.value(1)?;
            parser.pending_elements.push(line);
            // What follows on the same line is another value, or none at all.
            while let [b' ' | b'\t' | b'\r', rest @ ..] = parser.rest {
                parser.rest = rest;
            }
            if !matches!(parser.rest, [] | [b'\n', ..]) {
                return None;
            }
        }
        let shape = parser.close_array(0)?;
        parser.tree.root = parser.add(shape, 0)?;
        Some(parser.tree)
    }
}

/// RFC 8259, to the letter but for this: bytes that are no UTF-8 are let pass within strings.
struct Parser<'a> {
    source: &'a [u8],
    rest: &'a [u8],
    tree: Tree,
    /// Elements and members of what is not closed yet.
    pending_elements: Vec<Id>,
    pending_members: Vec<Member>,
}

impl<'a> Parser<'a> {
    fn new(bytes: &'a Bytes) -> Option<Self> {
        u32::try_from(bytes.len()).ok()?;
        // RFC 8259 section 8.1: a byte order mark may be ignored.
        let rest = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let tree = Tree { source: bytes.clone(), ..Tree::default() };
        Some(Self { source: bytes, rest, tree, pending_elements: Vec::new(), pending_members: Vec::new() })
    }

    fn at(&self) -> u32 {
        u32::try_from(self.source.len().saturating_sub(self.rest.len())).unwrap_or(u32::MAX)
    }

    fn skip_whitespace(&mut self) {
        while let [b' ' | b'\t' | b'\r' | b'\n', rest @ ..] = self.rest {
            self.rest = rest;
        }
    }

    fn add(&mut self, shape: Shape, start: u32) -> Option<Id> {
        let id = u32::try_from(self.tree.values.len()).ok()?;
        if self.tree.values.len() >= MAX_VALUES {
            return None;
        }
        self.tree.values.push(Value { shape, start, end: self.at() });
        Some(id)
    }

    fn value(&mut self, depth: usize) -> Option<Id> {
        self.skip_whitespace();
        let start = self.at();
        let (first, rest) = self.rest.split_first()?;
        let shape = match first {
            b'{' => {
                self.rest = rest;
                self.object(depth)?
            }
            b'[' => {
                self.rest = rest;
                self.array(depth)?
            }
            b'"' => {
                self.rest = rest;
                Shape::String(self.string()?)
            }
            b't' => self.word(b"true", Shape::Bool)?,
            b'f' => self.word(b"false", Shape::Bool)?,
            b'n' => self.word(b"null", Shape::Null)?,
            _ => {
                let len = number_len(self.rest)?;
                self.rest = self.rest.get(len..)?;
                Shape::Number
            }
        };
        self.add(shape, start)
    }

    fn word(&mut self, word: &[u8], shape: Shape) -> Option<Shape> {
        self.rest = self.rest.strip_prefix(word)?;
        Some(shape)
    }

    /// Behind the opening bracket.
    fn array(&mut self, depth: usize) -> Option<Shape> {
        let mark = self.pending_elements.len();
        let depth = deeper(depth)?;
        self.skip_whitespace();
        if let [b']', rest @ ..] = self.rest {
            self.rest = rest;
            return self.close_array(mark);
        }
        loop {
            let element = self.value(depth)?;
            self.pending_elements.push(element);
            self.skip_whitespace();
            let (separator, rest) = self.rest.split_first()?;
            self.rest = rest;
            match separator {
                b',' => {}
                b']' => return self.close_array(mark),
                _ => return None,
            }
        }
    }

    fn close_array(&mut self, mark: usize) -> Option<Shape> {
        let first = u32::try_from(self.tree.elements.len()).ok()?;
        self.tree.elements.extend(self.pending_elements.drain(mark..));
        Some(Shape::Array { first, end: u32::try_from(self.tree.elements.len()).ok()? })
    }

    /// Behind the opening brace.
    fn object(&mut self, depth: usize) -> Option<Shape> {
        let mark = self.pending_members.len();
        let depth = deeper(depth)?;
        self.skip_whitespace();
        if let [b'}', rest @ ..] = self.rest {
            self.rest = rest;
            return self.close_object(mark);
        }
        loop {
            self.skip_whitespace();
            self.rest = self.rest.strip_prefix(b"\"")?;
            let key = self.string()?;
            self.skip_whitespace();
            self.rest = self.rest.strip_prefix(b":")?;
            let value = self.value(depth)?;
            self.pending_members.push(Member { key, value });
            self.skip_whitespace();
            let (separator, rest) = self.rest.split_first()?;
            self.rest = rest;
            match separator {
                b',' => {}
                b'}' => return self.close_object(mark),
                _ => return None,
            }
        }
    }

    fn close_object(&mut self, mark: usize) -> Option<Shape> {
        let tree = &mut self.tree;
        let first = u32::try_from(tree.members.len()).ok()?;
        let pending = self.pending_members.get_mut(mark..)?;
        let text =
            |text: Text| range(if text.is_aside { &tree.aside } else { self.source }, text.start, text.end);
        // Stable, so that the last of several with the same key stays last.
        if !pending.is_sorted_by(|one, next| text(one.key) < text(next.key)) {
            pending.sort_by(|one, other| text(one.key).cmp(text(other.key)));
        }
        let mut kept: Option<Member> = None;
        for member in pending.iter() {
            if let Some(kept) = kept.filter(|kept| text(kept.key) != text(member.key)) {
                tree.members.push(kept);
            }
            kept = Some(*member);
        }
        tree.members.extend(kept);
        self.pending_members.truncate(mark);
        Some(Shape::Object { first, end: u32::try_from(tree.members.len()).ok()? })
    }

    /// Behind the opening quote.
    fn string(&mut self) -> Option<Text> {
        let start = self.at();
        let end = self.rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20))?;
        let (plain, rest) = self.rest.split_at_checked(end)?;
        self.rest = rest;
        if let [b'"', rest @ ..] = rest {
            let end = self.at();
            self.rest = rest;
            return Some(Text { is_aside: false, start, end });
        }
        let start = u32::try_from(self.tree.aside.len()).ok()?;
        self.tree.aside.extend_from_slice(plain);
        loop {
            let (byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            match byte {
                b'"' => break,
                b'\\' => self.escape()?,
                0..0x20 => return None,
                byte => self.tree.aside.push(*byte),
            }
        }
        Some(Text { is_aside: true, start, end: u32::try_from(self.tree.aside.len()).ok()? })
    }

    /// Behind the backslash.
    fn escape(&mut self) -> Option<()> {
        let (byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        let unescaped = match byte {
            b'"' | b'\\' | b'/' => *byte,
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => return self.unicode_escape(),
            _ => return None,
        };
        self.tree.aside.push(unescaped);
        Some(())
    }

    fn unicode_escape(&mut self) -> Option<()> {
        let unit = self.hex()?;
        let mut code = u32::from(unit);
        if (0xd800..0xdc00).contains(&unit)
            && let Some(rest) = self.rest.strip_prefix(b"\\u")
        {
            let before = self.rest;
            self.rest = rest;
            let low = self.hex()?;
            if (0xdc00..0xe000).contains(&low) {
                // RFC 8259 section 7: two surrogates are one character.
                code = ((code & 0x3ff) << 10 | u32::from(low & 0x3ff)).checked_add(0x1_0000)?;
            } else {
                self.rest = before;
            }
        }
        match char::from_u32(code) {
            Some(char) => self.tree.aside.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes()),
            None => {
                let [_, _, high, low] = code.to_be_bytes();
                let middle = (high & 0x0f) << 2 | low >> 6;
                self.tree.aside.extend_from_slice(&[0xe0 | high >> 4, 0x80 | middle, 0x80 | low & 0x3f]);
            }
        }
        Some(())
    }

    fn hex(&mut self) -> Option<u16> {
        let (digits, rest) = self.rest.split_first_chunk::<4>()?;
        self.rest = rest;
        digits.iter().try_fold(0, |unit: u16, digit| {
            Some(unit << 4 | u16::try_from(char::from(*digit).to_digit(16)?).ok()?)
        })
    }
}

fn deeper(depth: usize) -> Option<usize> {
    depth.checked_add(1).filter(|depth| *depth <= MAX_DEPTH)
}

/// How long the number is that `bytes` begin with (RFC 8259 section 6); `None` where they begin with none.
fn number_len(bytes: &[u8]) -> Option<usize> {
    let rest = bytes.strip_prefix(b"-").unwrap_or(bytes);
    let mut rest = match rest {
        [b'0', rest @ ..] => rest,
        [b'1'..=b'9', ..] => skip_digits(rest)?,
        _ => return None,
    };
    if let [b'.', fraction @ ..] = rest {
        rest = skip_digits(fraction)?;
    }
    if let [b'e' | b'E', exponent @ ..] = rest {
        let digits = exponent.strip_prefix(b"+").or_else(|| exponent.strip_prefix(b"-"));
        rest = skip_digits(digits.unwrap_or(exponent))?;
    }
    bytes.len().checked_sub(rest.len())
}

/// Whether `text` is a number and nothing else.
pub(in crate::pipeline::compare) fn is_number(text: &[u8]) -> bool {
    number_len(text) == Some(text.len())
}

/// What follows one digit or more.
fn skip_digits(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(bytes.len());
    if end == 0 { None } else { bytes.get(end..) }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::{Id, Tree};
    use crate::pipeline::compare::json::tree::View;

    /// The tree as text once more, members by their keys.
    fn written(tree: &Tree, id: Id) -> String {
        let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match tree.view(id) {
            View::Null => "null".to_owned(),
            View::Bool(value) => value.to_string(),
            View::Number(text) => lossy(text),
            View::String(text) => format!("<{}>", lossy(text)),
            View::Array(elements) => {
                let elements: Vec<String> = elements.iter().map(|id| written(tree, *id)).collect();
                format!("[{}]", elements.join(","))
            }
            View::Object(members) => {
                let members: Vec<String> =
                    members.map(|(key, id)| format!("{}:{}", lossy(key), written(tree, id))).collect();
                format!("{{{}}}", members.join(","))
            }
        }
    }

    fn parsed(text: &str) -> Option<String> {
        Tree::parse(&Bytes::copy_from_slice(text.as_bytes())).map(|tree| written(&tree, tree.root()))
    }

    #[test]
    fn values_are_parsed() {
        let cases = [
            ("null", "null"),
            (" true ", "true"),
            ("-0", "-0"),
            ("1e400", "1e400"),
            (
                "123456789012345678901234567890123456.7890E-12",
                "123456789012345678901234567890123456.7890E-12",
            ),
            ("\"\"", "<>"),
            (r#""a\"\\\/\b\f\n\r\tAz""#, "<a\"\\/\u{8}\u{c}\n\r\tAz>"),
            (r#""😀é""#, "<😀é>"),
            ("[]", "[]"),
            ("{}", "{}"),
            ("[1,[2,[3]],[]]", "[1,[2,[3]],[]]"),
            ("{\"b\":1,\"a\":{\"c\":[{}]}}", "{a:{c:[{}]},b:1}"),
            ("{\"a\":1,\"b\":2,\"a\":3}", "{a:3,b:2}"),
            ("{\"a\":1,\"\\u0061\":3}", "{a:3}"),
            ("\u{feff}[1]", "[1]"),
        ];

        for (text, expected) in cases {
            assert_eq!(parsed(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_json_is_not_parsed() {
        let cases = [
            "",
            " ",
            "nul",
            "tru e",
            "01",
            "+1",
            "1.",
            ".5",
            "1e",
            "-",
            "--1",
            "0x1",
            "NaN",
            "[1,]",
            "[,1]",
            "[1 2]",
            "[",
            "]",
            "{",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{a:1}",
            "\"",
            "\"\n\"",
            "\"\\x\"",
            "\"\\u12\"",
            "1 2",
            "{}x",
        ];

        for text in cases {
            assert_eq!(parsed(text), None, "{text}");
        }
    }

    #[test]
    fn lone_surrogates_are_told_apart() {
        let of = |text: &'static str| {
            let tree = Tree::parse(&Bytes::from_static(text.as_bytes())).unwrap();
            let View::String(text) = tree.view(tree.root()) else { panic!("{text}") };
            text.to_vec()
        };

        assert_eq!(of(r#""\ud83d""#), b"\xed\xa0\xbd");
        assert_eq!(of(r#""\ud83dA""#), b"\xed\xa0\xbdA");
        assert_eq!(of(r#""\ude00\ud83d""#), b"\xed\xb8\x80\xed\xa0\xbd");
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);

        assert!(parsed(&nested(super::MAX_DEPTH)).is_some());
        assert!(parsed(&nested(super::MAX_DEPTH + 1)).is_none());
        assert!(parsed(&"[".repeat(1_000_000)).is_none());
        assert!(parsed(&"{\"a\":".repeat(100_000)).is_none());
    }

    #[test]
    fn lines_are_an_array() {
        let lines = |text: &'static str| {
            Tree::parse_lines(&Bytes::from_static(text.as_bytes())).map(|tree| written(&tree, tree.root()))
        };

        assert_eq!(lines("{\"a\":1}\n[2]\r\n\n3\n").as_deref(), Some("[{a:1},[2],3]"));
        assert_eq!(lines("1").as_deref(), Some("[1]"));
        assert_eq!(lines("[]\n").as_deref(), Some("[[]]"));
        assert_eq!(lines("").as_deref(), Some("[]"));
        assert_eq!(lines("1 2\n"), None);
        assert_eq!(lines("1\nx\n"), None);
    }

    #[test]
    fn members_are_found() {
        let tree = Tree::parse(&Bytes::from_static(b"{\"b\":1,\"\":2,\"a\":3}")).unwrap();
        let View::Object(members) = tree.view(tree.root()) else { panic!("no object") };

        let found = |key: &str| members.value_of(key.as_bytes()).map(|id| tree.source(id).to_vec());
        assert_eq!(found("a"), Some(b"3".to_vec()));
        assert_eq!(found(""), Some(b"2".to_vec()));
        assert_eq!(found("c"), None);
        assert_eq!(members.member_count(), 3);
    }

    proptest! {
        #[test]
        fn what_is_json_is_json_to_others_too(text in "[\\[\\]{},:\" \\\\ntrfalsu0-9.+-]{0,16}") {
            // Another parser refuses lone surrogates; and `\u` is not what this is about.
            prop_assume!(!text.contains("\\u"));
            let expected = serde_json::from_str::<serde_json::Value>(&text).is_ok();
            prop_assert_eq!(parsed(&text).is_some(), expected, "{}", text);
        }
    }
}
