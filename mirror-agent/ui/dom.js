// Enters: what is to be shown. Leaves: nodes, and a page changed no more than it has to be.
//
// Text comes into the page by text nodes alone, so nothing that was captured can become markup. Whoever reads, has
// selected or is typing something keeps that while the page is refreshed: what is the same is left alone.

const SVG = "http://www.w3.org/2000/svg";

/** An HTML element. Properties become attributes; `false`, `null` and `undefined` leave them out. */
export const h = (name, attributes, ...children) => fill(document.createElement(name), attributes, children);

/** An SVG element. */
export const s = (name, attributes, ...children) => fill(document.createElementNS(SVG, name), attributes, children);

/** Text of somebody else, which is kept to itself in either direction of writing. */
export const theirs = (text, kind = "code") => h(kind, { dir: "auto", class: "theirs" }, text);

/** A button that has `app.js` do something. */
export function button(label, action, data = {}, attributes = {}) {
  return h("button", { type: "button", "data-action": action, ...dataset(data), ...attributes }, label);
}

/** A table in a frame of its own, which scrolls where it is too wide. Heads are texts, or pairs of text and class. */
export function table(caption, heads, rows, attributes = {}) {
  const head = heads.map((one) => {
    const [text, kind] = Array.isArray(one) ? one : [one, null];
    return h("th", { scope: "col", class: kind }, text);
  });
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    h("table", attributes, h("caption", { class: "unseen" }, caption), h("thead", {}, h("tr", {}, head)),
      h("tbody", {}, rows)));
}

/** Facts beside each other: what, and how much. */
export const facts = (all) => h("dl", { class: "facts" },
  all.filter((one) => one).map(([what, value]) => h("div", { "data-key": what }, h("dt", {}, what), h("dd", {}, value))));

/** What is shown where there is nothing yet, and what to do about it. */
export const empty = (what, ...next) => h("div", { class: "empty" }, h("p", { class: "lead" }, what), h("p", {}, next));

function dataset(data) {
  return Object.fromEntries(Object.entries(data).map(([key, value]) => [`data-${key}`, value]));
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name.startsWith("on") || name === "style") throw new Error(`no attribute ${name} here`);
    if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** Has `parent` hold what `next` says: nodes that are the same stay, others are changed or replaced. */
export function show(parent, ...next) {
  const wanted = document.createDocumentFragment();
  wanted.append(...next.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  match(parent, wanted);
}

function match(parent, wanted) {
  const keyed = new Map();
  for (const child of parent.childNodes) {
    const key = keyOf(child);
    if (key !== null) keyed.set(key, child);
  }
  let at = parent.firstChild;
  for (const next of [...wanted.childNodes]) {
    const key = keyOf(next);
    const found = key === null ? at : keyed.get(key);
    if (found && isSameKind(found, next)) {
      keyed.delete(key);
      if (found !== at) parent.insertBefore(found, at);
      else at = at.nextSibling;
      update(found, next);
    } else {
      parent.insertBefore(next, at);
    }
  }
  while (at) {
    const gone = at;
    at = at.nextSibling;
    gone.remove();
  }
}

const keyOf = (node) => (node.nodeType === Node.ELEMENT_NODE ? node.getAttribute("data-key") : null);

function isSameKind(one, other) {
  return one.nodeType === other.nodeType && one.nodeName === other.nodeName && keyOf(one) === keyOf(other);
}

function update(node, next) {
  if (node.nodeType !== Node.ELEMENT_NODE) {
    if (node.nodeValue !== next.nodeValue) node.nodeValue = next.nodeValue;
    return;
  }
  for (const { name } of [...node.attributes]) {
    if (!next.hasAttribute(name) && !isTheUsers(node, name)) node.removeAttribute(name);
  }
  for (const { name, value } of next.attributes) {
    if (node.getAttribute(name) !== value && !isTheUsers(node, name)) node.setAttribute(name, value);
  }
  match(node, next);
}

/** What is opened, typed or chosen is not taken back by a refresh. */
function isTheUsers(node, name) {
  return (node.nodeName === "DETAILS" && name === "open")
    || (node.nodeName === "INPUT" && name === "value" && node.matches(":focus"));
}
