//! Enters: the fields of one HTTP layer of a frame. Leaves: the message, or why there is nothing to compare.

use std::borrow::Cow;

use super::{
    chunked,
    markup::Tag,
    message::{Body, Headers, Shown, StartLine},
};

/// A message in the frame, or what Wireshark takes for a part of one.
#[derive(Clone, Debug, Default)]
pub(super) struct Http {
    /// Position in the frame, or in the data put together.
    position: u64,
    method: Option<Vec<u8>>,
    target: Vec<u8>,
    status: Option<u16>,
    version: String,
    headers: Headers,
    /// The head, as far as one line stands right behind the other.
    shown: Shown,
    is_notification: bool,
    is_chunked: bool,
    chunks: Vec<u8>,
    encoded: Option<Vec<u8>>,
    content: Option<Vec<u8>>,
    /// Position of that.
    content_at: u64,
    /// What it shows for bytes and nothing else, as it does of content in a transfer coding that it does not know.
    data: Option<Vec<u8>>,
    /// Some of the content's bytes were not printed.
    is_cut: bool,
    is_in_tunnel: bool,
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
    pub(super) shown: Shown,
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
            self.show_line(tag);
        }
        match name {
            "http.request.method" => self.method = tag.bytes(),
            "http.request.uri" => self.target = tag.bytes().unwrap_or_default(),
            "http.response.code" => {
                self.status = tag.number("show").and_then(|status| status.try_into().ok());
            }
            "http.request.version" | "http.response.version" => {
                self.version = tag.attribute("show").unwrap_or_default().into_owned();
            }
            "http.request.line" | "http.response.line" => {
                self.headers.extend(tag.bytes().as_deref().and_then(header));
            }
            "http.chunk_size" => self.is_chunked = true,
            "http.chunk_data" => {
                let bytes = self.content(tag);
                self.chunks.extend(bytes);
            }
            "http.file_data" => {
                self.content = Some(self.content(tag));
                self.content_at = tag.number("pos").unwrap_or(0);
            }
            "http.notification" => self.is_notification = true,
            "data.data" => self.data = tag.bytes(),
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
    fn show_line(&mut self, tag: &Tag<'_>) {
        let is_next = tag.number("pos") == Some(self.position + self.shown.lines_len() as u64);
        let Some(line) = tag.bytes().filter(|line| is_next && line.ends_with(b"\n")) else { return };
        if self.shown.is_ended || tag.number("size") != u64::try_from(line.len()).ok() {
            return;
        }
        if matches!(line.as_slice(), b"\r\n" | b"\n") {
            self.shown.is_ended = true;
        } else {
            self.shown.lines.push(line);
        }
    }

    /// The bytes of a field that holds content.
    fn content(&mut self, tag: &Tag<'_>) -> Vec<u8> {
        let bytes = tag.bytes().unwrap_or_default();
        self.is_cut |= tag.number("size") != u64::try_from(bytes.len()).ok();
        bytes
    }

    /// The message; `behind` are the layers behind it in the frame.
    ///
    /// # Errors
    ///
    /// Why there is nothing to compare.
    pub(super) fn finish(&self, behind: &[Self]) -> Result<Told, &'static str> {
        let start_line = match (&self.method, self.status) {
            (Some(method), _) => StartLine::Request { method: method.clone(), target: self.target.clone() },
            (None, Some(status)) => StartLine::Response { status },
            (None, None) => return Err("continuation without a start line"),
        };
        // What it takes for the version may hold the end of the target.
        if !self.version.contains("HTTP/1.") {
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
        Ok(Told { start_line, headers: self.headers(), body, shown: self.shown(behind) })
    }

    /// The lines of the head; where no empty line ends them also what follows, which it takes for content or for
    /// layers of their own.
    fn shown(&self, behind: &[Self]) -> Shown {
        let mut shown = self.shown.clone();
        let mut end = self.position + shown.lines_len() as u64;
        let own = (self.content_at, self.content.as_ref());
        let layers = behind.iter().filter(|http| http.shown.lines.is_empty());
        let others = layers.map(|http| (http.position, http.content.as_ref().or(http.data.as_ref())));
        for (at, content) in [own].into_iter().chain(others).filter(|_| !self.shown.is_ended) {
            if let Some(content) = content.filter(|_| at == end) {
                shown.rest.extend_from_slice(content);
                end += content.len() as u64;
            }
        }
        shown
    }

    /// Names and values of the field lines.
    fn headers(&self) -> Headers {
        // Those of NOTIFY, SUBSCRIBE and UNSUBSCRIBE, which it calls notifications, it does not name as such.
        if self.is_notification && self.headers.is_empty() {
            return self.shown.lines.iter().skip(1).filter_map(|line| header(line)).collect();
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
