//! Enters: conversations that pass two interfaces, each of which misses some of it and cuts it in its own way. Leaves:
//! each request once, wherever the two together have seen it.

use std::collections::BTreeSet;

use proptest::{collection::vec, prelude::*};

use super::*;

/// What of one turn (a run of the client's bytes and the answer to it) one interface sees.
#[derive(Clone, Debug)]
struct Glimpse {
    /// Where its segments end.
    cuts: Vec<usize>,
    /// Which of them it misses.
    missed: Vec<bool>,
    has_answer: bool,
}

#[derive(Clone, Debug)]
struct Turn {
    requests: Vec<Vec<u8>>,
    glimpses: [Glimpse; 2],
    /// Whose segment comes next, where both have one.
    order: Vec<bool>,
}

/// A request that no other is alike.
fn request() -> impl Strategy<Value = (u8, Vec<u8>)> {
    (0_u8..3, vec(any::<u8>(), 0..300))
}

fn glimpse(missing: f64) -> impl Strategy<Value = Glimpse> {
    (vec(any::<usize>(), 0..6), vec(prop::bool::weighted(missing), 8), prop::bool::weighted(1.0 - missing))
        .prop_map(|(cuts, missed, has_answer)| Glimpse { cuts, missed, has_answer })
}

fn turns(missing: f64) -> impl Strategy<Value = Vec<Turn>> {
    let turn = (vec(request(), 1..3), [glimpse(missing), glimpse(missing)], vec(any::<bool>(), 16));
    vec(turn, 1..6).prop_map(|turns| {
        let mut number = 0;
        let mut name = |(shape, body): (u8, Vec<u8>)| {
            number += 1;
            let chunk = [format!("{:x}\r\n", body.len().max(1)).into_bytes(), body.clone()].concat();
            match shape {
                0 => get(&format!("/{number}")),
                1 => [
                    format!("PUT /{number} HTTP/1.1\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes(),
                    body,
                ]
                .concat(),
                _ if body.is_empty() => get(&format!("/empty/{number}")),
                _ => [
                    format!("PUT /{number} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n").as_bytes(),
                    &chunk,
                    b"\r\n0\r\n\r\n",
                ]
                .concat(),
            }
        };
        let turns = turns.into_iter().map(|(requests, glimpses, order)| Turn {
            requests: requests.into_iter().map(&mut name).collect(),
            glimpses,
            order,
        });
        turns.collect()
    })
}

impl Glimpse {
    /// The segments of `len` bytes, and whether each is missed.
    fn segments(&self, len: usize) -> Vec<(usize, usize, bool)> {
        let ends: BTreeSet<usize> = self.cuts.iter().map(|cut| cut % len + 1).chain([len]).collect();
        let starts = std::iter::once(0).chain(ends.iter().copied());
        starts
            .zip(ends.iter().copied())
            .zip(&self.missed)
            .map(|((start, end), missed)| (start, end, *missed))
            .collect()
    }
}

/// Sends the turns past both interfaces. With `healed`, what one misses the other sees.
fn converse(turns: &[Turn], second: FlowKey, handshake: [bool; 2], healed: bool) -> Conversation {
    let purpose = Purpose::replay(Experiment::of_methods(Methods::All));
    let mut talk = Conversation::adopted(purpose, Limits::default(), u32::MAX - 500, 2_000);
    let first = talk.flow;
    let places = [(1, first), (2, second)];
    let pass = |talk: &mut Conversation, place: usize| (talk.interface, talk.flow) = places[place];
    for (side, flags) in [(Side::Client, TcpFlags::SYN), (Side::Server, TcpFlags(0x12))] {
        for place in (0..2).filter(|place| handshake[*place]) {
            pass(&mut talk, place);
            talk.segment(side, flags, 0, b"", 0);
        }
        talk.skip(side, 1);
    }
    for turn in turns {
        let bytes = turn.requests.concat();
        let mut segments = turn.glimpses.each_ref().map(|glimpse| glimpse.segments(bytes.len()));
        if healed {
            let mut is_covered = vec![false; bytes.len()];
            for (start, end, missed) in &segments[0] {
                is_covered[*start..*end].fill(!missed);
            }
            for (start, end, missed) in &mut segments[1] {
                *missed &= is_covered[*start..*end].iter().all(|is_covered| *is_covered);
            }
        }
        let mut queues = segments.map(|segments| segments.into_iter().peekable());
        let mut order = turn.order.iter().copied().cycle();
        while queues.iter_mut().any(|queue| queue.peek().is_some()) {
            let place = usize::from(order.next().unwrap());
            // The order may name one of them alone, whose turn ends.
            let place = if queues[place].peek().is_some() { place } else { 1 - place };
            if let Some((start, end, missed)) = queues[place].next()
                && !missed
            {
                pass(&mut talk, place);
                talk.client_at(i32::try_from(start).unwrap(), &bytes[start..end]);
            }
        }
        talk.skip(Side::Client, bytes.len());
        for (place, glimpse) in turn.glimpses.iter().enumerate() {
            if glimpse.has_answer {
                pass(&mut talk, place);
                talk.segment(Side::Server, TcpFlags::ACK, 0, &OK[..12], OK.len());
            }
        }
        talk.skip(Side::Server, OK.len());
    }
    for side in Side::ALL {
        for place in 0..2 {
            pass(&mut talk, place);
            talk.segment(side, TcpFlags(0x11), 0, b"", 0);
        }
        talk.skip(side, 1);
    }
    // A duplicate of the last request that comes after all is over.
    if let Some(last) = turns.last().and_then(|turn| turn.requests.last()) {
        let back = -i32::try_from(last.len() + 1).unwrap();
        talk.client_at(back, last);
        pass(&mut talk, 0);
        talk.client_at(back, last);
    }
    talk.finish();
    talk
}

/// The key of the conversation at the second interface.
fn second_key() -> impl Strategy<Value = FlowKey> {
    let key = Conversation::new().flow;
    let pod = "10.1.0.7:8080".parse::<SocketAddr>().unwrap().into();
    (any::<bool>(), 0_u32..2, 0_u32..2).prop_map(move |(is_translated, vlan, vni)| FlowKey {
        server: if is_translated { pod } else { key.server },
        vlan,
        vni,
        ..key
    })
}

proptest! {
    #[test]
    fn each_request_comes_out_once_where_the_two_together_saw_it(
        turns in turns(0.3),
        second in second_key(),
        handshake in prop_oneof![Just([true, true]), Just([true, false]), Just([false, true])],
    ) {
        let mut talk = converse(&turns, second, handshake, true);
        let requests: Vec<_> = turns.iter().flat_map(|turn| turn.requests.clone()).collect();
        prop_assert_eq!(talk.seen(), requests.len() as u64);
        prop_assert_eq!(talk.settled(), 0);
        prop_assert_eq!(talk.requests(), requests);
        let stats = &talk.stats;
        prop_assert_eq!((stats.conflicts, stats.out_of_window, stats.gap_bytes[CLIENT]), (0, 0, 0));
        prop_assert_eq!(stats.flows_evicted.iter().sum::<u64>(), 0);
    }

    #[test]
    fn no_request_comes_out_twice_or_altered_whatever_both_missed(
        turns in turns(0.5),
        second in second_key(),
        handshake in [any::<bool>(), any::<bool>()],
    ) {
        let mut talk = converse(&turns, second, handshake, false);
        let requests: BTreeSet<_> = turns.iter().flat_map(|turn| turn.requests.clone()).collect();
        let mirrored = talk.requests();
        prop_assert!(mirrored.iter().all(|raw| requests.contains(raw)));
        prop_assert_eq!(mirrored.iter().collect::<BTreeSet<_>>().len(), mirrored.len());
        prop_assert_eq!(talk.seen(), talk.settled() + mirrored.len() as u64);
        prop_assert_eq!((talk.pipeline.pending(), talk.stats.conflicts), (0, 0));
    }
}
