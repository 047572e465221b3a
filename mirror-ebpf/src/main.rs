//! Enters: a packet at a TC hook. Leaves: records in a ring buffer; the packet itself is never touched.
//!
//! The entry points differ only in which port makes a packet ours. Whatever they find, they return
//! `TC_ACT_UNSPEC`: the packet goes on as if the program were not there, through filters behind it too.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]
#![cfg_attr(
    not(target_arch = "bpf"),
    expect(dead_code, reason = "on the host only the pure parts run, in their tests")
)]

mod address;
mod classify;
mod config;
mod connection;
mod counters;
mod emit;
mod fragments;
mod own;
mod parse;
mod ports;
mod ring;
mod scratch;
mod skb;
mod sock;
mod unread;

use aya_ebpf::bindings::{__sk_buff, TC_ACT_UNSPEC};

use crate::classify::{Role, try_classify};
use crate::skb::Skb;

/// Takes segments whose destination port is matched, as sent by clients.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
pub extern "C" fn mirror_requests(skb: *mut __sk_buff) -> i32 {
    try_classify(Skb::new(skb), Role::Requests);
    TC_ACT_UNSPEC
}

/// Takes segments whose source port is matched, as sent by servers.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
pub extern "C" fn mirror_responses(skb: *mut __sk_buff) -> i32 {
    try_classify(Skb::new(skb), Role::Responses);
    TC_ACT_UNSPEC
}

/// Takes either; a packet with both ports matched counts as sent by a client.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
pub extern "C" fn mirror_both(skb: *mut __sk_buff) -> i32 {
    try_classify(Skb::new(skb), Role::Both);
    TC_ACT_UNSPEC
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
