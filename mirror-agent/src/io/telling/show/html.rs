//! Enters: a report. Leaves: one page that needs nothing else: no script, nothing from elsewhere.
//!
//! All that was captured is somebody else's text, and is escaped wherever it stands.

use std::{
    fmt::Write as _,
    io::{self, Write},
};

use serde_json::Value;

use super::value::{Unit, count, difference, figure, joined, list, numbers, text_of};
use crate::io::telling::curl::{curl, quoted};

/// The page as it begins; it is readable in the dark, too.
const HEAD: &str = "<!doctype html>
<html lang=\"en\"><head><meta charset=\"utf-8\">
<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">
<meta name=\"viewport\" content=\"width=device-width\">
<style>
:root { color-scheme: light dark; --line: #8884; --bad: #c33; --good: #282; --dim: #777; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; } td, th { text-align: left; padding: .25rem .75rem .25rem 0;
border-bottom: 1px solid var(--line); vertical-align: top; }
pre, code { font: 13px/1.45 ui-monospace, monospace; } pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: .3rem 0;
border: 1px solid var(--line); padding: .5rem; }
.fail { color: var(--bad); font-weight: 600; } .pass { color: var(--good); font-weight: 600; } .dim { color: var(--dim); }
.sides { display: grid; grid-template-columns: 1fr 1fr; gap: 1rem; } details { margin: .5rem 0; } mark { color: inherit;
background: #fa08; }
</style>
";

/// Prints the page.
pub(super) fn page(report: &Value, out: &mut impl Write) -> io::Result<()> {
    let name = escape(text_of(&report["name"]));
    write!(out, "{HEAD}<title>{name}</title></head><body>\n<h1>{name}</h1>\n")?;
    writeln!(out, "<p class=\"dim\">compared since {}</p>", escape(text_of(&report["since"])))?;
    for target in list(&report["targets"]) {
        of_target(report, target, out)?;
    }
    writeln!(out, "<h2>Rules</h2><table><tr><th>explained<th>rule</tr>")?;
    for rule in list(&report["rules"]) {
        let text = escape(&rule["rule"].to_string());
        writeln!(out, "<tr><td>{}<td><code>{text}</code></tr>", count(&rule["matched"]))?;
    }
    writeln!(out, "</table>\n</body></html>")
}

fn of_target(report: &Value, target: &Value, out: &mut impl Write) -> io::Result<()> {
    let state = match text_of(&target["verdict"]["state"]) {
        "" => "no gate",
        state => state,
    };
    let class = if matches!(state, "pass" | "fail") { state } else { "dim" };
    writeln!(
        out,
        "<h2>{}: <span class=\"{class}\">{}</span></h2>\n<p>{} exchanges: {} equal, {} noise, {} divergent, {} incomparable</p>",
        escape(text_of(&target["target"])),
        escape(state),
        count(&target["exchanges"]),
        count(&target["results"]["equal"]),
        count(&target["results"]["noise"]),
        count(&target["results"]["divergent"]),
        count(&target["results"]["incomparable"]),
    )?;
    writeln!(out, "<table><tr><th>check<th>endpoint<th>figure<th>at most<th>state</tr>")?;
    for check in list(&target["verdict"]["checks"]) {
        let name = text_of(&check["name"]);
        let unit = Unit::of_check(name);
        let state = text_of(&check["state"]);
        let limit = check["limit"].as_f64().map_or_else(String::new, |limit| unit.write(limit));
        writeln!(
            out,
            "<tr><td>{}<td>{}<td>{}<td>{limit}<td class=\"{}\">{}</tr>",
            escape(name),
            escape(check["endpoint"].as_str().unwrap_or("all")),
            figure(&check["figure"], unit),
            if matches!(state, "pass" | "fail") { state } else { "dim" },
            escape(state),
        )?;
    }
    writeln!(out, "</table>")?;
    fields(target, out)?;
    writeln!(out, "<h3>Differences, the likeliest bugs first</h3>")?;
    for cluster in list(&target["clusters"]) {
        of_cluster(text_of(&report["name"]), target, cluster, out)?;
    }
    Ok(())
}

/// Prints what is known of the numbers that are followed.
fn fields(target: &Value, out: &mut impl Write) -> io::Result<()> {
    let mut fields = list(&target["fields"]).peekable();
    if fields.peek().is_none() {
        return Ok(());
    }
    writeln!(
        out,
        "<h3>Numbers that are followed</h3><table><tr><th>path<th>live<th>shadow<th>difference of the means</tr>"
    )?;
    for field in fields {
        let path = escape(text_of(&field["field"]));
        let [live, shadow] = ["live", "shadow"].map(|of| numbers(&field[of]));
        writeln!(out, "<tr><td><code>{path}</code><td>{live}<td>{shadow}<td>{}</tr>", difference(field))?;
    }
    writeln!(out, "</table>")
}

fn of_cluster(experiment: &str, target: &Value, cluster: &Value, out: &mut impl Write) -> io::Result<()> {
    let endpoint = text_of(&cluster["endpoint"]);
    writeln!(
        out,
        "<details><summary><b>{}</b> <code>{}</code> {} exchanges, {} <span class=\"dim\">{}</span></summary>",
        escape(endpoint),
        escape(&joined(&cluster["paths"])),
        count(&cluster["count"]),
        figure(&cluster["rate"], Unit::Share),
        escape(text_of(&cluster["certainty"])),
    )?;
    let first_path = list(&cluster["paths"]).next().map(text_of).unwrap_or_default();
    if let Some(command) = ignore_command(experiment, endpoint, first_path) {
        writeln!(out, "<p>To ignore it:</p><pre>{}</pre>", escape(&command))?;
    }
    let kept = list(&target["kept"]).find(|kept| kept["key"] == cluster["key"]);
    for sample in kept.into_iter().flat_map(|kept| list(&kept["samples"])) {
        writeln!(
            out,
            "<h4>{}</h4><table><tr><th>where<th>live<th>shadow</tr>",
            escape(text_of(&sample["time"]))
        )?;
        for divergence in list(&sample["divergences"]) {
            let side = |value: &Value| value.as_str().map_or_else(|| "<i>nothing</i>".to_owned(), escape);
            writeln!(
                out,
                "<tr><td><mark>{}</mark><td>{}<td>{}</tr>",
                escape(text_of(&divergence["place"])),
                side(&divergence["live"]),
                side(&divergence["shadow"])
            )?;
        }
        writeln!(out, "</table><p>The request:</p><pre>{}</pre>", escape(&curl(&sample["request"])))?;
        writeln!(
            out,
            "<div class=\"sides\"><div>live<pre>{}</pre></div><div>shadow<pre>{}</pre></div></div>",
            escape(&message(&sample["live"]["message"])),
            escape(&message(&sample["shadow"]["message"]))
        )?;
    }
    writeln!(out, "</details>")
}

/// The command that has a difference ignored, where one rule can.
pub(super) fn ignore_command(experiment: &str, endpoint: &str, path: &str) -> Option<String> {
    let (flag, place) = if let Some(header) = path.strip_prefix("header:") {
        ("--header", header)
    } else if let Some(field) = path.strip_prefix("form:") {
        ("--form", field)
    } else {
        ("--path", Some(path).filter(|path| path.starts_with('$'))?)
    };
    Some(format!(
        "mirror-agent rules ignore --experiment {} {flag} {} --endpoint {}",
        quoted(experiment),
        quoted(place),
        quoted(endpoint)
    ))
}

/// A message as it may be kept.
fn message(message: &Value) -> String {
    if message.is_null() {
        return "(not kept)".to_owned();
    }
    let mut text = format!("{}\n", text_of(&message["line"]));
    for header in list(&message["headers"]) {
        let _written = writeln!(text, "{}: {}", text_of(&header[0]), text_of(&header[1]));
    }
    match message["content"]["text"].as_str() {
        Some(content) => text + "\n" + content,
        None if message["content"]["kind"] == "empty" => text,
        None => text + "\n(content not kept: " + text_of(&message["content"]["reason"]) + ")",
    }
}

/// Text as HTML.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(char),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nothing_captured_breaks_out_of_the_page() {
        let evil = "</pre><script>alert(1)</script>\"'&";
        let report = json!({
            "name": evil, "since": evil,
            "rules": [{ "rule": { "name": evil }, "matched": 1 }],
            "targets": [{
                "target": evil,
                "verdict": { "state": evil, "checks": [{ "name": evil, "endpoint": evil, "state": evil }] },
                "clusters": [{ "key": "1", "endpoint": evil, "paths": [evil, "$.a"], "certainty": evil }],
                "kept": [{ "key": "1", "samples": [{
                    "time": evil,
                    "divergences": [{ "place": evil, "live": evil, "shadow": evil }],
                    "request": { "line": evil, "headers": [[evil, evil]], "content": { "text": evil } },
                    "live": { "message": { "line": evil, "headers": [[evil, evil]], "content": { "text": evil } } },
                    "shadow": { "message": null },
                }] }],
            }],
        });
        let mut out = Vec::new();
        page(&report, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(!text.contains("<script"), "{text}");
        assert!(text.contains("&lt;script&gt;"));
    }

    #[test]
    fn rule_is_offered_where_one_can_ignore_it() {
        let command = |path| ignore_command("shop", "GET /a/{id}", path);
        let of = |place: &str| {
            Some(format!("mirror-agent rules ignore --experiment 'shop' {place} --endpoint 'GET /a/{{id}}'"))
        };
        assert_eq!(command("$.items[].id"), of("--path '$.items[].id'"));
        assert_eq!(command("header:etag"), of("--header 'etag'"));
        assert_eq!(command("status"), None);
    }
}
