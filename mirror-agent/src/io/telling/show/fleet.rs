//! Enters: what an agent tells of all of them together. Leaves: what of it is shown beside a verdict or a report.

use std::io::{self, Write};

use serde_json::Value;

use super::value::{list, text_of};
use crate::{
    io::control::ctl::{CtlError, PlaceArgs, ask, clean, parse},
    pipeline::reason::VerdictState,
};

/// All agents together.
pub(super) fn view(place: &PlaceArgs) -> Result<Value, CtlError> {
    parse(&ask::<()>(place, "GET", "/v1/fleet", None)?)
}

/// The experiments that any agent compares.
pub(super) fn compared(view: &Value) -> Vec<Value> {
    let compares = |experiment: &&Value| {
        experiment["compared_by"].as_u64().is_some_and(|agents| agents > 0)
            || list(&experiment["left_out"]).next().is_some()
    };
    list(&view["experiments"]).filter(compares).cloned().collect()
}

/// The worst verdict; not enough data where there is none.
pub(super) fn state(experiments: &[Value], ignore_missing: bool) -> VerdictState {
    let key = if ignore_missing { "judged" } else { "state" };
    super::worst_of(experiments.iter().filter_map(|experiment| experiment[key].as_str()))
}

/// Which agents there are, and which are missing.
pub(super) fn agents(view: &Value, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "fleet: {} of {} agents answered", view["answered"], view["known"])?;
    for agent in list(&view["agents"]) {
        let addresses: Vec<_> = list(&agent["addresses"]).map(text_of).collect();
        let at = addresses.join(", ");
        let trouble = &agent["trouble"];
        if trouble.is_object() {
            let (problem, text) = (text_of(&trouble["problem"]), text_of(&trouble["text"]));
            writeln!(out, "  missing  {}: {problem}, {}", clean(&at), clean(text))?;
        }
    }
    Ok(())
}

/// Who is missing, and what that makes of the verdict.
pub(super) fn conclusion(
    view: &Value,
    experiments: &[Value],
    state: VerdictState,
    out: &mut impl Write,
) -> io::Result<()> {
    agents(view, out)?;
    for experiment in experiments {
        for left_out in list(&experiment["left_out"]) {
            let (agent, reason) = (text_of(&left_out["agent"]), text_of(&left_out["reason"]));
            writeln!(
                out,
                "  left out {} of {}: {reason}",
                clean(agent),
                clean(text_of(&experiment["name"]))
            )?;
        }
    }
    let judged = self::state(experiments, true);
    let why = match (judged, state) {
        (VerdictState::Pass, VerdictState::NotEnoughData) => {
            ": what answered would pass, but agents are missing (--ignore-missing does without them)"
        }
        _ => "",
    };
    writeln!(out, "fleet: {}{why}", state.as_str().replace('_', " "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn experiment(state: &str, judged: &str) -> Value {
        json!({ "name": "a", "compared_by": 1, "state": state, "judged": judged, "left_out": [] })
    }

    #[test]
    fn missing_agents_make_no_pass_unless_they_are_ignored() {
        let pass = experiment("pass", "pass");
        let held_up = experiment("not_enough_data", "pass");
        let fail = experiment("fail", "fail");
        let none = json!({ "name": "b", "compared_by": 1, "state": null, "judged": null });
        for (experiments, strict, lenient) in [
            (vec![], VerdictState::NotEnoughData, VerdictState::NotEnoughData),
            (vec![none.clone()], VerdictState::NotEnoughData, VerdictState::NotEnoughData),
            (vec![pass.clone(), none], VerdictState::Pass, VerdictState::Pass),
            (vec![pass.clone(), held_up.clone()], VerdictState::NotEnoughData, VerdictState::Pass),
            (vec![held_up, fail], VerdictState::Fail, VerdictState::Fail),
        ] {
            assert_eq!(
                (state(&experiments, false), state(&experiments, true)),
                (strict, lenient),
                "{experiments:?}"
            );
        }
    }

    #[test]
    fn who_is_missing_is_told_with_the_reason_and_nothing_a_terminal_obeys() {
        let trouble = json!({ "problem": "garbled", "text": "x\u{1b}[2J" });
        let view = json!({
            "known": 2, "answered": 1,
            "agents": [
                { "addresses": [], "trouble": null },
                { "addresses": ["10.0.0.9:9479"], "trouble": trouble },
            ],
        });
        let held_up = experiment("not_enough_data", "pass");
        let mut out = Vec::new();
        conclusion(&view, &[held_up], VerdictState::NotEnoughData, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(
            text,
            "fleet: 1 of 2 agents answered\n  missing  10.0.0.9:9479: garbled, x?[2J\nfleet: not enough data: what \
             answered would pass, but agents are missing (--ignore-missing does without them)\n"
        );
    }
}
