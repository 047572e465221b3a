//! Enters: JSON. Leaves: the same value by value, with what is a secret replaced, or nothing where it is no JSON.
//!
//! Text is rewritten as it is read: numbers keep every digit, objects their order and their duplicate keys.

use super::Redactor;
use crate::pipeline::compare::path::Progress;

/// How deep values may lie in each other.
const MAX_DEPTH: usize = 128;

/// How deep JSON may lie in strings of JSON.
const MAX_NESTED: usize = 4;

impl Redactor {
    /// One JSON text, redacted; `None` where it is none (RFC 8259). `from` is what paths lead to it.
    pub(super) fn json(&self, text: &[u8], from: &Progress, nested: usize) -> Option<String> {
        let mut rewriter =
            Rewriter { redactor: self, rest: text, out: String::with_capacity(text.len()), nested };
        rewriter.skip_blanks();
        rewriter.value(from, 0)?;
        rewriter.skip_blanks();
        rewriter.rest.is_empty().then_some(rewriter.out)
    }

    /// A string that is no secret by its place: JSON within it, or any text.
    pub(super) fn string(&self, text: &[u8], nested: usize) -> String {
        let begins = text.trim_ascii_start().first();
        if nested < MAX_NESTED
            && matches!(begins, Some(b'{' | b'['))
            && let Some(json) = self.json(text, &self.paths.start(), nested.saturating_add(1))
        {
            return json;
        }
        self.text(text)
    }
}

struct Rewriter<'r, 't> {
    redactor: &'r Redactor,
    rest: &'t [u8],
    out: String,
    nested: usize,
}

impl<'t> Rewriter<'_, 't> {
    fn value(&mut self, at: &Progress, depth: usize) -> Option<()> {
        if depth > MAX_DEPTH {
            return None;
        }
        let redactor = self.redactor;
        if redactor.paths.marks(at).next().is_some() {
            return self.secret();
        }
        match self.rest.first()? {
            b'{' => self.object(at, depth),
            b'[' => self.array(at, depth),
            b'"' => {
                let text = self.string()?;
                let text = redactor.string(&text, self.nested);
                self.write(&text);
                Some(())
            }
            _ => {
                let scalar = self.scalar()?;
                let left = redactor.without_patterns(scalar);
                if *left == *scalar {
                    self.out.push_str(std::str::from_utf8(scalar).ok()?);
                } else {
                    // No number any more.
                    let left = String::from_utf8_lossy(&left).into_owned();
                    self.write(&left);
                }
                Some(())
            }
        }
    }

    fn object(&mut self, at: &Progress, depth: usize) -> Option<()> {
        let redactor = self.redactor;
        self.take(b'{')?;
        self.out.push('{');
        if self.next_is(b'}') {
            self.out.push('}');
            return Some(());
        }
        loop {
            self.skip_blanks();
            let key = self.string()?;
            let written = String::from_utf8_lossy(&redactor.without_patterns(&key)).into_owned();
            self.write(&written);
            self.skip_blanks();
            self.take(b':')?;
            self.out.push(':');
            self.skip_blanks();
            if redactor.names.has_key(&key) {
                self.secret()?;
            } else {
                self.value(&redactor.paths.member(at, &key), depth.saturating_add(1))?;
            }
            if self.next_is(b'}') {
                self.out.push('}');
                return Some(());
            }
            self.take(b',')?;
            self.out.push(',');
        }
    }

    fn array(&mut self, at: &Progress, depth: usize) -> Option<()> {
        let redactor = self.redactor;
        self.take(b'[')?;
        self.out.push('[');
        if self.next_is(b']') {
            self.out.push(']');
            return Some(());
        }
        let mut index = 0_usize;
        loop {
            self.skip_blanks();
            self.value(&redactor.paths.element(at, index), depth.saturating_add(1))?;
            index = index.saturating_add(1);
            if self.next_is(b']') {
                self.out.push(']');
                return Some(());
            }
            self.take(b',')?;
            self.out.push(',');
        }
    }

    /// All of a value, whatever it is. Of strings the text counts, so that a secret looks the same wherever it is.
    fn secret(&mut self) -> Option<()> {
        let stamp = if self.rest.first() == Some(&b'"') {
            let text = self.string()?;
            self.redactor.stamp(&text)
        } else {
            let len = value_len(self.rest)?;
            let (value, rest) = self.rest.split_at_checked(len)?;
            self.rest = rest;
            self.redactor.stamp(value)
        };
        self.write(&stamp);
        Some(())
    }

    /// A string's text, without escapes (RFC 8259 section 7).
    fn string(&mut self) -> Option<Vec<u8>> {
        let len = string_len(self.rest)?;
        let (raw, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        // Halves of surrogate pairs are no text; they are rare, and such content is not kept.
        serde_json::from_slice::<String>(raw).ok().map(String::into_bytes)
    }

    /// A number, or one of the three words.
    fn scalar(&mut self) -> Option<&'t [u8]> {
        let end = self.rest.iter().position(|byte| !is_scalar_byte(*byte)).unwrap_or(self.rest.len());
        let (scalar, rest) = self.rest.split_at_checked(end)?;
        self.rest = rest;
        let is_word = matches!(scalar, b"true" | b"false" | b"null");
        (is_word || is_number(scalar)).then_some(scalar)
    }

    fn write(&mut self, text: &str) {
        // A string: nothing that JSON cannot hold.
        self.out.push_str(&serde_json::to_string(text).unwrap_or_default());
    }

    fn take(&mut self, wanted: u8) -> Option<()> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        (*first == wanted).then_some(())
    }

    fn next_is(&mut self, wanted: u8) -> bool {
        self.skip_blanks();
        match self.rest {
            [first, rest @ ..] if *first == wanted => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    fn skip_blanks(&mut self) {
        while let [b' ' | b'\t' | b'\r' | b'\n', rest @ ..] = self.rest {
            self.rest = rest;
        }
    }
}

/// Length of the value at the beginning, brackets balanced; what is inside of it does not matter.
pub(super) fn value_len(text: &[u8]) -> Option<usize> {
    let mut rest = text;
    let mut open = 0_usize;
    loop {
        match rest.first()? {
            b'"' => rest = rest.get(string_len(rest)?..)?,
            b'{' | b'[' => {
                open = open.saturating_add(1);
                rest = rest.get(1..)?;
            }
            b'}' | b']' => {
                open = open.checked_sub(1)?;
                rest = rest.get(1..)?;
            }
            _ if open == 0 => {
                let end = rest.iter().position(|byte| !is_scalar_byte(*byte)).unwrap_or(rest.len());
                rest = rest.get(end..).filter(|_| end > 0)?;
            }
            _ => rest = rest.get(1..)?,
        }
        if open == 0 {
            return text.len().checked_sub(rest.len());
        }
    }
}

/// Length of the string at the beginning, its quotes included.
fn string_len(text: &[u8]) -> Option<usize> {
    let mut rest = text.strip_prefix(b"\"")?;
    loop {
        match rest {
            [b'"', after @ ..] => return text.len().checked_sub(after.len()),
            [b'\\', _, after @ ..] => rest = after,
            [_, after @ ..] => rest = after,
            [] => return None,
        }
    }
}

const fn is_scalar_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.')
}

/// RFC 8259 section 6.
fn is_number(text: &[u8]) -> bool {
    let text = text.strip_prefix(b"-").unwrap_or(text);
    let digits = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let whole = digits(text);
    let has_zero_before = whole > 1 && text.first() == Some(&b'0');
    let mut rest = text.get(whole..).unwrap_or_default();
    let mut is_right = whole > 0 && !has_zero_before;
    if let Some(fraction) = rest.strip_prefix(b".") {
        let len = digits(fraction);
        is_right &= len > 0;
        rest = fraction.get(len..).unwrap_or_default();
    }
    if let [b'e' | b'E', exponent @ ..] = rest {
        let exponent =
            exponent.strip_prefix(b"+").or_else(|| exponent.strip_prefix(b"-")).unwrap_or(exponent);
        let len = digits(exponent);
        is_right &= len > 0;
        rest = exponent.get(len..).unwrap_or_default();
    }
    is_right && rest.is_empty()
}
