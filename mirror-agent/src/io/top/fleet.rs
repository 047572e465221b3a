//! Enters: two views of all agents. Leaves: a line for each of them, and what they know together.

use std::time::Duration;

use super::{
    frame::{Flow, Lines, Style, compared, compared_lines, flow, per_second, shortened, verdict_word},
    reading::Pace,
};
use crate::io::{
    control::{ctl::clean, time::in_words},
    fleet::{AgentView, ExperimentView, TargetView, View},
};

/// Adds the lines of a page.
pub(super) fn lines(view: &View, before: Option<(&View, f64)>, selected: usize, lines: &mut Lines) {
    let pace = Pace { seconds: before.map_or(0.0, |(_, seconds)| seconds) };
    // Where others answered than before, sums have no rates.
    let before = before.map(|(before, _)| before);
    let alike = before.filter(|before| instances(before).eq(instances(view)));
    let style = if view.answered < view.known { Style::Alarm } else { Style::Head };
    lines.add(
        style,
        format!("fleet: {} of {} agents answered   {}", view.answered, view.known, clean(&view.asked)),
    );
    flow(&sum(view), alike.map(sum), pace, lines);
    lines.add(Style::Plain, "");
    lines.add(
        Style::Head,
        format!(
            "{:<28} {:<9} {:<8} {:>7} {:>7} {:>6} {:>5} {:<5}",
            "AGENT", "VERSION", "UP", "SEEN/S", "SENT/S", "DROP/S", "OPEN", "VERDICT"
        ),
    );
    for agent in &view.agents {
        let was = before.and_then(|before| same(before, agent));
        let style = if agent.has_answered() { Style::Plain } else { Style::Alarm };
        lines.add(style, row(agent, was, pace));
    }
    lines.add(Style::Plain, "");
    lines.add(
        Style::Head,
        format!(
            "{:<28} {:>6} {:>8} {:>7} {:>6} {:<5}",
            "EXPERIMENT/TARGET", "AGENTS", "COMPARED", "SENT/S", "DROP/S", "VERDICT"
        ),
    );
    let count = targets(view).count();
    let selected = selected.min(count.saturating_sub(1));
    for (number, (experiment, target)) in targets(view).enumerate() {
        let was = alike.and_then(|before| {
            let same = |(known, of): &(&ExperimentView, &TargetView)| {
                known.name == experiment.name && of.target == target.target
            };
            targets(before).find(same).map(|(_, target)| target)
        });
        let rate = |of: fn(&TargetView) -> u64| per_second(pace.of(was.map(of), of(target)));
        let name = format!("{}/{}", clean(&experiment.name), clean(&target.target));
        let style = if number == selected { Style::Selected } else { Style::Plain };
        lines.add(
            style,
            format!(
                "{:<28} {:>6} {:>8} {:>7} {:>6} {:<5}",
                shortened(&name, 28),
                experiment.agents,
                experiment.compared_by,
                rate(|target| target.copies.mirrored),
                rate(|target| target.copies.dropped),
                verdict_word(experiment.state),
            ),
        );
    }
    if let Some((experiment, target)) = targets(view).nth(selected) {
        lines.add(Style::Plain, "");
        for missing in &experiment.missing {
            lines.add(Style::Alarm, format!("missing: {}", clean(missing)));
        }
        if let Some(summary) = &target.summary {
            compared_lines(summary, lines);
        }
    }
}

fn sum(view: &View) -> Flow<'_> {
    let View { capture, experiments, .. } = view;
    let compared = experiments.iter().map(|known| compared(&known.comparisons)).fold(0, u64::saturating_add);
    Flow::new(&capture.requests, capture.frames_captured, capture.frames_dropped, compared)
}

fn targets(view: &View) -> impl Iterator<Item = (&ExperimentView, &TargetView)> {
    view.experiments
        .iter()
        .flat_map(|experiment| experiment.targets.iter().map(move |target| (experiment, target)))
}

fn instances(view: &View) -> impl Iterator<Item = &str> {
    view.agents.iter().filter_map(|agent| agent.agent.as_ref()).map(|agent| agent.instance.as_str())
}

/// The same agent before; `None` where it was not there, or has begun anew.
fn same<'v>(before: &'v View, agent: &AgentView) -> Option<&'v AgentView> {
    let instance = &agent.agent.as_ref()?.instance;
    before.agents.iter().find(|known| known.agent.as_ref().is_some_and(|known| known.instance == *instance))
}

fn row(agent: &AgentView, before: Option<&AgentView>, pace: Pace) -> String {
    let at = clean(&agent.addresses.join(", "));
    if let Some(trouble) = &agent.trouble {
        return format!("{:<28} {}: {}", shortened(&at, 28), trouble.problem.as_str(), clean(&trouble.text));
    }
    let identity = agent.agent.as_ref();
    let name = identity.map_or_else(String::new, |identity| match &identity.pod {
        Some(pod) => format!("{} {}", clean(&identity.node), clean(pod)),
        None => clean(&identity.node),
    });
    let name = if agent.addresses.is_empty() { name } else { format!("{name} {at}") };
    let rate = |of: fn(&AgentView) -> u64| per_second(pace.of(before.map(of), of(agent)));
    let uptime = in_words(Duration::try_from_secs_f64(agent.uptime_seconds).unwrap_or_default());
    format!(
        "{:<28} {:<9} {:<8} {:>7} {:>7} {:>6} {:>5} {:<5}",
        shortened(&name, 28),
        shortened(&clean(identity.map_or("", |identity| &identity.version)), 9),
        if agent.paused { "paused".to_owned() } else { uptime },
        rate(|agent| agent.capture.requests.seen),
        rate(|agent| agent.capture.requests.mirrored),
        rate(|agent| agent.capture.requests.dropped),
        agent.in_flight,
        verdict_word(agent.verdict),
    )
}
