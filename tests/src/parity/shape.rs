//! Enters: nothing. Leaves: the forms of messages that Wireshark reads otherwise than the standards say.

/// A form of messages that Wireshark reads otherwise, or reads where nobody can.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Shape {
    /// A field value over several lines; Wireshark takes the second for content.
    FoldedField,
    /// A line without a colon among the fields; Wireshark takes it for content, or for a start line.
    LineWithoutColon,
    /// White space between the start line and the first field.
    WhiteSpaceBeforeFields,
    /// White space between the name of a field and its colon.
    SpaceBeforeColon,
    /// A carriage return alone; Wireshark takes it for the end of a line.
    BareCarriageReturn,
    /// White space within the request target.
    SpaceInTarget,
    /// White space other than one space between the parts of a start line, or around them.
    WhiteSpaceInLine,
    /// A method that is not on Wireshark's list.
    UnknownMethod,
    /// Empty lines before a message.
    EmptyLinesFirst,
    /// A header of the PROXY protocol before a request.
    ProxyHeader,
    /// Bytes that begin no message of HTTP/1 before one, or in its place.
    NoStartLine,
    /// Transfer codings of which the last is not chunked.
    LastCodingNotChunked,
    /// Chunked in other letters, or with the coding identity, which is none.
    CodingInOtherWords,
    /// A length that is no number, or several that differ.
    InvalidLength,
    /// Equal lengths in one line.
    ListedLength,
    /// A length of content or of a chunk that Wireshark's numbers do not hold.
    LengthBeyond31Bits,
    /// Chunk framing that breaks the grammar.
    BrokenChunk,
    /// Chunk framing whose lines end with a line feed alone.
    BareLineFeedInChunks,
    /// A response that has no body, whatever its fields say.
    NoBody,
    /// A body that was announced, and not sent for want of a go-ahead.
    UnsentBody,
    /// NOTIFY without a length.
    Notification,
    /// A request that carries remote procedure calls as they come.
    RpcOverHttp,
    /// What is behind an answer that hands the connection over to another protocol.
    HandOver,
    /// A request of the end that was connected to, or a response of the other.
    WrongDirection,
    /// A response to the preface of HTTP/2.
    Http2Preface,
    /// The first message of a stream, of which the first segment holds a part of the first word.
    SplitMethod,
    /// A message behind content of which the dissector gave up.
    GivenUp,
    /// Data of a segment without an acknowledgement, which its receiver drops.
    WithoutAck,
    /// A message behind content of which bytes are missing, as where segments are not captured to their end.
    CutContent,
    /// Bytes of a segment behind the place of FIN, which are no part of the stream.
    BehindEnd,
}

impl Shape {
    /// All of them.
    pub const ALL: [Self; 30] = [
        Self::FoldedField,
        Self::LineWithoutColon,
        Self::WhiteSpaceBeforeFields,
        Self::SpaceBeforeColon,
        Self::BareCarriageReturn,
        Self::SpaceInTarget,
        Self::WhiteSpaceInLine,
        Self::UnknownMethod,
        Self::EmptyLinesFirst,
        Self::ProxyHeader,
        Self::NoStartLine,
        Self::LastCodingNotChunked,
        Self::CodingInOtherWords,
        Self::InvalidLength,
        Self::ListedLength,
        Self::LengthBeyond31Bits,
        Self::BrokenChunk,
        Self::BareLineFeedInChunks,
        Self::NoBody,
        Self::UnsentBody,
        Self::Notification,
        Self::RpcOverHttp,
        Self::HandOver,
        Self::WrongDirection,
        Self::Http2Preface,
        Self::SplitMethod,
        Self::GivenUp,
        Self::WithoutAck,
        Self::CutContent,
        Self::BehindEnd,
    ];

    /// The word for it in verdicts.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FoldedField => "folded-field",
            Self::LineWithoutColon => "line-without-colon",
            Self::WhiteSpaceBeforeFields => "white-space-before-fields",
            Self::SpaceBeforeColon => "space-before-colon",
            Self::BareCarriageReturn => "bare-carriage-return",
            Self::SpaceInTarget => "space-in-target",
            Self::WhiteSpaceInLine => "white-space-in-line",
            Self::UnknownMethod => "unknown-method",
            Self::EmptyLinesFirst => "empty-lines-first",
            Self::ProxyHeader => "proxy-header",
            Self::NoStartLine => "no-start-line",
            Self::LastCodingNotChunked => "last-coding-not-chunked",
            Self::CodingInOtherWords => "coding-in-other-words",
            Self::InvalidLength => "invalid-length",
            Self::ListedLength => "listed-length",
            Self::LengthBeyond31Bits => "length-beyond-31-bits",
            Self::BrokenChunk => "broken-chunk",
            Self::BareLineFeedInChunks => "bare-line-feed-in-chunks",
            Self::NoBody => "no-body",
            Self::UnsentBody => "unsent-body",
            Self::Notification => "notification",
            Self::RpcOverHttp => "rpc-over-http",
            Self::HandOver => "hand-over",
            Self::WrongDirection => "wrong-direction",
            Self::Http2Preface => "http2-preface",
            Self::SplitMethod => "split-method",
            Self::GivenUp => "given-up",
            Self::WithoutAck => "without-acknowledgement",
            Self::CutContent => "cut-content",
            Self::BehindEnd => "behind-end",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use serde_json::Value;

    use super::*;

    #[test]
    fn each_shape_has_a_verdict_and_each_verdict_a_shape_that_is_known() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("parity/verdicts.json");
        let verdicts: Vec<Value> = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        let judged: BTreeSet<&str> =
            verdicts.iter().filter_map(|verdict| verdict["shape"].as_str()).collect();
        assert_eq!(judged, Shape::ALL.map(Shape::as_str).into_iter().collect());
    }
}
