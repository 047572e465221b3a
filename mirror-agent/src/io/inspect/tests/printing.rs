//! Enters: capture files and a stage that makes an exchange of each segment. Leaves: what is printed and told.

use crate::io::inspect::json::tests::exchange;
use crate::io::inspect::*;

/// Takes each segment for an exchange; the one on the lowest port stays open to the end.
#[derive(Default)]
struct EachSegment {
    next_id: u64,
    open: Option<ExchangeReport>,
    ended: Vec<ExchangeReport>,
}

impl Exchanges for EachSegment {
    fn handle_segment(&mut self, segment: &Segment<'_>) {
        let mut report = exchange(self.next_id, segment.at.as_nanos());
        report.flow = segment.flow;
        self.next_id += 1;
        if segment.flow.client.port == 1 {
            self.open = Some(report);
        } else {
            self.ended.push(report);
        }
    }

    fn handle_end(&mut self) {
        self.ended.extend(self.open.take());
    }

    fn poll_report(&mut self) -> Option<ExchangeReport> {
        self.ended.pop()
    }

    fn open_since(&self) -> Option<Timestamp> {
        self.open.as_ref().map(ExchangeReport::first_byte_at)
    }
}

#[test]
fn lines_stand_in_order_of_the_first_byte() {
    let (printed, warned, ended) = inspect(&capture(&[3, 1, 2, 4]), vec![80]);
    assert_eq!(ports(&printed), [3, 1, 2, 4]);
    assert_eq!(warned, "");
    assert!(ended.is_ok());
}

#[test]
fn ports_that_were_not_asked_for_are_left_out() {
    let (printed, _, _) = inspect(&capture(&[1]), vec![81]);
    assert_eq!(printed, "");
}

#[test]
fn truncated_file_is_printed_as_far_as_it_goes_and_warned_of() {
    let mut file = capture(&[1, 2]);
    file.pop();
    let (printed, warned, ended) = inspect(&file, vec![]);
    assert_eq!(ports(&printed), [1]);
    assert!(warned.ends_with(": the file ends in the middle of a packet\n"), "{warned}");
    assert!(ended.is_ok());
}

#[test]
fn damaged_file_is_printed_as_far_as_it_goes_and_is_an_error() {
    let mut file = capture(&[1]);
    file.extend([0xff; 16]);
    file.resize(20 * 1024 * 1024, 0);
    let (printed, _, ended) = inspect(&file, vec![]);
    assert_eq!(ports(&printed), [1]);
    assert!(matches!(ended, Err(InspectError::File(FileError::BlockTooLarge { .. }))));
}

#[test]
fn reader_that_goes_away_is_no_error() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let file = temp(&capture(&[1]));
    let ended = run(file.path(), vec![], &mut EachSegment::default(), Closed, &mut io::sink());
    assert!(ended.is_ok());
}

fn inspect(file: &[u8], ports: Vec<u16>) -> (String, String, Result<(), InspectError>) {
    let file = temp(file);
    let (mut out, mut warnings) = (Vec::new(), Vec::new());
    let ended = run(file.path(), ports, &mut EachSegment::default(), &mut out, &mut warnings);
    (String::from_utf8(out).unwrap(), String::from_utf8(warnings).unwrap(), ended)
}

fn temp(bytes: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

/// A pcap file with a request from each of `ports`, a microsecond apart.
fn capture(ports: &[u16]) -> Vec<u8> {
    let mut file = [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 101].map(u32::to_le_bytes).concat();
    for (micros, port) in (0_u32..).zip(ports) {
        let mut packet = Vec::new();
        etherparse::PacketBuilder::ipv4([192, 0, 2, 1], [192, 0, 2, 2], 64)
            .tcp(*port, 80, 0, 100)
            .ack(0)
            .write(&mut packet, b"GET / HTTP/1.1\r\n\r\n")
            .unwrap();
        let len = u32::try_from(packet.len()).unwrap();
        file.extend([0, micros, len, len].map(u32::to_le_bytes).concat());
        file.extend(packet);
    }
    file
}

/// The client's port of each line.
fn ports(printed: &str) -> Vec<u16> {
    let port = |line: &str| {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        value["flow"]["client"].as_str().unwrap().rsplit(':').next().unwrap().parse().unwrap()
    };
    printed.lines().map(port).collect()
}
