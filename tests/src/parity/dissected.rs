//! Enters: the PDML of one frame. Leaves: the HTTP messages that ended in it.

use std::net::{IpAddr, SocketAddr};

use sha2::{Digest as _, Sha256};

use super::{
    markup::{Kind, Tag, tags},
    message::{Body, Message, StartLine},
    wireshark::Segment,
};

/// One frame, as far as HTTP is concerned.
#[derive(Debug, Default)]
pub(super) struct Frame {
    number: u64,
    /// The protocols from outside in, separated by colons.
    protocols: String,
    src: Option<IpAddr>,
    dst: Option<IpAddr>,
    tcp: Tcp,
    /// The data that is put together from several segments, each with the number of messages before it.
    reassemblies: Vec<(usize, Reassembly)>,
    messages: Vec<Http>,
}

/// What is known of the segment in the frame.
#[derive(Clone, Copy, Debug, Default)]
struct Tcp {
    src_port: u16,
    dst_port: u16,
    stream: u64,
    seq: u32,
    /// From Wireshark's idea of where the stream begins, which is 1.
    relative_seq: u32,
    syn: u32,
    /// Where the payload lies in the frame.
    payload_at: u64,
}

/// Data put together.
#[derive(Clone, Debug, Default)]
struct Reassembly {
    /// Frame number and bytes taken from it, in order.
    parts: Vec<(u64, u64)>,
    len: u64,
}

/// A message in the frame, or what Wireshark takes for a part of one.
#[derive(Clone, Debug, Default)]
struct Http {
    /// Position in the frame, or in the data put together.
    position: u64,
    method: Option<Vec<u8>>,
    target: Vec<u8>,
    status: Option<u16>,
    version: String,
    headers: Vec<(Vec<u8>, Vec<u8>)>,
    is_chunked: bool,
    chunks: Vec<u8>,
    encoded: Option<Vec<u8>>,
    content: Option<Vec<u8>>,
    /// Some of the content's bytes were not printed.
    is_cut: bool,
    is_in_tunnel: bool,
}

/// What an HTTP layer of the frame is.
#[derive(Debug)]
pub(super) enum Found {
    Message(Box<Message>),
    /// Nothing to compare, for this reason.
    LeftOut(&'static str),
}

impl Frame {
    pub(super) fn parse(pdml: &str) -> Self {
        let mut frame = Self::default();
        let mut layer = String::new();
        for tag in tags(pdml).filter(|tag| tag.kind != Kind::Close) {
            let name = tag.attribute("name").unwrap_or_default();
            if tag.name == "proto" {
                // Remarks within a layer look like layers without content.
                if tag.kind == Kind::Open {
                    frame.enter(&name, &tag);
                    layer = name.into_owned();
                }
            } else {
                frame.note(&layer, &name, &tag);
            }
        }
        frame
    }

    /// Whether data was put together from several segments.
    pub(super) const fn is_reassembled(&self) -> bool {
        !self.reassemblies.is_empty()
    }

    /// The messages; `segment_of` knows the segments of earlier frames.
    pub(super) fn messages(self, segment_of: impl Fn(u64) -> Option<Segment>) -> Vec<Found> {
        if let Some(reason) = self.foreign() {
            return vec![Found::LeftOut(reason)];
        }
        let (Some(src), Some(dst)) = (self.src, self.dst) else {
            return vec![Found::LeftOut("without addresses")];
        };
        let tcp = self.tcp;
        let (sender, receiver) = (SocketAddr::new(src, tcp.src_port), SocketAddr::new(dst, tcp.dst_port));
        let origin = tcp.seq.wrapping_sub(tcp.relative_seq).wrapping_add(1);
        let mut in_reassembly = false;
        let mut found = Vec::new();
        for (index, http) in self.messages.iter().enumerate() {
            let before = |(at, _): &&(usize, Reassembly)| *at <= index;
            let reassembly = self.reassemblies.iter().rfind(before);
            in_reassembly |= reassembly.is_some_and(|(at, _)| *at == index);
            let own = reassembly.map_or(0, |(_, data)| data.taken_from(self.number));
            // What follows the part that was taken out of this frame lies in the frame itself.
            let is_first = reassembly.is_some_and(|(at, _)| *at == index);
            in_reassembly &= is_first || http.position != tcp.payload_at + own;
            let start = reassembly.filter(|_| in_reassembly).and_then(|(_, data)| data.start(&segment_of));
            let seq = match start {
                Some(seq) => seq.wrapping_add(low_bits(http.position)),
                None => {
                    let into = low_bits(http.position.saturating_sub(tcp.payload_at));
                    tcp.seq.wrapping_add(tcp.syn).wrapping_add(into)
                }
            };
            let offset = u64::from(seq.wrapping_sub(origin));
            let place = format!("tcp.stream {}, frame {}", tcp.stream, self.number);
            found.push(http.finish(|start_line, headers, body| {
                let complete = body != Body::Unknown;
                Message { sender, receiver, seq, offset, place, start_line, headers, body, complete }
            }));
        }
        found
    }

    /// Why what is called HTTP here is no HTTP over TCP of this capture.
    fn foreign(&self) -> Option<&'static str> {
        let layers: Vec<&str> = self.protocols.split(':').collect();
        let http = layers.iter().position(|layer| *layer == "http")?;
        let (below, _) = layers.split_at(http);
        if below.iter().any(|layer| matches!(*layer, "icmp" | "icmpv6")) {
            return Some("quoted in an ICMP message");
        }
        match *below.last()? {
            "tcp" => None,
            "tls" => Some("decrypted from TLS"),
            "udp" => Some("over UDP"),
            _ => Some("inside another protocol"),
        }
    }

    fn enter(&mut self, layer: &str, tag: &Tag<'_>) {
        let position = tag.number("pos").unwrap_or(0);
        match layer {
            "tcp" => {
                self.tcp = Tcp { payload_at: position + tag.number("size").unwrap_or(0), ..Tcp::default() };
            }
            "http" => self.messages.push(Http { position, ..Http::default() }),
            _ => {}
        }
    }

    fn note(&mut self, layer: &str, name: &str, tag: &Tag<'_>) {
        let show = || tag.attribute("show").unwrap_or_default();
        let number = || tag.number("show").unwrap_or(0);
        match name {
            "frame.number" => self.number = number(),
            "frame.protocols" => self.protocols = show().into_owned(),
            "ip.src" | "ipv6.src" => self.src = show().parse().ok(),
            "ip.dst" | "ipv6.dst" => self.dst = show().parse().ok(),
            "tcp.srcport" => self.tcp.src_port = number().try_into().unwrap_or(0),
            "tcp.dstport" => self.tcp.dst_port = number().try_into().unwrap_or(0),
            "tcp.stream" => self.tcp.stream = number(),
            "tcp.seq" => self.tcp.relative_seq = low_bits(number()),
            "tcp.seq_raw" => self.tcp.seq = low_bits(number()),
            "tcp.flags.syn" => self.tcp.syn = u32::from(matches!(show().as_ref(), "1" | "True")),
            "tcp.segments" => self.reassemblies.push((self.messages.len(), Reassembly::default())),
            "tcp.segment" => {
                if let Some((_, data)) = self.reassemblies.last_mut() {
                    let size = tag.number("size").unwrap_or(0);
                    data.parts.push((number(), size));
                    data.len += size;
                }
            }
            _ if layer == "http" => {
                if let Some(http) = self.messages.last_mut() {
                    http.note(name, tag);
                }
            }
            _ => {}
        }
    }
}

impl Reassembly {
    fn taken_from(&self, frame: u64) -> u64 {
        self.parts.iter().filter(|(number, _)| *number == frame).map(|(_, size)| size).sum()
    }

    /// Sequence number of its first byte: it takes the end of its first segment.
    fn start(&self, segment_of: impl Fn(u64) -> Option<Segment>) -> Option<u32> {
        let (frame, size) = *self.parts.first()?;
        let segment = segment_of(frame)?;
        Some(segment.seq.wrapping_add(segment.len).wrapping_sub(low_bits(size)))
    }
}

impl Http {
    fn note(&mut self, name: &str, tag: &Tag<'_>) {
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
            "http.file_data" => self.content = Some(self.content(tag)),
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

    /// The bytes of a field that holds content.
    fn content(&mut self, tag: &Tag<'_>) -> Vec<u8> {
        let bytes = tag.bytes().unwrap_or_default();
        self.is_cut |= tag.number("size") != u64::try_from(bytes.len()).ok();
        bytes
    }

    fn finish(&self, to_message: impl FnOnce(StartLine, Vec<(Vec<u8>, Vec<u8>)>, Body) -> Message) -> Found {
        let start_line = match (&self.method, self.status) {
            (Some(method), _) => StartLine::Request { method: method.clone(), target: self.target.clone() },
            (None, Some(status)) => StartLine::Response { status },
            (None, None) => return Found::LeftOut("continuation without a start line"),
        };
        // What it takes for the version may hold the end of the target.
        if !self.version.contains("HTTP/1.") {
            return Found::LeftOut("not HTTP/1.x");
        }
        if self.is_in_tunnel && start_line != (StartLine::Response { status: 200 }) {
            return Found::LeftOut("inside a CONNECT tunnel");
        }
        let content = match (&self.encoded, &self.content) {
            _ if self.is_chunked => self.chunks.as_slice(),
            (Some(content), _) | (None, Some(content)) => content,
            (None, None) => &[],
        };
        let body = if self.is_cut {
            Body::Unknown
        } else {
            Body::Whole { len: content.len() as u64, sha256: hex(&Sha256::digest(content)) }
        };
        Found::Message(Box::new(to_message(start_line, self.headers.clone(), body)))
    }
}

/// Name and value of a field line; `None` where it has no colon.
fn header(line: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    // RFC 9112 section 5.2: a line break within a value, and the white space around it, stands for one space.
    let lines = value.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
    let value = lines.collect::<Vec<_>>().join(&b' ');
    Some((name.trim_ascii().to_vec(), value))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The lower half of a number: sequence numbers wrap.
fn low_bits(number: u64) -> u32 {
    (number & u64::from(u32::MAX)) as u32
}
