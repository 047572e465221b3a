//! Enters: the name of a chore. Leaves: the chore, done.

fn main() {}
