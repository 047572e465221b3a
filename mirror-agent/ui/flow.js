// Enters: books. Leaves: how much of what arrives reaches a comparison and where the rest ends, as a diagram and as a
// table that says the same.

import { h, s, table } from "./dom.js";
import { count, plain, share } from "./text.js";

const sum = (counts) => Object.values(counts ?? {}).reduce((all, one) => all + one, 0);

/** Adds up counts by reason. */
export function together(list) {
  const all = {};
  for (const counts of list) {
    for (const [reason, number] of Object.entries(counts ?? {})) all[reason] = (all[reason] ?? 0) + number;
  }
  return all;
}

/**
 * The stages from packets to comparisons: each with how many there are, how many go on, and the ways out. `capture` has the
 * books of packets and requests, `experiment` its comparisons by result and why some are none, or is null where it does not
 * compare, and `targets` are its new versions.
 */
export function stagesOf(capture, experiment, targets) {
  const { requests, framesCaptured, framesDroppedBy } = capture;
  const dropped = sum(framesDroppedBy);
  const sent = targets.reduce((all, one) => all + one.copies.mirrored, 0);
  const replays = together(targets.map((one) => one.replays));
  const answered = replays.answered ?? 0;
  const failed = Object.fromEntries(Object.entries(replays).filter(([outcome]) => outcome !== "answered"));
  const stages = [
    stage("Packets", "with payload, of matched ports", framesCaptured + dropped, framesCaptured,
      [way("dropped", "not captured", framesDroppedBy)]),
    stage("Requests", "seen by the agent", requests.seen, requests.mirrored, [
      way("skipped", "left out on purpose", requests.reasons.skipped),
      way("dropped", "could not be sent", requests.reasons.dropped),
      way("lost", "damaged or incomplete", requests.reasons.lost),
      way("pending", "not settled yet", { pending: requests.pending }),
    ]),
    stage("Copies", "sent to the shadow", sent, answered, [
      way("failed", "no whole answer", failed),
      way("pending", "answer awaited", { pending: Math.max(0, sent - answered - sum(failed)) }),
    ]),
  ];
  if (experiment) {
    const { incomparable = 0, ...results } = experiment.comparisons;
    const all = sum(experiment.comparisons);
    stages.push(stage("Exchanges", "compared", all, all - incomparable,
      [way("incomparable", "nothing to hold against", experiment.incomparable)]));
    stages.push({ ...stage("Results", "of the comparison", all - incomparable, 0, []), results });
  }
  return stages;
}

const stage = (name, what, total, on, ways) => ({ name, what, total, on, ways: ways.filter((one) => one.count > 0) });
const way = (name, what, reasons) => ({ name, what, reasons, count: sum(reasons) });

/** Both, in a panel's content: the table can be opened below the diagram. */
export const drawn = (stages, wide) => [diagram(stages, wide),
  h("details", { class: "alternative" }, h("summary", {}, "As a table, with every reason"), asTable(stages))];

const BAR = 10;
const TOP = 58;
const TALL = 116;
const EXITS = TOP + TALL + 30;
const ENDS = ["equal", "noise", "divergent"];

/** The diagram, `wide` pixels wide. Heights are shares of what arrives. */
function diagram(stages, wide) {
  const last = stages[stages.length - 1];
  const room = last.results ? 156 : 110;
  const step = (wide - room) / (stages.length - 1 || 1);
  const parts = [];
  const exits = [];
  let height = TALL;
  let most = 0;
  stages.forEach((one, index) => {
    const x = index * step;
    const on = one.total > 0 ? height * (one.on / one.total) : 0;
    const next = index + 1 < stages.length;
    if (next && on > 0) parts.push(ribbon(x + BAR, x + step, on));
    let y = TOP + on;
    let out = x + BAR + 6;
    const labels = [];
    if (next || !one.results) {
      for (const leaving of one.ways) {
        const thick = Math.max(1.5, (height - on) * (leaving.count / Math.max(1, one.total - one.on)));
        if (next) parts.push(exit(x + BAR, Math.min(y, TOP + height - 0.5), out, thick, leaving.name));
        labels.push(leaving);
        y += thick;
        out += Math.min(thick, 40) + 3;
      }
    }
    most = Math.max(most, labels.length);
    exits.push(legend(labels, x, step, one.total));
    if (one.results) parts.push(ends(one, x, height));
    else parts.push(s("rect", { class: "bar", x, y: TOP, width: BAR, height: Math.max(1, height), rx: 2 }));
    parts.push(s("text", { class: "name", x, y: 16 }, one.name), s("text", { class: "number", x, y: 33 }, count(one.total)),
      s("text", { class: "what", x, y: 48 }, one.what));
    height = on;
  });
  const tall = EXITS + 34 * most + 2;
  return s("svg", { class: "flow", width: wide, height: tall, viewBox: `0 0 ${wide} ${tall}`, role: "img",
    "aria-labelledby": "flow-title", "aria-describedby": "flow-says" },
    s("title", { id: "flow-title" }, "From packets to comparisons"), s("desc", { id: "flow-says" }, inWords(stages)),
    hatching(), parts, exits);
}

/** What the diagram shows, in a sentence. */
function inWords(stages) {
  return stages.map((one) => {
    const ways = one.ways.map((leaving) => `${count(leaving.count)} ${leaving.name}`);
    return `${count(one.total)} ${one.name.toLowerCase()}${ways.length ? ` (${ways.join(", ")})` : ""}`;
  }).join(", then ") + ".";
}

const ribbon = (from, to, height) =>
  s("path", { class: "ribbon", d: `M${from} ${TOP}H${to}V${TOP + height}H${from}Z` });

function exit(x, y, to, thick, name) {
  const wide = Math.min(thick, 40);
  const low = EXITS - 12;
  const bend = Math.min(low, y + thick + 14);
  const d = `M${x} ${y}C${to + wide} ${y} ${to + wide} ${y} ${to + wide} ${bend}V${low}H${to}V${bend}`
    + `C${to} ${y + thick} ${to} ${y + thick} ${x} ${y + thick}Z`;
  return s("path", { class: `exit ${name}`, d });
}

function legend(ways, x, step, total) {
  return ways.map((one, index) => {
    const y = EXITS + 8 + index * 34;
    const reasons = Object.entries(one.reasons).sort((a, b) => b[1] - a[1]).map(([reason]) => plain(reason));
    const fits = Math.floor((step - 14) / 6.2);
    const why = reasons.join(", ");
    return [
      s("rect", { class: `mark ${one.name}`, x, y: y - 8, width: 8, height: 8, rx: 1.5 }),
      s("text", { class: "way", x: x + 13, y }, `${one.name} ${count(one.count)} · ${share(one.count / total)}`),
      s("text", { class: "what", x: x + 13, y: y + 14 }, why.length > fits ? `${why.slice(0, fits - 1)}…` : why),
    ];
  });
}

function ends(one, x, height) {
  const parts = [];
  let y = TOP;
  ENDS.forEach((name, index) => {
    const number = one.results[name] ?? 0;
    const tall = one.total > 0 ? height * (number / one.total) : 0;
    if (number > 0) parts.push(s("rect", { class: `end ${name}`, fill: name === "divergent" ? "url(#hatch)" : null, x, y, width: BAR, height: Math.max(1.5, tall) }));
    const row = TOP + 12 + index * 38;
    parts.push(s("path", { class: "leader", d: `M${x + BAR + 2} ${Math.min(y + tall / 2, TOP + TALL)}L${x + BAR + 10} ${row - 4}` }),
      s("text", { class: `way ${name}`, x: x + BAR + 14, y: row }, `${name} ${share(one.total ? number / one.total : 0)}`),
      s("text", { class: "what", x: x + BAR + 14, y: row + 14 }, count(number)));
    y += tall;
  });
  return parts;
}

/** Stripes for what diverges, so that it does not take colour to see it. */
const hatching = () => s("defs", {}, s("pattern", { id: "hatch", width: 5, height: 5, patternUnits: "userSpaceOnUse",
  patternTransform: "rotate(45)" }, s("rect", { class: "hatch-ground", width: 5, height: 5 }),
  s("rect", { class: "hatch-line", width: 2, height: 5 })));

/** The same as a table, with every reason. */
function asTable(stages) {
  const rows = [];
  for (const one of stages) {
    rows.push(h("tr", { class: "stage", "data-key": one.name }, h("th", { scope: "row" }, one.name),
      h("td", {}, one.what), h("td", { class: "figure" }, count(one.total)), h("td", { class: "figure" }, "")));
    for (const [name, number] of Object.entries(one.results ?? {})) rows.push(line(one, name, "", number));
    for (const leaving of one.ways) {
      for (const [reason, number] of Object.entries(leaving.reasons).sort((a, b) => b[1] - a[1])) {
        if (number > 0) rows.push(line(one, leaving.name, reason === leaving.name ? leaving.what : plain(reason), number));
      }
    }
  }
  return table("Where everything went, by reason", ["Stage", "Outcome and reason", ["Count", "figure"],
    ["Share", "figure"]], rows);
}

const line = (one, name, reason, number) => h("tr", { "data-key": `${one.name} ${name} ${reason}` }, h("td", {}, ""),
  h("td", {}, h("span", { class: `tag ${name}` }, name), reason ? ` ${reason}` : ""),
  h("td", { class: "figure" }, count(number)), h("td", { class: "figure" }, share(one.total ? number / one.total : 0)));
