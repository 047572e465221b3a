//! Enters: nothing. Leaves: what the kernel tests, the demo and the bench share.
