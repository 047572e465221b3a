//! Enters: content as sent, and its codings. Leaves: the content without them, or why it is not to be had.
//!
//! Everything is decoded as a stream into one buffer with a limit, so that a decompression bomb costs no more than
//! honest content of that length. The decoders' own windows are at most 32 KiB (gzip, deflate), 8 MiB (zstd) and 16 MiB (br).

use std::io::Read;

use brotli_decompressor::Decompressor;
use bytes::Bytes;
use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use ruzstd::decoding::StreamingDecoder;

use crate::pipeline::reason::IncomparableReason;

/// Most codings in a row. One is the rule, two are a server behind a proxy that compresses again.
const MAX_CODINGS: usize = 4;

/// Largest zstd window, in bytes: what RFC 9659 section 3 allows for content.
const ZSTD_WINDOW_BYTES: u64 = 8 * 1024 * 1024;

/// Room that brotli reads through, in bytes.
const BROTLI_BUFFER_BYTES: usize = 4096;

/// What a frame begins with (RFC 8878 section 3.1.1).
const ZSTD_MAGIC: [u8; 4] = 0xFD2F_B528_u32.to_le_bytes();

/// Frames that hold no content, by their magic numbers (RFC 8878 section 3.1.2).
const ZSTD_SKIPPABLE: std::ops::RangeInclusive<u32> = 0x184D_2A50..=0x184D_2A5F;

/// The content without `codings`, the values of all `content-encoding` lines in order. At most `limit` bytes.
///
/// # Errors
///
/// `too_large` where the content is too long as it is, `decoded_too_large` where it is so decoded, `coding` where a
/// coding is unknown, or the content is not what it says.
pub(in crate::pipeline) fn decode(
    content: &Bytes,
    codings: &[u8],
    limit: usize,
) -> Result<Bytes, IncomparableReason> {
    if content.len() > limit {
        return Err(IncomparableReason::TooLarge);
    }
    // Content of no length is no stream of any coding, and yet what servers send with one.
    if content.is_empty() {
        return Ok(Bytes::new());
    }
    let codings = listed(codings);
    if codings.len() > MAX_CODINGS {
        return Err(IncomparableReason::Coding);
    }
    // RFC 9110 section 8.4: in the order in which they were applied.
    codings
        .iter()
        .rev()
        .try_fold(content.clone(), |content, coding| decode_one(&content, coding, limit).map(Bytes::from))
}

/// Whether content has a coding, and all that it has are known: what cannot be decoded then is not what they say.
pub(super) fn are_known(codings: &[u8]) -> bool {
    let codings = listed(codings);
    let is_known = |coding: &Vec<u8>| KNOWN.contains(&coding.as_slice());
    (1..=MAX_CODINGS).contains(&codings.len()) && codings.iter().all(is_known)
}

/// What [`decode_one`] takes off.
const KNOWN: [&[u8]; 5] = [b"gzip", b"x-gzip", b"deflate", b"br", b"zstd"];

/// Codings in the order in which they were applied, in lower case.
fn listed(codings: &[u8]) -> Vec<Vec<u8>> {
    codings
        .split(|byte| *byte == b',')
        .map(|coding| coding.trim_ascii().to_ascii_lowercase())
        .filter(|coding| !coding.is_empty() && coding != b"identity")
        .collect()
}

fn decode_one(content: &[u8], coding: &[u8], limit: usize) -> Result<Vec<u8>, IncomparableReason> {
    match coding {
        // RFC 9110 section 8.4.1.3: `x-gzip` is the same.
        b"gzip" | b"x-gzip" => read_all(MultiGzDecoder::new(content), limit),
        b"deflate" if has_zlib_header(content) => read_all(ZlibDecoder::new(content), limit),
        // Some servers send it without the zlib format around it (RFC 9110 section 8.4.1.2), and clients take it.
        b"deflate" => read_all(DeflateDecoder::new(content), limit),
        // A first byte of this form announces the large windows, of up to 1 GiB, that RFC 7932 does not have.
        b"br" if content.first().is_some_and(|first| first & 0x7f == 0x11) => Err(IncomparableReason::Coding),
        b"br" => read_all(Decompressor::new(content, BROTLI_BUFFER_BYTES), limit),
        b"zstd" => decode_zstd(content, limit),
        _ => Err(IncomparableReason::Coding),
    }
}

/// RFC 1950 section 2.2: method 8, a window of at most 32 KiB, and a check by 31.
fn has_zlib_header(content: &[u8]) -> bool {
    content.first_chunk::<2>().is_some_and(|header| {
        let [method, _] = *header;
        method & 0x0f == 8 && method >> 4 <= 7 && u16::from_be_bytes(*header) % 31 == 0
    })
}

fn read_all(decoder: impl Read, limit: usize) -> Result<Vec<u8>, IncomparableReason> {
    let mut decoded = Vec::new();
    append_all(decoder, &mut decoded, limit)?;
    Ok(decoded)
}

fn append_all(decoder: impl Read, decoded: &mut Vec<u8>, limit: usize) -> Result<(), IncomparableReason> {
    let room = limit.saturating_sub(decoded.len());
    // One byte more tells content that fits from content that does not.
    let most = u64::try_from(room).unwrap_or(u64::MAX).saturating_add(1);
    let read = decoder.take(most).read_to_end(decoded).map_err(|_broken| IncomparableReason::Coding)?;
    if read > room { Err(IncomparableReason::DecodedTooLarge) } else { Ok(()) }
}

/// Frames one after another (RFC 8878 section 3), each with a window within the limit.
fn decode_zstd(mut content: &[u8], limit: usize) -> Result<Vec<u8>, IncomparableReason> {
    let mut decoded = Vec::new();
    while let Some(magic) = content.first_chunk::<4>() {
        if ZSTD_SKIPPABLE.contains(&u32::from_le_bytes(*magic)) {
            content = skip_frame(content).ok_or(IncomparableReason::Coding)?;
            continue;
        }
        match zstd_window(content).ok_or(IncomparableReason::Coding)? {
            Window::Of(bytes) if bytes > ZSTD_WINDOW_BYTES => return Err(IncomparableReason::Coding),
            Window::Whole(bytes) if bytes > u64::try_from(limit).unwrap_or(u64::MAX) => {
                return Err(IncomparableReason::DecodedTooLarge);
            }
            Window::Of(_) | Window::Whole(_) => {}
        }
        let decoder = StreamingDecoder::new(&mut content);
        append_all(decoder.map_err(|_broken| IncomparableReason::Coding)?, &mut decoded, limit)?;
    }
    if content.is_empty() { Ok(decoded) } else { Err(IncomparableReason::Coding) }
}

fn skip_frame(content: &[u8]) -> Option<&[u8]> {
    let (_, rest) = content.split_first_chunk::<4>()?;
    let (len, rest) = rest.split_first_chunk::<4>()?;
    rest.get(usize::try_from(u32::from_le_bytes(*len)).ok()?..)
}

/// What a frame's decoder has to remember, in bytes.
enum Window {
    /// As the frame says.
    Of(u64),
    /// All of the frame's content.
    Whole(u64),
}

/// RFC 8878 sections 3.1.1.1.1, 3.1.1.1.2 and 3.1.1.1.4.
fn zstd_window(frame: &[u8]) -> Option<Window> {
    let rest = frame.strip_prefix(&ZSTD_MAGIC)?;
    let (descriptor, rest) = rest.split_first()?;
    if descriptor & 0x20 == 0 {
        let window = *rest.first()?;
        let base = 1_u64.checked_shl(u32::from(window >> 3).checked_add(10)?)?;
        return Some(Window::Of(base.checked_add((base >> 3).checked_mul(u64::from(window & 7))?)?));
    }
    let dictionary = [0, 1, 2, 4].get(usize::from(descriptor & 3)).copied()?;
    let rest = rest.get(dictionary..)?;
    Some(Window::Whole(match descriptor >> 6 {
        0 => u64::from(*rest.first()?),
        1 => u64::from(u16::from_le_bytes(*rest.first_chunk()?)).checked_add(256)?,
        2 => u64::from(u32::from_le_bytes(*rest.first_chunk()?)),
        _ => u64::from_le_bytes(*rest.first_chunk()?),
    }))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use bytes::Bytes;
    use flate2::{
        Compression,
        write::{DeflateEncoder, GzEncoder, ZlibEncoder},
    };
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::{are_known, decode};
    use crate::pipeline::reason::IncomparableReason::{Coding, DecodedTooLarge, TooLarge};

    const PLAIN: &[u8] = b"to be, or not to be, to be, or not to be";

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(plain: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    fn raw_deflate(plain: &[u8]) -> Vec<u8> {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(plain: &[u8]) -> Vec<u8> {
        compress_to_vec(plain, CompressionLevel::Fastest)
    }

    /// `PLAIN`, and ten million zeros, as brotli's own encoder makes them.
    const BROTLI: &[u8] = &[
        0x1b, 0x27, 0x00, 0xf8, 0x1d, 0x07, 0x76, 0x8c, 0xec, 0xe5, 0x91, 0x13, 0xb4, 0x5e, 0x83, 0xd0, 0xc9,
        0xb1, 0xac, 0xb2, 0xb7, 0x12, 0x73, 0x4b, 0x42, 0x82, 0x69, 0xa8, 0x1e, 0x20, 0x61, 0x8a, 0x79, 0x07,
        0x0d,
    ];
    const BROTLI_BOMB: &[u8] = &[
        0xcb, 0xff, 0xff, 0x3f, 0xf8, 0x27, 0x00, 0xe2, 0xb1, 0x40, 0x20, 0xf7, 0xfe, 0x2f, 0xff, 0x2c, 0x31,
        0xf0, 0x4f, 0x00, 0xc4, 0x61, 0x11, 0x80, 0x8e, 0x23, 0x06,
    ];

    #[test]
    fn codings_are_taken_off() {
        let two_members = [gzip(&PLAIN[..10]), gzip(&PLAIN[10..])].concat();
        let skippable = [0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
        let frames = [&skippable[..], &zstd(&PLAIN[..10]), &zstd(&PLAIN[10..])].concat();
        let cases = [
            ("", PLAIN.to_vec()),
            ("identity", PLAIN.to_vec()),
            ("gzip", gzip(PLAIN)),
            ("X-GZIP", gzip(PLAIN)),
            ("gzip", two_members),
            ("deflate", zlib(PLAIN)),
            ("deflate", raw_deflate(PLAIN)),
            ("br", BROTLI.to_vec()),
            ("zstd", zstd(PLAIN)),
            ("zstd", frames),
            ("gzip, identity , zstd", zstd(&gzip(PLAIN))),
            ("gzip,gzip,gzip,gzip", gzip(&gzip(&gzip(&gzip(PLAIN))))),
        ];

        for (codings, content) in cases {
            let decoded = decode(&Bytes::from(content), codings.as_bytes(), 200);
            assert_eq!(decoded.as_deref(), Ok(PLAIN), "{codings}");
            assert_eq!(are_known(codings.as_bytes()), !matches!(codings, "" | "identity"), "{codings}");
        }
        assert!(!are_known(b"compress") && !are_known(b"gzip, aes128gcm") && !are_known(b"gzip,br,br,br,br"));
    }

    #[test]
    fn what_is_not_what_its_coding_says_is_a_reason() {
        let cut = |whole: Vec<u8>| whole[..whole.len() - 6].to_vec();
        let mut wrong_sum = gzip(PLAIN);
        let at = wrong_sum.len() - 6;
        wrong_sum[at] ^= 1;
        let cases = [
            ("compress", PLAIN.to_vec()),
            ("aes128gcm", PLAIN.to_vec()),
            ("gzip", PLAIN.to_vec()),
            ("gzip", cut(gzip(PLAIN))),
            ("gzip", wrong_sum),
            ("deflate", PLAIN.to_vec()),
            ("deflate", cut(zlib(PLAIN))),
            ("br", cut(BROTLI.to_vec())),
            ("zstd", PLAIN.to_vec()),
            ("zstd", cut(zstd(PLAIN))),
            ("zstd", [zstd(PLAIN), b"x".to_vec()].concat()),
            ("gzip,gzip,gzip,gzip,gzip", gzip(PLAIN)),
        ];

        for (codings, content) in cases {
            assert_eq!(decode(&Bytes::from(content), codings.as_bytes(), 200), Err(Coding), "{codings}");
        }
    }

    #[test]
    fn bomb_is_a_reason() {
        let zeros = vec![0; 10_000_000];
        let bombs = [
            ("gzip", gzip(&zeros)),
            ("deflate", zlib(&zeros)),
            ("br", BROTLI_BOMB.to_vec()),
            ("zstd", zstd(&zeros)),
        ];
        for (coding, content) in bombs {
            assert!(content.len() < 20_000, "{coding}: {}", content.len());
            let decoded = decode(&Bytes::from(content), coding.as_bytes(), 1_000_000);
            assert_eq!(decoded, Err(DecodedTooLarge), "{coding}");
        }
        let twice = gzip(&gzip(&zeros));
        assert_eq!(decode(&Bytes::from(twice), b"gzip, gzip", 1_000_000), Err(DecodedTooLarge));
    }

    #[test]
    fn limit_is_inclusive() {
        let at_limit = decode(&gzip(PLAIN).into(), b"gzip", PLAIN.len().max(gzip(PLAIN).len()));
        assert!(at_limit.is_ok());
        assert_eq!(decode(&Bytes::from_static(PLAIN), b"", PLAIN.len()).as_deref(), Ok(PLAIN));
        assert_eq!(decode(&Bytes::from_static(PLAIN), b"", PLAIN.len() - 1), Err(TooLarge));
        let long = vec![b'a'; 1000];
        assert_eq!(decode(&gzip(&long).into(), b"gzip", 999), Err(DecodedTooLarge));
        assert_eq!(decode(&gzip(&long).into(), b"gzip", 1000).as_deref(), Ok(&long[..]));
    }

    #[test]
    fn window_larger_than_http_allows_is_refused() {
        // A window of 2 GiB, then an empty raw block.
        let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3, 0x01, 0x00, 0x00];
        assert_eq!(decode(&Bytes::copy_from_slice(&frame), b"zstd", 1000), Err(Coding));
    }
}
