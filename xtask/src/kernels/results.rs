//! Enters: the lines that test programs print. Leaves: what became of each test, and why some did not run.

use crate::kernels::guest::{CHECK, MARK};

/// What became of a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It held.
    Passed,
    /// It did not hold, or its program did not come to its end.
    Failed,
    /// It could not run here, for this reason.
    Skipped(String),
}

/// A test and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tested {
    /// Its program and its name in it.
    pub(crate) name: String,
    /// What became of it.
    pub(crate) outcome: Outcome,
}

/// What a kernel's lines have said so far.
#[derive(Debug, Default)]
pub(crate) struct Results {
    /// The kernel's own name; `None` until it has come up.
    pub(crate) kernel: Option<String>,
    /// The tests.
    pub(crate) tests: Vec<Tested>,
    /// How many instructions the verifier looked at, by program, where the kernel tells.
    pub(crate) verified: Vec<(String, u64)>,
    /// Whether the last line was reached.
    pub(crate) is_complete: bool,
    program: Option<String>,
    part: Part,
}

/// Which part of a program's output a line stands in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Part {
    /// The results as they come.
    #[default]
    Results,
    /// What this test printed.
    Output(String),
    /// A list of names that were all said before.
    Names,
}

/// Whether a line is for the reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Show {
    /// It is.
    Yes,
    /// It is noise, or is said again in the end.
    No,
}

impl Results {
    /// Takes a line.
    pub(crate) fn take(&mut self, line: &str) -> Show {
        // A test's output may end without a line end.
        if let Some((_, words)) = line.split_once(MARK) {
            return self.take_mark(words);
        }
        let Some(program) = self.program.clone() else { return Show::Yes };
        if program == CHECK {
            return Show::Yes;
        }
        if let Some((name, end)) = result(line) {
            self.part = Part::Results;
            let outcome = match end {
                "ok" => Outcome::Passed,
                end if end.starts_with("ignored") => Outcome::Skipped("it is marked as ignored".to_owned()),
                _ => Outcome::Failed,
            };
            self.tests.push(Tested { name: format!("{program}::{name}"), outcome });
            return Show::Yes;
        }
        if let Some(name) = line.strip_prefix("---- ").and_then(|line| line.strip_suffix(" stdout ----")) {
            self.part = Part::Output(format!("{program}::{name}"));
            return if self.outcome(name, &program) == Some(&Outcome::Failed) { Show::Yes } else { Show::No };
        }
        if line == "successes:" || line == "failures:" {
            self.part = Part::Names;
            return Show::No;
        }
        match self.part.clone() {
            Part::Results => {
                if is_noise(line) {
                    Show::No
                } else {
                    Show::Yes
                }
            }
            Part::Names => Show::No,
            Part::Output(name) => self.take_output(&name, line),
        }
    }

    /// Ends the books: what did not come to its end has failed.
    pub(crate) fn close(&mut self, why: Option<&str>) {
        if !self.is_complete {
            let program = self.program.take().unwrap_or_else(|| "the kernel".to_owned());
            let name = format!("{program}: {}", why.unwrap_or("ended before its tests did"));
            self.tests.push(Tested { name, outcome: Outcome::Failed });
        }
    }

    /// How many passed, failed and were skipped.
    pub(crate) fn tally(&self) -> [usize; 3] {
        let count = |is: fn(&Outcome) -> bool| self.tests.iter().filter(|test| is(&test.outcome)).count();
        [
            count(|outcome| *outcome == Outcome::Passed),
            count(|outcome| *outcome == Outcome::Failed),
            count(|outcome| matches!(outcome, Outcome::Skipped(_))),
        ]
    }

    fn take_mark(&mut self, words: &str) -> Show {
        let (verb, rest) = words.split_once(' ').unwrap_or((words, ""));
        match verb {
            "kernel" => self.kernel = Some(rest.to_owned()),
            "begin" => (self.program, self.part) = (Some(rest.to_owned()), Part::Results),
            "end" => {
                let (name, status) = rest.split_once(' ').unwrap_or((rest, ""));
                let prefix = format!("{name}::");
                let has_failure = self
                    .tests
                    .iter()
                    .any(|test| test.name.starts_with(&prefix) && test.outcome == Outcome::Failed);
                if name == CHECK {
                    let outcome = if status == "0" { Outcome::Passed } else { Outcome::Failed };
                    self.tests.push(Tested { name: "mirror-agent check".to_owned(), outcome });
                } else if status != "0" && !has_failure {
                    let name = format!("{name}: ended with {status}");
                    self.tests.push(Tested { name, outcome: Outcome::Failed });
                }
                self.program = None;
                return Show::No;
            }
            "done" => {
                self.is_complete = true;
                return Show::No;
            }
            _ => {}
        }
        Show::Yes
    }

    fn take_output(&mut self, name: &str, line: &str) -> Show {
        let Some(test) = self.tests.iter_mut().find(|test| test.name == name) else { return Show::Yes };
        if let Some(reason) = line.strip_prefix("SKIPPED: ")
            && test.outcome == Outcome::Passed
        {
            test.outcome = Outcome::Skipped(reason.to_owned());
            return Show::No;
        }
        if let Some(count) = line.strip_suffix(" instructions verified")
            && let Some((program, count)) = count.trim().split_once(' ')
            && let Ok(count) = count.trim().parse()
        {
            self.verified.push((program.to_owned(), count));
        }
        if test.outcome == Outcome::Failed { Show::Yes } else { Show::No }
    }

    fn outcome(&self, name: &str, program: &str) -> Option<&Outcome> {
        let name = format!("{program}::{name}");
        self.tests.iter().find(|test| test.name == name).map(|test| &test.outcome)
    }
}

/// The name and the end of `test NAME ... END`.
fn result(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("test ")?.split_once(" ... ")
}

fn is_noise(line: &str) -> bool {
    line.trim().is_empty() || line.starts_with("running ") || line.starts_with("test result: ")
}

#[cfg(test)]
mod tests {
    use super::{Outcome, Results, Show, Tested};

    const LINES: &str = "@@ kernel 6.1.0\n@@ begin roles\n\nrunning 3 tests\ntest a ... ok\ntest b ... FAILED\n\
        test c ... ok\n\nsuccesses:\n\n---- a stdout ----\nmirror_both   386507 instructions verified\n\n\
        ---- c stdout ----\nSKIPPED: no vlan here\n\n\nsuccesses:\n    a\n    c\n\nfailures:\n\n---- b stdout ----\n\
        Error: seen 0\n\n\nfailures:\n    b\n\ntest result: FAILED. 2 passed; 1 failed\n@@ end roles 101\n@@ done\n";

    fn read(lines: &str) -> (Results, Vec<&str>) {
        let mut results = Results::default();
        let shown = lines.lines().filter(|line| results.take(line) == Show::Yes).collect();
        results.close(None);
        (results, shown)
    }

    #[test]
    fn tests_are_counted_with_the_reasons_of_those_that_could_not_run() {
        let (results, shown) = read(LINES);

        let tested = |name: &str, outcome| Tested { name: format!("roles::{name}"), outcome };
        let skipped = Outcome::Skipped("no vlan here".to_owned());
        let expected = [tested("a", Outcome::Passed), tested("b", Outcome::Failed), tested("c", skipped)];
        assert_eq!(results.tests, expected);
        assert_eq!((results.tally(), results.kernel.as_deref()), ([1, 1, 1], Some("6.1.0")));
        assert_eq!(results.verified, [("mirror_both".to_owned(), 386_507)]);
        assert!(shown.contains(&"Error: seen 0") && !shown.iter().any(|line| line.contains("SKIPPED")));
    }

    #[test]
    fn program_that_dies_and_kernel_that_stops_have_failed() {
        let (results, _) =
            read("@@ begin roles\ntest a ... ok\n@@ end roles 137\n@@ begin loss\ntest b ... ok\n");

        let failed: Vec<&str> = results
            .tests
            .iter()
            .filter(|test| test.outcome == Outcome::Failed)
            .map(|test| test.name.as_str())
            .collect();
        assert_eq!(failed, ["roles: ended with 137", "loss: ended before its tests did"]);
    }
}
