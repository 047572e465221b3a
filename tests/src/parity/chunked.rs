//! Enters: bytes that begin with a chunked body. Leaves: its content.

/// The content of the chunked body that `bytes` begins with, and how many bytes that takes; `None` where it does not
/// keep to the grammar or has no end in them. What stands behind its end is left alone.
// RFC 9112 section 7.1.
pub(super) fn content(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let mut content = Vec::new();
    let mut rest = bytes;
    loop {
        let (line, behind) = split_line(rest)?;
        let size = size(line)?;
        rest = behind;
        if size == 0 {
            break;
        }
        let (data, behind) = rest.split_at_checked(size)?;
        content.extend_from_slice(data);
        rest = behind.strip_prefix(b"\r\n")?;
    }
    // The trailer section is field lines up to an empty one.
    loop {
        let (line, behind) = split_line(rest)?;
        rest = behind;
        if line.is_empty() {
            return Some((content, bytes.len() - rest.len()));
        }
        line.contains(&b':').then_some(())?;
    }
}

fn split_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    Some((&bytes[..end], &bytes[end + 2..]))
}

/// The number that a chunk's line begins with; extensions may follow.
fn size(line: &[u8]) -> Option<usize> {
    let digits = line.split(|byte| *byte == b';').next()?.trim_ascii_end();
    // A sign is a part of numbers elsewhere.
    let is_hex = !digits.is_empty() && digits.iter().all(u8::is_ascii_hexdigit);
    let digits = str::from_utf8(digits).ok().filter(|_| is_hex)?;
    usize::from_str_radix(digits, 16).ok()
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
}
