//! Enters: what was seen of each interface. Leaves: its metrics.

use std::fmt;

use super::encoder::Encoder;
use crate::{io::interfaces::InterfaceSeries, pipeline::Side};

pub(super) fn encode_interfaces(out: &mut Encoder<'_>, series: &[InterfaceSeries]) -> fmt::Result {
    let segments = series.iter().flat_map(|series| {
        let sides = Side::ALL.map(Side::as_str).into_iter().zip(series.segments);
        sides.map(|(side, count)| ([("interface", &*series.name), ("side", side)], count))
    });
    out.labelled_counters(
        "interface_segments",
        "Segments of matched ports that were copied at the interface; `other` is all that have no series of their own",
        segments,
    )?;
    let one_sided = series
        .iter()
        .filter_map(|series| Some(([("interface", &*series.name)], f64::from(series.is_one_sided?))));
    out.labelled_gauges(
        "interface_one_sided",
        "1 while the interface shows responses but no requests, for more than 10 s, else 0",
        one_sided,
    )
}
