//! Enters: how things are, or what changed. Leaves: text for people.

use std::{
    fmt::Write as _,
    io::{self, Write},
    time::{Duration, SystemTime},
};

use crate::io::{
    config::Expiry,
    control::{
        CaptureState, Change, ExperimentState, InterlockState, Setting, State, TargetState,
        time::{expiry_text, from_now, in_words},
    },
    replay::BreakerState,
};

/// Prints the whole state.
pub(super) fn state(state: &State, now: SystemTime, out: &mut impl Write) -> io::Result<()> {
    let uptime = Duration::try_from_secs_f64(state.uptime_seconds).unwrap_or_default();
    let paused = if state.paused { ", paused" } else { "" };
    writeln!(out, "mirror-agent {}, up {}{paused}", clean(&state.version), in_words(uptime))?;
    capture(&state.capture, out)?;
    if state.experiments.is_empty() {
        return writeln!(out, "\nno experiments");
    }
    let mut rows = vec![["EXPERIMENT", "OWNER", "STATE", "PERCENT", "EXPIRES"].map(str::to_owned).to_vec()];
    rows.extend(state.experiments.iter().map(|experiment| experiment_row(experiment, now)));
    writeln!(out)?;
    table(&rows, out)?;
    let head = [
        "TARGET",
        "URL",
        "COPIES",
        "PENDING",
        "MIRRORED",
        "SKIPPED",
        "DROPPED",
        "QUEUED",
        "IN FLIGHT",
        "BREAKER",
        "INTERLOCK",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for experiment in &state.experiments {
        rows.extend(experiment.targets.iter().map(|target| target_row(experiment, target)));
    }
    writeln!(out)?;
    table(&rows, out)
}

/// Prints what an order changed.
pub(super) fn changes(changes: &[Change], out: &mut impl Write) -> io::Result<()> {
    if changes.is_empty() {
        return writeln!(out, "it was so already");
    }
    for Change { experiment, before, after, .. } in changes {
        let which = experiment.as_deref().map_or_else(|| "all experiments".to_owned(), clean);
        writeln!(out, "{which}: {} -> {}", setting(*before), setting(*after))?;
    }
    Ok(())
}

fn capture(capture: &CaptureState, out: &mut impl Write) -> io::Result<()> {
    let CaptureState { interfaces, guard_percent, frames_dropped, requests, .. } = capture;
    writeln!(
        out,
        "requests: seen {} = pending {} + mirrored {} + skipped {} + dropped {} + lost {}",
        requests.seen, requests.pending, requests.mirrored, requests.skipped, requests.dropped, requests.lost
    )?;
    write!(out, "capture: {interfaces} interfaces, {frames_dropped} frames dropped")?;
    match guard_percent {
        Some(percent) => writeln!(out, ", the guard lets {percent}% of new connections through"),
        None => writeln!(out),
    }
}

fn experiment_row(experiment: &ExperimentState, now: SystemTime) -> Vec<String> {
    let ExperimentState { name, owner, expires, expired, percent, paused, .. } = experiment;
    let state = match (expired, paused) {
        (true, _) => "expired",
        (false, true) => "paused",
        (false, false) => "running",
    };
    let expires = match expires {
        Expiry::Never => expiry_text(*expires),
        Expiry::At(time) => format!("{} ({})", expiry_text(*expires), from_now(*time, now)),
    };
    let owner = owner.as_deref().map_or_else(|| "-".to_owned(), clean);
    vec![clean(name), owner, state.to_owned(), percent.to_string(), expires]
}

fn target_row(experiment: &ExperimentState, target: &TargetState) -> Vec<String> {
    let TargetState { name, url, copies, queued, in_flight, breaker, interlock, .. } = target;
    let mut row = vec![format!("{}/{}", clean(&experiment.name), clean(name)), clean(url)];
    let counts =
        [copies.copies, copies.pending, copies.mirrored, copies.skipped, copies.dropped, *queued, *in_flight];
    row.extend(counts.map(|count| count.to_string()));
    row.push(breaker.map_or("-", BreakerState::as_str).to_owned());
    row.push(interlock.map_or("-", InterlockState::as_str).to_owned());
    row
}

fn setting(setting: Setting) -> String {
    match setting {
        Setting::Paused(true) => "paused".to_owned(),
        Setting::Paused(false) => "running".to_owned(),
        Setting::Percent(percent) => format!("{percent} percent"),
        Setting::Expires(Expiry::Never) => "never expires".to_owned(),
        Setting::Expires(expires) => format!("expires {}", expiry_text(expires)),
    }
}

/// Text without what a terminal could obey.
pub(in crate::io) fn clean(text: &str) -> String {
    text.chars().map(|char| if char.is_control() || is_turning(char) { '?' } else { char }).collect()
}

/// The same for text in quotes as JSON and YAML write it, of which nothing may be lost: what a terminal could obey is written
/// as its number.
pub(in crate::io) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        if char.is_control() || is_turning(char) {
            // All of them are of four digits at most. Writing to a string does not fail.
            let _written = write!(escaped, "\\u{:04x}", u32::from(char));
        } else {
            escaped.push(char);
        }
    }
    escaped
}

/// Whether a character turns the direction of what is written (Unicode Standard Annex 9, section 2), so that a text could
/// look like another one.
const fn is_turning(char: char) -> bool {
    matches!(char, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Prints rows with columns as wide as their widest cell; the first row is the head.
fn table(rows: &[Vec<String>], out: &mut impl Write) -> io::Result<()> {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
    };
    for row in rows {
        let cells: Vec<_> = row
            .iter()
            .enumerate()
            .map(|(column, cell)| format!("{cell:<width$}", width = width(column)))
            .collect();
        writeln!(out, "{}", cells.join("  ").trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::control::{CopyState, Counted, RequestState};

    #[test]
    fn state_is_a_page_that_people_can_read() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let target = TargetState {
            name: "v2".to_owned(),
            is_control: false,
            url: "http://orders-v2:8080".to_owned(),
            copies: CopyState {
                copies: 100,
                pending: 1,
                mirrored: 90,
                skipped: 4,
                dropped: 5,
                ..CopyState::default()
            },
            queued: 1,
            in_flight: 0,
            breaker: Some(BreakerState::HalfOpen),
            interlock: None,
            replays: Counted::new(),
        };
        let experiment = ExperimentState {
            name: "orders-v2".to_owned(),
            owner: Some("team\u{1b}[2J".to_owned()),
            expires: Expiry::At(now + Duration::from_secs(90_000)),
            expired: false,
            percent: 2.5,
            paused: true,
            changed: Vec::new(),
            targets: vec![target],
            comparisons: Counted::new(),
            incomparable: Counted::new(),
            verdict: None,
        };
        let requests = RequestState {
            seen: 100,
            pending: 1,
            mirrored: 90,
            skipped: 4,
            dropped: 5,
            ..RequestState::default()
        };
        let capture = CaptureState {
            interfaces: 2,
            guard_percent: Some(50.0),
            frames_captured: 9,
            frames_dropped: 3,
            requests,
            ..CaptureState::default()
        };
        let all = State {
            version: "0.1.0".to_owned(),
            uptime_seconds: 3_725.0,
            paused: false,
            capture,
            experiments: vec![experiment],
        };
        let mut out = Vec::new();
        state(&all, now, &mut out).unwrap();
        let expected = "\
mirror-agent 0.1.0, up 1h 2m
requests: seen 100 = pending 1 + mirrored 90 + skipped 4 + dropped 5 + lost 0
capture: 2 interfaces, 3 frames dropped, the guard lets 50% of new connections through

EXPERIMENT  OWNER     STATE   PERCENT  EXPIRES
orders-v2   team?[2J  paused  2.5      2027-01-16T09:00:00.000Z (in 1d 1h)

TARGET        URL                    COPIES  PENDING  MIRRORED  SKIPPED  DROPPED  QUEUED  IN FLIGHT  BREAKER    INTERLOCK
orders-v2/v2  http://orders-v2:8080  100     1        90        4        5        1       0          half_open  -
";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
