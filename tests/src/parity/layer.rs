//! Enters: the fields of one HTTP layer of a frame. Leaves: the message, or why there is nothing to compare.

use std::borrow::Cow;

use super::{
    chunked,
    markup::Tag,
    message::{Body, Headers, StartLine, content_length},
};

/// A message in the frame, or what Wireshark takes for a part of one.
#[derive(Clone, Debug, Default)]
pub(super) struct Http {
    /// Position in the frame, or in the data put together.
    position: u64,
    /// The first word of the start line, if it is a method or a status. A line further down that looks like a start
    /// line is shown as one, too.
    start: Option<Start>,
    target: Option<Vec<u8>>,
    version: Option<String>,
    headers: Headers,
    /// The lines of the head, as far as one stands right behind the other.
    lines: Vec<Vec<u8>>,
    /// The empty line behind them is there.
    has_empty_line: bool,
    is_notification: bool,
    is_chunked: bool,
    has_last_chunk: bool,
    chunks: Vec<u8>,
    encoded: Option<Vec<u8>>,
    content: Option<Vec<u8>>,
    /// What it shows for bytes and nothing else, as it does of content in a transfer coding that it does not know.
    data: Option<Vec<u8>>,
    /// Some of the content's bytes were not printed.
    is_cut: bool,
    is_in_tunnel: bool,
}

/// What a start line says first.
#[derive(Clone, Debug)]
enum Start {
    Method(Vec<u8>),
    Status(u16),
}

/// Where a field stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Depth {
    /// Right in the layer.
    Layer,
    /// Within another field, or in a layer within one.
    Field,
}

/// What Wireshark tells of a message, beyond its place.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) start_line: StartLine,
    pub(super) headers: Headers,
    pub(super) body: Body,
}

impl Http {
    /// A layer that begins at this position.
    pub(super) fn at(position: u64) -> Self {
        Self { position, ..Self::default() }
    }

    /// Position in the frame, or in the data put together.
    pub(super) const fn position(&self) -> u64 {
        self.position
    }

    /// Takes a field of the layer.
    pub(super) fn note(&mut self, name: &str, depth: Depth, tag: &Tag<'_>) {
        if depth == Depth::Layer && !matches!(name, "http.file_data" | "data") {
            self.note_line(tag);
            self.has_empty_line |= name.is_empty() && tag.bytes().is_some_and(|line| is_line_end(&line));
        }
        match name {
            "http.request.method" => self.start = self.start.take().or(tag.bytes().map(Start::Method)),
            "http.request.uri" => self.target = self.target.take().or(tag.bytes()),
            "http.response.code" => {
                let status = || tag.number("show").and_then(|status| status.try_into().ok());
                self.start = self.start.take().or_else(|| status().map(Start::Status));
            }
            "http.request.version" | "http.response.version" => {
                let version = || tag.attribute("show").map(Cow::into_owned);
                self.version = self.version.take().or_else(version);
            }
            "http.request.line" | "http.response.line" => {
                self.headers.extend(tag.bytes().as_deref().and_then(header));
            }
            "http.chunk_size" => {
                self.is_chunked = true;
                self.has_last_chunk |= tag.number("show") == Some(0);
            }
            "http.chunk_data" => {
                let bytes = self.content(tag);
                self.chunks.extend(bytes);
            }
            "http.file_data" => self.content = Some(self.content(tag)),
            "http.notification" => self.is_notification = true,
            // Within a field it is what that holds, as credentials.
            "data" if depth == Depth::Layer => self.data = tag.bytes(),
            "http.proxy_connect_host" => self.is_in_tunnel = true,
            "" if tag
                .attribute("show")
                .is_some_and(|show| show.starts_with("Content-encoded entity body")) =>
            {
                self.encoded = Some(self.content(tag));
            }
            _ => {}
        }
    }

    /// Adds a line of the head: a field with the bytes of a whole line, right behind the line before it.
    fn note_line(&mut self, tag: &Tag<'_>) {
        let lines_len: usize = self.lines.iter().map(Vec::len).sum();
        let is_next = tag.number("pos") == Some(self.position + lines_len as u64);
        let Some(line) = tag.bytes().filter(|line| is_next && line.ends_with(b"\n")) else { return };
        if tag.number("size") == u64::try_from(line.len()).ok() && !is_line_end(&line) {
            self.lines.push(line);
        }
    }

    /// The bytes of a field that holds content.
    fn content(&mut self, tag: &Tag<'_>) -> Vec<u8> {
        let bytes = tag.bytes().unwrap_or_default();
        self.is_cut |= tag.number("size") != u64::try_from(bytes.len()).ok();
        bytes
    }

    /// Whether the head has its end in the frame, or in the data put together.
    pub(super) const fn has_whole_head(&self) -> bool {
        self.has_empty_line
    }

    /// Whether it shows less of the content than the message announces.
    pub(super) fn is_short(&self) -> bool {
        if self.is_chunked {
            return !self.has_last_chunk;
        }
        let headers = self.headers();
        if transfer_codings(&headers).last().is_some_and(|coding| coding == b"chunked") {
            return true;
        }
        let shown = self.encoded.as_deref().or(self.content.as_deref()).unwrap_or_default().len();
        content_length(&headers).is_some_and(|length| length > shown as u64)
    }

    /// The message.
    ///
    /// # Errors
    ///
    /// Why there is nothing to compare.
    pub(super) fn finish(&self) -> Result<Told, &'static str> {
        let start_line = match &self.start {
            Some(Start::Method(method)) => {
                StartLine::Request { method: method.clone(), target: self.target.clone().unwrap_or_default() }
            }
            Some(Start::Status(status)) => StartLine::Response { status: *status },
            None => return Err("continuation without a start line"),
        };
        // What it takes for the version may hold the end of the target.
        if !self.version.as_ref().is_some_and(|version| version.contains("HTTP/1.")) {
            return Err("not HTTP/1.x");
        }
        if self.is_in_tunnel && start_line != (StartLine::Response { status: 200 }) {
            return Err("inside a CONNECT tunnel");
        }
        let body = if self.is_cut {
            Body::Unknown
        } else {
            self.without_transfer_coding().as_deref().map_or(Body::Unknown, Body::of)
        };
        Ok(Told { start_line, headers: self.headers(), body })
    }

    /// Names and values of the field lines.
    fn headers(&self) -> Headers {
        // Those of NOTIFY, SUBSCRIBE and UNSUBSCRIBE, which it calls notifications, it does not name as such.
        if self.is_notification && self.headers.is_empty() {
            return self.lines.iter().skip(1).filter_map(|line| header(line)).collect();
        }
        self.headers.clone()
    }

    /// The content; `None` where what is shown does not tell it.
    fn without_transfer_coding(&self) -> Option<Cow<'_, [u8]>> {
        if self.is_chunked {
            return Some(Cow::Borrowed(&self.chunks));
        }
        let shown = self.encoded.as_deref().or(self.content.as_deref());
        // RFC 9112 section 7: names of transfer codings are case-insensitive; Wireshark knows small letters alone.
        let codings = transfer_codings(&self.headers());
        match shown.or(self.data.as_deref()) {
            Some(shown) if codings.last().is_some_and(|coding| coding == b"chunked") => {
                chunked::content(shown).map(|(content, _)| Cow::Owned(content))
            }
            // Of several codings it may show nothing; of one, where there is nothing.
            None if codings.len() > 1 => None,
            shown => Some(Cow::Borrowed(shown.unwrap_or_default())),
        }
    }
}

fn is_line_end(line: &[u8]) -> bool {
    matches!(line, b"\r\n" | b"\n")
}

/// The transfer codings in the order in which they were applied, in small letters.
pub(super) fn transfer_codings(headers: &Headers) -> Vec<Vec<u8>> {
    let lines = headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case(b"transfer-encoding"));
    let codings = lines.flat_map(|(_, value)| value.split(|byte| *byte == b','));
    codings.map(|coding| coding.trim_ascii().to_ascii_lowercase()).collect()
}

/// Name and value of a field line; `None` where it has no colon.
pub(super) fn header(line: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    // RFC 9112 section 5.2: a line break within a value, and the white space around it, stands for one space.
    let lines = value.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
    let value = lines.collect::<Vec<_>>().join(&b' ');
    Some((name.trim_ascii().to_vec(), value))
}
