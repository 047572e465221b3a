// Enters: what all agents say together, as this one has added it up. Leaves: each of them, and what they know together.
//
// Other agents are not trusted: names, owners, endpoints and paths that they tell are somebody else's text.

import { empty, facts, h, table, theirs } from "./dom.js";
import { clusterTable, MOST as MOST_CLUSTERS } from "./differences.js";
import { fields } from "./fields.js";
import { drawn, stagesOf } from "./flow.js";
import { state } from "./latency.js";
import { times, verdictOf } from "./overview.js";
import { atClock, count, plain, share, time, visible, words } from "./text.js";

/** Rows that are shown, and lines of what is missing. */
const MOST = 1024;
const MOST_MISSING = 20;

/** The view: of the experiment of this name where the fleet has it. */
export function fleet({ fleet: known, reports, wide }, name) {
  const title = h("h1", {}, "Fleet");
  if (!known) return [title, h("p", { class: "dim" }, "Asking all agents…")];
  if (known.isNone) {
    return [title, empty("This agent knows of no others.", "Name them under ", h("code", {}, "control.fleet"),
      " in the configuration of each; on Kubernetes the overlay ", h("code", {}, "fleet"), " does.")];
  }
  if (!known.view) return [title, empty("The agents could not be asked.", visible(known.error))];
  const { view } = known;
  const experiment = view.experiments.find((one) => one.name === name) ?? view.experiments[0];
  return [title, whole(known, experiment, wide), agents(known),
    view.experiments.length > 1 ? experiments(view, experiment) : null, experiment ? together(experiment, reports) : null];
}

const isAnswered = (agent) => agent.trouble === null;

/** Requests a second between two looks; nothing where another run of an agent is counted, or other agents are. */
function rate(known, of) {
  if (!known.before) return null;
  const [now, before] = [of(known.view), of(known.before.view)];
  const seconds = (known.at - known.before.at) / 1000;
  return now === null || before === null || now < before || seconds <= 0 ? null : (now - before) / seconds;
}

const perSecond = (value) => (value === null ? "…" : value.toFixed(value < 10 ? 1 : 0));

function whole(known, experiment, wide) {
  const { view } = known;
  const { requests, interfaces, framesDropped } = view.capture;
  const instances = (of) => of.agents.filter(isAnswered).map((agent) => agent.agent?.instance).sort().join(" ");
  const isSame = known.before && instances(known.before.view) === instances(view);
  const missing = view.known - view.answered;
  const targets = (experiment?.targets ?? []).filter((one) => !one.is_control);
  const stages = stagesOf(view.capture, experiment?.compared_by > 0 ? experiment : null, targets);
  return h("section", { class: "panel", "aria-labelledby": "fleet-flow" },
    h("h2", { id: "fleet-flow" }, "All agents together", h("span", { class: "beside" }, `asked at ${atClock(view.asked)}`)),
    missing > 0 ? h("p", { class: "warning" }, `${count(missing)} of ${count(view.known)} agents did not answer: what is shown is of `,
      "the others alone, and no verdict passes without them.") : null,
    facts([
      ["agents answered", `${count(view.answered)} of ${count(view.known)}`],
      ["requests a second", perSecond(isSame ? rate(known, (of) => of.capture.requests.seen) : null)],
      ["mirrored", requests.seen ? share(requests.mirrored / requests.seen) : "–"],
      ["interfaces", count(interfaces)],
      ["packets not captured", count(framesDropped)],
    ]),
    requests.seen === 0 ? empty("No agent has seen a request yet.", "What each agent lacks, its own page or ",
      h("code", {}, "mirror-agent check"), " says.") : drawn(stages, wide));
}

function agents(known) {
  const { agents: all } = known.view;
  const rows = all.slice(0, MOST).map((one, index) => (isAnswered(one) ? answered(known, one, index) : missingRow(one, index)));
  const heads = ["Agent", "Version", ["Up for", "figure"], ["Requests a second", "figure"], ["Seen", "figure"], ["Mirrored", "figure"],
    ["Dropped", "figure"], ["Lost", "figure"], ["In flight", "figure"], "Verdict by itself", ["Answered in", "figure"]];
  return h("section", { class: "panel", "aria-labelledby": "agents" },
    h("h2", { id: "agents" }, "Agents"), table("Agents", heads, rows),
    all.length > MOST ? h("p", { class: "dim" }, `and ${count(all.length - MOST)} more`) : null);
}

const places = (one) => h("div", { class: "paths" }, one.addresses.slice(0, 4).map((address) => theirs(visible(address, 80))));

function answered(known, one, index) {
  const { instance, node, pod, version } = one.agent;
  const { requests } = one.capture;
  const seen = (view) => view.agents.find((agent) => agent.agent?.instance === instance)?.capture.requests.seen ?? null;
  return h("tr", { "data-key": `agent ${instance}` },
    h("th", { scope: "row" }, theirs(visible(node, 80), "span"), index === 0 ? [" ", h("span", { class: "tag own" }, "this one")] : null,
      one.paused ? [" ", h("span", { class: "tag" }, "paused")] : null,
      pod ? h("div", { class: "paths" }, theirs(visible(pod, 80))) : null, places(one)),
    h("td", {}, visible(version, 40)), h("td", { class: "figure" }, words(one.uptimeSeconds)),
    h("td", { class: "figure" }, perSecond(rate(known, seen))),
    [requests.seen, requests.mirrored, requests.dropped, requests.lost, one.inFlight].map((number) => h("td", { class: "figure" }, count(number))),
    h("td", {}, one.verdict ? state(one.verdict) : "–"), h("td", { class: "figure" }, index === 0 ? "–" : time(one.seconds)));
}

function missingRow(one, index) {
  return h("tr", { "data-key": `missing ${index} ${one.addresses.join(" ")}` },
    h("th", { scope: "row" }, places(one)),
    h("td", { colspan: "9" }, h("span", { class: "tag dead" }, plain(one.trouble.problem)), " ", theirs(visible(one.trouble.text, 200), "span")),
    h("td", { class: "figure" }, time(one.seconds)));
}

function experiments(view, chosen) {
  const rows = view.experiments.slice(0, MOST).map((one) => h("tr", { "data-key": one.name, class: one === chosen ? "chosen" : null },
    h("th", { scope: "row" }, h("a", { href: `#/fleet/${encodeURIComponent(one.name)}`, "aria-current": one === chosen ? "true" : null },
      theirs(visible(one.name, 80), "span")), one.owner ? h("small", {}, " owner ", theirs(visible(one.owner, 80), "span")) : null),
    [one.agents, one.paused, one.compared_by].map((number) => h("td", { class: "figure" }, count(number))),
    h("td", {}, one.state ? state(one.state) : "–")));
  return h("section", { class: "panel", "aria-labelledby": "experiments" },
    h("h2", { id: "experiments" }, "Experiments"),
    table("Experiments", ["Experiment", ["Agents", "figure"], ["Paused at", "figure"], ["Compared by", "figure"], "Verdict"], rows));
}

/** What the agents know together of one experiment. */
function together(experiment, reports) {
  const compared = experiment.targets.filter((one) => one.exchanges !== undefined);
  const heading = h("h2", {}, theirs(visible(experiment.name, 80), "span"),
    h("span", { class: "beside" }, `${count(experiment.agents)} agents have it, ${count(experiment.compared_by)} are added up`));
  if (compared.length === 0) {
    return h("section", { class: "panel", "data-key": `of ${experiment.name}` }, heading, missing(experiment),
      empty("Nothing that is compared adds up here.", "An experiment is judged by the rules of the agent that is asked: it has to compare it, too."));
  }
  return h("div", { "data-key": `of ${experiment.name}` },
    h("section", { class: "panel", "aria-label": "Who is added up" }, heading, missing(experiment),
      experiment.judged === "pass" && experiment.state !== "pass"
        ? h("p", { class: "warning" }, "What answered would pass; without those that are missing it cannot be told.") : null),
    h("div", { class: "verdicts" }, compared.map((target) => verdictOf(target, target.verdict?.state))),
    compared.map((target) => h("div", { "data-key": `target ${target.target}` },
      times(target), fields(target), differences(experiment.name, target, reports))));
}

function missing(experiment) {
  const { missing: all } = experiment;
  if (all.length === 0) return null;
  return [h("h3", {}, "Missing"), h("ul", { class: "missing" },
    all.slice(0, MOST_MISSING).map((one) => h("li", {}, theirs(visible(one, 300), "span"))),
    all.length > MOST_MISSING ? h("li", { class: "dim" }, `and ${count(all.length - MOST_MISSING)} more`) : null)];
}

/** Clusters of all; those that this agent has seen too can be looked at here. */
function differences(name, target, reports) {
  if (target.clusters.length === 0) return null;
  const here = reports.find((one) => one.name === name)?.targets.find((one) => one.target === target.target);
  const keys = new Set((here?.clusters ?? []).map((one) => one.key));
  const id = `fleet-worst-${target.target}`;
  return h("section", { class: "panel short", "aria-labelledby": id },
    h("h2", { id }, "Differences, the likeliest bugs first",
      h("span", { class: "beside" }, "samples are at the agents that have seen them")),
    clusterTable(name, target, null, MOST_CLUSTERS, (one) => keys.has(one.key)));
}
