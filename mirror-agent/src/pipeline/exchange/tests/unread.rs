//! Enters: large answers of live. Leaves: what of them nobody reads, and what is known of them without it.

use super::answers::{reading, told};
use crate::pipeline::{Answered, Unread, exchange::tests::*};

/// More than what is left of a response must be.
const LARGE: usize = 300_000;

fn talk(answer_bytes: usize) -> Conversation {
    Conversation::with(Purpose::replay(reading()), Limits { answer_bytes, ..Limits::default() })
}

fn head(len: usize) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n").into_bytes()
}

impl Conversation {
    /// What was told since this was last asked: first byte, by its distance from the server's next one, and length.
    fn unread(&mut self) -> Vec<(i32, u32)> {
        let next = self.next[SERVER];
        std::iter::from_fn(|| self.pipeline.poll_unread())
            .map(|Unread { flow, seq, len }| {
                assert_eq!(flow, self.flow);
                (if len == 0 { 0 } else { seq.distance(next) }, len)
            })
            .collect()
    }

    /// The server sends so many bytes that the kernel program leaves out.
    fn server_left_out(&mut self, len: usize) {
        self.segment(Side::Server, TcpFlags::ACK, 0, b"", len);
        self.skip(Side::Server, len);
    }

    fn answered(&mut self) -> Vec<Answered> {
        while self.pipeline.poll_request().is_some() {}
        std::iter::from_fn(|| self.pipeline.poll_answer()).map(|(_, answered)| answered).collect()
    }
}

#[test]
fn content_over_the_limit_is_told_to_be_unread_to_its_end() {
    let mut talk = talk(1_000);
    talk.client(&get("/large"));
    talk.server_full(&head(LARGE));

    assert_eq!(talk.unread(), [(0, 300_000)]);
    talk.server_full(&[b'x'; 50_000]);
    talk.server_left_out(249_999);
    assert_eq!(talk.unread(), [], "it is told once");
    assert_eq!(talk.answered().len(), 0);
    talk.server_left_out(1);

    assert_eq!(talk.unread(), [(0, 0)], "the next answer is read");
    let answered = talk.answered();
    let [Answered::Partly { timing: Ok(timing), .. }] = answered.as_slice() else {
        panic!("{answered:?}");
    };
    assert_eq!(told(&answered[0]), "200 too_large");
    assert_eq!(timing.last_byte_at.as_nanos(), talk.now, "left-out content is timed like any other");
    talk.client(&get("/small"));
    talk.server_full(OK);
    assert_eq!(talk.answered().iter().map(told).collect::<Vec<_>>(), ["ok"]);
    assert_eq!(talk.unread(), []);
}

#[test]
fn content_found_too_large_on_the_way_is_unread_from_there() {
    let mut talk = talk(100_000);
    talk.client(&get("/chunked"));
    talk.server_full(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n30d40\r\n");
    talk.server_full(&[b'x'; 60_000]);
    assert_eq!(talk.unread(), [], "it may be within the limit");
    talk.server_full(&[b'x'; 60_000]);
    assert_eq!(talk.unread(), [], "80,000 bytes are not worth it");
    talk.server_full(&[b'x'; 80_000]);
    talk.server_full(b"\r\n49400\r\n");

    assert_eq!(talk.unread(), [(0, 300_032)], "the next chunk is");
    talk.server_left_out(300_032);
    talk.server_full(b"\r\n0\r\n\r\n");
    assert_eq!(talk.unread(), [(0, 0)]);
    assert_eq!(talk.answered().iter().map(told).collect::<Vec<_>>(), ["200 too_large"]);
}

#[test]
fn what_answers_a_request_that_no_experiment_took_is_unread() {
    let getting =
        Experiment { reads_answers: true, ..Experiment::of_methods(Methods::Only(vec!["GET".to_owned()])) };
    let mut talk = Conversation::with(Purpose::replay(getting), Limits::default());
    talk.client(&get("/first"));
    talk.server_full(OK);
    talk.client(&post(b"x"));
    talk.server_full(&head(LARGE));

    assert_eq!(talk.unread(), [(0, 300_000)]);
    talk.server_left_out(LARGE);
    talk.client(&get("/last"));
    talk.server_full(OK);
    assert_eq!(talk.answered().iter().map(told).collect::<Vec<_>>(), ["ok", "ok"]);
    assert_eq!(talk.unread(), [(0, 0)]);
}

#[test]
fn what_is_read_is_never_told_to_be_unread() {
    let mut talk = talk(LARGE);
    talk.client(&get("/"));
    talk.server_full(&head(LARGE));
    for _ in 0..3 {
        talk.server_full(&[b'x'; 100_000]);
    }

    assert_eq!(talk.unread(), []);
    assert!(matches!(talk.answered().as_slice(), [Answered::Whole(answer)] if answer.content.len() == LARGE));
}

#[test]
fn whatever_ends_the_answer_ends_what_is_unread() {
    type End = fn(&mut Conversation);
    let endings: [(&str, End); 4] = [
        ("reset", |talk| talk.segment(Side::Server, TcpFlags(0x14), 0, b"", 0)),
        ("end of the stream", |talk| talk.fin(Side::Server)),
        ("end of the capture", Conversation::finish),
        ("interruption", |talk| talk.pipeline.interrupt(Timestamp::from_nanos(talk.now))),
    ];
    for (name, end) in endings {
        let mut talk = talk(1_000);
        talk.client(&get("/"));
        talk.server_full(&head(LARGE));
        assert_eq!(talk.unread(), [(0, 300_000)], "{name}");

        end(&mut talk);

        assert_eq!(talk.unread(), [(0, 0)], "{name}");
    }
}

#[test]
fn content_longer_than_sequence_numbers_reach_is_told_piece_by_piece() {
    let mut talk = talk(1_000);
    talk.client(&get("/endless"));
    talk.server_full(&head(5 << 30));
    let piece = 1 << 30;

    assert_eq!(talk.unread(), [(0, 1 << 30)]);
    for _ in 0..piece / LARGE {
        talk.server_left_out(LARGE);
    }
    assert_eq!(talk.unread(), []);
    talk.server_full(&[b'x'; LARGE]);
    assert_eq!(talk.unread(), [(0, 1 << 30)]);
}
