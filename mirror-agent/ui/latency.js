// Enters: service times of live and of a target. Leaves: both beside each other, with the intervals in which they lie.

import { h, s, table } from "./dom.js";
import { count, interval, share, time, times } from "./text.js";

const QUANTILES = ["p50", "p95", "p99"];
const SIDES = ["live", "shadow", "control"];
const WIDE = 360;
const LANE = 13;

/** Times up to the last byte of an answer, by quantile. */
export function latency(summary) {
  const sides = SIDES.map((of) => summary.times.find((one) => one.of === of && one.phase === "last_byte"))
    .filter((one) => one && one.count > 0);
  if (sides.length === 0) return null;
  const most = Math.max(...sides.flatMap((one) => QUANTILES.map((name) => one[name].high ?? one[name].point)));
  const rows = QUANTILES.map((name) => h("tr", { "data-key": name },
    h("th", { scope: "row" }, name),
    h("td", { class: "chart" }, chart(sides, name, most * 1.04)),
    sides.map((one) => h("td", { class: "figure" }, time(one[name].point),
      h("small", {}, interval(one[name], time)))),
    h("td", { class: "figure" }, ratio(sides, name))));
  const heads = ["Quantile", `0 to ${time(most)}`,
    ...sides.map((one) => [h("span", { class: "side" }, mark(one.of), one.of), "figure"]),
    [`shadow ÷ ${baseOf(sides).of}`, "figure"]];
  return [
    table("Service times, live against shadow", heads, rows, { class: "latency" }),
    h("p", { class: "dim" }, `Last byte of the request to last byte of the answer, of ${count(sides[0].count)} exchanges; `,
      "the bars are the intervals in which the truth lies.", trips(summary)),
  ];
}

const baseOf = (sides) => sides.find((one) => one.of === "control") ?? sides[0];

function ratio(sides, name) {
  const shadow = sides.find((one) => one.of === "shadow");
  const base = baseOf(sides)[name].point;
  return shadow && base > 0 ? times(shadow[name].point / base) : "–";
}

function trips(summary) {
  const known = Object.entries(summary.round_trips ?? {});
  if (known.length === 0) return null;
  return ` Round trips taken off: ${known.map(([of, seconds]) => `${of} ${time(seconds)}`).join(", ")}.`;
}

function chart(sides, name, most) {
  const x = (seconds) => 6 + (seconds / most) * (WIDE - 12);
  const lanes = sides.map((one, index) => {
    const y = 8 + index * LANE;
    const { point, low, high } = one[name];
    return s("g", { class: `of ${one.of}` },
      s("path", { class: "range", d: `M${x(low ?? point)} ${y}H${x(high ?? point)}` }), dot(one.of, x(point), y));
  });
  const tall = sides.length * LANE + 3;
  return s("svg", { viewBox: `0 0 ${WIDE} ${tall}`, class: "lanes", "aria-hidden": "true" },
    s("path", { class: "axis", d: `M6 ${tall - 1}H${WIDE - 6}` }), lanes);
}

const mark = (of) => s("svg", { class: `key of ${of}`, viewBox: "0 0 12 12", width: 12, height: 12, "aria-hidden": "true" },
  dot(of, 6, 6));

/** A shape for each side: a ring, a disc, a diamond. */
function dot(of, x, y) {
  if (of === "control") return s("path", { class: "dot", d: `M${x} ${y - 4.5}l4.5 4.5l-4.5 4.5l-4.5 -4.5Z` });
  return s("circle", { class: "dot", cx: x, cy: y, r: 4 });
}

/** Endpoints that are shown at once, and at most. */
const FIRST = 8;
const MOST = 200;

/** The endpoints, those with the most exchanges first; those that fail before them. */
export function endpoints(summary, theirs) {
  const worst = (one) => (one.state === "fail" ? 0 : 1);
  const all = [...summary.endpoints].sort((a, b) => worst(a) - worst(b)).slice(0, MOST);
  const rest = all.slice(FIRST);
  return [endpointTable("Endpoints", summary, all.slice(0, FIRST), theirs),
    rest.length === 0 ? null : h("details", {}, h("summary", {}, `${count(summary.endpoints.length - FIRST)} more endpoints`),
      endpointTable("More endpoints", summary, rest, theirs))];
}

function endpointTable(caption, summary, list, theirs) {
  const rows = list.map((one) => h("tr", { "data-key": one.endpoint },
    h("th", { scope: "row" }, theirs(one.endpoint)),
    h("td", { class: "figure" }, count(one.exchanges)),
    h("td", { class: "figure" }, share(one.divergence.point), h("small", {}, interval(one.divergence, share))),
    h("td", { class: "figure" }, quantile(one, "live")), h("td", { class: "figure" }, quantile(one, "shadow")),
    h("td", { class: "figure" }, one.p95.ratio ? times(one.p95.ratio.point) : "–",
      h("small", {}, one.p95.ratio ? interval(one.p95.ratio, times) : "")),
    h("td", {}, one.state ? state(one.state) : h("span", { class: "dim" }, "no gate"))));
  return table(caption, ["Endpoint", ["Exchanges", "figure"], ["Divergent", "figure"], ["p95 live", "figure"],
    ["p95 shadow", "figure"], [`shadow ÷ ${summary.p95.against}`, "figure"], "Gate"], rows);
}

function quantile(scope, of) {
  const found = scope.times.find((one) => one.of === of && one.phase === "last_byte");
  return found && found.count > 0 ? time(found.p95.point) : "–";
}

const STATES = {
  pass: ["✓", "pass"],
  fail: ["✕", "fail"],
  not_enough_data: ["…", "not enough data"],
};

/** A verdict: a sign, a word and a colour that say the same. */
export function state(of, kind = "state") {
  const [sign, word] = STATES[of] ?? ["·", of];
  return h("span", { class: `${kind} ${of}` }, h("span", { "aria-hidden": "true" }, sign), ` ${word}`);
}
