// Enters: what is known of numbers that are followed in answers. Leaves: both sides of each, and by how much they differ.

import { h, table, theirs } from "./dom.js";
import { count, figure, visible } from "./text.js";

/** The numbers, in the order of the configuration; `null` where none is followed. */
export function fields(target) {
  if (!target.fields?.length) return null;
  const rows = target.fields.map((one) => h("tr", { "data-key": one.field },
    h("th", { scope: "row" }, theirs(visible(one.field, 120))),
    side(one.live), side(one.shadow), difference(one)));
  const id = `fields-${target.target}`;
  return h("section", { class: "panel", "aria-labelledby": id },
    h("h2", { id }, "Numbers that are followed"),
    table("Numbers that are followed, live against shadow",
      ["Path", ["Live", "figure"], ["Shadow", "figure"], ["Difference of the means", "figure"]], rows));
}

function side({ count: seen, mean, quantiles }) {
  const median = quantiles.find(([quantile]) => quantile === 0.5)?.[1];
  return h("td", { class: "figure" }, figure(mean), h("small", {}, `median ${figure(median)}, ${count(seen)} seen`));
}

function difference({ difference: point, difference_interval: between }) {
  return h("td", { class: "figure" }, figure(point),
    h("small", {}, between ? `${figure(between.lower)} to ${figure(between.upper)}` : ""));
}
