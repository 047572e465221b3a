//! Enters: conversations of which live's answers are read. Leaves: which answer each request got, or why none.

use crate::pipeline::{
    Answered, ExchangeId,
    answer::Timing,
    exchange::tests::*,
    policy::Policy,
    reason::{IncomparableReason as Reason, UntimedReason},
};

/// An experiment that takes every request, and reads the answers.
pub(super) fn reading() -> Experiment {
    Experiment { reads_answers: true, ..Experiment::of_methods(Methods::All) }
}

fn talk_with(limits: Limits) -> Conversation {
    Conversation::with(Purpose::replay(reading()), limits)
}

fn talk() -> Conversation {
    talk_with(Limits::default())
}

fn adopted() -> Conversation {
    Conversation::adopted(Purpose::replay(reading()), Limits::default(), 1_000, 2_000)
}

/// A response with `body`.
fn ok(body: &[u8]) -> Vec<u8> {
    let mut raw = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    raw.extend_from_slice(body);
    raw
}

/// What is known of the answer in a few words: its content, or the status and the reason.
pub(super) fn told(answered: &Answered) -> String {
    match answered {
        Answered::Whole(answer) => String::from_utf8_lossy(&answer.content).into_owned(),
        Answered::Partly { status, reason, .. } => format!("{status} {}", reason.as_str()),
        Answered::Not(reason) => reason.as_str().to_owned(),
    }
}

impl Conversation {
    /// The answers so far. Requests are taken first, and each answer must be to one of them.
    fn answers(&mut self) -> Vec<(ExchangeId, Answered)> {
        while let Some(request) = self.pipeline.poll_request() {
            self.taken.push(request.id);
        }
        let answers: Vec<_> = std::iter::from_fn(|| self.pipeline.poll_answer()).collect();
        for (id, _) in &answers {
            let place = self.taken.iter().position(|taken| taken == id);
            self.taken.remove(place.expect("answered without a question, or twice"));
        }
        answers
    }

    /// The same in a few words.
    pub(super) fn told(&mut self) -> Vec<String> {
        self.answers().iter().map(|(_, answered)| told(answered)).collect()
    }

    /// Ends the capture: every request that was handed out must have been answered.
    fn told_to_the_end(&mut self) -> Vec<String> {
        let mut told = self.told();
        self.finish();
        told.extend(self.told());
        assert!(self.taken.is_empty(), "not answered: {:?}", self.taken);
        assert_eq!(self.pipeline.bytes_held().1, 0, "bytes of messages are held behind the end");
        told
    }

    fn ask(&mut self, path: &str) {
        self.client(&get(path));
    }
}

#[test]
fn requests_get_their_answers_with_the_times_of_the_wire() {
    let mut talk = talk();
    talk.client(&post(b"abc")[..20]);
    talk.client(&post(b"abc")[20..]);
    let raw = ok(b"hello");
    talk.server_full(&raw[..10]);
    talk.server_full(&raw[10..]);
    let answers = talk.answers();
    let [(_, Answered::Whole(answer))] = &answers[..] else { panic!("{answers:?}") };
    assert_eq!((answer.status, &answer.head[..], &answer.content[..]), (200, &raw[..38], &b"hello"[..]));
    let at = |milliseconds: u64| Timestamp::from_nanos(milliseconds * 1_000_000);
    let timing = Timing {
        asked_at: at(4),
        first_byte_at: at(5),
        last_byte_at: at(6),
        round_trip: std::time::Duration::ZERO,
    };
    assert_eq!(answer.timing, Ok(timing));
    talk.ask("/2");
    talk.server_full(
        b"HTTP/1.1 404 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
    );
    assert_eq!(talk.told_to_the_end(), ["abcde"]);
}

#[test]
fn an_answer_that_nobody_reads_is_none() {
    let mut talk = Conversation::new();
    talk.ask("/");
    talk.server_full(&ok(b"a"));
    assert_eq!(talk.requests().len(), 1);
    assert!(talk.pipeline.poll_answer().is_none());
    assert_eq!(talk.pipeline.bytes_held().1, 0);
}

#[test]
fn interim_responses_are_passed_over() {
    let mut talk = talk();
    let raw = post(b"body");
    let head = raw.len() - 4;
    talk.client(&[b"POST /p HTTP/1.1\r\nExpect: 100-continue\r\n", &raw[18..head]].concat());
    talk.server_full(b"HTTP/1.1 100 Continue\r\n\r\n");
    talk.client(b"body");
    talk.server_full(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
    talk.server_full(&ok(b"final"));
    assert_eq!(talk.told_to_the_end(), ["final"]);
}

#[test]
fn responses_without_content_end_with_their_heads() {
    let mut talk = talk();
    talk.client(b"HEAD /h HTTP/1.1\r\nHost: a\r\n\r\n");
    talk.server_full(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n");
    talk.ask("/2");
    talk.server_full(b"HTTP/1.1 204 No Content\r\n\r\n");
    talk.ask("/3");
    talk.server_full(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 77\r\n\r\n");
    talk.ask("/4");
    talk.server_full(&ok(b"four"));
    assert_eq!(talk.told_to_the_end(), ["", "", "", "four"]);
}

#[test]
fn pipelined_requests_are_answered_in_order_and_not_timed() {
    let mut talk = talk();
    talk.client(&[get("/1"), get("/2")].concat());
    talk.ask("/3");
    talk.server_full(&[ok(b"1"), ok(b"2")].concat());
    talk.server_full(&ok(b"3"));
    let answers = talk.answers();
    let timings: Vec<_> = answers.iter().map(|(_, answered)| answered.timing().unwrap().is_ok()).collect();
    assert_eq!(timings, [true, false, false]);
    assert_eq!(answers[1].1.timing(), Some(Err(UntimedReason::Pipelined)));
    assert_eq!(answers.iter().map(|(_, answered)| told(answered)).collect::<Vec<_>>(), ["1", "2", "3"]);
    talk.ask("/4");
    talk.server_full(&ok(b"4"));
    assert!(talk.answers()[0].1.timing().unwrap().is_ok());
}

#[test]
fn responses_to_what_was_skipped_or_lost_are_consumed() {
    let gets = Experiment { reads_answers: true, ..Experiment::default() };
    let mut talk = Conversation::with(Purpose::replay(gets), Limits { body_bytes: 4, ..Limits::default() });
    talk.client(&[post(b"skipped"), get("/1")].concat());
    talk.server_full(&[ok(b"to the post"), ok(b"1")].concat());
    assert_eq!(talk.told(), ["1"]);
    talk.client(b"GET /too-large HTTP/1.1\r\nContent-Length: 5\r\n\r\n12345");
    talk.ask("/2");
    talk.server_full(&[ok(b"to the lost one"), ok(b"2")].concat());
    assert_eq!(talk.told_to_the_end(), ["2"]);
}

#[test]
fn an_early_answer_waits_for_its_request_and_is_not_timed() {
    let mut talk = talk();
    let raw = post(b"0123456789");
    talk.client(&raw[..raw.len() - 5]);
    talk.server_full(&ok(b"early"));
    assert_eq!(talk.told(), [""; 0]);
    assert!(talk.pipeline.bytes_held().1 > 0);
    talk.client(&raw[raw.len() - 5..]);
    let answers = talk.answers();
    assert_eq!(
        (told(&answers[0].1), answers[0].1.timing()),
        ("early".to_owned(), Some(Err(UntimedReason::Early)))
    );
    talk.ask("/2");
    talk.server_full(&ok(b"2"));
    assert_eq!(talk.told_to_the_end(), ["2"]);
}

#[test]
fn a_request_that_never_ends_gets_no_answer() {
    let mut talk = talk();
    let raw = post(b"0123456789");
    talk.client(&raw[..raw.len() - 5]);
    talk.server_full(&ok(b"early"));
    talk.fin(Side::Client);
    talk.fin(Side::Server);
    assert_eq!(talk.told_to_the_end(), [""; 0]);
}

#[test]
fn segments_of_an_answer_may_come_in_any_order_and_twice() {
    let mut talk = talk();
    talk.ask("/1");
    let raw = ok(b"0123456789");
    let end = i32::try_from(raw.len()).unwrap() - 5;
    talk.server_at(end, &raw[raw.len() - 5..]);
    talk.server_at(5, &raw[5..raw.len() - 5]);
    talk.server_at(end, &raw[raw.len() - 5..]);
    talk.server_at(0, &raw[..5]);
    talk.skip(Side::Server, raw.len());
    talk.ask("/2");
    talk.server_full(&ok(b"2"));
    assert_eq!(talk.told_to_the_end(), ["0123456789", "2"]);
}

#[test]
fn a_gap_in_content_of_known_length_damages_one_answer() {
    for chunked in [false, true] {
        let mut talk = talk();
        talk.client(&[get("/1"), get("/2")].concat());
        let raw = if chunked {
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\n0123456789\r\n0\r\n\r\n".to_vec()
        } else {
            ok(b"0123456789")
        };
        let missing = raw.windows(4).position(|window| window == b"3456").unwrap();
        talk.server_full(&raw[..missing]);
        talk.skip(Side::Server, 4);
        talk.server_full(&raw[missing + 4..]);
        talk.server_full(&ok(b"2"));
        talk.ask("/3");
        assert_eq!(talk.told(), ["200 gap", "2"], "{chunked}");
        talk.server_full(&ok(b"3"));
        assert_eq!(talk.told_to_the_end(), ["3"]);
    }
}

#[test]
fn what_the_kernel_did_not_copy_is_a_gap() {
    let mut talk = talk();
    talk.ask("/1");
    let raw = ok(&[b'x'; 5_000]);
    talk.segment(Side::Server, TcpFlags::ACK, 0, &raw[..100], raw.len());
    talk.skip(Side::Server, raw.len());
    talk.ask("/2");
    talk.server_full(&ok(b"2"));
    assert_eq!(talk.told_to_the_end(), ["200 gap", "2"]);
}

#[test]
fn after_a_gap_in_a_head_nothing_is_paired_until_both_sides_were_silent() {
    for missing in [3..9, 0..60] {
        let mut talk = talk();
        talk.client(&[get("/1"), get("/2")].concat());
        let raw = [ok(&[b'1'; 40]), ok(b"2")].concat();
        talk.server_full(&raw[..missing.start]);
        talk.skip(Side::Server, missing.len());
        talk.server_full(&raw[missing.end..]);
        // The gap is shown by this, which follows too soon.
        talk.ask("/3");
        let told = talk.told();
        assert!(told.iter().all(|told| told == "gap" || told == "unpaired"), "{told:?}");
        assert_eq!(told.len(), 3);
        talk.server_full(&ok(b"3"));
        talk.wait(100);
        talk.ask("/4");
        talk.server_full(&ok(b"4"));
        assert_eq!(talk.told_to_the_end(), ["4"]);
    }
}

#[test]
fn after_a_request_that_was_not_seen_nothing_is_paired_until_both_sides_were_silent() {
    let mut talk = talk();
    talk.ask("/0");
    talk.server_full(&ok(b"0"));
    talk.skip(Side::Client, get("/1").len());
    talk.ask("/2");
    talk.server_full(&ok(b"1"));
    talk.server_full(&ok(b"2"));
    // That one is not told from a body.
    talk.ask("/3");
    talk.server_full(&ok(b"3"));
    talk.wait(50);
    talk.ask("/4");
    talk.server_full(&ok(b"4"));
    assert_eq!(talk.told_to_the_end(), ["0", "unpaired", "4"]);
}

#[test]
fn a_connection_older_than_the_capture_is_taken_up_when_both_sides_were_silent() {
    let mut talk = adopted();
    // An answer is outstanding that nobody knows of.
    talk.ask("/2");
    talk.server_full(&ok(b"1"));
    talk.ask("/3");
    talk.server_full(&ok(b"2"));
    talk.server_full(&ok(b"3"));
    assert_eq!(talk.told(), ["unpaired", "unpaired"]);
    talk.wait(100);
    talk.ask("/4");
    talk.server_full(&ok(b"4"));
    assert_eq!(talk.told_to_the_end(), ["4"]);
}

#[test]
fn a_pause_shorter_than_the_server_takes_is_none() {
    let mut talk = adopted();
    talk.ask("/2");
    talk.wait(200);
    talk.server_full(&ok(b"1"));
    talk.wait(150);
    talk.ask("/3");
    talk.server_full(&ok(b"2"));
    talk.server_full(&ok(b"3"));
    talk.wait(250);
    talk.ask("/4");
    talk.server_full(&ok(b"4"));
    assert_eq!(talk.told_to_the_end(), ["unpaired", "unpaired", "4"]);
}

#[test]
fn what_the_server_says_unasked_ends_pairing() {
    let mut talk = talk();
    talk.ask("/1");
    talk.server_full(
        &[ok(b"1"), b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n".to_vec()].concat(),
    );
    talk.ask("/2");
    talk.server_full(&ok(b"2"));
    assert_eq!(talk.told_to_the_end(), ["1", "unpaired"]);
}

#[test]
fn an_answer_that_is_no_http_ends_pairing() {
    let mut talk = talk();
    talk.ask("/1");
    talk.server_full(b"+OK hello\r\n");
    talk.ask("/2");
    talk.server_full(&ok(b"2"));
    assert_eq!(talk.told(), ["malformed", "unpaired"]);
    talk.wait(100);
    talk.ask("/3");
    talk.server_full(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n");
    assert_eq!(talk.told_to_the_end(), ["200 malformed"]);
}

#[test]
fn contradiction_in_content_damages_one_answer() {
    let mut talk = talk();
    talk.ask("/1");
    let raw = ok(b"0123456789");
    let at = raw.len() - 5;
    talk.server_at(i32::try_from(at).unwrap(), b"56789");
    talk.server_at(i32::try_from(at).unwrap(), b"5678X");
    talk.server_at(0, &raw[..at]);
    talk.skip(Side::Server, raw.len());
    talk.ask("/2");
    talk.server_full(&ok(b"2"));
    assert_eq!(talk.told_to_the_end(), ["200 conflict", "2"]);
}

#[test]
fn what_ends_with_the_connection_is_whole_after_an_orderly_end() {
    for is_reset in [false, true] {
        let mut talk = talk();
        talk.client(&[get("/1"), get("/2")].concat());
        talk.server_full(b"HTTP/1.0 200 OK\r\n\r\nall of it");
        if is_reset {
            talk.segment(Side::Server, TcpFlags(0x14), 0, b"", 0);
        } else {
            talk.fin(Side::Server);
        }
        let first = if is_reset { "200 aborted" } else { "all of it" };
        assert_eq!(talk.told_to_the_end(), [first, "aborted"]);
    }
}

#[test]
fn an_answer_cut_off_is_aborted() {
    type End = fn(&mut Conversation);
    let ends: [End; 4] = [
        |talk| talk.fin(Side::Server),
        |talk| talk.segment(Side::Client, TcpFlags(0x14), 0, b"", 0),
        |talk| talk.pipeline.interrupt(Timestamp::from_nanos(talk.now)),
        |talk| talk.finish(),
    ];
    for (index, end) in ends.into_iter().enumerate() {
        let mut talk = talk();
        talk.client(&[get("/1"), get("/2")].concat());
        talk.server_full(&ok(b"0123456789")[..42]);
        end(&mut talk);
        assert_eq!(talk.told_to_the_end(), ["200 aborted", "aborted"], "{index}");
    }
}

#[test]
fn after_a_pause_a_connection_is_one_older_than_the_capture() {
    let mut talk = talk();
    talk.ask("/1");
    talk.pipeline.interrupt(Timestamp::from_nanos(talk.now));
    talk.server_full(&ok(b"1"));
    talk.ask("/2");
    talk.server_full(&ok(b"2"));
    talk.wait(100);
    talk.ask("/3");
    talk.server_full(&ok(b"3"));
    assert_eq!(talk.told_to_the_end(), ["aborted", "unpaired", "3"]);
}

#[test]
fn what_is_outstanding_when_the_connection_is_handed_over_is_told_so() {
    let mut talk = talk();
    talk.ask("/1");
    talk.client(b"GET /ws HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
    talk.server_full(&ok(b"1"));
    talk.server_full(b"HTTP/1.1 101 Switching Protocols\r\n\r\n");
    talk.client(&get("/is-none"));
    assert_eq!(talk.told_to_the_end(), ["1"]);

    let mut talk = self::talk();
    talk.client(&[get("/1"), get("/2")].concat());
    talk.server_full(b"HTTP/1.1 101 Switching Protocols\r\n\r\n");
    assert_eq!(talk.told_to_the_end(), ["101 upgraded", "upgraded"]);
}

#[test]
fn after_a_declined_upgrade_pairing_goes_on() {
    let mut talk = talk();
    talk.client(b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n");
    talk.ask("/1");
    talk.server_full(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n");
    talk.server_full(&ok(b"1"));
    assert_eq!(talk.told_to_the_end(), ["1"]);
}

#[test]
fn beyond_the_limit_of_outstanding_requests_nothing_is_paired() {
    let mut talk = talk_with(Limits { outstanding: 2, ..Limits::default() });
    talk.client(&[get("/1"), get("/2"), get("/3"), get("/4")].concat());
    assert_eq!(talk.told(), ["unpaired"; 4]);
    talk.server_full(&[ok(b"1"), ok(b"2"), ok(b"3"), ok(b"4")].concat());
    talk.wait(100);
    talk.client(&[get("/5"), get("/6")].concat());
    talk.server_full(&[ok(b"5"), ok(b"6")].concat());
    assert_eq!(talk.told_to_the_end(), ["5", "6"]);
}

#[test]
fn an_answer_over_the_limit_is_followed_by_its_length() {
    let mut talk = talk_with(Limits { answer_bytes: 4, ..Limits::default() });
    talk.client(&[get("/1"), get("/2"), get("/3")].concat());
    talk.server_full(&ok(b"12345"));
    talk.server_full(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
    );
    talk.server_full(&ok(b"1234"));
    assert_eq!(talk.told_to_the_end(), ["200 too_large", "200 too_large", "1234"]);
}

#[test]
fn a_shortage_of_memory_costs_answers_and_no_request() {
    let mut talk = talk_with(Limits { memory_bytes: 60_000, ..Limits::default() });
    talk.client(&[get("/1"), get("/2")].concat());
    talk.server_full(&ok(&vec![b'x'; 50_000]));
    talk.server_full(&ok(b"2"));
    assert_eq!(talk.told_to_the_end(), ["200 memory", "2"]);
    assert_eq!((talk.seen(), talk.settled()), (2, 0));
}

#[test]
fn a_connection_is_taken_up_when_its_answers_come_to_be_read() {
    let mut talk = Conversation::new();
    talk.ask("/1");
    talk.server(&ok(b"1"));
    talk.pipeline.set_policy(std::sync::Arc::new(Policy::from(reading())));
    assert_eq!(talk.requests().len(), 1);
    talk.ask("/2");
    talk.server_full(&ok(b"2"));
    talk.wait(100);
    talk.ask("/3");
    talk.server_full(&ok(b"3"));
    assert_eq!(talk.told(), ["unpaired", "3"]);
    talk.pipeline.set_policy(std::sync::Arc::new(Policy::from(Experiment::of_methods(Methods::All))));
    talk.ask("/4");
    talk.server(&ok(b"4"));
    assert_eq!(talk.requests().len(), 1);
    talk.finish();
    assert!(talk.pipeline.poll_answer().is_none());
    assert_eq!(talk.pipeline.bytes_held().1, 0);
}

#[test]
fn an_answer_is_read_only_of_servers_that_an_experiment_is_about() {
    let elsewhere = Experiment { ports: vec![81], ..reading() };
    let here = Experiment::of_methods(Methods::All);
    let policy = Policy::new(vec![elsewhere, here]);
    let mut talk = Conversation::with(Purpose::Replay(std::sync::Arc::new(policy)), Limits::default());
    talk.ask("/1");
    talk.server_full(&ok(b"1"));
    assert_eq!(talk.requests().len(), 1);
    assert!(talk.pipeline.poll_answer().is_none());
    assert_eq!(talk.pipeline.bytes_held().1, 0);
    assert_eq!(Reason::ALL.len(), Reason::LABELS.len());
}
