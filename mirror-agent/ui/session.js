// Enters: an address with an invitation, or a token that somebody types. Leaves: a session.

import { openSession, SignedOut } from "./agent.js";
import { button, h } from "./dom.js";

/** Opens a session by the invitation in the address, which is taken out of it and of the browser's history. */
export async function acceptInvitation() {
  const found = /^#invitation=([0-9a-f]+)$/.exec(location.hash);
  if (!found) return null;
  history.replaceState(null, "", "#/overview");
  try {
    await openSession(found[1]);
    return null;
  } catch (error) {
    if (error instanceof SignedOut) return "This address was used before, or is older than five minutes.";
    return error.message;
  }
}

/** What somebody without a session sees. */
export function signIn(why) {
  return h("section", { class: "panel narrow", "aria-labelledby": "sign-in" },
    h("h1", { id: "sign-in" }, "Open the mirror’s page"),
    h("p", {}, why ?? "There is no session in this browser, or it has ended: sessions last for 12 hours."),
    h("ol", { class: "steps" },
      h("li", {}, "Where the agent runs, have it print an address:", command("mirror-agent ctl open")),
      h("li", {}, "On Kubernetes that is", command("kubectl exec -n NAMESPACE POD -- mirror-agent ctl open"),
        "and, to reach it from here,", command("kubectl port-forward -n NAMESPACE POD 9478:9478")),
      h("li", {}, "Open that address here. It is good once, for five minutes.")),
    h("details", {}, h("summary", {}, "Use the token instead"),
      h("form", { "data-form": "token", class: "row" },
        h("label", { for: "token" }, "Token"),
        h("input", { id: "token", name: "token", type: "password", autocomplete: "off", required: true, size: "40" }),
        h("button", { type: "submit", class: "main" }, "Open")),
      h("p", { class: "dim" }, "It lies in the file beside the agent’s socket, or in that of --control-token-file.")),
    h("p", {}, button("Try again", "retry")));
}

const command = (text) => h("pre", { class: "command" }, text);
