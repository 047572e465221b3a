// Enters: rules, proposals and places. Leaves: what counts as noise, and how to change that.

import { button, empty, h, table, theirs } from "./dom.js";
import { count, plain, ruleLine, share, visible } from "./text.js";

/** Places of noise that are shown at once, and at most. */
const FIRST = 12;
const MOST = 200;

/** The view. */
export function rules({ report }, experiment) {
  const title = h("h1", {}, "Noise and rules");
  if (!report) return [title, empty("Nothing is compared in this experiment.", "Rules explain differences of answers that are.")];
  const name = experiment.name;
  return [title, proposals(name, report), inForce(name, report), keep(report), adding(name, report), noise(report)];
}

function proposals(name, report) {
  const known = new Map(report.targets.flatMap((target) => target.proposals).map((one) => [one.name, one]));
  const rows = [...known.values()].map((one) => h("tr", { "data-key": one.name },
    h("th", { scope: "row" }, one.endpoint ? theirs(visible(one.endpoint, 120)) : "all endpoints",
      h("div", { class: "paths" }, theirs(visible(one.path, 120)))),
    h("td", {}, plain(one.looks)), h("td", {}, visible(one.action)),
    h("td", { class: "figure" }, `${count(one.seen)} of ${count(one.exchanges)}`),
    h("td", {}, button("Accept", "accept", { experiment: name, names: JSON.stringify([one.name]) },
      { "aria-label": `Accept as noise: ${visible(one.path, 80)}` }))));
  return h("section", { class: "panel", "aria-labelledby": "proposed" },
    h("h2", { id: "proposed" }, "Proposed as noise",
      rows.length > 1 ? h("span", { class: "beside" }, button("Accept all", "accept", { experiment: name })) : null),
    rows.length === 0
      ? empty("Nothing looks like noise that is not known to be.", report.has_control
        ? "The control tells what is noise: what differs between two copies of live counts against nobody."
        : "Without a control, ids and times that differ in every answer are proposed here once they were seen often enough.")
      : table("Proposed as noise", ["Where", "Looks like", "The rule would", ["Seen", "figure"],
        h("span", { class: "unseen" }, "What to do")], rows));
}

function inForce(name, report) {
  const rows = report.rules.map((one, index) => h("tr", { "data-key": `${index} ${one.rule.name}` },
    h("td", { class: "figure" }, count(one.matched)),
    h("th", { scope: "row" }, theirs(visible(ruleLine(one.rule), 600))),
    h("td", {}, one.is_own ? h("span", { class: "tag own" }, "made since the start") : "of the file"),
    h("td", {}, one.matched > 0 ? "" : one.is_own ? h("span", { class: "tag" }, "not matched yet")
      : h("span", { class: "tag dead" }, "∅ never matched"),
      one.is_own ? button("Remove", "remove", { experiment: name, name: one.rule.name },
        { "aria-label": `Remove the rule ${visible(one.rule.name, 80)}` }) : null)));
  const arrays = report.arrays.map(({ array, is_own }) => h("tr", { "data-key": `array ${array.path}` },
    h("td", { class: "figure dim" }, "–"), h("th", { scope: "row" }, theirs(visible(ruleLine(array), 600))),
    h("td", {}, is_own ? h("span", { class: "tag own" }, "made since the start") : "of the file", " ", h("span", { class: "tag" }, "array")),
    h("td", {}, is_own ? button("Remove", "remove", { experiment: name, name: array.path },
      { "aria-label": `Remove what is said of the array ${visible(array.path, 80)}` }) : null)));
  const old = report.rules.filter((one) => !one.is_own);
  const dead = old.filter((one) => one.matched === 0).length;
  return h("section", { class: "panel", "aria-labelledby": "in-force" },
    h("h2", { id: "in-force" }, "In force"),
    dead > 0 ? h("p", { class: "warning" }, `${count(dead)} of ${count(old.length)} of the file never matched: maybe the `,
      "place is misspelt, or the answers have changed.") : null,
    rows.length + arrays.length === 0
      ? empty("No rules.", "“Ignore this” in ", h("a", { href: `#/differences/${encodeURIComponent(name)}` }, "Differences"),
        " makes one.")
      : table("Rules in force", [["Explained", "figure"], "Rule", "From", h("span", { class: "unseen" }, "State")], [rows, arrays]));
}

function keep(report) {
  const ownOf = (list, entry) => list.filter((one) => one.is_own).map((one) => `    ${ruleLine(entry(one))}\n`).join("");
  const arrays = ownOf(report.arrays, (one) => one.array);
  const rules = ownOf(report.rules, (one) => one.rule);
  if (!arrays && !rules) return null;
  const text = `compare:\n${arrays && `  arrays:\n${arrays}`}${rules && `  rules:\n${rules}`}`;
  return h("section", { class: "panel", "aria-labelledby": "keep" },
    h("h2", { id: "keep" }, "To keep what you made"),
    h("p", {}, "Rules that were accepted or added here are in force until the agent ends, on this agent alone. ",
      "These lines in the experiment’s configuration keep them, everywhere:"),
    h("pre", { class: "command", tabindex: "0", id: "keep-lines" }, visible(text, 20_000, "\n")),
    button("Copy", "copy", { what: "the rules" }, { "data-text": text }));
}

function adding(name, report) {
  const known = [...new Set(report.targets.flatMap((target) => target.endpoints.map((one) => one.endpoint)))];
  return h("section", { class: "panel", "aria-labelledby": "adding" },
    h("h2", { id: "adding" }, "Ignore a place"),
    h("form", { "data-form": "ignore", "data-experiment": name, class: "row" },
      h("label", { for: "place" }, "Place"),
      h("input", { id: "place", name: "place", required: true, size: "36", placeholder: "$.meta.served_at, header:etag, form:name",
        autocomplete: "off", spellcheck: "false" }),
      h("label", { for: "endpoint" }, "of"),
      h("select", { id: "endpoint", name: "endpoint" }, h("option", { value: "" }, "all endpoints"),
        known.slice(0, 200).map((one) => h("option", { value: one, "data-key": one }, visible(one, 80)))),
      h("button", { type: "submit" }, "Ignore")));
}

function noise(report) {
  const isKnown = (one) => (one.standing === "unclear" ? 1 : 0);
  const places = report.targets.flatMap((target) => target.places.filter((one) => !one.counts))
    .sort((a, b) => isKnown(a) - isKnown(b)).slice(0, MOST);
  if (places.length === 0) return null;
  const rows = places.map((one, index) => h("tr", { "data-key": `${index} ${one.endpoint} ${one.path} ${one.kind}` },
    h("th", { scope: "row" }, theirs(visible(one.endpoint, 120)), h("div", { class: "paths" }, theirs(visible(one.path, 120)))),
    h("td", {}, plain(one.kind)), h("td", { class: "figure" }, share(one.raw)),
    h("td", { class: "figure" }, one.noise === null ? "–" : share(one.noise)), h("td", {}, plain(one.standing))));
  return h("section", { class: "panel", "aria-labelledby": "noise" },
    h("h2", { id: "noise" }, "Places that do not count"),
    noiseTable("Places that do not count", rows.slice(0, FIRST)),
    rows.length > FIRST ? h("details", {}, h("summary", {}, `${count(rows.length - FIRST)} more places`),
      noiseTable("More places", rows.slice(FIRST))) : null);
}

const noiseTable = (caption, rows) => table(caption, ["Where", "Kind", ["shadow differs", "figure"], ["control differs", "figure"],
  "Standing"], rows);
