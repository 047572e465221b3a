//! Enters: nothing. Leaves: the bounds of everything in the pipeline that could grow.

use std::time::Duration;

/// Bounds of one pipeline. Defaults are for `run` with one capture thread.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Flows held at once. Beyond it, the one idle for longest is evicted.
    pub flows: usize,
    /// A flow without a segment for this long is evicted.
    pub flow_idle: Duration,
    /// A flow without a segment for this long is over where the next one's numbers do not prove that it goes on. Of use
    /// only where it is not evicted before (capture files, which may lack every handshake).
    pub flow_doubt: Duration,
    /// A flow that ended is kept for this long, so that late duplicates of its segments are known as such.
    pub flow_linger: Duration,
    /// Bytes of out-of-order segments held per side of a flow. It must exceed the window that a sender may fill
    /// while one lost segment is on its way again.
    pub reorder_bytes: usize,
    /// Out-of-order pieces held per side of a flow.
    pub reorder_pieces: usize,
    /// How long a gap that the peer acknowledged is kept open. Zero where capture order is causal (the kernel's
    /// hooks); more where it may not be (capture files of several queues).
    pub gap_patience: Duration,
    /// How long a gap is kept open that nobody has acknowledged, where the peer of its sender has never been seen: no
    /// acknowledgement can come. A retransmission may: TCP repeats a segment after 0.2 s at the earliest, and after
    /// twice the time each time that is lost as well, so four losses in a row are made good within 3 s.
    pub gap_age_one_sided: Duration,
    /// The same where the peer has been seen. An acknowledgement is to be expected, unless its way has changed.
    pub gap_age: Duration,
    /// Bytes of all kinds that the pipeline may hold: flow table, reordering, messages being assembled.
    pub memory_bytes: usize,
    /// Length of a message head (start line and header section) in bytes.
    pub head_bytes: usize,
    /// Length of a chunk-size line with its extensions, and of a trailer section, in bytes.
    pub chunk_line_bytes: usize,
    /// Body bytes (as on the wire, chunk framing included) of a request that is held for replay.
    pub body_bytes: usize,
    /// Bytes of content of an answer that is read. Of a longer one only the length is followed.
    pub answer_bytes: usize,
    /// Requests without an answer per flow, beyond which pairing of the flow is given up.
    pub outstanding: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            flows: 262_144,
            flow_idle: Duration::from_secs(300),
            flow_doubt: Duration::MAX,
            flow_linger: Duration::from_secs(5),
            reorder_bytes: 4 * 1024 * 1024,
            reorder_pieces: 4096,
            gap_patience: Duration::ZERO,
            gap_age_one_sided: Duration::from_secs(5),
            gap_age: Duration::from_secs(60),
            memory_bytes: 256 * 1024 * 1024,
            head_bytes: 64 * 1024,
            chunk_line_bytes: 16 * 1024,
            body_bytes: 16 * 1024 * 1024,
            answer_bytes: 1024 * 1024,
            outstanding: 100,
        }
    }
}

/// Bytes of memory that a `T` in a box of its own takes with so many bytes in a buffer, the allocator's share of both
/// blocks estimated.
pub(super) const fn boxed_bytes<T>(buffer: usize) -> usize {
    /// What the allocator adds to two blocks, rounding included.
    const OVERHEAD_BYTES: usize = 32;
    size_of::<T>().saturating_add(OVERHEAD_BYTES).saturating_add(buffer)
}
