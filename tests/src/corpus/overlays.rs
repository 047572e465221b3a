//! Enters: nothing. Leaves: one conversation in every overlay.

use super::{
    Case,
    container::Taped,
    script::{Script, Talk, case},
};

pub(super) fn cases() -> Vec<Case> {
    vec![
        wrapped("vxlan", "VXLAN: the inner flow is what counts.", |frame| udp(frame, 4789, &VXLAN)),
        wrapped("vxlan-linux-port", "VXLAN on the port that Linux began with.", |frame| {
            udp(frame, 8472, &VXLAN)
        }),
        wrapped("geneve", "Geneve with options.", |frame| {
            udp(frame, 6081, &[3, 0, 0x65, 0x58, 0, 0, 7, 0, 1, 2, 3, 2, 0, 0, 0, 0, 0, 0, 0, 0])
        }),
        wrapped("gre-ip", "IPv4 in GRE.", |frame| ip(47, &[&[0, 0, 8, 0][..], &frame[14..]].concat())),
        wrapped("gre-ethernet", "Ethernet in GRE, with a key.", |frame| {
            ip(47, &[&[0x20, 0, 0x65, 0x58, 0, 0, 0, 7][..], frame].concat())
        }),
        wrapped("ip-in-ip", "IPv4 in IPv4.", |frame| ip(4, &frame[14..])),
        wrapped("mpls", "Two MPLS labels.", |frame| {
            [&frame[..12], &[0x88, 0x47, 0, 1, 0, 64, 0, 2, 1, 64], &frame[14..]].concat()
        }),
        case("vni-collision", "Equal addresses and ports in two virtual networks are two flows.", |s| {
            let mut one = s.connect(4000);
            s.usual(&mut one);
            let inner = s.frames.len();
            let mut other = s.open(Talk { client_seq: 5, server_seq: 77, ..Talk::new(4000) });
            s.usual(&mut other);
            for (index, frame) in s.frames.iter_mut().enumerate() {
                let vni = if index < inner { 7 } else { 8 };
                frame.bytes = udp(&frame.bytes, 4789, &[8, 0, 0, 0, 0, 0, vni, 0]);
                frame.wire_len = frame.bytes.len() as u32;
            }
        }),
    ]
}

/// The header of virtual network 7.
const VXLAN: [u8; 8] = [8, 0, 0, 0, 0, 0, 7, 0];

fn wrapped(name: &'static str, proves: &'static str, wrap: impl Fn(&[u8]) -> Vec<u8>) -> Case {
    case(name, proves, |s: &mut Script| {
        let mut talk = s.connect(4000);
        s.usual(&mut talk);
        s.usual(&mut talk);
        s.close(&mut talk);
        for Taped { bytes, wire_len, .. } in &mut s.frames {
            *bytes = wrap(bytes);
            *wire_len = bytes.len() as u32;
        }
    })
}

/// A frame from one end of a tunnel to the other, with UDP, this header and `inner`.
fn udp(inner: &[u8], port: u16, header: &[u8]) -> Vec<u8> {
    let len = (8 + header.len() + inner.len()) as u16;
    let ports = [49_152_u16.to_be_bytes(), port.to_be_bytes(), len.to_be_bytes(), [0, 0]].concat();
    ip(17, &[&ports, header, inner].concat())
}

/// A frame from one end of a tunnel to the other.
fn ip(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let ethernet = [2, 0, 0, 0, 1, 2, 2, 0, 0, 0, 1, 1, 8, 0];
    let [high, low] = ((20 + payload.len()) as u16).to_be_bytes();
    let header = [0x45, 0, high, low, 0, 1, 0x40, 0, 64, protocol, 0, 0, 198, 51, 100, 1, 198, 51, 100, 2];
    [&ethernet[..], &header, payload].concat()
}
