//! Enters: spans of both sides of each flow. Leaves: exchanges, a request paired with its response.

pub mod report;
