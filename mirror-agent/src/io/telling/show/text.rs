//! Enters: reports. Leaves: text for people.

use std::io::{self, Write};

use serde_json::Value;

use super::value::{Unit, count, difference, figure, joined, list, numbers, text_of};
use crate::io::{control::ctl::clean, telling::rules::rule_yaml};

/// Clusters that are told of; `--output json` has them all.
const CLUSTERS: usize = 20;

/// Endpoints that are told of.
const ENDPOINTS: usize = 20;

/// Prints the verdicts of experiments.
pub(super) fn verdict(experiments: &[Value], out: &mut impl Write) -> io::Result<()> {
    if experiments.is_empty() {
        return writeln!(out, "no experiment compares answers");
    }
    for experiment in experiments {
        for target in list(&experiment["targets"]) {
            of_target(experiment, target, out)?;
        }
    }
    Ok(())
}

/// The verdict about one new version.
fn of_target(experiment: &Value, target: &Value, out: &mut impl Write) -> io::Result<()> {
    let state = match text_of(&target["verdict"]["state"]) {
        "pass" => "PASS",
        "fail" => "FAIL",
        "" => "no gate",
        _ => "not enough data",
    };
    let control = if experiment["has_control"] == true { ", with a control" } else { "" };
    let name = |value| clean(text_of(value));
    writeln!(
        out,
        "{} / {}: {state}; {} exchanges{control}",
        name(&experiment["name"]),
        name(&target["target"]),
        count(&target["exchanges"])
    )?;
    let results = ["equal", "noise", "divergent", "incomparable"]
        .map(|result| format!("{result} {}", count(&target["results"][result])));
    writeln!(out, "  {}", results.join(", "))?;
    let checks = list(&target["verdict"]["checks"]).filter(|check| {
        // Those of endpoints only where they say something that those of the whole do not.
        check["endpoint"].is_null() || check["state"] == "fail"
    });
    for check in checks {
        let check_name = text_of(&check["name"]);
        let unit = Unit::of_check(check_name);
        let what = match check["endpoint"].as_str() {
            Some(endpoint) => format!("{check_name} {}", clean(endpoint)),
            None => check_name.to_owned(),
        };
        let limit = check["limit"].as_f64().map_or_else(String::new, |limit| unit.write(limit));
        let why = check["reason"].as_str().map_or_else(String::new, |reason| format!(": {reason}"));
        let state = text_of(&check["state"]);
        writeln!(out, "  {what:<24} {:<32} at most {limit:<9} {state}{why}", figure(&check["figure"], unit))?;
    }
    let reasons = joined(&target["verdict"]["reasons"]);
    if !reasons.is_empty() {
        writeln!(out, "  because: {}", clean(&reasons))?;
    }
    Ok(())
}

/// Prints a whole report.
pub(super) fn report(report: &Value, out: &mut impl Write) -> io::Result<()> {
    for target in list(&report["targets"]) {
        of_target(report, target, out)?;
        writeln!(out, "\n  service times")?;
        for times in list(&target["times"]) {
            let what = format!("{} {}", text_of(&times["of"]), text_of(&times["phase"]));
            let quantiles = ["p50", "p95", "p99"]
                .map(|quantile| format!("{quantile} {}", figure(&times[quantile], Unit::Seconds)));
            writeln!(out, "  {what:<20} {}", quantiles.join(", "))?;
        }
        fields(target, out)?;
        writeln!(out, "\n  endpoints")?;
        for endpoint in list(&target["endpoints"]).take(ENDPOINTS) {
            writeln!(
                out,
                "  {:<40} {:>9}  divergence {:<32} p95 {}",
                clean(text_of(&endpoint["endpoint"])),
                count(&endpoint["exchanges"]),
                figure(&endpoint["divergence"], Unit::Share),
                figure(&endpoint["p95"]["ratio"], Unit::Times),
            )?;
        }
        writeln!(out, "\n  differences, the likeliest bugs first")?;
        for cluster in list(&target["clusters"]).take(CLUSTERS) {
            of_cluster(target, cluster, out)?;
        }
        let proposals = list(&target["proposals"]).count();
        if proposals > 0 {
            writeln!(
                out,
                "\n  {proposals} places look like noise: see `mirror-agent rules list`, then `mirror-agent rules accept --proposed`"
            )?;
        }
    }
    Ok(())
}

/// Prints what is known of the numbers that are followed.
fn fields(target: &Value, out: &mut impl Write) -> io::Result<()> {
    let mut fields = list(&target["fields"]).peekable();
    if fields.peek().is_some() {
        writeln!(out, "\n  numbers that are followed")?;
    }
    for field in fields {
        let path = clean(text_of(&field["field"]));
        let [live, shadow] = ["live", "shadow"].map(|of| numbers(&field[of]));
        writeln!(out, "  {path:<24} live {live}; shadow {shadow}; difference {}", difference(field))?;
    }
    Ok(())
}

fn of_cluster(target: &Value, cluster: &Value, out: &mut impl Write) -> io::Result<()> {
    let statuses = match (cluster["statuses"][0].as_u64(), cluster["statuses"][1].as_u64()) {
        (Some(live), Some(shadow)) if live != shadow => format!(" {live} → {shadow}"),
        _ => String::new(),
    };
    writeln!(
        out,
        "  {:<9} {:<40} {}{statuses}",
        text_of(&cluster["certainty"]),
        clean(text_of(&cluster["endpoint"])),
        clean(&joined(&cluster["paths"])),
    )?;
    writeln!(
        out,
        "            {} exchanges, {}; {}",
        count(&cluster["count"]),
        figure(&cluster["rate"], Unit::Share),
        joined(&cluster["kinds"])
    )?;
    let kept = list(&target["kept"]).find(|kept| kept["key"] == cluster["key"]);
    let sample = kept.and_then(|kept| list(&kept["samples"]).next());
    // Beside what makes the cluster there may be noise.
    let is_its = |divergence: &&Value| list(&cluster["paths"]).any(|path| *path == divergence["path"]);
    let divergence = sample.and_then(|sample| {
        let mut divergences = list(&sample["divergences"]);
        divergences.clone().find(is_its).or_else(|| divergences.next())
    });
    if let Some(divergence) = divergence {
        let side = |value: &Value| value.as_str().map_or_else(|| "nothing".to_owned(), clean);
        writeln!(
            out,
            "            {}: live {} shadow {}",
            clean(text_of(&divergence["place"])),
            side(&divergence["live"]),
            side(&divergence["shadow"])
        )?;
    }
    Ok(())
}

/// Prints the rules, and what is proposed.
pub(super) fn rules(report: &Value, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "rules: how often each has explained a difference")?;
    for rule in list(&report["rules"]) {
        let own = if rule["is_own"] == true { " (until the agent ends)" } else { "" };
        writeln!(out, "  {:>9}  {}{own}", count(&rule["matched"]), clean(&rule_yaml(&rule["rule"])))?;
    }
    for target in list(&report["targets"]) {
        writeln!(out, "proposed for {}:", clean(text_of(&target["target"])))?;
        for proposal in list(&target["proposals"]) {
            writeln!(
                out,
                "  {:<48} {:<12} {:>6} of {:<8} {}",
                clean(text_of(&proposal["name"])),
                text_of(&proposal["looks"]),
                count(&proposal["seen"]),
                count(&proposal["exchanges"]),
                text_of(&proposal["action"]),
            )?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn example_of_a_cluster_is_what_makes_it_and_not_the_noise_beside_it() {
        let cluster = json!({ "key": "7", "paths": ["$.points"], "count": 3, "kinds": ["type"] });
        let divergence =
            |place: &str, path: &str| json!({ "place": place, "path": path, "live": "1", "shadow": "2" });
        let divergences =
            [divergence("header:x-served-by", "header:x-served-by"), divergence("$.points", "$.points")];
        let target = json!({ "kept": [{ "key": "7", "samples": [{ "divergences": divergences }] }] });

        let mut out = Vec::new();
        of_cluster(&target, &cluster, &mut out).unwrap();

        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("$.points: live 1 shadow 2") && !text.contains("x-served-by"), "{text}");
    }
}
