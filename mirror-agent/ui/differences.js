// Enters: clusters of differences. Leaves: their ranking, and one of them in full.

import { button, empty, facts, h, s, table, theirs } from "./dom.js";
import { samples } from "./samples.js";
import { atDay, count, fromNow, ignoringRule, interval, plain, share, visible } from "./text.js";

/** Rows that are shown; the agent tells of 500 at most. */
export const MOST = 200;

/** The view: the ranking, and beside it the cluster that is looked at. */
export function differences({ report, evidence }, experiment, targetName, key, sample) {
  const title = h("h1", {}, "Differences");
  if (!report) {
    return [title, empty("Nothing is compared in this experiment.", "Add ", h("code", {}, "compare: {}"),
      " to it in the configuration file.")];
  }
  const target = report.targets.find((one) => one.target === targetName) ?? report.targets[0];
  if (!target) return [title, empty("The experiment has no target that is compared.", "It may have expired.")];
  const tabs = report.targets.length < 2 ? null : h("nav", { class: "tabs", "aria-label": "Targets" },
    report.targets.map((one) => h("a", { href: hrefOf(experiment.name, one.target),
      "aria-current": one === target ? "true" : null }, visible(one.target))));
  if (target.clusters.length === 0) {
    return [title, tabs, target.exchanges > 0
      ? empty(`No differences in ${count(target.exchanges)} exchanges.`, "Nothing is left to do but to wait for more.")
      : empty("Nothing was compared yet.", "Exchanges are compared once live and shadow have answered.")];
  }
  const cluster = target.clusters.find((one) => one.key === key);
  return [title, tabs, h("div", {},
    h("section", { class: key ? "panel short" : "panel", "aria-label": "Ranking" }, clusterTable(experiment.name, target, key, MOST)),
    key ? detail(experiment, target, cluster, key, evidence, sample) : null)];
}

/** Whether samples are of this cluster: in every experiment the same places of the same endpoint have the same key. */
export const isAbout = (evidence, experiment, key) => evidence?.key === key && evidence.experiment === experiment.name;

/** The address of a target's differences, or of one cluster of them. */
export const hrefOf = (experiment, target, key) =>
  ["#/differences", ...[experiment, target, key].filter((part) => part).map(encodeURIComponent)].join("/");

/** The ranking. `isHere` says whether a cluster can be looked at here; others are shown without a link. */
export function clusterTable(experiment, target, chosen, most, isHere = () => true) {
  const shown = target.clusters.slice(0, most);
  const widest = Math.max(...shown.map((one) => one.rate.high ?? one.rate.point), 1e-9);
  const rows = shown.map((one, index) => h("tr", { "data-key": one.key, class: one.key === chosen ? "chosen" : null },
    h("td", { class: "figure dim" }, index + 1),
    h("th", { scope: "row" },
      isHere(one) ? h("a", { href: hrefOf(experiment, target.target, one.key), "aria-current": one.key === chosen ? "true" : null },
        theirs(visible(one.endpoint, 120), "span"))
        : [theirs(visible(one.endpoint, 120), "span"), h("small", {}, " seen by other agents alone")],
      h("div", { class: "paths" }, paths(one.paths, 3))),
    h("td", {}, one.kinds.map(plain).join(", ")),
    h("td", { class: "figure" }, share(one.rate.point), h("small", {}, interval(one.rate, share))),
    h("td", { class: "spark" }, spark(one.rate, widest)),
    h("td", { class: "figure" }, count(one.count)),
    h("td", {}, certainty(one.certainty))));
  const table_ = table("Differences, the likeliest bugs first", [["#", "figure"], "Endpoint and place", "Kind",
    ["Share of its exchanges", "figure"], h("span", { class: "unseen" }, "As a bar"), ["Exchanges", "figure"], "More than noise"], rows);
  const rest = target.clusters.length - shown.length;
  return rest > 0 && most === MOST ? [table_, h("p", { class: "dim" }, `and ${count(rest)} more`)] : table_;
}

function paths(list, most) {
  const shown = list.slice(0, most).map((path) => theirs(visible(path, 80)));
  return [shown, list.length > most ? h("span", { class: "dim" }, ` and ${list.length - most} more`) : null];
}

function spark(rate, widest) {
  const x = (part) => Math.min(80, Math.max(0, (part / widest) * 80));
  return s("svg", { viewBox: "0 0 84 12", width: 84, height: 12, "aria-hidden": "true" },
    s("rect", { class: "fill", x: 0, y: 3, width: Math.max(1, x(rate.point)), height: 6, rx: 1 }),
    s("path", { class: "range", d: `M${x(rate.low ?? rate.point)} 6H${x(rate.high ?? rate.point)}` }));
}

const CERTAIN = { certain: "● certain", unclear: "◐ unclear", unlikely: "○ unlikely" };
const certainty = (of) => h("span", { class: `certainty ${of}` }, CERTAIN[of] ?? of);

function detail(experiment, target, cluster, key, evidence, sample) {
  const heading = h("h2", { id: "cluster", tabindex: "-1" }, cluster ? theirs(visible(cluster.endpoint), "span") : "A cluster of before");
  const isIts = isAbout(evidence, experiment, key);
  const kept = isIts ? evidence.value?.targets.find((one) => one.target === target.target) : null;
  const known = cluster ? [
    ["live → shadow", cluster.statuses.join(" → ")],
    ["kind", cluster.kinds.map(plain).join(", ")],
    ["share", `${share(cluster.rate.point)} (${interval(cluster.rate, share)})`],
    ["exchanges", count(cluster.count)],
    target.has_control ? ["control differs alike", count(cluster.control_count)] : null,
    kept ? ["first seen", `${atDay(kept.first_seen)}`] : null,
    kept ? ["last seen", fromNow(kept.last_seen)] : null,
  ] : [];
  return h("section", { class: "panel detail", "aria-labelledby": "cluster", "data-key": key },
    h("a", { class: "close", href: hrefOf(experiment.name, target.target) }, "Close"),
    heading,
    facts(known),
    cluster ? ignoring(experiment.name, cluster) : null,
    isIts && evidence.error
      ? empty("No sample of it is kept.", visible(evidence.error))
      : kept ? samples(kept, sample, cluster) : h("p", { class: "dim" }, "Fetching samples…"));
}

function ignoring(experiment, cluster) {
  const rows = cluster.paths.slice(0, 16).map((path) => {
    const rule = ignoringRule(path, cluster.endpoint);
    return h("li", { "data-key": path }, theirs(visible(path, 160)), rule
      ? button("Ignore this", "ignore", { experiment, rule: JSON.stringify(rule) },
        { "aria-label": `Ignore differences at ${visible(path, 80)} of ${visible(cluster.endpoint, 80)}` })
      : h("span", { class: "dim" }, "no rule can ignore that"));
  });
  return [
    h("h3", {}, "Where they differ"),
    h("ul", { class: "ignoring" }, rows),
    h("p", { class: "dim" }, "A rule that you make here is for this endpoint alone, and is in force until the agent ends. ",
      h("a", { href: `#/rules/${encodeURIComponent(experiment)}` }, "Rules"), " has the lines that keep it."),
  ];
}
