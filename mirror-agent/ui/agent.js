// Enters: questions and orders. Leaves: the agent's answers, or why there are none.

/** How long an answer may take, in milliseconds. */
const PATIENCE = 12_000;

/** The agent cannot be reached, or does not answer in time. */
export class Gone extends Error {}

/** The session has ended, or none was opened. */
export class SignedOut extends Error {}

/** The agent answers that it will not. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Asks for a path; gives what the JSON says. */
export const read = (path) => send("GET", path);

/** Has something changed. */
export const order = (path, body) => send("POST", path, body);

/** Exchanges a token or an invitation for a session, which the browser keeps where no script sees it. */
export const openSession = (secret) => send("POST", "/v1/session", undefined, { Authorization: `Bearer ${secret}` });

/** Ends the session. */
export const closeSession = () => send("DELETE", "/v1/session");

/** The path of something of an experiment. */
export const pathOf = (experiment, ...rest) =>
  ["/v1/experiments", ...[experiment, ...rest].map(encodeURIComponent)].join("/");

async function send(method, path, body, headers = {}) {
  let answer;
  let text;
  try {
    answer = await fetch(path, {
      method,
      headers: body === undefined ? headers : { ...headers, "Content-Type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
      cache: "no-store",
      credentials: "same-origin",
      redirect: "error",
      signal: AbortSignal.timeout(PATIENCE),
    });
    text = await answer.text();
  } catch (error) {
    throw new Gone(error.message);
  }
  let value;
  try {
    value = JSON.parse(text);
  } catch {
    throw new Gone("what answers there is no agent");
  }
  if (answer.ok) return value;
  const message = typeof value.error === "string" ? value.error : `status ${answer.status}`;
  if (answer.status === 401) throw new SignedOut(message);
  throw new Refused(answer.status, message);
}
