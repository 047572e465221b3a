//! Enters: segments. Leaves: in-order spans of each side of each flow.
