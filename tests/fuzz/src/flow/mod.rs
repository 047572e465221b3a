//! Enters: operations on TCP connections: sending, losing, repeating, reordering, contradicting, forging. Leaves: a
//! panic where the flow table hands on what was not sent, or holds more than it may.

mod recorder;
mod wire;

use std::time::Duration;

use mirror_agent::pipeline::{Limits, Side};

use crate::input::Input;
use wire::Wire;

/// Operations looked at: more cost time and reach nothing else.
const MOST_OPERATIONS: usize = 400;

/// What is handed on is contiguous and nothing else than what was sent, unless somebody contradicted it; each flow opens and
/// closes once; memory stays within its bounds after every step; and what arrived in full is handed on in full.
pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let config = input.byte();
    let ignore_after = input.byte();
    let limits = limits(config);
    let mut wire =
        Wire::new(limits, (ignore_after < 0x40).then(|| u64::from(ignore_after) * 4), config & 1 == 0);
    let mut left = MOST_OPERATIONS;
    while !input.is_empty() && left > 0 {
        left -= 1;
        apply(&mut wire, &mut input);
        wire.check_bounds();
    }
    wire.finish();
}

fn limits(config: u8) -> Limits {
    let patience = Duration::from_nanos(if config & 2 == 0 { 0 } else { 50 });
    let limits = Limits {
        flow_idle: Duration::from_nanos(2_000),
        flow_linger: Duration::from_nanos(100),
        gap_patience: patience,
        ..Limits::default()
    };
    if config & 1 == 0 {
        return limits;
    }
    Limits {
        flows: 2,
        reorder_bytes: 400,
        reorder_pieces: 5,
        memory_bytes: if config & 4 == 0 { 20_000 } else { 6_000 },
        ..limits
    }
}

/// Takes one operation off `input` and performs it.
fn apply(wire: &mut Wire, input: &mut Input<'_>) {
    let choice = input.byte();
    let flow = usize::from(choice >> 5) % wire::FLOWS;
    let side = if choice & 0x10 == 0 { Side::Client } else { Side::Server };
    match choice & 0x0f {
        0 => wire.open(flow, input.long(), input.byte()),
        1 | 2 => wire.send(flow, side, u32::from(input.byte())),
        3 => wire.send_and_lose(flow, side, u32::from(input.byte())),
        4 => wire.send_and_delay(flow, side, u32::from(input.byte())),
        5 => wire.deliver_delayed(usize::from(input.byte())),
        6 => wire.repeat_delayed(usize::from(input.byte())),
        7 => wire.resend(flow, side, u32::from(input.word()), u32::from(input.byte())),
        8 => wire.contradict(flow, side, u32::from(input.byte()), u32::from(input.byte())),
        9 => wire.acknowledge(flow, side, input.byte() & 1 == 1),
        10 => wire.fin(flow, side),
        11 => wire.reset(flow, side),
        12 => wire.send_uncopied(flow, side, u32::from(input.word()), usize::from(input.byte())),
        13 => wire.wait(Duration::from_nanos(u64::from(input.byte()) * 16)),
        14 => wire.send(flow, side, u32::from(input.word() & 0xfff)),
        _ => {
            let (seq, ack, flags) = (input.long(), input.long(), input.byte());
            let payload = input.byte() & 0x3f;
            let payload = input.take(usize::from(payload));
            wire.forge(flow, side, seq, ack, flags, payload);
        }
    }
}
