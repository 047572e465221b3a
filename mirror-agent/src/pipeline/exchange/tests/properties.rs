//! Enters: random conversations, cut, reordered, doubled and thinned at random. Leaves: two laws that always hold.

use proptest::prelude::*;

use super::*;

/// A request of some shape, complete.
fn request() -> impl Strategy<Value = Vec<u8>> {
    let body = proptest::collection::vec(any::<u8>(), 0..400);
    prop_oneof![
        "[a-z]{1,12}".prop_map(|path| get(&format!("/{path}"))),
        body.clone().prop_map(|body| post(&body)),
        body.prop_map(|body| {
            let mut raw = b"PUT /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
            for chunk in body.chunks(150) {
                raw.extend(format!("{:x};x\r\n", chunk.len()).bytes().chain(chunk.iter().copied()));
                raw.extend(b"\r\n");
            }
            raw.extend(b"0\r\nT: 1\r\n\r\n");
            raw
        }),
    ]
}

/// The stream cut into `(offset, bytes)`, in an order that is moved about within a window.
fn segments(stream: &[u8], cuts: &[usize], order: &[usize]) -> Vec<(usize, Vec<u8>)> {
    let mut at: Vec<usize> =
        cuts.iter().map(|cut| cut % stream.len().max(1)).chain([0, stream.len()]).collect();
    at.sort_unstable();
    at.dedup();
    let mut pieces: Vec<_> = at.windows(2).map(|ends| (ends[0], stream[ends[0]..ends[1]].to_vec())).collect();
    for (from, to) in order.iter().enumerate() {
        if from < pieces.len() {
            let to = (from + to % 8).min(pieces.len() - 1);
            pieces.swap(from, to);
        }
    }
    pieces
}

proptest! {
    #[test]
    fn any_segmentation_and_reordering_gives_the_same_requests(
        requests in proptest::collection::vec(request(), 1..6),
        cuts in proptest::collection::vec(any::<usize>(), 0..40),
        order in proptest::collection::vec(any::<usize>(), 0..40),
        doubled in proptest::collection::vec(any::<bool>(), 0..40),
    ) {
        let stream = requests.concat();
        let mut talk = Conversation::new();
        for (index, (offset, bytes)) in segments(&stream, &cuts, &order).into_iter().enumerate() {
            talk.client_at(i32::try_from(offset).unwrap(), &bytes);
            if doubled.get(index).copied().unwrap_or(false) {
                talk.client_at(i32::try_from(offset).unwrap(), &bytes);
            }
        }
        talk.finish();
        prop_assert_eq!(talk.seen(), requests.len() as u64);
        prop_assert_eq!(talk.settled(), 0);
        prop_assert_eq!(talk.requests(), requests);
    }

    #[test]
    fn requests_are_conserved_and_none_is_altered_whatever_is_missing(
        requests in proptest::collection::vec(request(), 1..8),
        cuts in proptest::collection::vec(any::<usize>(), 0..40),
        missing in proptest::collection::vec(any::<u8>(), 40),
        reset in any::<bool>(),
    ) {
        let stream = requests.concat();
        let mut talk = Conversation::new();
        for (index, (_, bytes)) in segments(&stream, &cuts, &[]).into_iter().enumerate() {
            if missing.get(index).is_some_and(|draw| *draw < 40) {
                talk.skip(Side::Client, bytes.len());
                talk.server(OK);
            } else {
                talk.client(&bytes);
            }
        }
        if reset {
            talk.fin(Side::Client);
            talk.fin(Side::Server);
        }
        talk.finish();
        let mirrored = talk.requests();
        prop_assert_eq!(talk.seen(), talk.settled() + mirrored.len() as u64);
        prop_assert_eq!(talk.pipeline.pending(), 0);
        prop_assert_eq!(talk.pipeline.bytes_held().1, 0);
        prop_assert!(mirrored.iter().all(|raw| requests.contains(raw)));
    }
}
