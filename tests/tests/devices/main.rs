//! Enters: requests through every kind of network device. Leaves: nothing; the agent sees each request once.
//!
//! Many kernels lack some of the devices; then a test says `SKIPPED` and which. `cargo xtask test-kernels` boots kernels
//! that have them all.

#[cfg(test)]
mod link;
#[cfg(test)]
mod path;
#[cfg(test)]
mod tunnel;
