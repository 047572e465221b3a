//! Enters: the VLAN tags of packets between two ends. Leaves: which flow each packet belongs to.
//!
//! Equal addresses and ports in two VLANs are two flows. But a capture on a trunk or at a mirror port often holds one
//! flow with a tag in one direction and another tag, or none, in the other.

use super::Sender;

/// The flows between two endpoints that differ in their tags only.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Lanes([Option<Lane>; MAX_LANES]);

/// Each hop of one packet through routers, all captured at once, is a lane: two are common, more are not.
const MAX_LANES: usize = 4;

impl Lanes {
    /// The tags by which the flow of a packet is known: those of its first packet, whoever sent that. Notes those
    /// of `sender`.
    pub(super) fn assign(&mut self, sender: Sender, vlan: u32) -> u32 {
        let mut lanes = self.0.iter().flatten();
        if let Some(lane) = lanes.find(|lane| lane.tags(sender) == Some(vlan)) {
            return lane.vlan;
        }
        if let Some(lane) = self.joined_by(sender, vlan) {
            lane.set_tags(sender, vlan);
            return lane.vlan;
        }
        // Where there is no room, the packet's own tags have to do.
        if let Some(free) = self.0.iter_mut().find(|lane| lane.is_none()) {
            let mut lane = Lane { vlan, lower: None, upper: None };
            lane.set_tags(sender, vlan);
            *free = Some(lane);
        }
        vlan
    }

    /// The lane of which only the peer of `sender` is known: the one with the same tags, else the only one.
    fn joined_by(&mut self, sender: Sender, vlan: u32) -> Option<&mut Lane> {
        let mut open: Vec<&mut Lane> =
            self.0.iter_mut().flatten().filter(|lane| lane.tags(sender).is_none()).collect();
        let matching = open.iter().position(|lane| lane.tags(sender.peer()) == Some(vlan));
        match matching {
            Some(position) => Some(open.swap_remove(position)),
            None if open.len() == 1 => open.pop(),
            None => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Lane {
    /// The tags by which the flow is known.
    vlan: u32,
    /// The tags of what the lower end sends; `None` where it has not sent anything.
    lower: Option<u32>,
    upper: Option<u32>,
}

impl Lane {
    const fn tags(&self, sender: Sender) -> Option<u32> {
        match sender {
            Sender::Lower => self.lower,
            Sender::Upper => self.upper,
        }
    }

    const fn set_tags(&mut self, sender: Sender, vlan: u32) {
        match sender {
            Sender::Lower => self.lower = Some(vlan),
            Sender::Upper => self.upper = Some(vlan),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Sender::*, *};

    /// Who sends it, its tags, and the tags of its flow.
    type Packet = (Sender, u32, u32);

    #[test]
    fn flows_are_told_apart_by_tags_but_not_torn_apart() {
        let cases: &[(&str, &[Packet])] = &[
            ("one flow", &[(Lower, 5, 5), (Upper, 5, 5), (Lower, 5, 5)]),
            (
                "a tag in one direction",
                &[(Lower, 5, 5), (Lower, 5, 5), (Upper, 0, 5), (Lower, 5, 5), (Upper, 0, 5)],
            ),
            ("another tag in the other direction", &[(Upper, 6, 6), (Lower, 5, 6), (Upper, 6, 6)]),
            ("two flows", &[(Lower, 5, 5), (Lower, 6, 6), (Upper, 6, 6), (Upper, 5, 5)]),
            ("two flows, one after the other", &[(Lower, 5, 5), (Upper, 5, 5), (Lower, 6, 6), (Upper, 6, 6)]),
            (
                "two flows, and packets of neither",
                &[(Lower, 5, 5), (Lower, 6, 6), (Upper, 7, 7), (Upper, 7, 7)],
            ),
            (
                "too many flows",
                &[(Lower, 1, 1), (Lower, 2, 2), (Lower, 3, 3), (Lower, 4, 4), (Lower, 5, 5), (Upper, 5, 5)],
            ),
        ];
        for (name, packets) in cases {
            let mut lanes = Lanes::default();
            for (sender, vlan, flow) in *packets {
                assert_eq!(lanes.assign(*sender, *vlan), *flow, "{name}");
            }
        }
    }
}
