//! Enters: content and its type. Leaves: what it is, and where two contents differ.

use std::cell::OnceCell;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::{
    FieldPair, forms,
    found::Found,
    headers::parameter,
    json::{self, Tree, numbers_at},
    plan::{Active, Plan},
    text,
};
use crate::pipeline::reason::DivergenceKind;

/// Where divergences of content as a whole are.
const PATH: &str = "body";

/// Decoded content, and what it is; parsed when that is first asked for.
#[derive(Clone, Debug)]
pub(super) struct Content {
    bytes: Bytes,
    declared: Declared,
    /// Of a multipart content.
    boundary: Option<Vec<u8>>,
    parsed: OnceCell<Parsed>,
}

/// What a content type says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Declared {
    Json,
    JsonLines,
    Form,
    Text,
    Binary,
    Multipart,
    /// Nothing that is known.
    Unknown,
}

/// What content proves to be.
#[derive(Clone, Debug)]
enum Parsed {
    Empty,
    Json(Tree),
    JsonLines(Tree),
    Form(forms::Form),
    Text,
    Binary,
    Multipart,
}

impl Content {
    pub(super) fn new(bytes: Bytes, content_type: &[u8]) -> Self {
        let declared = declared(content_type);
        let boundary =
            if declared == Declared::Multipart { parameter(content_type, b"boundary") } else { None };
        Self { bytes, declared, boundary, parsed: OnceCell::new() }
    }

    fn parsed(&self) -> &Parsed {
        self.parsed.get_or_init(|| self.parse())
    }

    fn parse(&self) -> Parsed {
        let bytes = &self.bytes;
        if bytes.trim_ascii().is_empty() && matches!(self.declared, Declared::Json | Declared::JsonLines) {
            return Parsed::Empty;
        }
        let parsed = match self.declared {
            _ if bytes.is_empty() => Some(Parsed::Empty),
            Declared::Json => Tree::parse(bytes).map(Parsed::Json),
            Declared::JsonLines => Tree::parse_lines(bytes).map(Parsed::JsonLines),
            Declared::Form => forms::parse(bytes).map(Parsed::Form),
            Declared::Binary => Some(Parsed::Binary),
            Declared::Multipart => Some(Parsed::Multipart),
            Declared::Text | Declared::Unknown if begins_like_json(bytes) => {
                Tree::parse(bytes).map(Parsed::Json)
            }
            Declared::Text | Declared::Unknown => None,
        };
        parsed.unwrap_or_else(|| {
            // In UTF-16 there are such bytes, too, but no lines that we could tell apart.
            let is_text =
                !bytes.contains(&0) && (self.declared == Declared::Text || str::from_utf8(bytes).is_ok());
            if is_text { Parsed::Text } else { Parsed::Binary }
        })
    }

    /// Whether it is to be JSON.
    fn says_json(&self) -> bool {
        matches!(self.declared, Declared::Json | Declared::JsonLines)
    }

    /// The numbers of the fields that are followed.
    fn numbers(&self, plan: &Plan) -> Vec<Vec<f64>> {
        match self.parsed() {
            Parsed::Json(tree) => numbers_at(tree, &plan.fields, plan.field_count, json::Form::Value),
            Parsed::JsonLines(tree) => numbers_at(tree, &plan.fields, plan.field_count, json::Form::Lines),
            Parsed::Empty | Parsed::Form(_) | Parsed::Text | Parsed::Binary | Parsed::Multipart => Vec::new(),
        }
    }
}

/// Whether content may be an object or an array, though its type does not say so.
fn begins_like_json(bytes: &[u8]) -> bool {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    matches!(bytes.trim_ascii_start(), [b'{' | b'[', ..])
}

fn declared(content_type: &[u8]) -> Declared {
    let end = content_type.iter().position(|byte| *byte == b';').unwrap_or(content_type.len());
    let essence = content_type.get(..end).unwrap_or_default().trim_ascii().to_ascii_lowercase();
    let Ok(essence) = String::from_utf8(essence) else { return Declared::Unknown };
    let (kind, name) = essence.split_once('/').unwrap_or((&essence, ""));
    let suffix = name.rsplit_once('+').map_or("", |(_, suffix)| suffix);
    match (kind, name) {
        (_, "x-ndjson" | "ndjson" | "jsonl" | "x-jsonl" | "jsonlines" | "x-jsonlines" | "json-lines")
        | ("application", "stream+json") => Declared::JsonLines,
        (_, "json" | "x-json") => Declared::Json,
        ("application", "x-www-form-urlencoded") => Declared::Form,
        ("multipart", _) => Declared::Multipart,
        ("text", _) => Declared::Text,
        _ if suffix == "json" => Declared::Json,
        _ if matches!(suffix, "xml" | "yaml") => Declared::Text,
        (
            "application",
            "xml" | "javascript" | "x-javascript" | "ecmascript" | "yaml" | "x-yaml" | "toml",
        )
        | ("application", "sql" | "graphql" | "x-sh" | "xml-dtd" | "x-httpd-php") => Declared::Text,
        ("image" | "audio" | "video" | "font" | "model", _)
        | ("application", "pdf" | "zip" | "gzip" | "x-gzip" | "x-tar" | "x-7z-compressed" | "wasm")
        | ("application", "octet-stream" | "x-protobuf" | "protobuf" | "grpc" | "msgpack" | "cbor") => {
            Declared::Binary
        }
        _ => Declared::Unknown,
    }
}

/// Compares two contents.
pub(super) fn compare(live: &Content, other: &Content, active: &Active<'_>, found: &mut Found) {
    if live.bytes == other.bytes {
        return;
    }
    match (live.parsed(), other.parsed()) {
        (Parsed::Empty, Parsed::Empty) => {}
        (Parsed::Empty, _) => tell_of_whole(DivergenceKind::Extra, (None, len_text(other)), active, found),
        (_, Parsed::Empty) => tell_of_whole(DivergenceKind::Missing, (len_text(live), None), active, found),
        (Parsed::Json(of_live), Parsed::Json(of_other)) => {
            json::compare(of_live, of_other, json::Form::Value, active, found);
        }
        (Parsed::JsonLines(of_live), Parsed::JsonLines(of_other)) => {
            json::compare(of_live, of_other, json::Form::Lines, active, found);
        }
        (Parsed::Form(of_live), Parsed::Form(of_other)) => forms::compare(of_live, of_other, active, found),
        (Parsed::Text, Parsed::Text) => {
            let is_malformed = live.says_json() || other.says_json();
            text::compare(&live.bytes, &other.bytes, is_malformed, active, found);
        }
        (Parsed::Binary, Parsed::Binary) => compare_bytes(&live.bytes, &other.bytes, found),
        (Parsed::Multipart, Parsed::Multipart) => {
            // The boundary is drawn anew for each answer.
            let of = |content: &Content| match &content.boundary {
                Some(boundary) if !boundary.is_empty() => without(&content.bytes, boundary),
                _ => content.bytes.to_vec(),
            };
            let (of_live, of_other) = (of(live), of(other));
            if of_live != of_other {
                compare_bytes(&of_live, &of_other, found);
            }
        }
        (of_live, of_other) => {
            let names = (Some(of_live.name().to_owned()), Some(of_other.name().to_owned()));
            tell_of_whole(DivergenceKind::Type, names, active, found);
        }
    }
}

impl Parsed {
    const fn name(&self) -> &'static str {
        match self {
            Self::Empty => "nothing",
            Self::Json(_) => "json",
            Self::JsonLines(_) => "json lines",
            Self::Form(_) => "form",
            Self::Text => "text",
            Self::Binary => "binary",
            Self::Multipart => "multipart",
        }
    }
}

/// Tells of content that is not what its `codings` say, where live's could be read. Whoever asked for it cannot read it either.
pub(super) fn tell_of_broken(live: &Content, codings: &[u8], active: &Active<'_>, found: &mut Found) {
    let codings = String::from_utf8_lossy(codings);
    let broken = format!("broken {}", codings.trim_end_matches(',').to_ascii_lowercase());
    tell_of_whole(DivergenceKind::Type, (Some(live.parsed().name().to_owned()), Some(broken)), active, found);
}

/// Contents that cannot be held against each other: one is not there, or another type. A rule that takes anything at the
/// root takes that, too.
fn tell_of_whole(
    kind: DivergenceKind,
    (live, other): (Option<String>, Option<String>),
    active: &Active<'_>,
    found: &mut Found,
) {
    match active.ignoring(&active.at_path(&active.plan.paths.start())) {
        Some(rule) => found.explain(rule, PATH),
        None => {
            let (live, other) = (live.as_deref().map(str::as_bytes), other.as_deref().map(str::as_bytes));
            found.diverge(kind, PATH.into(), live, other);
        }
    }
}

fn len_text(content: &Content) -> Option<String> {
    Some(format!("{} bytes", content.bytes.len()))
}

/// By length, and where that is the same by their hashes.
fn compare_bytes(live: &[u8], other: &[u8], found: &mut Found) {
    let (kind, [of_live, of_other]) = if live.len() == other.len() {
        (DivergenceKind::Value, [live, other].map(|bytes| format!("sha256:{:x}", Sha256::digest(bytes))))
    } else {
        (DivergenceKind::Length, [live, other].map(|bytes| bytes.len().to_string()))
    };
    found.diverge(kind, PATH.into(), Some(of_live.as_bytes()), Some(of_other.as_bytes()));
}

/// `bytes` without each `part`, which is not empty.
fn without(mut bytes: &[u8], part: &[u8]) -> Vec<u8> {
    let mut left = Vec::with_capacity(bytes.len());
    while let Some((first, rest)) = bytes.split_first() {
        if let Some(rest) = bytes.strip_prefix(part) {
            bytes = rest;
        } else {
            left.push(*first);
            bytes = rest;
        }
    }
    left
}

/// The numbers of the fields that are followed, of both, each with the one of the same place in order.
pub(super) fn fields(live: &Content, other: &Content, plan: &Plan) -> Vec<FieldPair> {
    if plan.field_count == 0 {
        return Vec::new();
    }
    let of_live = live.numbers(plan);
    let of_other = if live.bytes == other.bytes && live.declared == other.declared {
        of_live.clone()
    } else {
        other.numbers(plan)
    };
    let numbers = |of: &[Vec<f64>], field: usize| of.get(field).cloned().unwrap_or_default();
    let mut pairs = Vec::new();
    for field in 0..plan.field_count {
        let (live, other) = (numbers(&of_live, field), numbers(&of_other, field));
        for position in 0..live.len().max(other.len()) {
            let (live, other) = (live.get(position).copied(), other.get(position).copied());
            pairs.push(FieldPair { field, live, other });
        }
    }
    pairs
}
