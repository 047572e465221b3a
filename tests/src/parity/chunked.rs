//! Enters: bytes that begin with a chunked body. Leaves: its content.

/// What a chunked body says, as far as it keeps to the grammar.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Chunked {
    /// The content.
    pub(super) content: Vec<u8>,
    /// Where it ends.
    pub(super) end: End,
    /// A line ends with a line feed alone.
    pub(super) has_bare_line_feed: bool,
    /// A chunk is longer than 31 bits can tell.
    pub(super) has_long_chunk: bool,
}

/// Where a chunked body ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum End {
    /// After so many bytes.
    At(usize),
    /// Behind the bytes that are there.
    Beyond,
    /// Nobody knows: what follows the content breaks the grammar.
    Broken,
}

/// The content of the chunked body that `bytes` begins with, and how many bytes that takes; `None` where it does not
/// keep to the grammar or has no end in them. What stands behind its end is left alone.
pub(super) fn content(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    match read(bytes) {
        Chunked { content, end: End::At(len), has_bare_line_feed: false, .. } => Some((content, len)),
        _ => None,
    }
}

/// Reads the chunked body that `bytes` begins with. A line may end with a line feed alone (RFC 9112 section 2.2).
// RFC 9112 section 7.1.
pub(super) fn read(bytes: &[u8]) -> Chunked {
    let mut read =
        Chunked { content: Vec::new(), end: End::Beyond, has_bare_line_feed: false, has_long_chunk: false };
    read.end = read.follow(bytes).map_or_else(|end| end, |rest| End::At(bytes.len() - rest.len()));
    read
}

impl Chunked {
    /// What stands behind the body, or why that is not known.
    fn follow<'a>(&mut self, mut rest: &'a [u8]) -> Result<&'a [u8], End> {
        loop {
            let size = size(self.split_line(&mut rest, is_size_line)?).ok_or(End::Broken)?;
            if size == 0 {
                break;
            }
            self.has_long_chunk |= i32::try_from(size).is_err();
            let len = usize::try_from(size).unwrap_or(usize::MAX);
            let Some((data, behind)) = rest.split_at_checked(len) else {
                self.content.extend_from_slice(rest);
                return Err(End::Beyond);
            };
            self.content.extend_from_slice(data);
            rest = behind;
            self.split_line(&mut rest, is_empty_line)?;
        }
        // The trailer section is field lines up to an empty one.
        while !self.split_line(&mut rest, is_trailer_line)?.is_empty() {}
        Ok(rest)
    }

    /// Takes a line off `rest`, which must be so; where its end is not there, it must be able to become so.
    fn split_line<'a>(
        &mut self,
        rest: &mut &'a [u8],
        is_good: fn(&[u8], Seen) -> bool,
    ) -> Result<&'a [u8], End> {
        let Some(line_feed) = rest.iter().position(|byte| *byte == b'\n') else {
            let line = rest.strip_suffix(b"\r").unwrap_or(rest);
            return Err(if is_good(line, Seen::InPart) { End::Beyond } else { End::Broken });
        };
        let line = &rest[..line_feed];
        *rest = &rest[line_feed + 1..];
        let stripped = line.strip_suffix(b"\r");
        self.has_bare_line_feed |= stripped.is_none();
        Some(stripped.unwrap_or(line)).filter(|line| is_good(line, Seen::Whole)).ok_or(End::Broken)
    }
}

/// How much of a line is there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Seen {
    Whole,
    InPart,
}

fn is_empty_line(line: &[u8], _seen: Seen) -> bool {
    line.is_empty()
}

fn is_size_line(line: &[u8], seen: Seen) -> bool {
    size(line).is_some() || (seen == Seen::InPart && line.is_empty())
}

/// A field line whose name is a token, or an empty line.
fn is_trailer_line(line: &[u8], seen: Seen) -> bool {
    let colon = line.iter().position(|byte| *byte == b':');
    let (name, value) = line.split_at(colon.unwrap_or(line.len()));
    let has_name = !name.is_empty() && name.iter().all(u8::is_ascii_graphic);
    line.is_empty() || (has_name && value.iter().all(is_text) && (colon.is_some() || seen == Seen::InPart))
}

/// What may stand in a field value or an extension (RFC 9110 section 5.5).
fn is_text(byte: &u8) -> bool {
    *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f)
}

/// The number that a chunk's line begins with; extensions may follow.
fn size(line: &[u8]) -> Option<u64> {
    let digits = line.split(|byte| *byte == b';').next()?.trim_ascii_end();
    // A sign is a part of numbers elsewhere.
    let is_hex = !digits.is_empty() && digits.iter().all(u8::is_ascii_hexdigit);
    let digits = str::from_utf8(digits).ok().filter(|_| is_hex && line.iter().all(is_text))?;
    u64::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_joined_up_to_the_end_of_the_trailers() {
        let cases: [(&[u8], &[u8]); 4] = [
            (b"0\r\n\r\n", b""),
            (b"3\r\nabc\r\n0\r\n\r\n", b"abc"),
            (b"3;x=y\r\nabc\r\n00A \r\n0123456789\r\n0;z\r\nT: u\r\nV:\r\n\r\n", b"abc0123456789"),
            (b"1\r\na\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n", b"a"),
        ];
        for (bytes, expected) in cases {
            let (content, used) = content(bytes).unwrap();
            assert_eq!(content, expected);
            assert!(bytes[..used].ends_with(b"\r\n\r\n") && !bytes[used..].contains(&b'0'), "{used}");
        }
    }

    #[test]
    fn what_bends_the_grammar_or_has_no_end_has_no_content() {
        let cases: [&[u8]; 9] = [
            b"",
            b"3\r\nabc\r\n",
            b"3\r\nabc\r\n0\r\n",
            b"3\r\nabcd\r\n0\r\n\r\n",
            b"+3\r\nabc\r\n0\r\n\r\n",
            b"\r\n\r\n",
            b"g\r\n\r\n",
            b"ffffffffffffffffffff\r\n\r\n",
            b"0\r\nno field\r\n\r\n",
        ];
        for bytes in cases {
            assert_eq!(content(bytes), None, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn what_ends_too_early_is_told_from_what_breaks_the_grammar() {
        let cases: [(&[u8], &[u8], End); 11] = [
            (b"", b"", End::Beyond),
            (b"3", b"", End::Beyond),
            (b"3\r\nab", b"ab", End::Beyond),
            (b"3\r\nabc\r", b"abc", End::Beyond),
            (b"3\r\nabc\r\n0\r\nX", b"abc", End::Beyond),
            (b"3\r\nabc\r\n0\r\n\rX", b"abc", End::Broken),
            (b"3\r\nabcd", b"abc", End::Broken),
            (b"3\r\nabc\r\n 3\r\nabc", b"abc", End::Broken),
            (b"3\r\nabc\r\n0\r\nX : y\r\n\r\n", b"abc", End::Broken),
            (b"3\r\nabc\r\n0\r\nX\r\n\r\n", b"abc", End::Broken),
            (b"3\nabc\n0\n\n", b"abc", End::At(9)),
        ];
        for (bytes, expected, end) in cases {
            let read = read(bytes);
            assert_eq!((&read.content[..], read.end), (expected, end), "{}", bytes.escape_ascii());
        }
        assert!(read(b"3\nabc\n0\n\n").has_bare_line_feed && !read(b"0\r\n\r\n").has_bare_line_feed);
        assert!(read(b"80000000\r\na").has_long_chunk && !read(b"7fffffff\r\na").has_long_chunk);
    }
}
