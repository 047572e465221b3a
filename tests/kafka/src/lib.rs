//! Enters and leaves: nothing. The tests of this crate are all that there is.
