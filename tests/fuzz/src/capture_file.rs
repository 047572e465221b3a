//! Enters: a capture file, whole or in small reads. Leaves: a panic where the reader or the stages behind it fail.

use std::io::{BufReader, Cursor};

use mirror_agent::{
    io::file::{CaptureFile, CapturedFrame, FileError},
    pipeline::{
        Limits, Pipeline, Segment, Timestamp,
        exchange::Purpose,
        frame::{Frame, LinkType},
        orient::{OrientLimits, Orienter},
    },
};

use crate::input::Input;

/// The longest file looked at: longer ones cost time and hold nothing else.
const MAX_FILE_BYTES: usize = 64 * 1024;

/// A file is read to its end or refused; how many bytes a read gives makes no difference; its exchanges are told, and
/// none twice.
pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let ports = if input.byte() & 1 == 1 { vec![80] } else { Vec::new() };
    // What the format is found out by lies within the first bytes.
    let read_bytes = usize::from(input.byte()).max(32);
    let file = &input.rest()[..input.rest().len().min(MAX_FILE_BYTES)];

    let whole = read(file, file.len().max(1));
    let dribbled = read(file, read_bytes);
    assert!(whole == dribbled, "the size of reads makes a difference");
    let frames = whole.frames.len();
    assert!(frames * 8 <= file.len(), "{frames} frames from {} bytes", file.len());
    let bytes: usize = whole.frames.iter().map(|frame| frame.bytes.len()).sum();
    assert!(bytes <= file.len(), "{bytes} bytes of frames from {}", file.len());
    tell(&whole.frames, ports);
}

/// All that can be read of a file.
#[derive(Debug, Default, PartialEq)]
struct Contents {
    frames: Vec<OwnedFrame>,
    error: Option<String>,
    is_truncated: bool,
}

#[derive(Debug, PartialEq)]
struct OwnedFrame {
    at: Timestamp,
    link_type: LinkType,
    wire_len: u32,
    bytes: Vec<u8>,
}

fn read(file: &[u8], read_bytes: usize) -> Contents {
    let input = BufReader::with_capacity(read_bytes, Cursor::new(file.to_vec()));
    let mut contents = Contents::default();
    if let Err(error) = read_frames(input, &mut contents) {
        contents.error = Some(error.to_string());
    }
    contents
}

fn read_frames(input: BufReader<Cursor<Vec<u8>>>, contents: &mut Contents) -> Result<(), FileError> {
    let mut file = CaptureFile::new(input)?;
    while let Some(CapturedFrame { at, frame }) = file.next_frame()? {
        let bytes = frame.bytes.to_vec();
        contents.frames.push(OwnedFrame { at, link_type: frame.link_type, wire_len: frame.wire_len, bytes });
    }
    contents.is_truncated = file.is_truncated();
    Ok(())
}

/// Takes the frames the way of `inspect`.
fn tell(frames: &[OwnedFrame], ports: Vec<u16>) {
    let limits =
        OrientLimits { held_packets: 4, held_flows: 4, oriented_flows: 4, ..OrientLimits::default() };
    let mut orienter = Orienter::new(ports, limits);
    let mut pipeline = Pipeline::new(Purpose::Inspect, Limits::default(), 0);
    let mut told = Vec::new();
    for OwnedFrame { at, link_type, wire_len, bytes } in frames {
        let frame = Frame { link_type: *link_type, bytes, wire_len: *wire_len };
        if let Ok(packet) = frame.parse() {
            orienter
                .handle_packet(*at, &packet, &mut |segment: Segment<'_>| pipeline.handle_segment(&segment));
            pipeline.handle_time(pipeline.now());
        }
        told.extend(std::iter::from_fn(|| pipeline.poll_report()).map(|report| report.id));
    }
    pipeline.finish(pipeline.now());
    told.extend(std::iter::from_fn(|| pipeline.poll_report()).map(|report| report.id));
    assert_eq!(pipeline.open_since(), None, "an exchange is open behind the end");
    assert_eq!((pipeline.pending(), pipeline.flows()), (0, 0));
    told.sort_unstable();
    let exchanges = told.len();
    told.dedup();
    assert_eq!(told.len(), exchanges, "an exchange is told twice");
}
