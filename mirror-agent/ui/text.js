// Enters: numbers, times and somebody else's text. Leaves: what people read. Nothing here touches the page.

const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const day = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

/** A whole number with separators. */
export const count = (number) => whole.format(number ?? 0);

/** A share of 0 to 1 in percent: as many digits as are needed to tell it from nothing and from everything. */
export function share(part) {
  if (part === null || part === undefined || !Number.isFinite(part)) return "–";
  const percent = part * 100;
  const rest = Math.min(Math.abs(percent), Math.abs(100 - percent));
  if (rest < 0.0005) return `${Math.round(percent)} %`;
  return `${percent.toFixed(rest < 0.1 ? 3 : Math.abs(percent) < 10 ? 2 : 1)} %`;
}

/** Seconds as milliseconds, or as seconds where they are many. */
export function time(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds === 0) return "0 ms";
  if (seconds >= 10) return `${seconds.toFixed(1)} s`;
  const milliseconds = seconds * 1000;
  return `${milliseconds.toFixed(milliseconds < 1 ? 3 : milliseconds < 100 ? 1 : 0)} ms`;
}

/** A multiple. */
export const times = (ratio) => (ratio === null || ratio === undefined ? "–" : `${ratio.toFixed(2)} ×`);

/** A number of somebody else's, to four digits. */
export function figure(number) {
  if (number === null || number === undefined || !Number.isFinite(number)) return "–";
  return Math.abs(number) >= 1e4 && Number.isInteger(number) ? count(number) : String(Number(number.toPrecision(4)));
}

/** The interval of a figure, each end written by `write`; nothing where none is known. */
export function interval(figure, write) {
  if (!figure || (figure.low === null && figure.high === null)) return "";
  const end = (value) => (value === null || value === undefined ? "?" : write(value));
  return `${end(figure.low)} to ${end(figure.high)}`;
}

/** How a check's figure and limit are written. */
export const writerOf = (check) => (check === "p95" ? times : share);

/** A duration in words, from seconds: its two largest units. */
export function words(seconds) {
  const units = [["d", 86400], ["h", 3600], ["m", 60], ["s", 1]];
  let rest = Math.max(0, Math.floor(seconds));
  const found = [];
  for (const [unit, size] of units) {
    if (rest >= size || (unit === "s" && found.length === 0)) {
      found.push(`${Math.floor(rest / size)}${unit}`);
      rest %= size;
    }
  }
  return found.slice(0, 2).join(" ");
}

/** The time of day of a moment. */
export const atClock = (moment) => clock.format(new Date(moment));

/** Day and time of a moment. */
export const atDay = (moment) => day.format(new Date(moment));

/** How far a moment is from now: `in 3d 2h`, `5m ago`. */
export function fromNow(moment) {
  const seconds = (new Date(moment).getTime() - Date.now()) / 1000;
  return seconds >= 0 ? `in ${words(seconds)}` : `${words(-seconds)} ago`;
}

/** A word of the agent's (`not_enough_data`) as people write it. */
export const plain = (word) => String(word ?? "").replaceAll("_", " ");

/**
 * Somebody else's text as it may be shown: what is invisible, or would turn the direction of what stands beside it, is
 * written out, and what is too long is cut. `keep` are characters that may stay, such as line ends.
 */
export function visible(text, most = 300, keep = "") {
  const all = String(text ?? "");
  const cut = all.length > most ? `${all.slice(0, most)} … (${count(all.length)} characters)` : all;
  return cut.replace(INVISIBLE, (found) => {
    if (keep.includes(found)) return found;
    return `⟨U+${found.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`;
  });
}

// Control characters, soft hyphens, marks and overrides of direction, joiners, separators, lone surrogates, tags.
const INVISIBLE = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]|[\u{e0000}-\u{e007f}]/gu;

/**
 * A rule as one line of YAML; what JSON writes is YAML in flow style, too. One that is not told in full is a comment, since
 * it would match nothing.
 */
export function ruleLine(rule) {
  const { name, ...rest } = rule;
  const pairs = Object.entries(name === undefined ? rest : { name, ...rest });
  const line = `- { ${pairs.map(([key, value]) => `${key}: ${JSON.stringify(value)}`).join(", ")} }`;
  return rule.redacted ? `# redacted: ${line}` : line;
}

/** What was changed by hand of an experiment, as lines of the configuration file. */
export function kept({ name, percent, expires, changed }) {
  const lines = {
    expires: `expires: ${expires}`,
    paused: "# paused: no key of the file says that; with percent: 0 nothing of it is copied",
    percent: `sample: { percent: ${percent} } # beside what else sample says`,
  };
  return ["experiments:", `  - name: ${JSON.stringify(name)}`, ...changed.map((key) => `    ${lines[key]}`), ""].join("\n");
}

/** As much of a text as the name of a rule may have, in bytes. */
function within(text, most = 250) {
  const bytes = new TextEncoder().encode(text);
  return bytes.length <= most ? text : new TextDecoder().decode(bytes.slice(0, most)).replace(/\ufffd+$/, "");
}

/** The rule that ignores differences at a path of a report; `null` where no rule can. */
export function ignoringRule(path, endpoint) {
  const found = [["header:", "header"], ["form:", "form"]].find(([prefix]) => path.startsWith(prefix));
  const rule = { name: within(`ignore ${path} of ${endpoint}`) };
  if (found) {
    rule[found[1]] = path.slice(found[0].length);
  } else if (path.startsWith("$")) {
    rule.path = path;
  } else {
    return null;
  }
  return { ...rule, endpoint, ignore: true };
}
