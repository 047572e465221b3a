//! Enters: the bytes of one head, however it was written. Leaves: what a forgiving reader makes of it.
//!
//! `inspect` shows what was on the wire, also where `run` would not replay it. A head that [`RequestHead::parse`] or
//! [`ResponseHead::parse`] takes is taken as it says; any other is read as most servers and clients would, and
//! bears the reason for which it was refused.

use std::borrow::Cow;

use super::{
    Framing, Refusal, RequestFacts, RequestHead, ResponseFacts, ResponseHead, Version, fields::Fields,
    find_line_feed, headers, is_token_byte, unfold,
};
use crate::pipeline::message::ReplyTo;

/// Takes apart `raw`, which is one head of a request.
///
/// # Errors
///
/// [`Refusal::Malformed`] where not even method, target and version can be told.
pub(super) fn parse_request(raw: &[u8]) -> Result<RequestHead<'_>, Refusal> {
    let refusal = match RequestHead::parse(raw) {
        Ok(head) if head.facts.framing != Framing::Ambiguous => return Ok(head),
        Ok(_) => Refusal::AmbiguousFraming,
        Err(refusal) => refusal,
    };
    let (method, target, version) = start_line(raw).and_then(request_line).ok_or(Refusal::Malformed)?;
    let lines = unfolded(raw);
    let fields = noted(raw, &lines);
    let facts = RequestFacts {
        framing: fields.request_framing_leniently(),
        keep_alive: fields.keep_alive(version),
        expect_continue: fields.expects_continue && version == Version::Http11,
        upgrade: fields.has_upgrade,
        connect: method == b"CONNECT",
        has_mirror_id: fields.has_mirror_id,
        has_marker: fields.has_marker,
        refusal: Some(refusal),
    };
    let host = headers(raw).find(|(name, _)| name.eq_ignore_ascii_case(b"host")).map(|(_, value)| value);
    Ok(RequestHead { raw, method, target, version, host, facts })
}

/// Takes apart `raw`, which is one head of a response.
///
/// # Errors
///
/// As [`parse_request`], where not even version and status can be told.
pub(super) fn parse_response(raw: &[u8], reply_to: ReplyTo) -> Result<ResponseHead<'_>, Refusal> {
    let strict = ResponseHead::parse(raw, reply_to);
    let refusal = match &strict {
        Ok(head) if !matches!(head.facts.framing, Framing::Ambiguous | Framing::UntilClose) => return strict,
        Ok(_) => Refusal::AmbiguousFraming,
        Err(refusal) => *refusal,
    };
    let (version, status, reason) = start_line(raw).and_then(status_line).ok_or(Refusal::Malformed)?;
    let lines = unfolded(raw);
    let fields = noted(raw, &lines);
    let framing = fields.response_framing_leniently(version, status, reply_to);
    if strict.as_ref().is_ok_and(|head| head.facts.framing == framing) {
        return strict;
    }
    let facts = ResponseFacts {
        refusal: Some(refusal),
        ..ResponseFacts::new(framing, fields.keep_alive(version), status, reply_to)
    };
    Ok(ResponseHead { raw, version, status, reason, facts })
}

/// Whether `head`, the first bytes of one that is incomplete, can no longer become a request.
pub(super) fn is_hopeless_request(head: &[u8]) -> bool {
    if let Some(line) = start_line(head) {
        return request_line(line).is_none();
    }
    let head = trim_white(head);
    let method_len = head.iter().position(|byte| !is_token_byte(*byte));
    method_len.is_some_and(|len| len == 0 || !head.get(len).is_some_and(is_white))
}

/// Whether `head`, the first bytes of one that is incomplete, can no longer become a response.
pub(super) fn is_hopeless_response(head: &[u8]) -> bool {
    super::head::is_hopeless_response(trim_white(head))
}

/// Whether a request starts at the first of `bytes`; `None` where the line is still incomplete.
pub(super) fn request_start(bytes: &[u8]) -> Option<bool> {
    match start_line(bytes) {
        Some(line) => Some(request_line(line).is_some()),
        None if is_hopeless_request(bytes) => Some(false),
        None => None,
    }
}

/// Whether a response starts at the first of `bytes`, whose line must be whole.
pub(super) fn response_start(bytes: &[u8]) -> bool {
    start_line(bytes).and_then(status_line).is_some()
}

/// The first line, without its end and the whitespace around it; `None` where it is not complete.
fn start_line(raw: &[u8]) -> Option<&[u8]> {
    raw.get(..find_line_feed(raw)?).map(trim_white)
}

/// What a forgiving reader takes for the space between the words of a start line, and passes over around them
/// (RFC 9112 section 3).
const fn is_white(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t' | 0x0b | 0x0c | b'\r')
}

/// `bytes` without such white space around them.
fn trim_white(mut bytes: &[u8]) -> &[u8] {
    while let Some((_, rest)) = bytes.split_first().filter(|(first, _)| is_white(first)) {
        bytes = rest;
    }
    while let Some((_, rest)) = bytes.split_last().filter(|(last, _)| is_white(last)) {
        bytes = rest;
    }
    bytes
}

/// Method, target and version: the first word, the last one, and whatever stands between them.
fn request_line(line: &[u8]) -> Option<(&[u8], &[u8], Version)> {
    let method_len = line.iter().position(is_white)?;
    let (method, rest) = line.split_at_checked(method_len)?;
    let before_version = rest.iter().rposition(is_white)?;
    let (target, version) = rest.split_at_checked(before_version)?;
    let target = trim_white(target);
    let is_method = !method.is_empty() && method.iter().all(|byte| is_token_byte(*byte));
    let version = http1_version(trim_white(version))?;
    (is_method && !target.is_empty()).then_some((method, target, version))
}

/// Version, status and reason.
fn status_line(line: &[u8]) -> Option<(Version, u16, &[u8])> {
    let (version, rest) = line.split_at_checked(line.iter().position(is_white)?)?;
    let (digits, reason) = trim_white(rest).split_first_chunk::<3>()?;
    if !digits.iter().all(u8::is_ascii_digit) || reason.first().is_some_and(u8::is_ascii_digit) {
        return None;
    }
    let status = str::from_utf8(digits).ok()?.parse().ok()?;
    Some((http1_version(version)?, status, trim_white(reason)))
}

/// Any version of HTTP/1: a minor version that is not known is read as the highest one that is (RFC 9110 section
/// 2.5), one that is left out likewise.
fn http1_version(bytes: &[u8]) -> Option<Version> {
    let minor = bytes.strip_prefix(b"HTTP/1.")?;
    match minor {
        b"0" => Some(Version::Http10),
        _ if minor.len() <= 2 && minor.iter().all(u8::is_ascii_digit) => Some(Version::Http11),
        _ => None,
    }
}

/// The field lines, each in one line.
fn unfolded(raw: &[u8]) -> Vec<(&[u8], Cow<'_, [u8]>)> {
    headers(raw).map(|(name, value)| (name, unfold(value))).collect()
}

/// What the field lines of `raw` mean. One with white space before it right behind the start line is told, and means
/// nothing: a recipient that does not refuse it consumes it without further processing (RFC 9112 section 2.2).
fn noted<'a>(raw: &[u8], lines: &'a [(&[u8], Cow<'_, [u8]>)]) -> Fields<'a> {
    let first = raw.split_inclusive(|byte| *byte == b'\n').nth(1).unwrap_or_default();
    let is_consumed = matches!(first, [b' ' | b'\t', ..]) && first.contains(&b':');
    let mut fields = Fields::default();
    for (name, value) in lines.iter().skip(usize::from(is_consumed)) {
        fields.note(name, value);
    }
    fields
}
