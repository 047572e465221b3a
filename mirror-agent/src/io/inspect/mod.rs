//! Enters: a capture file. Leaves: one line of JSON for each exchange in it.

pub mod file;
