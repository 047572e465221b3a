//! Enters: a page. Leaves: its bytes on the wire as one version of the shop writes them.

use super::{
    Version,
    json::Layout,
    noise::Chance,
    pages::{Content, Page},
};

/// Whether the client takes gzip.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Accepts {
    /// Plain content alone.
    Plain,
    /// Gzip too.
    Gzip,
}

/// Writes a page; one answer in two that may be packed is.
pub(super) fn write(page: Page, version: Version, accepts: Accepts, chance: &mut Chance) -> Vec<u8> {
    let layout = if version == Version::One { Layout::Tight } else { Layout::Wide };
    let (mut content, may_be_packed) = match page.content {
        Content::Json(json) => (json.write(layout).into_bytes(), true),
        Content::Text(text) => (text.into_bytes(), true),
        Content::Binary(bytes) => (bytes, false),
    };
    let mut fields = vec![
        ("Server", "shop".to_owned()),
        ("Content-Type", page.media_type.to_owned()),
        ("X-Request-Id", chance.hex(24)),
        ("X-Served-By", chance.host()),
    ];
    fields.extend(page.fields);
    if may_be_packed {
        // RFC 9110 section 12.5.5: also where it was not packed, since it might have been.
        fields.push(("Vary", "Accept-Encoding".to_owned()));
    }
    if may_be_packed && accepts == Accepts::Gzip && chance.is_one_in(2) {
        content = gzip(&content);
        fields.push(("Content-Encoding", "gzip".to_owned()));
    }
    fields.push(("Content-Length", content.len().to_string()));
    let mut bytes = format!("HTTP/1.1 {} {}\r\n", page.status, phrase(page.status)).into_bytes();
    for (name, value) in fields {
        let name = if version == Version::One { name.to_owned() } else { name.to_ascii_lowercase() };
        bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(&content);
    bytes
}

/// The reason phrase.
fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        404 => "Not Found",
        _ => "Internal Server Error",
    }
}

/// Packs content as gzip, in blocks that are stored as they are: what unpacks it cannot know better.
fn gzip(content: &[u8]) -> Vec<u8> {
    // RFC 1952 section 2.3: deflate, no flags, no time, no system.
    let mut packed = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    // RFC 1951 section 3.2.4: one byte of flags, then the length and its complement.
    let blocks = content.chunks(usize::from(u16::MAX)).collect::<Vec<_>>();
    for (index, block) in blocks.iter().enumerate() {
        let length = u16::try_from(block.len()).unwrap_or(u16::MAX);
        packed.push(u8::from(index + 1 == blocks.len()));
        packed.extend(length.to_le_bytes());
        packed.extend((!length).to_le_bytes());
        packed.extend_from_slice(block);
    }
    packed.extend(crc32(content).to_le_bytes());
    packed.extend(u32::try_from(content.len()).unwrap_or(u32::MAX).to_le_bytes());
    packed
}

/// The checksum of RFC 1952 section 8.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |register: u32| (register >> 1) ^ if register & 1 == 1 { 0xedb8_8320 } else { 0 };
    let take = |register: u32, byte: &u8| (0..8).fold(register ^ u32::from(*byte), |now, _| step(now));
    !bytes.iter().fold(u32::MAX, take)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_is_that_of_the_standard() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn packed_content_is_what_gzip_unpacks() {
        let content = b"0123456789".repeat(7_000);
        let packed = gzip(&content);
        // Two stored blocks: 10 bytes of head, 5 before each block, 8 at the end.
        assert_eq!(packed.len(), content.len() + 10 + 2 * 5 + 8);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("content.gz");
        std::fs::write(&file, packed).unwrap();
        let unpacked = std::process::Command::new("gzip").arg("-dc").arg(&file).output().unwrap();
        assert!(unpacked.status.success() && unpacked.stdout == content);
    }
}
