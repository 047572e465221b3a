//! Enters: segments. Leaves: what a Linux receiver reads, found the slow and obvious way.

/// The receiving end of a connection.
#[derive(Debug, Default)]
pub(super) struct Receiver {
    /// What the application has been given.
    pub(super) read: Vec<u8>,
    /// The out-of-order queue, ordered by the segments' starts.
    queue: Vec<(usize, Vec<u8>)>,
    /// For each place not yet read: what the first segment said, and whether another one said otherwise.
    claims: Vec<Option<(u8, bool)>>,
    /// Places that were read although two segments had claimed different bytes for them.
    pub(super) disputed: Vec<u64>,
}

impl Receiver {
    /// A segment arrives.
    pub(super) fn receive(&mut self, start: usize, bytes: &[u8]) {
        let end = start + bytes.len();
        if end <= self.read.len() {
            return;
        }
        self.claim(start, bytes);
        if start <= self.read.len() {
            self.deliver(start, bytes);
        } else if !self.queue.iter().any(|(from, held)| *from <= start && from + held.len() >= end) {
            self.queue.retain(|(from, held)| *from < start || from + held.len() > end);
            self.queue.push((start, bytes.to_vec()));
            self.queue.sort_by_key(|(from, _)| *from);
        }
        while self.queue.first().is_some_and(|(from, _)| *from <= self.read.len()) {
            let (from, held) = self.queue.remove(0);
            self.deliver(from, &held);
        }
    }

    fn deliver(&mut self, start: usize, bytes: &[u8]) {
        for byte in bytes.iter().skip(self.read.len() - start) {
            if let Some(Some((_, true))) = self.claims.get(self.read.len()) {
                self.disputed.push(self.read.len() as u64);
            }
            self.read.push(*byte);
        }
    }

    fn claim(&mut self, start: usize, bytes: &[u8]) {
        self.claims.resize(self.claims.len().max(start + bytes.len()), None);
        for (place, byte) in (start..).zip(bytes) {
            if place >= self.read.len() {
                let (first, disputed) = self.claims[place].get_or_insert((*byte, false));
                *disputed |= first != byte;
            }
        }
    }
}
