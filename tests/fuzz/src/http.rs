//! Enters: a byte stream with cuts and gaps. Leaves: a panic where a cut makes a difference, or a slice is not what
//! was fed.

use mirror_agent::pipeline::{
    Limits,
    http::{EndEffect, Event, GapEffect, RequestDecoder, ResponseDecoder},
    message::ReplyTo,
};

use crate::input::Input;

/// Longest head: short, so that inputs reach it.
const HEAD_BYTES: usize = 256;

/// What stands around the bytes of a head that are held, the allocator's share included.
const BOX_BYTES: usize = 96;

/// Longest run of chunk framing.
const LINE_BYTES: usize = 64;

/// What a decoder that is fed runs of bytes and gaps tells is the same however the runs are cut; the slices that it
/// gives are, put together, what it was fed; it holds no more than a head.
pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let kind = Kind::choose(input.byte());
    let cuts = [input.byte(), input.byte(), input.byte()].map(|cut| usize::from(cut & 0x3f).max(1));
    let mut whole = Decoder::new(kind);
    let mut cut = Decoder::new(kind);
    let mut by_byte = Decoder::new(kind);
    let mut at_cut = 0;
    while !input.is_empty() {
        // A long run of bytes, rarely something else.
        let choice = input.byte();
        if choice >= 0xf0 {
            let len = u64::from(input.byte()) + 1;
            for decoder in [&mut whole, &mut cut, &mut by_byte] {
                decoder.gap(len);
            }
        } else if choice >= 0xec {
            for decoder in [&mut whole, &mut cut, &mut by_byte] {
                decoder.reset();
            }
        } else {
            let mut run = input.take(usize::from(choice) + 1);
            // No segment without data comes to a decoder.
            if !run.is_empty() {
                whole.feed(run);
            }
            run.iter().for_each(|byte| by_byte.feed(&[*byte]));
            while !run.is_empty() {
                let (piece, rest) = run.split_at(cuts[at_cut % cuts.len()].min(run.len()));
                at_cut += 1;
                cut.feed(piece);
                run = rest;
            }
        }
    }
    for decoder in [&mut whole, &mut cut, &mut by_byte] {
        decoder.end();
    }
    assert_eq!(whole.told, cut.told, "a cut makes a difference");
    assert_eq!(whole.told, by_byte.told, "bytes one by one make a difference");
}

/// Which decoder, and how it is asked.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Request,
    LenientRequest,
    Response(ReplyTo),
    LenientResponse(ReplyTo),
}

impl Kind {
    const fn choose(byte: u8) -> Self {
        let reply_to = match byte >> 2 & 3 {
            0 => ReplyTo::Head,
            1 => ReplyTo::Connect,
            _ => ReplyTo::Other,
        };
        match byte & 3 {
            0 => Self::Request,
            1 => Self::LenientRequest,
            2 => Self::Response(reply_to),
            _ => Self::LenientResponse(reply_to),
        }
    }
}

enum Either {
    Request(RequestDecoder),
    Response(ResponseDecoder, ReplyTo),
}

/// What was told, with neighbouring slices of a kind as one.
#[derive(Debug, Eq, PartialEq)]
enum Told {
    Start,
    Head {
        raw: Vec<u8>,
        facts: String,
    },
    Content(Vec<u8>),
    Framing(Vec<u8>),
    End,
    /// Which of two faults is named may depend on the cut.
    Refused,
    Gap(GapEffect),
    Reset,
    Ended(EndEffect),
}

/// A decoder, and what it told so far.
struct Decoder {
    decoder: Either,
    told: Vec<Told>,
    /// Bytes consumed since the start of the message whose head is not complete.
    head: Vec<u8>,
}

/// An event without its lifetimes.
enum Step<'i> {
    NeedMore,
    Start,
    Head { raw: Vec<u8>, facts: String },
    Content(&'i [u8]),
    Framing(&'i [u8]),
    End,
    Refused,
}

impl Decoder {
    fn new(kind: Kind) -> Self {
        let limits = Limits { head_bytes: HEAD_BYTES, chunk_line_bytes: LINE_BYTES, ..Limits::default() };
        let decoder = match kind {
            Kind::Request => Either::Request(RequestDecoder::new(&limits)),
            Kind::LenientRequest => Either::Request(RequestDecoder::lenient(&limits)),
            Kind::Response(reply_to) => Either::Response(ResponseDecoder::new(&limits), reply_to),
            Kind::LenientResponse(reply_to) => Either::Response(ResponseDecoder::lenient(&limits), reply_to),
        };
        Self { decoder, told: Vec::new(), head: Vec::new() }
    }

    fn feed(&mut self, bytes: &[u8]) {
        let mut input = bytes;
        // Each byte gives an event at most, and each message three that consume nothing.
        for _ in 0..bytes.len() * 4 + 4 {
            let before = input;
            let step = self.decoder.poll(&mut input);
            let consumed = &before[..before.len() - input.len()];
            match step {
                Step::NeedMore => {
                    assert!(input.is_empty(), "it wants more than it took");
                    self.head.extend_from_slice(consumed);
                    let held = self.decoder.bytes_held();
                    assert!(held <= HEAD_BYTES * 2 + BOX_BYTES, "{held} bytes held");
                    return;
                }
                Step::Start => {
                    assert!(consumed.iter().all(|byte| matches!(byte, b'\r' | b'\n')));
                    self.head.clear();
                    self.told.push(Told::Start);
                }
                Step::Head { raw, facts } => {
                    self.head.extend_from_slice(consumed);
                    assert_eq!(raw, self.head, "a head that was not fed");
                    assert!(raw.len() <= HEAD_BYTES);
                    self.told.push(Told::Head { raw, facts });
                }
                Step::Content(slice) => {
                    assert!(!slice.is_empty() && slice == consumed, "content that was not fed");
                    match self.told.last_mut() {
                        Some(Told::Content(content)) => content.extend_from_slice(slice),
                        _ => self.told.push(Told::Content(slice.to_vec())),
                    }
                }
                Step::Framing(slice) => {
                    assert!(!slice.is_empty() && slice == consumed, "framing that was not fed");
                    match self.told.last_mut() {
                        Some(Told::Framing(framing)) => framing.extend_from_slice(slice),
                        _ => self.told.push(Told::Framing(slice.to_vec())),
                    }
                }
                Step::End => {
                    assert!(consumed.is_empty());
                    self.told.push(Told::End);
                }
                Step::Refused => self.refuse(),
            }
        }
        assert!(input.is_empty() && bytes.is_empty(), "no end of events from {} bytes", bytes.len());
    }

    fn refuse(&mut self) {
        // Framing up to the byte that is refused is given or not, depending on the cut.
        if let Some(Told::Framing(_)) = self.told.last() {
            self.told.pop();
        }
        self.told.push(Told::Refused);
    }

    fn gap(&mut self, len: u64) {
        let effect = match &mut self.decoder {
            Either::Request(decoder) => decoder.handle_gap(len),
            Either::Response(decoder, _) => decoder.handle_gap(len),
        };
        self.told.push(Told::Gap(effect));
    }

    fn reset(&mut self) {
        match &mut self.decoder {
            Either::Request(decoder) => decoder.reset(),
            Either::Response(decoder, _) => decoder.reset(),
        }
        assert_eq!(self.decoder.bytes_held(), 0);
        self.told.push(Told::Reset);
    }

    fn end(&mut self) {
        let effect = match &mut self.decoder {
            Either::Request(decoder) => decoder.handle_end(),
            Either::Response(decoder, _) => decoder.handle_end(),
        };
        assert_eq!(self.decoder.bytes_held(), 0);
        self.told.push(Told::Ended(effect));
        self.check_sequence();
    }

    /// Each start is followed by exactly one end.
    fn check_sequence(&self) {
        let mut is_open = false;
        for told in &self.told {
            match told {
                Told::Start => {
                    assert!(!is_open, "a message begins within another");
                    is_open = true;
                }
                Told::Head { .. } | Told::Content(_) | Told::Framing(_) => assert!(is_open, "{told:?}"),
                Told::Gap(GapEffect::InBody) => assert!(is_open, "{told:?}"),
                Told::End
                | Told::Refused
                | Told::Gap(GapEffect::Lost)
                | Told::Ended(EndEffect::Complete | EndEffect::Truncated) => {
                    assert!(is_open, "{told:?} of no message");
                    is_open = false;
                }
                Told::Gap(GapEffect::Between | GapEffect::Ignored) | Told::Ended(EndEffect::Clean) => {
                    assert!(!is_open, "{told:?} within a message");
                }
                Told::Reset => is_open = false,
            }
        }
    }
}

impl Either {
    fn poll<'i>(&mut self, input: &mut &'i [u8]) -> Step<'i> {
        match self {
            Self::Request(decoder) => step(decoder.poll(input), |head| {
                (head.raw.to_vec(), format!("{:?} {:?} {:?}", head.method, head.target, head.facts))
            }),
            Self::Response(decoder, reply_to) => step(decoder.poll(input, *reply_to), |head| {
                (head.raw.to_vec(), format!("{} {:?} {:?}", head.status, head.reason, head.facts))
            }),
        }
    }

    fn bytes_held(&self) -> usize {
        match self {
            Self::Request(decoder) => decoder.bytes_held(),
            Self::Response(decoder, _) => decoder.bytes_held(),
        }
    }
}

fn step<'i, H>(event: Event<'i, H>, describe: impl FnOnce(&H) -> (Vec<u8>, String)) -> Step<'i> {
    match event {
        Event::NeedMore => Step::NeedMore,
        Event::Start => Step::Start,
        Event::Head(head) => {
            let (raw, facts) = describe(&head);
            Step::Head { raw, facts }
        }
        Event::Content(bytes) => Step::Content(bytes),
        Event::Framing(bytes) => Step::Framing(bytes),
        Event::End => Step::End,
        Event::Refused(_) => Step::Refused,
    }
}
