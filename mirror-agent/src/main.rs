//! Enters: the command line. Leaves: an exit status.

fn main() {}
