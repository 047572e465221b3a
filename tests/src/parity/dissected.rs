//! Enters: the PDML of one frame. Leaves: the HTTP messages that ended in it.

use std::net::{IpAddr, SocketAddr};

use super::{
    layer::{Depth, Http, Told},
    markup::{Kind, Tag, tags},
    message::{Body, Message, Paired},
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
    /// A dissector gave up.
    is_marred: bool,
    /// Length in bytes, on the wire and as captured.
    len: u64,
    captured_len: u64,
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
        // The elements that are open: a layer with its name, anything else without. Layers stand one behind the other,
        // and within fields: NTLMSSP in an Authorization field, with the fields of HTTP going on behind it.
        let mut open: Vec<Option<String>> = Vec::new();
        for tag in tags(pdml) {
            let name = tag.attribute("name").unwrap_or_default();
            match (tag.name, tag.kind) {
                (_, Kind::Close) => {
                    open.pop();
                }
                ("proto", _) if name == "_ws.malformed" && open.iter().all(Option::is_none) => {
                    frame.is_marred = true;
                    if tag.kind == Kind::Open {
                        open.push(Some(name.into_owned()));
                    }
                }
                ("proto", Kind::Open) => {
                    frame.enter(&name, &tag);
                    open.push(Some(name.into_owned()));
                }
                // Remarks within a layer look like layers without content.
                ("proto", Kind::Empty) => {}
                (_, kind) => {
                    let layer = open.iter().rev().find_map(Option::as_deref).unwrap_or_default();
                    let depth =
                        if matches!(open.last(), Some(Some(_))) { Depth::Layer } else { Depth::Field };
                    frame.note(layer, &name, depth, &tag);
                    if kind == Kind::Open {
                        open.push(None);
                    }
                }
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
            in_reassembly &= is_first || http.position() != tcp.payload_at + own;
            let start = reassembly.filter(|_| in_reassembly).and_then(|(_, data)| data.start(&segment_of));
            let seq = match start {
                Some(seq) => seq.wrapping_add(low_bits(http.position())),
                None => {
                    let into = low_bits(http.position().saturating_sub(tcp.payload_at));
                    tcp.seq.wrapping_add(tcp.syn).wrapping_add(into)
                }
            };
            let offset = u64::from(seq.wrapping_sub(origin));
            let place = format!("tcp.stream {}, frame {}", tcp.stream, self.number);
            let is_cut = self.captured_len < self.len;
            if is_cut && !http.has_whole_head() {
                found.push(Found::LeftOut("heads that the capture cuts short"));
                continue;
            }
            found.push(match http.finish() {
                Ok(Told { start_line, headers, body }) => {
                    // What the frame has of it may be more or less than Wireshark shows.
                    let body = if is_cut { Body::Unknown } else { body };
                    let complete = body != Body::Unknown;
                    Found::Message(Box::new(Message {
                        sender,
                        receiver,
                        seq,
                        offset,
                        place,
                        start_line,
                        headers,
                        body,
                        complete,
                        paired: Paired::Nothing,
                        is_marred: self.is_marred,
                        has_whole_head: http.has_whole_head(),
                        is_short: http.is_short(),
                    }))
                }
                Err(reason) => Found::LeftOut(reason),
            });
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
        match below {
            // A proxy's greeting stands before HTTP in the same stream, and `inspect` reads on behind it. What is taken out
            // of TCP's options stands in between, too.
            [.., "tcp"] | [.., "tcp", "socks" | "proxy" | "mptcp"] => None,
            [.., "tls"] => Some("decrypted from TLS"),
            [.., "udp"] => Some("over UDP"),
            _ => Some("inside another protocol"),
        }
    }

    fn enter(&mut self, layer: &str, tag: &Tag<'_>) {
        let position = tag.number("pos").unwrap_or(0);
        match layer {
            "tcp" => {
                self.tcp = Tcp { payload_at: position + tag.number("size").unwrap_or(0), ..Tcp::default() };
            }
            "http" => self.messages.push(Http::at(position)),
            _ => {}
        }
    }

    fn note(&mut self, layer: &str, name: &str, depth: Depth, tag: &Tag<'_>) {
        let show = || tag.attribute("show").unwrap_or_default();
        let number = || tag.number("show").unwrap_or(0);
        match name {
            "frame.number" => self.number = number(),
            "frame.len" => self.len = number(),
            "frame.cap_len" => self.captured_len = number(),
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
                    http.note(name, depth, tag);
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

/// The lower half of a number: sequence numbers wrap.
fn low_bits(number: u64) -> u32 {
    (number & u64::from(u32::MAX)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parity::message::StartLine;

    #[test]
    fn fields_behind_a_layer_within_a_field_belong_to_the_message() {
        let pdml = packet(
            "eth:ethertype:ip:tcp:http",
            r#"<proto name="http" pos="54">
              <field name="" show="GET" pos="54"><field name="http.request.method" value="474554"/>
                <field name="http.request.uri" value="2f"/><field name="http.request.version" show="HTTP/1.1"/>
              </field>
              <field name="http.authorization" value="00"><proto name="ntlmssp"><field name="ntlmssp.x" value="00">
                <field name="ntlmssp.y" value="0"/></field></proto></field>
              <field name="http.request.line" value="413a20620d0a"/>
              <field name="http.file_data" size="2" value="6869"/>
            </proto>"#,
        );
        let message = only_message(&pdml);
        assert_eq!(message.headers, [(b"A".to_vec(), b"b".to_vec())]);
        assert!(matches!(message.body, Body::Whole { len: 2, .. }), "{:?}", message.body);
        assert_eq!(message.seq, 1000);
        let target = b"/".to_vec();
        assert_eq!(message.start_line, StartLine::Request { method: b"GET".to_vec(), target });
    }

    #[test]
    fn first_start_line_counts_and_what_credentials_hold_is_no_content() {
        let pdml = packet(
            "eth:ethertype:ip:tcp:http",
            r#"<proto name="http" pos="54">
              <field name="" pos="54"><field name="http.request.method" value="474554"/>
                <field name="http.request.uri" value="2f"/><field name="http.request.version" show="HTTP/1.1"/></field>
              <field name="" pos="70"><field name="http.response.code" show="200"/>
                <field name="http.response.version" show="HTTP/9"/></field>
              <field name="http.authorization" value="00"><field name="data" value="6869">
                <field name="data.data" size="2" pos="0" value="6869"/></field></field>
            </proto>
            <proto name="_ws.malformed"><field name="filtered" value="_ws.malformed"/></proto>"#,
        );
        let message = only_message(&pdml);
        let start_line = StartLine::Request { method: b"GET".to_vec(), target: b"/".to_vec() };
        assert_eq!((&message.start_line, &message.body), (&start_line, &Body::of(b"")));
        assert!(message.is_marred && !only_message(&pdml.replace("_ws.malformed", "dns")).is_marred);
    }

    #[test]
    fn field_lines_of_a_notification_are_those_between_start_line_and_empty_line() {
        let line = |name: &str, at: usize, line: &[u8]| {
            let value: String = line.iter().map(hex).collect();
            format!(r#"<field name="{name}" size="{}" pos="{at}" value="{value}"/>"#, line.len())
        };
        let start = r#"<field name="http.request.method" value="4e4f54494659"/>
            <field name="http.request.version" show="HTTP/1.1"/></field>"#;
        let head = [
            line("", 54, b"NOTIFY /a:b HTTP/1.1\r\n"),
            line("http.host", 76, b"Host: h\r\n"),
            line("http.content_length_header", 85, b"Content-Length: 5\r\n"),
            line("http.unknown_header", 104, b"NT: n\r\n"),
            line("", 111, b"\r\n"),
            line("http.file_data", 113, b"a: b\n"),
            r#"<field name="http.notification" show="1"/>"#.to_owned(),
        ];
        let layer = format!(
            r#"<proto name="http" pos="54">{}{}</proto>"#,
            head[0].replace("/>", ">") + start,
            head[1..].concat()
        );
        let message = only_message(&packet("eth:ethertype:ip:tcp:http", &layer));
        let expected = [("Host", "h"), ("Content-Length", "5"), ("NT", "n")];
        assert_eq!(message.headers, expected.map(|(name, value)| (name.into(), value.into())));
    }

    #[test]
    fn head_without_an_end_is_left_out_where_its_frame_is_cut() {
        let found = |captured: u64, line: &str| {
            let layer = format!(
                r#"<proto name="http" pos="54"><field name="http.response.code" show="200"/>
                <field name="http.response.version" show="HTTP/1.1"/>{line}</proto>"#
            );
            let lengths = format!(
                r#"<proto name="frame"><field name="frame.len" show="900"/>
                <field name="frame.cap_len" show="{captured}"/>"#
            );
            let pdml =
                packet("eth:ethertype:ip:tcp:http", &layer).replace(r#"<proto name="frame">"#, &lengths);
            match Frame::parse(&pdml).messages(|_| None).pop() {
                Some(Found::LeftOut(reason)) => Some(reason),
                _ => None,
            }
        };
        let end = r#"<field name="" size="2" pos="71" value="0d0a"/>"#;
        assert_eq!(found(96, ""), Some("heads that the capture cuts short"));
        assert_eq!((found(96, end), found(900, "")), (None, None));
    }

    #[test]
    fn content_that_is_less_than_announced_is_known_for_such() {
        let is_short = |fields: &[&[u8]], shown: &str| {
            let line = |line: &&[u8]| {
                let hex: String = line.iter().map(hex).collect();
                format!(r#"<field name="http.response.line" value="{hex}"/>"#)
            };
            let lines: String = fields.iter().map(line).collect();
            let layer = format!(
                r#"<proto name="http" pos="54"><field name="http.response.code" show="200"/>
                <field name="http.response.version" show="HTTP/1.1"/>{lines}{shown}</proto>"#
            );
            only_message(&packet("eth:ethertype:ip:tcp:http", &layer)).is_short
        };
        let data = r#"<field name="http.file_data" size="2" value="6869"/>"#;
        assert!(is_short(&[b"Content-Length: 3"], data) && !is_short(&[b"Content-Length: 2"], data));
        assert!(!is_short(&[], data) && is_short(&[b"Transfer-Encoding: chunked"], data));
        let chunk = r#"<field name="http.chunk_size" show="5"/>"#;
        let last = chunk.replace('5', "0");
        assert!(is_short(&[], chunk) && !is_short(&[], &[chunk, &last].concat()));
    }

    #[test]
    fn greeting_of_a_proxy_is_nothing_that_http_is_inside_of() {
        let reason = |protocols: &str| Frame::parse(&packet(protocols, "")).foreign();
        for ours in ["tcp", "tcp:socks", "tcp:proxy", "tcp:mptcp"] {
            assert_eq!(reason(&format!("eth:ethertype:ip:{ours}:http:data")), None);
        }
        assert_eq!(reason("eth:ethertype:ip:tcp:tls:http"), Some("decrypted from TLS"));
        assert_eq!(reason("eth:ethertype:ip:udp:http"), Some("over UDP"));
        for other in ["tcp:tls:socks", "udp:socks", "tcp:rtsp"] {
            assert_eq!(reason(&format!("eth:ethertype:ip:{other}:http")), Some("inside another protocol"));
        }
        assert_eq!(reason("eth:ethertype:ip:icmp:ip:tcp:http"), Some("quoted in an ICMP message"));
    }

    #[test]
    fn chunks_that_are_not_taken_for_such_are_joined() {
        let with = |coding: &[u8], shown: &str| {
            let line: String = [b"Transfer-Encoding: ", coding].concat().iter().map(hex).collect();
            let pdml = packet(
                "eth:ethertype:ip:tcp:http",
                &format!(
                    r#"<proto name="http" pos="54"><field name="http.response.code" show="200"/>
                    <field name="http.response.version" show="HTTP/1.1"/>
                    <field name="http.response.line" value="{line}"/>{shown}</proto>"#
                ),
            );
            only_message(&pdml).body
        };
        let data = |name: &str, bytes: &[u8]| {
            let value: String = bytes.iter().map(hex).collect();
            format!(r#"<field name="{name}" size="{}" value="{value}"/>"#, bytes.len())
        };
        let plain = with(b"", &data("http.file_data", b"abc"));
        let chunks = b"3\r\nabc\r\n0\r\n\r\n";
        assert_eq!(with(b"Chunked", &data("http.file_data", chunks)), plain);
        assert_eq!(with(b"gzip, CHUNKED", &data("data", chunks)), plain);
        // Without a last chunk nobody knows, nor where a coding hides the content.
        assert_eq!(with(b"Chunked", &data("http.file_data", &chunks[..8])), Body::Unknown);
        assert_eq!(with(b"gzip, Chunked", ""), Body::Unknown);
        // No body at all, as in answers to HEAD.
        assert_eq!(with(b"Chunked", ""), with(b"", ""));
    }

    fn hex(byte: &u8) -> String {
        format!("{byte:02x}")
    }

    fn only_message(pdml: &str) -> Message {
        let mut found = Frame::parse(pdml).messages(|_| None);
        match (found.pop(), found.pop()) {
            (Some(Found::Message(message)), None) => *message,
            other => panic!("{other:?}"),
        }
    }

    /// A frame of these protocols, with TCP and what is above it.
    fn packet(protocols: &str, above: &str) -> String {
        format!(
            r#"<packet>
              <proto name="frame"><field name="frame.protocols" show="{protocols}"/></proto>
              <proto name="ip"><field name="ip.src" show="192.0.2.1"/><field name="ip.dst" show="192.0.2.2"/></proto>
              <proto name="tcp" pos="34" size="20"><field name="tcp.seq_raw" show="1000"/></proto>
              {above}
            </packet>
"#
        )
    }
}
