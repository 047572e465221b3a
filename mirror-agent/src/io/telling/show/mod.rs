//! Enters: what a user wants to know of the comparisons of a running agent. Leaves: text, JSON or a page, and an exit
//! status.

mod fleet;
mod html;
mod text;
pub(in crate::io) mod value;

use std::{
    io::{self, Write},
    thread::sleep,
    time::{Duration, Instant},
};

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

pub(super) use self::value::{list, text_of};
use crate::{
    io::{
        control::ctl::{CtlError, PlaceArgs, ask, parse, path_of},
        telling::{RulesTold, rules::rule_yaml},
        units::parse_duration,
    },
    pipeline::reason::VerdictState,
};

/// Options of `verdict`.
#[derive(Args, Clone, Debug)]
pub struct VerdictArgs {
    /// Name of the experiment; all that have a gate where it is not said.
    pub experiment: Option<String>,

    /// For how long to wait for a verdict where there is not enough data yet.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub wait: Option<Duration>,

    /// That of all agents together, as the one that is asked sees them; an agent that is missing makes of a pass not
    /// enough data.
    #[arg(long)]
    pub fleet: bool,

    /// With --fleet: what those say that answered is enough.
    #[arg(long, requires = "fleet")]
    pub ignore_missing: bool,

    /// How it is printed.
    #[arg(long, value_enum, default_value = "text", value_name = "FORMAT")]
    pub output: VerdictOutput,

    /// Where the agent is asked.
    #[command(flatten)]
    pub place: PlaceArgs,
}

/// How a verdict is printed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum VerdictOutput {
    /// For people.
    Text,
    /// All of it.
    Json,
}

/// Options of `report`.
#[derive(Args, Clone, Debug)]
pub struct ReportArgs {
    /// Name of the experiment; may be left out where only one compares.
    pub experiment: Option<String>,

    /// That of all agents together, without samples.
    #[arg(long)]
    pub fleet: bool,

    /// How it is printed.
    #[arg(long, value_enum, default_value = "text", value_name = "FORMAT")]
    pub output: ReportOutput,

    /// Where the agent is asked.
    #[command(flatten)]
    pub place: PlaceArgs,
}

/// How a report is printed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum ReportOutput {
    /// For people.
    Text,
    /// All of it.
    Json,
    /// One page that needs nothing else.
    Html,
}

/// Options of `rules`.
#[derive(Args, Clone, Debug)]
pub struct RulesArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: RulesCommand,

    /// Where the agent is asked.
    #[command(flatten)]
    pub place: PlaceArgs,
}

/// What is done about rules.
#[derive(Clone, Debug, Subcommand)]
pub enum RulesCommand {
    /// Print the rules, how often each matched, and what is proposed as noise.
    List {
        /// The experiment; may be left out where only one compares.
        experiment: Option<String>,
        /// Print them as JSON.
        #[arg(long)]
        json: bool,
    },
    /// From now on differences that were proposed as noise are noise.
    Accept {
        /// The experiment; may be left out where only one compares.
        #[arg(long)]
        experiment: Option<String>,
        /// All that is proposed.
        #[arg(long, conflicts_with = "names", required_unless_present = "names")]
        proposed: bool,
        /// Names of proposals.
        names: Vec<String>,
    },
    /// Ignore differences in one place.
    Ignore(IgnoreArgs),
    /// Take a rule back that was accepted or added since the agent started.
    Remove {
        /// The experiment; may be left out where only one compares.
        #[arg(long)]
        experiment: Option<String>,
        /// Name of the rule.
        name: String,
    },
}

/// Where differences are ignored.
#[derive(Args, Clone, Debug)]
pub struct IgnoreArgs {
    /// The experiment; may be left out where only one compares.
    #[arg(long)]
    pub experiment: Option<String>,
    /// A JSON path, such as `$.items[*].id`.
    #[arg(long, value_name = "PATH", required_unless_present_any = ["header", "form"])]
    pub path: Option<String>,
    /// A header field.
    #[arg(long, value_name = "NAME", conflicts_with = "path")]
    pub header: Option<String>,
    /// A field of a form.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["path", "header"])]
    pub form: Option<String>,
    /// Only there, as reports name it: `GET /orders/{id}`.
    #[arg(long, value_name = "ENDPOINT")]
    pub endpoint: Option<String>,
    /// What the rule is called.
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
}

/// How often it is asked again for a verdict.
const WAIT_STEP: Duration = Duration::from_secs(1);

/// Prints the verdict, and returns it: that of several experiments is the worst of them.
///
/// # Errors
///
/// All variants of [`CtlError`].
pub fn verdict(args: &VerdictArgs, out: &mut impl Write) -> Result<VerdictState, CtlError> {
    let deadline = Instant::now() + args.wait.unwrap_or_default();
    let (view, experiments, state) = loop {
        let view = if args.fleet { fleet::view(&args.place)? } else { Value::Null };
        let mut experiments = if args.fleet { fleet::compared(&view) } else { all(&args.place)? };
        if let Some(name) = &args.experiment {
            experiments.retain(|experiment| experiment["name"] == **name);
            if experiments.is_empty() {
                return Err(CtlError::Refused(format!("no experiment `{name}` compares answers")));
            }
        }
        let state =
            if args.fleet { fleet::state(&experiments, args.ignore_missing) } else { worst(&experiments) };
        if state != VerdictState::NotEnoughData || Instant::now() >= deadline {
            break (view, experiments, state);
        }
        sleep(WAIT_STEP);
    };
    match args.output {
        VerdictOutput::Json if args.fleet => {
            let agents = &view["agents"];
            json_lines(&json!({ "state": state, "agents": agents, "experiments": experiments }), out)?;
        }
        VerdictOutput::Json => json_lines(&json!({ "state": state, "experiments": experiments }), out)?,
        VerdictOutput::Text => {
            text::verdict(&experiments, out)?;
            if args.fleet {
                fleet::conclusion(&view, &experiments, state, out)?;
            }
        }
    }
    Ok(state)
}

/// The worst verdict of these experiments; not enough data where there is none.
fn worst(experiments: &[Value]) -> VerdictState {
    let targets = experiments.iter().flat_map(|experiment| list(&experiment["targets"]));
    worst_of(targets.filter_map(|target| target["verdict"]["state"].as_str()))
}

/// The worst of verdicts by their names; not enough data where there is none.
fn worst_of<'a>(states: impl Iterator<Item = &'a str>) -> VerdictState {
    let states: Vec<_> = states.collect();
    if states.contains(&VerdictState::Fail.as_str()) {
        VerdictState::Fail
    } else if !states.is_empty() && states.iter().all(|state| *state == VerdictState::Pass.as_str()) {
        VerdictState::Pass
    } else {
        VerdictState::NotEnoughData
    }
}

/// Prints the report.
///
/// # Errors
///
/// All variants of [`CtlError`].
pub fn report(args: &ReportArgs, out: &mut impl Write) -> Result<(), CtlError> {
    let report = if args.fleet {
        let view = fleet::view(&args.place)?;
        if args.output == ReportOutput::Text {
            fleet::agents(&view, out)?;
        }
        choose(fleet::compared(&view), args.experiment.as_deref())?
    } else {
        one(&args.place, args.experiment.as_deref())?
    };
    match args.output {
        ReportOutput::Json => json_lines(&report, out)?,
        ReportOutput::Text => text::report(&report, out)?,
        ReportOutput::Html => html::page(&report, out)?,
    }
    Ok(())
}

/// Prints or changes rules.
///
/// # Errors
///
/// All variants of [`CtlError`].
pub fn rules(args: &RulesArgs, out: &mut impl Write) -> Result<(), CtlError> {
    let (experiment, body) = match &args.command {
        RulesCommand::List { experiment, json } => {
            let report = one(&args.place, experiment.as_deref())?;
            if *json {
                let proposals: Vec<_> =
                    list(&report["targets"]).flat_map(|target| list(&target["proposals"])).collect();
                let (rules, arrays) = (&report["rules"], &report["arrays"]);
                return Ok(json_lines(
                    &json!({ "rules": rules, "arrays": arrays, "proposals": proposals }),
                    out,
                )?);
            }
            return Ok(text::rules(&report, out)?);
        }
        RulesCommand::Accept { experiment, proposed: true, .. } => {
            (experiment, json!({ "accept": "proposed" }))
        }
        RulesCommand::Accept { experiment, names, .. } => (experiment, json!({ "accept": names })),
        RulesCommand::Ignore(ignore) => (&ignore.experiment, json!({ "add": ignore.rule() })),
        RulesCommand::Remove { experiment, name } => (experiment, json!({ "remove": name })),
    };
    let name = match experiment {
        Some(name) => name.clone(),
        None => text_of(&one(&args.place, None)?["name"]).to_owned(),
    };
    let path = path_of(&name, "rules");
    let told: RulesTold = parse(&ask(&args.place, "POST", &path, Some(&body))?)?;
    if told.rules.is_empty() && told.arrays.is_empty() {
        return Ok(writeln!(out, "no rules but those of the configuration")?);
    }
    writeln!(out, "In force until the agent ends; to keep them, put them under `compare`:")?;
    for (key, entries) in [("arrays", &told.arrays), ("rules", &told.rules)] {
        if !entries.is_empty() {
            writeln!(out, "{key}:")?;
        }
        for entry in entries {
            writeln!(out, "  {}", rule_yaml(entry))?;
        }
    }
    Ok(())
}

impl IgnoreArgs {
    fn rule(&self) -> Value {
        let places = [("path", &self.path), ("header", &self.header), ("form", &self.form)];
        let place = places.into_iter().find_map(|(key, value)| Some((key, value.as_ref()?)));
        let name = self.name.clone().or_else(|| place.map(|(_, value)| format!("ignore {value}")));
        let mut rule = json!({ "name": name, "ignore": true });
        if let Some((key, value)) = place {
            rule[key] = json!(value);
        }
        if let Some(endpoint) = &self.endpoint {
            rule["endpoint"] = json!(endpoint);
        }
        rule
    }
}

/// The report of an experiment, or of the only one.
fn one(place: &PlaceArgs, experiment: Option<&str>) -> Result<Value, CtlError> {
    let name = match experiment {
        Some(name) => name.to_owned(),
        None => text_of(&choose(all(place)?, None)?["name"]).to_owned(),
    };
    let report: Value = parse(&ask::<()>(place, "GET", &path_of(&name, "report"), None)?)?;
    list(&report["experiments"]).next().cloned().ok_or(CtlError::Answer)
}

/// The experiment of this name, or the only one.
fn choose(experiments: Vec<Value>, name: Option<&str>) -> Result<Value, CtlError> {
    let names: Vec<_> =
        experiments.iter().map(|experiment| text_of(&experiment["name"]).to_owned()).collect();
    let refused = |message: String| Err(CtlError::Refused(message));
    match (name, &names[..]) {
        (Some(name), _) => match names.iter().position(|known| known == name) {
            Some(position) => experiments.into_iter().nth(position).ok_or(CtlError::Answer),
            None => refused(format!("no experiment `{name}` compares answers")),
        },
        (None, [_]) => experiments.into_iter().next().ok_or(CtlError::Answer),
        (None, []) => refused("no experiment compares answers".to_owned()),
        (None, several) => refused(format!("say which experiment: {}", several.join(", "))),
    }
}

/// What is known of all experiments that compare, without samples.
fn all(place: &PlaceArgs) -> Result<Vec<Value>, CtlError> {
    let report: Value = parse(&ask::<()>(place, "GET", "/v1/report", None)?)?;
    Ok(list(&report["experiments"]).cloned().collect())
}

fn json_lines(value: &Value, out: &mut impl Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    writeln!(out)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::io::cli::{Cli, Command};

    fn ignore(words: &str) -> Option<Value> {
        let line = format!("mirror-agent rules ignore {words}");
        let cli = Cli::try_parse_from(line.split(' ')).ok()?;
        let Command::Rules(RulesArgs { command: RulesCommand::Ignore(args), .. }) = cli.command else {
            return None;
        };
        Some(args.rule())
    }

    #[test]
    fn rule_is_for_one_place() {
        let rule = json!({ "name": "ignore $.a", "path": "$.a", "ignore": true });
        assert_eq!(ignore("--path $.a --socket /s"), Some(rule));
        let rule = json!({ "name": "n", "header": "etag", "endpoint": "e", "ignore": true });
        assert_eq!(ignore("--header etag --endpoint e --name n"), Some(rule));
        for wrong in ["--endpoint e", "--path $.a --header b", "--header a --form b"] {
            assert_eq!(ignore(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn worst_verdict_counts() {
        let of = |states: &[Option<&str>]| {
            let target =
                |state: &Option<&str>| json!({ "verdict": state.map(|state| json!({ "state": state })) });
            let experiment = |state| json!({ "targets": [target(state)] });
            worst(&states.iter().map(experiment).collect::<Vec<_>>())
        };
        assert_eq!(of(&[]), VerdictState::NotEnoughData);
        assert_eq!(of(&[None]), VerdictState::NotEnoughData);
        assert_eq!(of(&[Some("pass"), None]), VerdictState::Pass);
        assert_eq!(of(&[Some("pass"), Some("not_enough_data")]), VerdictState::NotEnoughData);
        assert_eq!(of(&[Some("not_enough_data"), Some("fail")]), VerdictState::Fail);
    }
}
