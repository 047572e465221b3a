//! Enters: nothing. Leaves: one conversation in every kind of capture file and behind every link layer.

use super::{
    Case,
    container::{Interface, Order, Taped, Unit, pcap, pcapng},
    link::Link,
    script::{Script, Talk, case_in},
};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = containers();
    cases.extend(links());
    cases
}

/// Two exchanges.
fn plain(s: &mut Script) {
    let mut talk = s.connect(4000);
    s.usual(&mut talk);
    s.usual(&mut talk);
    s.close(&mut talk);
}

/// The same over IPv6.
fn plain_v6(s: &mut Script) {
    let mut talk = s.open(Talk::over_ipv6());
    s.usual(&mut talk);
    s.close(&mut talk);
}

const ETHERNET: Interface = Interface { link_type: 1, resolution: 6, offset: 0 };

fn containers() -> Vec<Case> {
    vec![
        case_in("pcap-nanoseconds", "A pcap file with nanoseconds.", plain, |frames| {
            pcap(frames, Unit::Nano, Order::Little)
        }),
        case_in("pcap-big-endian", "A pcap file of a big-endian machine.", plain, |frames| {
            pcap(frames, Unit::Micro, Order::Big)
        }),
        case_in("pcap-big-endian-nanoseconds", "The same with nanoseconds.", plain, |frames| {
            pcap(frames, Unit::Nano, Order::Big)
        }),
        case_in(
            "pcap-ends-early",
            "A file that ends within a frame tells what comes before.",
            plain,
            |frames| {
                let mut file = pcap(frames, Unit::Micro, Order::Little);
                file.truncate(file.len() - 7);
                file
            },
        ),
        case_in("pcapng", "A pcapng file.", plain, |frames| pcapng(frames, &[ETHERNET], Order::Little)),
        case_in("pcapng-big-endian", "The same of a big-endian machine.", plain, |frames| {
            pcapng(frames, &[ETHERNET], Order::Big)
        }),
        case_in(
            "pcapng-interfaces",
            "One flow over interfaces with different resolutions and an offset of times.",
            plain,
            |frames| {
                let interface = |resolution, offset| Interface { link_type: 1, resolution, offset };
                let interfaces =
                    [interface(6, 0), interface(9, 0), interface(3, 0), interface(0x80 | 20, 1_600_000_000)];
                pcapng(frames, &interfaces, Order::Little)
            },
        ),
        case_in("pcapng-link-types", "Interfaces of different link layers in one file.", plain, |frames| {
            let frames: Vec<Taped> = frames
                .iter()
                .enumerate()
                .map(|(index, frame)| match index % 3 {
                    0 => frame.clone(),
                    1 => Link::Raw.carry(frame),
                    _ => Link::Cooked.carry(frame),
                })
                .collect();
            let interfaces = [1, 101, 113].map(|link_type| Interface { link_type, ..ETHERNET });
            pcapng(&frames, &interfaces, Order::Little)
        }),
        case_in(
            "pcapng-sections",
            "Two sections of different byte order, one behind the other.",
            plain,
            |frames| {
                let (first, second) = frames.split_at(frames.len() / 2);
                [pcapng(first, &[ETHERNET], Order::Little), pcapng(second, &[ETHERNET], Order::Big)].concat()
            },
        ),
    ]
}

fn links() -> Vec<Case> {
    let behind = |name, proves, link: Link| {
        case_in(name, proves, plain, move |frames| {
            let frames: Vec<Taped> = frames.iter().map(|frame| link.carry(frame)).collect();
            pcap(&frames, Unit::Micro, Order::Little)
        })
    };
    let behind_v6 = |name, proves, link: Link| {
        case_in(name, proves, plain_v6, move |frames| {
            let frames: Vec<Taped> = frames.iter().map(|frame| link.carry(frame)).collect();
            pcap(&frames, Unit::Micro, Order::Little)
        })
    };
    vec![
        behind("link-null", "BSD loopback.", Link::Null(2)),
        behind_v6("link-null-ipv6-freebsd", "BSD loopback, IPv6 as FreeBSD numbers it.", Link::Null(28)),
        behind_v6("link-null-ipv6-macos", "BSD loopback, IPv6 as macOS numbers it.", Link::Null(30)),
        behind_v6("link-loop-ipv6", "OpenBSD loopback, IPv6.", Link::Loop),
        behind("link-loop", "OpenBSD loopback.", Link::Loop),
        behind("link-raw", "Raw IP.", Link::Raw),
        behind_v6("link-raw-ipv6", "Raw IPv6.", Link::Raw),
        behind("link-ppp", "PPP with address and control field.", Link::Ppp),
        behind_v6("link-ppp-compressed-ipv6", "PPP with compressed headers, IPv6.", Link::PppCompressed),
        behind("link-ppp-hdlc", "PPP in HDLC framing.", Link::PppHdlc),
        behind("link-cisco-hdlc", "Cisco HDLC.", Link::CiscoHdlc),
        behind("link-cooked", "Linux cooked capture.", Link::Cooked),
        behind_v6("link-cooked-2-ipv6", "Linux cooked capture, version 2, IPv6.", Link::Cooked2),
        behind("link-nflog", "Netfilter's log.", Link::NfLog),
        behind("link-wireless", "Unencrypted data frames of IEEE 802.11.", Link::Wireless),
        behind_v6(
            "link-radiotap-ipv6",
            "The same with QoS behind a radiotap header, and a check sequence.",
            Link::Radiotap,
        ),
    ]
}
