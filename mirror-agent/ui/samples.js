// Enters: exchanges that differ alike. Leaves: one of them side by side, with what differs marked.

import { button, empty, h, table, theirs } from "./dom.js";
import { lines } from "./json.js";
import { atDay, plain, time, visible } from "./text.js";

/** Characters of a content that are shown; the agent keeps 64 KiB of it. */
const MOST_TEXT = 65_536;
const MOST_LINES = 2_000;
const ENDS = "\n\t";

/** The sample with a position, and the way to the others. */
export function samples(kept, position, cluster) {
  if (kept.samples.length === 0) {
    return empty("No sample of it is kept.", "Those of clusters that were not seen for longest make room for others.");
  }
  const at = Math.min(Math.max(0, position), kept.samples.length - 1);
  const sample = kept.samples[at];
  return [
    h("h3", { id: "sample" }, `Sample ${at + 1} of ${kept.samples.length}`, h("span", { class: "beside" }, atDay(sample.time))),
    h("div", { class: "row" },
      button("‹ Previous", "sample", { to: at - 1 }, { disabled: at === 0 }),
      button("Next ›", "sample", { to: at + 1 }, { disabled: at + 1 === kept.samples.length }),
      button("Copy as curl", "copy", { what: "the request as a command" }, { "data-text": sample.curl })),
    divergences(sample, cluster),
    h("h3", {}, "Request"), message(sample.request, new Map(), `exchange ${sample.exchange}`),
    h("div", { class: sample.control ? "sides three" : "sides", "data-key": sample.exchange }, side("live", sample.live, sample, cluster),
      side("shadow", sample.shadow, sample, cluster), sample.control ? side("control", sample.control, sample, cluster) : null),
    cluster ? null : h("p", { class: "dim" }, "The ranking has no place for this cluster any more."),
  ];
}

/** Whether a difference is what the cluster is about; others are noise, or another cluster's. */
const isOf = (cluster, divergence) => !cluster || cluster.paths.includes(divergence.path);

function divergences(sample, cluster) {
  const side = (value) => (value === null || value === undefined
    ? h("i", { class: "dim" }, "nothing") : theirs(visible(value, 400)));
  const sorted = [...sample.divergences].sort((a, b) => isOf(cluster, b) - isOf(cluster, a));
  const rows = sorted.map((one) => h("tr", { "data-key": `${one.place} ${one.kind}`, class: isOf(cluster, one) ? null : "aside" },
    h("th", { scope: "row" }, h(isOf(cluster, one) ? "mark" : "span", {}, theirs(visible(one.place, 200))),
      one.shadow_place ? h("small", {}, " in the shadow’s answer ", theirs(visible(one.shadow_place, 200))) : null,
      isOf(cluster, one) ? null : h("small", {}, " not of this cluster")), h("td", {}, plain(one.kind)),
    h("td", {}, side(one.live)), h("td", {}, side(one.shadow))));
  return [table("Where the two answers differ", ["Place", "Kind", "live", "shadow"], rows),
    sorted.some((one) => one.shadow_place) ? h("p", { class: "dim" }, "Places are those of live’s answer. Elements of arrays are held against ",
      "the ones that they belong to, which may lie elsewhere in the shadow’s.") : null,
    sample.has_more_divergences ? h("p", { class: "dim" }, "There are more than are kept.") : null];
}

function side(name, answer, sample, cluster) {
  const places = marksOf(name, sample, cluster);
  const took = answer.last_byte_seconds === null ? null : h("span", { class: "beside" }, time(answer.last_byte_seconds));
  return h("section", { class: "side-panel", "aria-label": `${name}’s answer` },
    h("h3", {}, name, " ", answer.status === null ? h("span", { class: "dim" }, "no answer") : String(answer.status), took),
    answer.message ? message(answer.message, places, "")
      : h("p", { class: "dim" }, `The answer is not kept: ${plain(answer.reason ?? "it is not whole")}.`));
}

/** The places of an answer that are marked, and how: where it has something, under the indices that it has there. */
function marksOf(name, sample, cluster) {
  const lacks = { live: "extra", shadow: "missing" }[name];
  if (!lacks) return new Map();
  const place = (one) => (name === "shadow" ? one.shadow_place ?? one.place : one.place);
  const known = sample.divergences.filter((one) => one.kind !== lacks);
  return new Map(known.map((one) => [place(one), isOf(cluster, one) ? "differs" : "varies"]));
}

/** A message, with lines that are about `places` marked: each place and how it is marked. */
function message(one, places, note) {
  const head = [
    line(visible(one.line, 2000), places.get("status")),
    one.headers.map(([name, value]) => line(`${visible(name, 200)}: ${visible(value, 2000)}`, markOf(places, name))),
  ];
  return h("div", { class: "message" }, h("pre", { class: "head", tabindex: "0" }, head),
    content(one.content, places), note ? h("p", { class: "dim" }, note) : null);
}

function markOf(places, header) {
  const at = `header:${header.toLowerCase()}`;
  const found = [...places].filter(([place]) => place === at || place.startsWith(`${at}:`)).map(([, mark]) => mark);
  return found.includes("differs") ? "differs" : found[0];
}

function content(of, places) {
  if (of.kind === "empty") return null;
  if (of.kind !== "text") {
    return h("p", { class: "dim" }, `Content of ${of.bytes ?? "?"} bytes is not kept: ${plain(of.reason)}.`);
  }
  const cut = of.is_cut ? h("p", { class: "dim" }, "The rest is not kept.") : null;
  const known = lines(of.text);
  const all = places.get("text") ?? places.get("body");
  const shown = known === null
    ? visible(of.text, MOST_TEXT, ENDS).split("\n").slice(0, MOST_LINES).map((text) => line(text, all))
    : known.slice(0, MOST_LINES).map(({ text, path }) => line(visible(text, 4000), all ?? (path === null ? undefined : places.get(path))));
  return [h("pre", { class: "content", tabindex: "0" }, shown), cut];
}

/** One line; one that is marked bears a sign as well as a colour. */
const line = (text, mark) => h(mark === "differs" ? "mark" : "span", { class: mark ? `line ${mark}` : "line", dir: "auto" },
  mark ? h("span", { class: "unseen" }, `${mark}: `) : null, text, "\n");
