//! Enters: bytes in pieces. Leaves: messages, as a caller of the decoders sees them.

mod heads;
mod lenient;
mod properties;
mod requests;
mod responses;

use super::{Event, Framing, Refusal, RequestDecoder, ResponseDecoder, headers};
use crate::pipeline::{limits::Limits, message::ReplyTo};

/// How a message ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fate {
    Open,
    Complete,
    Refused(Refusal),
}

/// Everything a decoder said about one message.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Message {
    head: Vec<u8>,
    /// Method and target, or the status code.
    line: String,
    framing: Framing,
    headers: Vec<(Vec<u8>, Vec<u8>)>,
    content: Vec<u8>,
    /// Content and framing in the order given.
    body: Vec<u8>,
    fate: Fate,
}

impl Message {
    const fn empty() -> Self {
        Self {
            head: Vec::new(),
            line: String::new(),
            framing: Framing::None,
            headers: Vec::new(),
            content: Vec::new(),
            body: Vec::new(),
            fate: Fate::Open,
        }
    }

    fn note_head(&mut self, raw: &[u8], line: String, framing: Framing) {
        assert!(self.head.is_empty(), "one head a message");
        self.head = raw.to_vec();
        self.line = line;
        self.framing = framing;
        self.headers = headers(raw).map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
    }

    fn note<H>(&mut self, event: &Event<'_, H>) {
        assert_eq!(self.fate, Fate::Open, "nothing follows the end of a message");
        match event {
            Event::Content(bytes) => {
                assert!(!bytes.is_empty() && !self.head.is_empty());
                self.content.extend_from_slice(bytes);
                self.body.extend_from_slice(bytes);
            }
            Event::Framing(bytes) => {
                assert!(!bytes.is_empty() && !self.head.is_empty());
                self.body.extend_from_slice(bytes);
            }
            Event::End => self.fate = Fate::Complete,
            Event::Refused(refusal) => self.fate = Fate::Refused(*refusal),
            Event::NeedMore | Event::Start | Event::Head(_) => {}
        }
    }
}

fn feed_request(decoder: &mut RequestDecoder, mut input: &[u8], messages: &mut Vec<Message>) {
    loop {
        let before = input.len();
        match decoder.poll(&mut input) {
            Event::NeedMore => break,
            Event::Start => messages.push(Message::empty()),
            Event::Head(head) => {
                let line = format!(
                    "{} {}",
                    String::from_utf8_lossy(head.method),
                    String::from_utf8_lossy(head.target)
                );
                messages.last_mut().unwrap().note_head(head.raw, line, head.facts.framing);
            }
            event @ (Event::Content(_) | Event::Framing(_) | Event::End | Event::Refused(_)) => {
                messages.last_mut().unwrap().note(&event);
            }
        }
        assert!(input.len() <= before);
    }
    assert!(input.is_empty(), "NeedMore means that everything was consumed");
}

fn feed_response(
    decoder: &mut ResponseDecoder,
    mut input: &[u8],
    reply_to: ReplyTo,
    messages: &mut Vec<Message>,
) {
    loop {
        match decoder.poll(&mut input, reply_to) {
            Event::NeedMore => break,
            Event::Start => messages.push(Message::empty()),
            Event::Head(head) => {
                let line = head.status.to_string();
                messages.last_mut().unwrap().note_head(head.raw, line, head.facts.framing);
            }
            event @ (Event::Content(_) | Event::Framing(_) | Event::End | Event::Refused(_)) => {
                messages.last_mut().unwrap().note(&event);
            }
        }
    }
    assert!(input.is_empty(), "NeedMore means that everything was consumed");
}

/// The requests in `bytes`, once whole and once byte by byte: both must be the same.
fn requests(bytes: &[u8]) -> Vec<Message> {
    let (mut whole, mut single) = (Vec::new(), Vec::new());
    feed_request(&mut RequestDecoder::new(&Limits::default()), bytes, &mut whole);
    let mut decoder = RequestDecoder::new(&Limits::default());
    bytes.chunks(1).for_each(|byte| feed_request(&mut decoder, byte, &mut single));
    assert_same(&whole, &single);
    whole
}

/// The responses in `bytes`, once whole and once byte by byte: both must be the same.
fn responses(bytes: &[u8], reply_to: ReplyTo) -> Vec<Message> {
    let (mut whole, mut single) = (Vec::new(), Vec::new());
    feed_response(&mut ResponseDecoder::new(&Limits::default()), bytes, reply_to, &mut whole);
    let mut decoder = ResponseDecoder::new(&Limits::default());
    bytes.chunks(1).for_each(|byte| feed_response(&mut decoder, byte, reply_to, &mut single));
    assert_same(&whole, &single);
    whole
}

/// What follows a refusal depends on how much of the message was there, and so may how much was given before it.
fn assert_same(whole: &[Message], single: &[Message]) {
    assert_eq!(whole.len(), single.len());
    for (whole, single) in whole.iter().zip(single) {
        match (whole.fate, single.fate) {
            (Fate::Refused(_), Fate::Refused(_)) => assert_eq!(whole.head, single.head),
            _ => assert_eq!(whole, single),
        }
    }
}

/// The only message.
fn only(messages: Vec<Message>) -> Message {
    let [message] = <[Message; 1]>::try_from(messages).expect("one message");
    message
}

/// Why the only request in `bytes` is refused.
fn request_refusal(bytes: &[u8]) -> Option<Refusal> {
    match only(requests(bytes)).fate {
        Fate::Refused(refusal) => Some(refusal),
        Fate::Open | Fate::Complete => None,
    }
}
