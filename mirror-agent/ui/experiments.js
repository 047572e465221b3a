// Enters: what runs. Leaves: the same, with the levers to change it.

import { button, empty, h, table, theirs } from "./dom.js";
import { atDay, count, fromNow, kept, plain, visible } from "./text.js";

/** The view. */
export function experiments({ state }) {
  return [
    h("h1", {}, "Experiments"),
    h("div", { class: "row" }, state.paused
      ? [button("Resume all", "resume", {}, { class: "main" }), h("span", { class: "warning" }, "All is paused: nothing is captured.")]
      : [button("Pause all", "pause"), h("span", { class: "dim" }, "Live traffic never notices either.")]),
    state.experiments.length === 0
      ? empty("No experiment runs.", "Name one under ", h("code", {}, "experiments:"), " in the configuration file.")
      : state.experiments.map((one, index) => card(one, index, state.paused)),
  ];
}

function card(one, index, isAllPaused) {
  const { name, owner, expires, expired, percent, paused } = one;
  const is = expired ? "expired" : paused ? "paused" : "running";
  const sign = { expired: "■", paused: "❚❚", running: "▶" }[is];
  return h("section", { class: "panel", "data-key": name, "aria-labelledby": `experiment-${index}` },
    h("h2", { id: `experiment-${index}` }, theirs(visible(name), "span"), " ",
      h("span", { class: `badge ${is}` }, h("span", { "aria-hidden": "true" }, sign), ` ${is}`),
      owner ? h("span", { class: "beside" }, "owner ", theirs(visible(owner, 80), "span")) : null),
    h("div", { class: "levers" },
      paused && !expired ? button("Resume", "resume", { experiment: name }, { class: "main", disabled: isAllPaused })
        : button("Pause", "pause", { experiment: name }, { disabled: expired }),
      h("form", { "data-form": "percent", "data-experiment": name, class: "row" },
        h("label", { for: `percent-${index}` }, "Takes"),
        h("input", { id: `percent-${index}`, name: "percent", type: "number", min: "0", max: "100", step: "any", required: true,
          value: String(percent) }),
        h("span", {}, "% of the requests"), h("button", { type: "submit" }, "Set")),
      h("form", { "data-form": "expiry", "data-experiment": name, class: "row" },
        h("label", { for: `expires-${index}` }, expires === "never" ? "Never ends;" : [expired ? "Ended " : "Ends ",
          h("b", {}, fromNow(expires)), h("span", { class: "dim" }, ` (${atDay(expires)})`), ";"]),
        h("span", {}, "end it in"),
        h("input", { id: `expires-${index}`, name: "expires", required: true, size: "12", placeholder: "24h, 7d, never",
          "aria-label": "New end: a duration from now, a time, or never", autocomplete: "off" }),
        h("button", { type: "submit" }, "Set"), button("+ 24h", "extend", { experiment: name, expires: "24h" },
          { "aria-label": `Have ${visible(name, 60)} end in 24 hours` }))),
    keep(one, index),
    one.targets.length === 0 ? empty("It sends nowhere.", expired ? "It has ended; a new end takes it up again." : "") : targets(one));
}

/** What was changed by hand, as lines that keep it. */
function keep(one, index) {
  if (one.changed.length === 0) return null;
  const text = kept(one);
  return h("details", { class: "keep" },
    h("summary", {}, `Changed by hand: ${one.changed.map(plain).join(", ")}. That ends with the agent`),
    h("p", {}, "It is so on this agent alone, until it ends or its file says something else of that. These lines keep it, everywhere:"),
    h("pre", { class: "command", tabindex: "0", id: `keep-${index}` }, visible(text, 2000, "\n")),
    button("Copy", "copy", { what: "what was changed" }, { "data-text": text }));
}

function targets(one) {
  const rows = one.targets.map((target) => h("tr", { "data-key": target.name },
    h("th", { scope: "row" }, theirs(visible(target.name, 80), "span"), h("div", { class: "paths" }, theirs(visible(target.url, 120)))),
    ["copies", "mirrored", "skipped", "dropped", "pending"].map((what) => h("td", { class: "figure" }, count(target.copies[what]))),
    h("td", { class: "figure" }, count(target.queued)), h("td", { class: "figure" }, count(target.inFlight)),
    h("td", {}, target.breaker ? plain(target.breaker) : "–"), h("td", {}, target.interlock ? plain(target.interlock) : "–")));
  return table(`Targets of ${visible(one.name, 60)}`, ["Target", ["Copies", "figure"], ["Sent", "figure"], ["Skipped", "figure"],
    ["Dropped", "figure"], ["Pending", "figure"], ["Queued", "figure"], ["In flight", "figure"], "Breaker", "Interlock"], rows);
}
