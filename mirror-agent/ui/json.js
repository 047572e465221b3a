// Enters: a text that may be JSON. Leaves: its lines, each with the path that it is about.
//
// Numbers stay as they were written: parsed, `0.1000000000000000055` would become another one. So this reads tokens and
// never values.

const TOKEN = /\s*(?:([{}[\],:])|("(?:[^"\\\u0000-\u001f]|\\.)*")|(-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null))/y;

/** Deeper than this it is shown as it is. */
const DEEPEST = 128;

/** Lines of text with their paths; `null` where it is no JSON. */
export function lines(text) {
  const found = [];
  try {
    const tokens = tokensOf(text);
    const end = value(tokens, 0, "$", 0, "", found);
    return end === tokens.length ? found : null;
  } catch {
    return null;
  }
}

function tokensOf(text) {
  const tokens = [];
  TOKEN.lastIndex = 0;
  while (TOKEN.lastIndex < text.length) {
    const at = TOKEN.lastIndex;
    const token = TOKEN.exec(text);
    if (!token) {
      if (text.slice(at).trim() === "") break;
      throw new Error("no JSON");
    }
    tokens.push(token[1] ?? token[2] ?? token[3]);
  }
  return tokens;
}

/** Writes the value that begins at a token; gives where it ends. `before` stands in front of it in its line. */
function value(tokens, at, path, depth, before, found) {
  const token = tokens[at];
  const indent = "  ".repeat(depth);
  if (depth > DEEPEST || token === undefined || ":,]}".includes(token)) throw new Error("no JSON");
  if (token !== "{" && token !== "[") {
    found.push({ text: `${indent}${before}${token}`, path });
    return at + 1;
  }
  const close = token === "{" ? "}" : "]";
  if (tokens[at + 1] === close) {
    found.push({ text: `${indent}${before}${token}${close}`, path });
    return at + 2;
  }
  found.push({ text: `${indent}${before}${token}`, path });
  let next = at + 1;
  for (let index = 0; ; index += 1) {
    let inner = `${path}[${index}]`;
    let name = "";
    if (token === "{") {
      const key = tokens[next];
      if (!key?.startsWith('"') || tokens[next + 1] !== ":") throw new Error("no JSON");
      inner = path + step(JSON.parse(key));
      name = `${key}: `;
      next += 2;
    }
    next = value(tokens, next, inner, depth + 1, name, found);
    const after = tokens[next];
    next += 1;
    if (after === close) break;
    if (after !== ",") throw new Error("no JSON");
    found[found.length - 1].text += ",";
  }
  found.push({ text: `${indent}${close}`, path: null });
  return next;
}

/** A key as paths of the agent name it. */
function step(key) {
  if (key !== "" && /^[\p{Alphabetic}\p{N}_\-$@]+$/u.test(key)) return `.${key}`;
  return `["${key.replace(/["\\]/g, "\\$&")}"]`;
}
