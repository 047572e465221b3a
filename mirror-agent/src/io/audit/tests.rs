//! Enters: records, and files that take them or do not. Leaves: what is in the files and in the counters.
