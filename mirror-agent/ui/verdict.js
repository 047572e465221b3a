// Enters: verdicts, their checks and how they changed. Leaves: what was found, by what, and since when.

import { empty, h, s, table, theirs } from "./dom.js";
import { state } from "./latency.js";
import { decisive } from "./overview.js";
import { atDay, count, fromNow, interval, plain, visible, writerOf } from "./text.js";

/** Checks that are shown at once, and at most. */
const FIRST = 8;
const MOST = 300;

/** The view. */
export function verdict({ report, verdicts }, experiment) {
  const title = h("h1", {}, "Verdict");
  if (!report) return [title, empty("Nothing is compared in this experiment.", "A verdict is about answers that are.")];
  if (!report.has_gate) {
    return [title, empty("Nothing is asked of the new version.", "A gate says by how much it may differ, for instance ",
      h("code", {}, "gate: { divergence: 1%, p95: 1.1, errors: 0.5%, minSamples: 1000 }"), " in the experiment.")];
  }
  return [title, report.targets.map((target) => checks(target, experiment)), history(verdicts)];
}

function checks(target, experiment) {
  const of = target.verdict;
  // What was told comes first, and what is about the whole before what is about one endpoint.
  const rank = (check) => (check.state === "fail" ? 0 : check.endpoint ? 2 : 1);
  const all = [...of.checks].sort((a, b) => rank(a) - rank(b)).slice(0, MOST);
  const first = Math.max(FIRST, all.filter((check) => rank(check) < 2).length);
  const rows = all.map((check) => {
    const write = writerOf(check.name);
    return h("tr", { "data-key": `${check.name} ${check.endpoint ?? ""}` },
      h("th", { scope: "row" }, plain(check.name)),
      h("td", {}, check.endpoint ? theirs(visible(check.endpoint, 120)) : "the whole experiment"),
      h("td", { class: "figure" }, check.figure ? write(check.figure.point) : "–",
        h("small", {}, check.figure ? interval(check.figure, write) : "")),
      h("td", { class: "spark" }, check.figure ? gauge(check) : null),
      h("td", { class: "figure" }, write(check.limit)),
      h("td", {}, state(check.state), check.reason ? h("small", {}, plain(check.reason)) : null));
  });
  return h("section", { class: "panel", "data-key": target.target, "aria-label": `Checks of ${visible(target.target, 60)}` },
    h("h2", {}, theirs(visible(target.target), "span"), " ", state(of.state, "badge"),
      h("span", { class: "beside" }, `${count(target.exchanges)} exchanges`)),
    h("p", {}, decisive(target)),
    target.burn ? h("p", { class: "warning" }, "More than twice the allowed share of exchanges diverges, for certain.") : null,
    checkTable(`Checks of ${visible(target.target, 60)} in ${visible(experiment.name, 60)}`, rows.slice(0, first)),
    rows.length > first ? h("details", {}, h("summary", {}, `${count(of.checks.length - first)} more checks, of single endpoints`),
      checkTable("More checks", rows.slice(first))) : null);
}

const checkTable = (caption, rows) => table(caption, ["Check", "Of", ["Figure", "figure"],
  h("span", { class: "unseen" }, "As a bar"), ["At most", "figure"], "State"], rows);

/** The figure's interval against its limit, which is the line in the middle. */
function gauge(check) {
  const { point, low, high } = check.figure;
  const base = check.name === "p95" ? 1 : 0;
  const x = (value) => 2 + Math.min(1, Math.max(0, (value - base) / Math.max(1e-9, 2 * (check.limit - base)))) * 80;
  return s("svg", { viewBox: "0 0 84 12", width: 84, height: 12, "aria-hidden": "true", class: `gauge ${check.state}` },
    s("path", { class: "limit", d: "M42 0V12" }),
    s("path", { class: "range", d: `M${x(low ?? point)} 6H${x(high ?? point)}` }), s("circle", { class: "dot", cx: x(point), cy: 6, r: 3 }));
}

function history(verdicts) {
  const changes = [...(verdicts?.verdicts ?? [])].reverse();
  return h("section", { class: "panel", "aria-labelledby": "history" },
    h("h2", { id: "history" }, "How it changed"),
    changes.length === 0
      ? empty("No verdict was given yet.", "It is looked at every two seconds; changes are kept here until the agent ends.")
      : h("ol", { class: "history" }, changes.map((one, index) => h("li", { "data-key": `${one.time} ${one.target} ${changes.length - index}`, class: one.state },
        h("span", { class: "when" }, atDay(one.time), h("small", {}, fromNow(one.time))),
        h("span", {}, theirs(visible(one.target, 60), "b"), " ", state(one.state),
          h("small", {}, `after ${count(one.exchanges)} exchanges`)),
        h("span", { class: "dim" }, theirs(visible(one.reasons.map((reason) => (reason.includes(" ") ? reason : plain(reason))).join(", "), 400), "span"))))),
    verdicts?.forgotten ? h("p", { class: "dim" }, `${count(verdicts.forgotten)} older changes are forgotten.`) : null);
}
