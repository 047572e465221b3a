//! Enters: a capture file. Leaves: the HTTP/1.x messages that Wireshark finds in it, and what else it calls HTTP.
//!
//! `tshark` is asked for PDML, which holds each field with its bytes and each message by itself. Where a message began
//! in its stream is worked out from the segments that it was put together from.

use std::{
    collections::{BTreeMap, HashMap},
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use super::{
    dissected::{Found, Frame},
    message::Message,
};

/// What Wireshark finds in a file.
#[derive(Debug, Default)]
pub struct Dissected {
    /// The messages, in the order of the frames that completed them.
    pub messages: Vec<Message>,
    /// What Wireshark calls HTTP and is not to be compared: how often, by reason.
    pub left_out: BTreeMap<&'static str, u64>,
    /// It found the file unreadable, for this reason, be it from some place on.
    pub error: Option<String>,
    /// It was stopped, having taken far longer than is usual for a file of this size.
    pub is_stopped: bool,
}

/// What to wait for before a message is shown.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Patience {
    /// For its end, and for segments that come late: a message whose end is not in the file is not shown at all, nor
    /// one behind a gap.
    Whole,
    /// For its end, not for segments that come late.
    Present,
    /// For the end of its head. What follows may be taken for something else.
    Head,
    /// For nothing: what a segment holds of it is shown, and what follows in others may be taken for something else. What
    /// has no line ends, as content behind a gap, is not waited with for the end of a head.
    Nothing,
}

/// Which connections Wireshark looks for HTTP in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ports {
    /// Those whose ports no other dissector has, or that begin like HTTP.
    AsKnown,
    /// All, whatever their ports are known for.
    Any,
}

/// Whether `tshark` can be started.
#[must_use]
pub fn is_there() -> bool {
    tshark().arg("--version").output().is_ok_and(|output| output.status.success())
}

/// Lets Wireshark dissect `file`.
///
/// # Errors
///
/// `tshark` cannot be started, or does not print what is expected.
pub fn messages(file: &Path, patience: Patience, ports: Ports) -> Result<Dissected> {
    let mut command = quiet("timeout");
    command.arg(time_for(file)?.as_secs().to_string()).args(TSHARK);
    command.arg("-r").arg(file).args(["-Y", "http", "-T", "pdml"]);
    command.args(["-J", "frame ip ipv6 tcp tcp.segments http"]);
    // Linux began with this port, which Wireshark gives to another overlay.
    command.args(["-d", "udp.port==8472,vxlan"]);
    if ports == Ports::Any {
        command.args(["-d", "tcp.port==1-65535,http"]);
    }
    for option in OPTIONS {
        command.args(["-o", option]);
    }
    // The last word counts.
    if patience != Patience::Whole {
        command.args(["-o", "tcp.reassemble_out_of_order:FALSE"]);
    }
    if matches!(patience, Patience::Head | Patience::Nothing) {
        command.args(["-o", "http.desegment_body:FALSE"]);
    }
    if patience == Patience::Nothing {
        command.args(["-o", "http.desegment_headers:FALSE"]);
    }
    let mut running = command.stdout(Stdio::piped()).spawn().context("start tshark")?;
    let mut lines = BufReader::new(running.stdout.take().context("tshark's output")?);
    let mut segments = None;
    let mut dissected = Dissected::default();
    let mut packet = Vec::new();
    while lines.read_until(b'\n', &mut packet).context("read tshark's output")? > 0 {
        // Nowhere else: Wireshark escapes `<` in values.
        if !packet.ends_with(b"</packet>\n") {
            continue;
        }
        let frame = Frame::parse(&String::from_utf8_lossy(&packet));
        packet.clear();
        if frame.is_reassembled() && segments.is_none() {
            segments = Some(Segments::of(file)?);
        }
        let start_of = |number| segments.as_ref().and_then(|segments| segments.0.get(&number)).copied();
        for found in frame.messages(start_of) {
            match found {
                Found::Message(message) => dissected.messages.push(*message),
                Found::LeftOut(reason) => *dissected.left_out.entry(reason).or_default() += 1,
            }
        }
    }
    let output = running.wait_with_output().context("wait for tshark")?;
    ensure!(output.status.code().is_some(), "tshark did not end by itself: {}", output.status);
    if output.status.code() == Some(TIMED_OUT) {
        dissected.is_stopped = true;
    } else if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said: Vec<&str> = said.lines().filter(|line| !line.starts_with("Running as user")).collect();
        dissected.error = Some(said.join(" "));
    }
    Ok(dissected)
}

/// These fields of the frames that a display filter lets pass, a line each, separated by commas. Of a field that occurs
/// several times, as in a tunnel, it is the inner one.
///
/// # Errors
///
/// `tshark` cannot be started, or prints no text.
pub(super) fn fields(file: &Path, filter: &str, fields: &[&str]) -> Result<String> {
    let mut command = tshark();
    command.arg("-r").arg(file).args(["-Y", filter, "-T", "fields", "-E", "separator=,"]);
    command.args(["-E", "occurrence=l"]);
    for field in fields {
        command.args(["-e", field]);
    }
    let output = command.output().context("start tshark")?;
    String::from_utf8(output.stdout).context("read tshark's output")
}

/// What is as judges of HTTP need it: everything put together, nothing decompressed.
const OPTIONS: [&str; 7] = [
    "tcp.desegment_tcp_streams:TRUE",
    "tcp.reassemble_out_of_order:TRUE",
    "http.desegment_headers:TRUE",
    "http.desegment_body:TRUE",
    "http.dechunk_body:TRUE",
    "http.decompress_body:FALSE",
    "ip.defragment:TRUE",
];

/// How long Wireshark may take for a file: far longer than for most, of which it reads megabytes in a second. Where segments
/// are missing it can take many minutes, since it looks through all that it waits with at each one that comes.
fn time_for(file: &Path) -> Result<Duration> {
    let bytes = file.metadata().with_context(|| format!("read {}", file.display()))?.len();
    Ok(Duration::from_secs(60 + bytes / (256 << 10)))
}

/// The exit status of coreutils' `timeout` where it stopped what it started.
const TIMED_OUT: i32 = 124;

/// Without looking up names.
const TSHARK: [&str; 2] = ["tshark", "-n"];

fn tshark() -> Command {
    let [program, option] = TSHARK;
    let mut command = quiet(program);
    command.arg(option);
    command
}

/// Without the preferences of whoever runs it.
fn quiet(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env("WIRESHARK_CONFIG_DIR", "/nonexistent").stdin(Stdio::null()).stderr(Stdio::piped());
    command
}

/// The segments of a file, by the number of their frame.
struct Segments(HashMap<u64, Segment>);

/// Where the data of a segment lies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    /// Sequence number of the first byte of its data.
    pub(super) seq: u32,
    /// Bytes of data.
    pub(super) len: u32,
}

impl Segments {
    fn of(file: &Path) -> Result<Self> {
        let text = fields(file, "tcp", &["frame.number", "tcp.seq_raw", "tcp.len", "tcp.flags.syn"])?;
        Ok(Self(text.lines().filter_map(segment).collect()))
    }
}

/// Number of a frame and its segment, from a line of fields. `None` where the header is not all there, as in a
/// quotation within an ICMP error (RFC 792 quotes eight bytes): no message is put together from such.
fn segment(line: &str) -> Option<(u64, Segment)> {
    let words: Vec<&str> = line.split(',').collect();
    let [frame, seq, len, syn] = words[..] else { return None };
    let (seq, len) = (seq.parse::<u32>().ok()?, len.parse().ok()?);
    let syn = u32::from(matches!(syn, "1" | "True"));
    Some((frame.parse().ok()?, Segment { seq: seq.wrapping_add(syn), len }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segment_is_read_from_a_line_of_fields_unless_some_are_lacking() {
        let found = |line| segment(line).map(|(frame, segment)| (frame, segment.seq, segment.len));
        assert_eq!(found("7,1000,20,0"), Some((7, 1000, 20)));
        // A SYN takes a sequence number of its own, before its data.
        assert_eq!(found("7,1000,20,1"), Some((7, 1001, 20)));
        assert_eq!(found("7,4294967295,20,True"), Some((7, 0, 20)));
        for quoted in ["8,,,", "9,,,0", "8,1000,,", "x,1000,20,0", ""] {
            assert_eq!(found(quoted), None);
        }
    }
}
