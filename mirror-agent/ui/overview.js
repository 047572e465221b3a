// Enters: all that is known. Leaves: what is mirrored and what is not, and how the versions compare, at a glance.

import { empty, facts, h, theirs } from "./dom.js";
import { fields } from "./fields.js";
import { drawn, stagesOf } from "./flow.js";
import { endpoints, latency, state } from "./latency.js";
import { clusterTable } from "./differences.js";
import { count, interval, share, visible, words, writerOf } from "./text.js";

/** The view. `wide` is the room that the diagram has, in pixels. */
export function overview({ state: agent, report, rate, wide }, experiment) {
  const name = experiment?.name;
  return [
    h("h1", { class: "unseen" }, "Overview"),
    verdicts(report, experiment),
    flow(agent, experiment, report, rate, wide),
    (report?.targets ?? []).map((target) => h("div", { "data-key": `target ${target.target}` },
      times(target), fields(target), differences(name, target))),
  ];
}

function verdicts(report, experiment) {
  if (!experiment) {
    return empty("No experiment runs.",
      "Name one under ", h("code", {}, "experiments:"), " in the configuration file; the agent takes it up when it changes.");
  }
  if (!report) {
    return empty(["The answers of ", theirs(visible(experiment.name), "b"), " are not compared."],
      "With ", h("code", {}, "compare: {}"), " in the experiment the agent reads live’s answers too, and shows here how the ",
      "shadow’s differ.");
  }
  return h("div", { class: "verdicts" }, report.targets.map((target) => verdictOf(target, target.verdict?.state)));
}

/** The verdict of a target in a panel; `of` is what it is. */
export const verdictOf = (target, of) => h("section", { class: "panel verdict", "data-key": target.target,
  "aria-label": `Verdict of ${target.target}` }, headline(target, of), h("p", {}, decisive(target)));

function headline(target, of) {
  return h("h2", {}, theirs(visible(target.target), "span"), " ",
    of ? state(of, "badge") : h("span", { class: "badge" }, "no gate"),
    h("span", { class: "beside" }, `${count(target.exchanges)} exchanges compared`));
}

/** The check that decides, in a sentence. */
export function decisive(target) {
  if (!target.verdict) {
    return ["Nothing is asked of it: a ", h("code", {}, "gate:"), " says by how much it may differ, and makes a verdict."];
  }
  const { checks, state: of, reasons } = target.verdict;
  const check = checks.find((one) => one.state === of && of !== "pass") ?? checks[0];
  if (!check?.figure) return visible(reasons.join(", "), 200) || "Nothing was compared yet.";
  const write = writerOf(check.name);
  const between = interval(check.figure, write);
  return [
    `${check.name}`, check.endpoint ? [" of ", theirs(visible(check.endpoint, 120))] : "",
    ` is ${write(check.figure.point)}`, between ? ` (${between})` : "", `, at most ${write(check.limit)} is allowed.`,
    of === "not_enough_data" ? " It cannot be told yet." : "",
  ];
}

function flow(agent, experiment, report, rate, wide) {
  const { requests, interfaces, guardPercent, framesDropped, flowsSkipped } = agent.capture;
  const targets = (experiment?.targets ?? []).filter((one) => !one.isControl);
  const stages = stagesOf(agent.capture, report ? experiment : null, targets);
  const shown = [
    ["requests a second", rate === null ? "…" : rate.toFixed(rate < 10 ? 1 : 0)],
    ["mirrored", requests.seen ? share(requests.mirrored / requests.seen) : "–"],
    ["interfaces", count(interfaces)],
    ["packets not captured", count(framesDropped)],
    ["connections left out", count(Object.values(flowsSkipped).reduce((all, one) => all + one, 0))],
    ["up for", words(agent.uptimeSeconds)],
  ];
  if (guardPercent !== null && guardPercent < 100) shown.push(["guard captures", `${guardPercent.toFixed(0)} %`]);
  return h("section", { class: "panel", "aria-labelledby": "flow" },
    h("h2", { id: "flow" }, "What is mirrored, and what is not"),
    agent.paused ? h("p", { class: "warning" }, "All is paused: nothing is captured, nothing is sent. ",
      h("a", { href: "#/experiments" }, "Resume it")) : null,
    facts(shown),
    requests.seen === 0
      ? empty("No request was seen yet.", interfaces === 0
        ? "No interface is attached: see capture.interfaces in the configuration, and `mirror-agent check`."
        : "Send one to a port of an experiment. If requests arrive and none is seen, `mirror-agent check` says what this machine lacks.")
      : drawn(stages, wide));
}

/** Service times of a target. */
export function times(target) {
  const shown = latency(target);
  return h("section", { class: "panel", "aria-labelledby": `times-${target.target}` },
    h("h2", { id: `times-${target.target}` }, "Live against ", theirs(visible(target.target), "span")),
    shown ?? empty("No service time is known yet.",
      "Times are taken from requests whose beginning and end were captured and that were sent one at a time."),
    target.endpoints.length ? endpoints(target, (name) => theirs(visible(name, 120))) : null);
}

function differences(name, target) {
  if (target.clusters.length === 0) return null;
  return h("section", { class: "panel", "aria-labelledby": `worst-${target.target}` },
    h("h2", { id: `worst-${target.target}` }, "Differences, the likeliest bugs first",
      h("a", { class: "beside", href: `#/differences/${encodeURIComponent(name)}/${encodeURIComponent(target.target)}` },
        `all ${count(target.clusters.length)}`)),
    clusterTable(name, target, null, 5));
}
