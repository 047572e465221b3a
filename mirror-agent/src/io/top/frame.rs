//! Enters: two readings and what somebody wants to see. Leaves: the lines of a page.
//!
//! All text that comes from traffic passes `clean`, so that nothing in it is obeyed by a terminal.

use std::time::Duration;

use serde_json::Value;

use super::{
    fleet,
    reading::{Pace, Reading, Readings},
};
use crate::{
    io::{
        config::Expiry,
        control::{
            Counted, ExperimentState, InterlockState, RequestState, State, TargetState,
            ctl::clean,
            time::{expiry_text, in_words},
        },
        replay::BreakerState,
        telling::show::value::{Unit, figure, joined, list, text_of},
    },
    pipeline::reason::VerdictState,
};

/// How large a page is, in characters.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    pub(super) columns: usize,
    pub(super) rows: usize,
}

impl Size {
    /// As large as it takes.
    pub(super) const UNBOUNDED: Self = Self { columns: usize::MAX, rows: usize::MAX };
}

/// How a line is shown.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Style {
    /// As it is.
    Plain,
    /// What stands above others.
    Head,
    /// What keys are about.
    Selected,
    /// What somebody should look at.
    Alarm,
}

/// A line of a page.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) text: String,
    pub(super) style: Style,
}

/// An experiment, to be paused or resumed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Chosen {
    pub(super) experiment: String,
    pub(super) is_paused: bool,
}

/// What somebody wants to see.
#[derive(Clone, Debug, Default)]
pub(super) struct Page {
    /// Which target, counted from the first.
    pub(super) selected: usize,
    /// What the keys do.
    pub(super) is_help: bool,
    /// What is to be paused or resumed, if the answer is yes.
    pub(super) asking: Option<Chosen>,
    /// Why there is no answer; `None` while there is one.
    pub(super) trouble: Option<String>,
    /// What came of the last key.
    pub(super) said: Option<String>,
}

/// What the keys do.
const HELP: [&str; 9] = [
    "  q, Ctrl-C        end",
    "  up, down, k, j   choose a target",
    "  p                pause or resume its experiment; asks first",
    "  ?                this page; any key leaves it",
    "",
    "Rates are those between the latest two answers. What is not mirrored is told with its",
    "reasons, the most frequent first; `mirrored` counts requests, `sent` counts copies.",
    "A verdict is `pass`, `fail` or `wait` (not enough data). Service times, verdicts and",
    "differences are of all that was compared since the agent, or the experiment, began.",
];

/// Lines below the page: what the keys do, or what is asked.
const FOOT: &str = "q quit   up/down select   p pause/resume   ? help";

impl Page {
    /// The lines of the page, no more and no longer than fit.
    pub(super) fn lines(&self, readings: &Readings, size: Size) -> Vec<Line> {
        let mut lines = Lines::default();
        if self.is_help {
            lines.add(Style::Head, "keys");
            HELP.iter().for_each(|line| lines.add(Style::Plain, *line));
        } else {
            match readings.latest() {
                None => lines.add(Style::Head, "mirror-agent: waiting for an answer"),
                Some((Reading::One(state, report), _)) => {
                    let before = readings.before().and_then(|(before, seconds)| match before {
                        // One that has begun anew has no rates yet.
                        Reading::One(before, _) if before.uptime_seconds <= state.uptime_seconds => {
                            Some((&**before, seconds))
                        }
                        Reading::One(..) | Reading::Fleet(_) => None,
                    });
                    self.one(state, report, before, size, &mut lines);
                }
                Some((Reading::Fleet(view), _)) => {
                    let before = readings.before().and_then(|(before, seconds)| match before {
                        Reading::Fleet(before) => Some((&**before, seconds)),
                        Reading::One(..) => None,
                    });
                    fleet::lines(view, before, self.selected, &mut lines);
                }
            }
        }
        self.with_foot(readings, lines.0, size)
    }

    /// Chooses another target, so many further on.
    pub(super) fn select(&mut self, readings: &Readings, by: isize) {
        let count = match readings.latest() {
            Some((Reading::One(state, _), _)) => rows(state).count(),
            Some((Reading::Fleet(view), _)) => {
                view.experiments.iter().map(|experiment| experiment.targets.len()).sum()
            }
            None => 0,
        };
        self.selected = self.selected.saturating_add_signed(by).min(count.saturating_sub(1));
    }

    /// What would be paused or resumed; `None` where nothing can be.
    pub(super) fn chosen(&self, readings: &Readings) -> Option<Chosen> {
        let Some((Reading::One(state, _), _)) = readings.latest() else { return None };
        let (experiment, _) = rows(state).nth(self.selected)?;
        Some(Chosen { experiment: experiment.name.clone(), is_paused: experiment.paused })
    }

    fn with_foot(&self, readings: &Readings, mut lines: Vec<Line>, size: Size) -> Vec<Line> {
        let clip = |line: Line| Line { text: line.text.chars().take(size.columns).collect(), ..line };
        if size.rows == usize::MAX {
            return lines;
        }
        lines.truncate(size.rows.saturating_sub(2));
        while lines.len() < size.rows.saturating_sub(1) {
            lines.push(Line { text: String::new(), style: Style::Plain });
        }
        lines.push(self.foot(readings));
        lines.into_iter().map(clip).collect()
    }

    fn foot(&self, readings: &Readings) -> Line {
        if let Some(Chosen { experiment, is_paused }) = &self.asking {
            let verb = if *is_paused { "resume" } else { "pause" };
            return Line { text: format!("{verb} {}? y/n", clean(experiment)), style: Style::Selected };
        }
        if let Some(trouble) = &self.trouble {
            let age = readings.latest().map(|(_, at)| in_words(at.elapsed()));
            let age = age.map_or_else(String::new, |age| format!(" since {age}"));
            return Line { text: format!("no answer{age}: {}", clean(trouble)), style: Style::Alarm };
        }
        if let Some(said) = &self.said {
            return Line { text: clean(said), style: Style::Alarm };
        }
        Line { text: FOOT.to_owned(), style: Style::Head }
    }

    fn one(
        &self,
        state: &State,
        report: &Value,
        before: Option<(&State, f64)>,
        size: Size,
        lines: &mut Lines,
    ) {
        let pace = Pace { seconds: before.map_or(0.0, |(_, seconds)| seconds) };
        let before = before.map(|(before, _)| before);
        let uptime = in_words(Duration::try_from_secs_f64(state.uptime_seconds).unwrap_or_default());
        let paused = if state.paused { "   PAUSED" } else { "" };
        let interfaces = state.capture.interfaces;
        let head =
            format!("mirror-agent {}   up {uptime}   {interfaces} interfaces{paused}", clean(&state.version));
        lines.add(if state.paused { Style::Alarm } else { Style::Head }, head);
        let compared =
            |state: &State| state.experiments.iter().map(|known| compared(&known.comparisons)).sum();
        flow(
            &Flow::new(
                &state.capture.requests,
                state.capture.frames_captured,
                state.capture.frames_dropped,
                compared(state),
            ),
            before.map(|before| {
                let capture = &before.capture;
                Flow::new(
                    &capture.requests,
                    capture.frames_captured,
                    capture.frames_dropped,
                    compared(before),
                )
            }),
            pace,
            lines,
        );
        if let Some(percent) = state.capture.guard_percent
            && percent < 100.0
        {
            lines.add(
                Style::Alarm,
                format!("the guard of the node lets {percent:.0} % of new connections through"),
            );
        }
        lines.add(Style::Plain, "");
        lines.add(
            Style::Head,
            format!(
                "{:<20} {:<7} {:>7} {:>6} {:>5} {:>5} {:<9} {:<9} {:<5}",
                "EXPERIMENT/TARGET",
                "STATE",
                "SENT/S",
                "DROP/S",
                "QUEUE",
                "OPEN",
                "BREAKER",
                "INTERLOCK",
                "VERDICT"
            ),
        );
        let count = rows(state).count();
        let selected = self.selected.min(count.saturating_sub(1));
        // A list that is too long is shown around what is chosen.
        let room = size.rows.saturating_sub(lines.0.len()).saturating_sub(12).max(3);
        let first = selected.saturating_sub(room.saturating_sub(1));
        for (number, (experiment, target)) in rows(state).enumerate().skip(first).take(room) {
            let was = before.and_then(|before| find(before, &experiment.name, &target.name));
            let style = if number == selected { Style::Selected } else { Style::Plain };
            lines.add(style, row(experiment, target, was, pace));
        }
        if first > 0 || first.saturating_add(room) < count {
            lines.add(Style::Plain, format!("  {} of {count}", selected.saturating_add(1)));
        }
        if let Some((experiment, target)) = rows(state).nth(selected) {
            lines.add(Style::Plain, "");
            details(experiment, target, report, lines);
        }
    }
}

/// Lines being put together.
#[derive(Debug, Default)]
pub(super) struct Lines(pub(super) Vec<Line>);

impl Lines {
    pub(super) fn add(&mut self, style: Style, text: impl Into<String>) {
        self.0.push(Line { text: text.into(), style });
    }
}

/// Counts on the way from frames to comparisons.
#[derive(Clone, Debug)]
pub(super) struct Flow<'r> {
    requests: &'r RequestState,
    frames: u64,
    frames_dropped: u64,
    compared: u64,
}

impl<'r> Flow<'r> {
    pub(super) const fn new(
        requests: &'r RequestState,
        frames: u64,
        frames_dropped: u64,
        compared: u64,
    ) -> Self {
        Self { requests, frames, frames_dropped, compared }
    }
}

/// Exchanges of which anything is known but that they cannot be compared.
pub(super) fn compared(comparisons: &Counted) -> u64 {
    let known = comparisons.iter().filter(|(result, _)| *result != "incomparable");
    known.map(|(_, count)| count).fold(0, |sum, count| sum.saturating_add(*count))
}

/// Rates from frames to comparisons, and of what is not mirrored.
pub(super) fn flow(flow: &Flow<'_>, before: Option<Flow<'_>>, pace: Pace, lines: &mut Lines) {
    let before = before.as_ref();
    let rate = |of: fn(&Flow<'_>) -> u64| per_second(pace.of(before.map(of), of(flow)));
    lines.add(
        Style::Plain,
        format!(
            "frames {} > requests {} > mirrored {} > compared {}",
            rate(|flow| flow.frames),
            rate(|flow| flow.requests.seen),
            rate(|flow| flow.requests.mirrored),
            rate(|flow| flow.compared),
        ),
    );
    let reasons = |of: fn(&RequestState) -> &Counted| {
        let rates = pace.of_labels(before.map(|before| of(before.requests)), of(flow.requests));
        let shown: Vec<_> = rates
            .iter()
            .take(3)
            .map(|(label, rate)| format!("{} {}", clean(label), per_second(Some(*rate))))
            .collect();
        if shown.is_empty() { String::new() } else { format!(" ({})", shown.join(", ")) }
    };
    let why = [
        format!(
            "skipped {}{}",
            rate(|flow| flow.requests.skipped),
            reasons(|requests| &requests.reasons.skipped)
        ),
        format!(
            "dropped {}{}",
            rate(|flow| flow.requests.dropped),
            reasons(|requests| &requests.reasons.dropped)
        ),
        format!("lost {}{}", rate(|flow| flow.requests.lost), reasons(|requests| &requests.reasons.lost)),
    ];
    lines.add(Style::Plain, format!("not mirrored: {}", why.join(", ")));
    let RequestState { seen, mirrored, skipped, dropped, lost, pending, .. } = flow.requests;
    lines.add(
        Style::Plain,
        format!("all: seen {seen} = mirrored {mirrored} + skipped {skipped} + dropped {dropped} + lost {lost} + pending {pending}"),
    );
    if flow.frames_dropped > 0 {
        let dropped = rate(|flow| flow.frames_dropped);
        lines.add(Style::Alarm, format!("frames dropped: {dropped}, {} in all", flow.frames_dropped));
    }
}

fn rows(state: &State) -> impl Iterator<Item = (&ExperimentState, &TargetState)> {
    state
        .experiments
        .iter()
        .flat_map(|experiment| experiment.targets.iter().map(move |target| (experiment, target)))
}

fn find<'s>(state: &'s State, experiment: &str, target: &str) -> Option<&'s TargetState> {
    rows(state).find(|(known, of)| known.name == experiment && of.name == target).map(|(_, target)| target)
}

fn row(
    experiment: &ExperimentState,
    target: &TargetState,
    before: Option<&TargetState>,
    pace: Pace,
) -> String {
    let state = match (experiment.expired, experiment.paused) {
        (true, _) => "expired",
        (false, true) => "paused",
        (false, false) => "running",
    };
    let rate = |of: fn(&TargetState) -> u64| per_second(pace.of(before.map(of), of(target)));
    let name = format!("{}/{}", clean(&experiment.name), clean(&target.name));
    format!(
        "{:<20} {state:<7} {:>7} {:>6} {:>5} {:>5} {:<9} {:<9} {:<5}",
        shortened(&name, 20),
        rate(|target| target.copies.mirrored),
        rate(|target| target.copies.dropped),
        target.queued,
        target.in_flight,
        target.breaker.map_or("-", BreakerState::as_str),
        target.interlock.map_or("-", InterlockState::as_str),
        verdict_word(experiment.verdict),
    )
}

/// A verdict in one short word.
pub(super) const fn verdict_word(verdict: Option<VerdictState>) -> &'static str {
    match verdict {
        None => "-",
        Some(VerdictState::Pass) => "pass",
        Some(VerdictState::Fail) => "FAIL",
        Some(VerdictState::NotEnoughData) => "wait",
    }
}

/// What is known of the chosen target.
fn details(experiment: &ExperimentState, target: &TargetState, report: &Value, lines: &mut Lines) {
    let owner = experiment.owner.as_deref().map_or_else(String::new, |owner| format!("   {}", clean(owner)));
    let expires = match experiment.expires {
        Expiry::Never => String::new(),
        expires => format!("   until {}", expiry_text(expires)),
    };
    lines.add(
        Style::Head,
        format!(
            "{}/{}   {}   {} %{expires}{owner}",
            clean(&experiment.name),
            clean(&target.name),
            clean(&target.url),
            experiment.percent
        ),
    );
    let copies = &target.copies;
    lines.add(
        Style::Plain,
        format!(
            "copies: sent {}, skipped {}{}, dropped {}{}",
            copies.mirrored,
            copies.skipped,
            in_brackets(&copies.reasons.skipped),
            copies.dropped,
            in_brackets(&copies.reasons.dropped),
        ),
    );
    if !target.replays.is_empty() {
        lines.add(Style::Plain, format!("answers:{}", in_brackets(&target.replays)));
    }
    let of_report = list(&report["experiments"]).find(|known| text_of(&known["name"]) == experiment.name);
    let of_target = of_report
        .into_iter()
        .flat_map(|report| list(&report["targets"]))
        .find(|known| text_of(&known["target"]) == target.name);
    if let Some(told) = of_target {
        compared_lines(told, lines);
    } else if experiment.comparisons.is_empty() {
        lines.add(Style::Plain, "answers are not compared");
    }
}

/// What came of comparing the answers of a target, as a report tells it.
pub(super) fn compared_lines(told: &Value, lines: &mut Lines) {
    let results: Vec<_> = ["equal", "noise", "divergent", "incomparable"]
        .map(|result| format!("{result} {}", told["results"][result].as_u64().unwrap_or_default()))
        .to_vec();
    lines.add(Style::Plain, format!("compared: {}", results.join(", ")));
    let times: Vec<_> =
        list(&told["times"]).filter(|times| times["phase"] == "last_byte").map(time_words).collect();
    if !times.is_empty() {
        lines.add(Style::Plain, format!("service time: {}", times.join("; ")));
    }
    let state = text_of(&told["verdict"]["state"]);
    if !state.is_empty() {
        let reasons = joined(&told["verdict"]["reasons"]);
        let why = if reasons.is_empty() { String::new() } else { format!(": {}", clean(&reasons)) };
        let style = if state == VerdictState::Fail.as_str() { Style::Alarm } else { Style::Plain };
        lines.add(style, format!("verdict: {}{why}", state.replace('_', " ")));
    }
    if list(&told["clusters"]).next().is_some() {
        lines.add(Style::Head, "differences, the likeliest bugs first");
    }
    for cluster in list(&told["clusters"]) {
        lines.add(
            Style::Plain,
            format!(
                "  {:<8} {:>7} {:>8}  {}  {}",
                text_of(&cluster["certainty"]),
                cluster["count"].as_u64().unwrap_or_default(),
                figure_point(&cluster["rate"]),
                clean(text_of(&cluster["endpoint"])),
                clean(&joined(&cluster["paths"])),
            ),
        );
    }
}

fn time_words(times: &Value) -> String {
    let quantile = |name: &str| point(&times[name], Unit::Seconds);
    format!("{} p50 {} p99 {}", text_of(&times["of"]), quantile("p50"), quantile("p99"))
}

fn figure_point(value: &Value) -> String {
    point(value, Unit::Share)
}

/// A figure without its interval.
fn point(value: &Value, unit: Unit) -> String {
    value["point"].as_f64().map_or_else(|| figure(&Value::Null, unit), |point| unit.write(point))
}

fn in_brackets(counts: &Counted) -> String {
    if counts.is_empty() {
        return String::new();
    }
    let mut sorted: Vec<_> = counts.iter().collect();
    sorted.sort_by(|one, other| other.1.cmp(one.1));
    let words: Vec<_> =
        sorted.into_iter().map(|(label, count)| format!("{} {count}", clean(label))).collect();
    format!(" ({})", words.join(", "))
}

/// A rate in a few characters; a dash where it is not known.
pub(super) fn per_second(rate: Option<f64>) -> String {
    match rate {
        None => "-".to_owned(),
        Some(0.0) => "0/s".to_owned(),
        Some(rate) if rate < 10.0 => format!("{rate:.1}/s"),
        Some(rate) if rate < 10_000.0 => format!("{rate:.0}/s"),
        Some(rate) if rate < 10e6 => format!("{:.1}k/s", rate / 1e3),
        Some(rate) => format!("{:.1}M/s", rate / 1e6),
    }
}

/// A text of at most so many characters.
pub(super) fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(['~']).collect()
}
