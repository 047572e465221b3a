//! Enters: a capture file. Leaves: the TCP segments in it, and what was left out.

use std::collections::BTreeSet;

use crate::{
    io::file::{CaptureFile, CapturedFrame, FileError},
    pipeline::{
        Segment, Timestamp,
        fragment::Fragments,
        frame::{FrameReason, LinkType},
        orient::{OrientLimits, Orienter},
    },
};

/// Gives the segments of a capture file, client and server told apart.
pub struct SegmentSource {
    file: CaptureFile,
    fragments: Fragments,
    orienter: Orienter,
    unread: [u64; FrameReason::ALL.len()],
    unread_link_types: BTreeSet<LinkType>,
}

impl SegmentSource {
    /// Reads `file`; servers are on `ports`, or found by looking at the bytes where `ports` is empty.
    #[must_use]
    pub fn new(file: CaptureFile, ports: Vec<u16>) -> Self {
        Self {
            file,
            fragments: Fragments::new(),
            orienter: Orienter::new(ports, OrientLimits::default()),
            unread: [0; FrameReason::ALL.len()],
            unread_link_types: BTreeSet::new(),
        }
    }

    /// Reads the next frame and hands on the segments that it sets free, be it none. Gives the time of the frame;
    /// `None` at the end of the file.
    ///
    /// # Errors
    ///
    /// Those of [`CaptureFile::next_frame`].
    pub fn advance(&mut self, sink: &mut impl FnMut(Segment<'_>)) -> Result<Option<Timestamp>, FileError> {
        let Some(CapturedFrame { at, frame }) = self.file.next_frame()? else {
            return Ok(None);
        };
        let orienter = &mut self.orienter;
        let handled =
            self.fragments.handle_frame(at, &frame, &mut |packet| orienter.handle_packet(at, packet, sink));
        if let Err(reason) = handled {
            if reason == FrameReason::LinkType {
                self.unread_link_types.insert(frame.link_type);
            }
            if let Some(count) = self.unread.get_mut(reason.index()) {
                *count = count.saturating_add(1);
            }
        }
        Ok(Some(at))
    }

    /// What the user should know of frames that were left out although they may hold HTTP, a sentence each.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.file.is_truncated() {
            warnings.push("the file ends in the middle of a packet".to_owned());
        }
        for reason in FrameReason::ALL {
            let mut count = self.unread.get(reason.index()).copied().unwrap_or(0);
            if reason == FrameReason::Fragment {
                count = count.saturating_add(self.fragments.lost());
            }
            let what = match reason {
                FrameReason::Aggregate => {
                    "hold several packets each (802.11 A-MSDU), which are not looked into"
                }
                FrameReason::Fragment => {
                    "are fragments of IP packets of which others are missing, or of 802.11 and PPP, which are not joined"
                }
                FrameReason::LinkType => "are of link types that are not supported",
                FrameReason::Malformed => "have headers that contradict themselves",
                FrameReason::TooDeep => {
                    "have more VLAN tags, MPLS labels or extension headers than are followed"
                }
                FrameReason::Truncated => "were cut within their headers",
                FrameReason::Tunnel => "are in tunnels that are not looked into",
                // Nothing of a capture of HTTP is missed there.
                FrameReason::NotIp | FrameReason::NotTcp => continue,
            };
            if count > 0 {
                let mut warning = format!("{count} frames {what}");
                if reason == FrameReason::LinkType {
                    let types: Vec<String> =
                        self.unread_link_types.iter().map(|link_type| link_type.0.to_string()).collect();
                    warning.push_str(&format!(": {}", types.join(", ")));
                }
                warnings.push(warning);
            }
        }
        warnings
    }
}
