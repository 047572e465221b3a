// Enters: the agent's answers, the address, clicks and keys. Leaves: the view that is asked for, kept up to date.

import { closeSession, Gone, openSession, order, pathOf, read, Refused, SignedOut } from "./agent.js";
import { differences, hrefOf, isAbout } from "./differences.js";
import { button, h, show, theirs } from "./dom.js";
import { experiments } from "./experiments.js";
import { fleet } from "./fleet.js";
import { overview } from "./overview.js";
import { rules } from "./rules.js";
import { acceptInvitation, signIn } from "./session.js";
import { atClock, ignoringRule, visible } from "./text.js";
import { verdict } from "./verdict.js";

/** How often the agent is asked, in milliseconds; and, while it does not answer, how long is waited at most. */
const PACE = 2_000;
const LONGEST_PAUSE = 30_000;

/** How long a notice stays, in milliseconds. */
const NOTICE_TIME = 10_000;

const VIEWS = [["overview", "Overview"], ["differences", "Differences"], ["rules", "Rules"], ["experiments", "Experiments"],
  ["verdict", "Verdict"], ["fleet", "Fleet"]];

/** All that the page knows. */
const known = {
  connection: { is: "new", since: null, again: null, why: null },
  state: null, reports: [], verdicts: null, evidence: null, rate: null, before: null, sample: 0, fleet: null,
};
let timer = null;
let failures = 0;
let asking = null;
let isAskingAll = false;
let noticeTimer = null;
let shownView = "";

const place = (id) => document.getElementById(id);

function route() {
  const [view, ...rest] = location.hash.replace(/^#\/?/, "").split("/");
  const decoded = rest.map((part) => {
    try {
      return decodeURIComponent(part);
    } catch {
      return "";
    }
  });
  const [experiment, target, cluster] = decoded;
  return { view: VIEWS.some(([name]) => name === view) ? view : "overview", experiment, target, cluster };
}

/** The experiment that is looked at: that of the address, else one that compares, else any. */
function chosen({ experiment }) {
  const all = known.state?.experiments ?? [];
  const compares = (one) => known.reports.some((report) => report.name === one.name);
  return all.find((one) => one.name === experiment) ?? all.find(compares) ?? all[0];
}

function render() {
  const at = route();
  const experiment = known.state ? chosen(at) : null;
  const { is, why } = known.connection;
  show(place("nav"), is === "signed out" ? [] : VIEWS.map(([name, label]) => h("a", {
    href: experiment && name !== "experiments" ? `#/${name}/${encodeURIComponent(experiment.name)}` : `#/${name}`,
    "aria-current": at.view === name ? "page" : null,
  }, label)));
  show(place("chosen"), chooser(experiment, is));
  show(place("connection"), connection());
  if (is === "signed out") {
    show(place("main"), h("div", { "data-key": "sign-in" }, signIn(why)));
    document.title = "mirror – signed out";
  } else if (known.state) {
    show(place("main"), h("div", { "data-key": at.view, class: is === "gone" ? "stale" : null }, view(at, experiment)));
    document.title = `mirror – ${VIEWS.find(([name]) => name === at.view)[1]}`;
  } else {
    show(place("main"), h("p", { class: "dim", "data-key": "wait" }, is === "gone" ? "The agent does not answer." : "Asking the agent…"));
  }
}

function view(at, experiment) {
  const report = known.reports.find((one) => one.name === experiment?.name);
  const all = { ...known, report, wide: Math.max(640, place("main").clientWidth - 64) };
  switch (at.view) {
    case "differences": return differences(all, experiment, at.target, at.cluster, known.sample);
    case "rules": return rules(all, experiment);
    case "experiments": return experiments(all);
    case "verdict": return verdict(all, experiment);
    case "fleet": return fleet(all, at.experiment ?? experiment?.name);
    default: return overview(all, experiment);
  }
}

function chooser(experiment, is) {
  const all = known.state?.experiments ?? [];
  if (!experiment || is === "signed out") return null;
  if (all.length === 1) return h("span", { class: "only" }, theirs(visible(experiment.name, 60), "span"));
  return [h("label", { class: "unseen", for: "experiment" }, "Experiment"), h("select", { id: "experiment" },
    all.map((one) => h("option", { value: one.name, "data-key": one.name, selected: one === experiment }, visible(one.name, 60))))];
}

function connection() {
  const { is, since, again } = known.connection;
  if (is === "signed out") return h("span", { class: "signal off" }, "signed out");
  if (is === "gone") {
    return [h("span", { class: "signal off" }, `no answer since ${since ? atClock(since) : "the page was opened"}`,
      again ? `, asking again at ${atClock(again)}` : ""), button("Ask now", "retry")];
  }
  return [h("span", { class: "signal on" }, since ? `as of ${atClock(since)}` : "asking…"), button("Sign out", "leave")];
}

function become(is, why = null) {
  const was = known.connection.is;
  known.connection = { ...known.connection, is, why, again: null };
  const says = { gone: "The agent does not answer.", live: was === "new" ? "" : "The agent answers.", "signed out": "The session has ended." };
  if (is !== was) place("alive").textContent = says[is] ?? "";
}

/** Asks for what the view shows, once; then again after a while, longer each time that there is no answer. */
async function refresh() {
  clearTimeout(timer);
  if (asking) return asking;
  asking = ask();
  await asking;
  asking = null;
  clearTimeout(timer);
  render();
  if (known.connection.is !== "signed out" && !document.hidden) timer = setTimeout(refresh, pause());
  return null;
}

function pause() {
  if (failures === 0) return PACE;
  const wait = Math.min(LONGEST_PAUSE, PACE * 2 ** (failures - 1)) * (0.8 + 0.4 * Math.random());
  known.connection.again = Date.now() + wait;
  show(place("connection"), connection());
  return wait;
}

async function ask() {
  try {
    const [state, report] = await Promise.all([read("/v1/state"), read("/v1/report")]);
    note(state);
    known.reports = report.experiments;
    await more(route());
    failures = 0;
    // One that comes back may have been told of others.
    if (known.connection.is === "gone") known.fleet = null;
    known.connection.since = Date.now();
    become("live");
  } catch (error) {
    if (error instanceof SignedOut) {
      forget();
      become("signed out");
    } else {
      failures += 1;
      become("gone", error.message);
      if (!(error instanceof Gone)) console.error(error);
    }
  }
}

/** What only one view shows. */
async function more(at) {
  // All agents together take as long as the slowest of them: nobody waits for that.
  if (at.view === "fleet") askAll();
  const experiment = chosen(at);
  if (!experiment || !known.reports.some((one) => one.name === experiment.name)) return;
  if (at.view === "verdict") {
    known.verdicts = await read(pathOf(experiment.name, "verdicts"));
  } else if (at.view === "differences" && at.cluster) {
    const isKnown = isAbout(known.evidence, experiment, at.cluster);
    if (!isKnown || known.evidence.error) known.evidence = await evidence(experiment.name, at.cluster);
    if (!isKnown) known.sample = 0;
  }
}

/** How all agents are; it is shown once it is known. */
async function askAll() {
  if (isAskingAll || known.fleet?.isNone) return;
  isAskingAll = true;
  let next;
  try {
    const view = await read("/v1/fleet");
    const before = known.fleet?.view ? { view: known.fleet.view, at: known.fleet.at } : null;
    next = { view, at: performance.now(), before };
  } catch (error) {
    // Where the agent itself is gone, or the session has ended, the other questions say so.
    next = error instanceof Refused ? { error: error.message, isNone: error.status === 404 } : known.fleet;
  }
  isAskingAll = false;
  if (known.connection.is === "signed out") return;
  known.fleet = next;
  render();
}

async function evidence(experiment, key) {
  try {
    return { experiment, key, value: await read(pathOf(experiment, "clusters", key)) };
  } catch (error) {
    if (error instanceof Gone || error instanceof SignedOut) throw error;
    return { experiment, key, error: error.message };
  }
}

function note(state) {
  const now = performance.now();
  const { before } = known;
  const { seen } = state.capture.requests;
  // Behind a restart the books begin anew.
  if (before && seen >= before.seen && now > before.at) {
    const rate = ((seen - before.seen) * 1000) / (now - before.at);
    known.rate = known.rate === null ? rate : known.rate * 0.6 + rate * 0.4;
  } else {
    known.rate = null;
  }
  known.before = { seen, at: now };
  known.state = state;
}

/** Nothing that was captured stays in a page that may not see it. */
function forget() {
  Object.assign(known, { state: null, reports: [], verdicts: null, evidence: null, before: null, rate: null, fleet: null });
}

function notice(text, isBad = false) {
  clearTimeout(noticeTimer);
  const box = place("notice");
  box.classList.toggle("bad", isBad);
  show(box, h("p", {}, visible(text, 2000)));
  noticeTimer = setTimeout(() => show(box), NOTICE_TIME);
}

/** Has something changed, and says what came of it. */
async function change(path, body, say) {
  try {
    const answer = await order(path, body);
    notice(say(answer));
    if (asking) await asking;
    await refresh();
    return true;
  } catch (error) {
    if (error instanceof SignedOut) {
      forget();
      become("signed out");
      render();
    } else {
      notice(error instanceof Gone ? `The agent does not answer: ${error.message}` : `Not done: ${error.message}`, true);
    }
    return false;
  }
}

const setting = (of) => {
  if ("paused" in of) return of.paused ? "paused" : "running";
  if ("percent" in of) return `${of.percent} percent`;
  return of.expires === "never" ? "never ends" : `ends ${of.expires}`;
};

function changed({ changes }) {
  if (changes.length === 0) return "It was so already.";
  return changes.map((one) => `${one.experiment ?? "All"}: ${setting(one.before)} → ${setting(one.after)}.`).join(" ");
}

const RULE_NOTE = "It is in force until the agent ends; under Rules are the lines that keep it.";

const ACTIONS = {
  retry: () => {
    failures = 0;
    if (known.connection.is === "signed out") become("new");
    return refresh();
  },
  leave: async () => {
    try {
      await closeSession();
    } catch (error) {
      notice(`The session could not be ended: ${error.message}`, true);
      return;
    }
    forget();
    become("signed out", "You have signed out.");
    render();
  },
  pause: ({ experiment }) => change("/v1/pause", experiment ? { experiment } : undefined, changed),
  resume: ({ experiment }) => change("/v1/resume", experiment ? { experiment } : undefined, changed),
  extend: ({ experiment, expires }) => change(pathOf(experiment, "expiry"), { expires }, changed),
  ignore: ({ experiment, rule }) => change(pathOf(experiment, "rules"), { add: JSON.parse(rule) },
    () => `Ignored from now on: ${JSON.parse(rule).name}. ${RULE_NOTE}`),
  accept: ({ experiment, names }) => change(pathOf(experiment, "rules"), { accept: names ? JSON.parse(names) : "proposed" },
    (answer) => `${answer.rules.length} rules made since the start are in force. ${RULE_NOTE}`),
  remove: ({ experiment, name }) => change(pathOf(experiment, "rules"), { remove: name }, () => `Removed: ${name}.`),
  sample: ({ to }) => {
    known.sample = Number(to);
    render();
  },
  copy: ({ text, what }) => copy(text, what),
};

const FORMS = {
  token: async (data, form) => {
    try {
      await openSession(data.get("token").trim());
      form.reset();
      become("new");
      await refresh();
    } catch (error) {
      notice(error.message, true);
    }
  },
  percent: async (data, form) => {
    const path = pathOf(form.dataset.experiment, "percent");
    if (await change(path, { percent: Number(data.get("percent")) }, changed)) form.reset();
  },
  expiry: async (data, form) => {
    const path = pathOf(form.dataset.experiment, "expiry");
    if (await change(path, { expires: data.get("expires").trim() }, changed)) form.reset();
  },
  ignore: async (data, form) => {
    const endpoint = data.get("endpoint");
    const rule = ignoringRule(data.get("place").trim(), endpoint || "all endpoints");
    if (!rule) {
      notice("A place is a JSON path that begins with $, header:NAME, or form:NAME.", true);
      return;
    }
    if (!endpoint) delete rule.endpoint;
    const path = pathOf(form.dataset.experiment, "rules");
    if (await change(path, { add: rule }, () => `Ignored from now on: ${rule.name}. ${RULE_NOTE}`)) form.reset();
  },
};

async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
    notice(`Copied: ${what}.`);
  } catch {
    // Beyond localhost browsers keep the clipboard from pages without TLS.
    const area = h("textarea", { class: "unseen", "aria-hidden": "true", tabindex: "-1" });
    area.value = text;
    document.body.append(area);
    area.select();
    const isDone = document.execCommand("copy");
    area.remove();
    notice(isDone ? `Copied: ${what}.` : "The browser does not let the page copy.", !isDone);
  }
}

document.addEventListener("click", (event) => {
  const skip = event.target.closest(".skip");
  if (skip) {
    // The address says which view is shown, so it must not change.
    event.preventDefault();
    place("main").focus();
  }
  const found = event.target.closest("[data-action]");
  if (found && !found.disabled) ACTIONS[found.dataset.action]?.({ ...found.dataset });
});

document.addEventListener("submit", (event) => {
  event.preventDefault();
  FORMS[event.target.dataset.form]?.(new FormData(event.target), event.target);
});

document.addEventListener("change", (event) => {
  if (event.target.id !== "experiment") return;
  const { view: name } = route();
  location.hash = name === "differences" ? hrefOf(event.target.value) : `#/${name}/${encodeURIComponent(event.target.value)}`;
});

addEventListener("hashchange", async () => {
  if (/^#invitation=/.test(location.hash)) {
    await start();
    return;
  }
  render();
  const at = route();
  if (asking) await asking;
  await refresh();
  // A cluster that was chosen is where one goes on reading; a view begins at its beginning.
  const name = `${at.view} ${at.cluster ?? ""}`;
  if (name !== shownView) {
    shownView = name;
    (place("cluster") ?? place("main")).focus({ preventScroll: !at.cluster });
    if (!at.cluster) scrollTo(0, 0);
  }
});

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) refresh();
});

let resizing = null;
addEventListener("resize", () => {
  clearTimeout(resizing);
  resizing = setTimeout(render, 100);
});

async function start() {
  const why = await acceptInvitation();
  shownView = `${route().view} ${route().cluster ?? ""}`;
  await refresh();
  if (why && known.connection.is === "signed out") {
    become("signed out", why);
    render();
  }
}

render();
start();
