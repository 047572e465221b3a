//! Enters: any bytes. Leaves: nothing, unless something that must always hold does not: then a panic that names it.
//!
//! One function a target, `bytes -> ()`. The crate in `libfuzzer` hands them to libFuzzer, and the test `corpora`
//! replays the inputs that are kept in `corpus`, on any machine.

mod capture_file;
mod compare;
mod config;
mod flow;
mod frame;
mod http;
mod input;
mod pairing;
mod policy;
mod redact;
mod rewrite;
mod whole;

/// A target by its name.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name: that of its corpus and of its binary.
    pub name: &'static str,
    /// Takes one input.
    pub run: fn(&[u8]),
}

/// All targets.
pub const TARGETS: [Target; 10] = [
    Target { name: "capture_file", run: capture_file::run },
    Target { name: "compare", run: compare::run },
    Target { name: "config", run: config::run },
    Target { name: "flow", run: flow::run },
    Target { name: "frame", run: frame::run },
    Target { name: "http", run: http::run },
    Target { name: "pipeline", run: whole::run },
    Target { name: "policy", run: policy::run },
    Target { name: "redact", run: redact::run },
    Target { name: "rewrite", run: rewrite::run },
];

/// Runs the target of this name; unknown names do nothing.
pub fn run(name: &str, bytes: &[u8]) {
    TARGETS.iter().filter(|target| target.name == name).for_each(|target| (target.run)(bytes));
}
