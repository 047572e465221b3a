//! Enters: frames by the thousand, generated, damaged, or read from files. Leaves: nothing; the kernel program and the
//! parser of capture files say the same of each.
//!
//! `cargo xtask agree` runs it at length. By itself it is short. The environment says otherwise: `MIRROR_AGREE_FRAMES`
//! how many frames, `MIRROR_AGREE_SEED` from which seed, `MIRROR_AGREE_CAPTURES` which capture files or folders of
//! them, separated by colons.

#[cfg(test)]
mod capture;
#[cfg(test)]
mod model;
#[cfg(test)]
mod report;
#[cfg(test)]
mod scene;
#[cfg(test)]
mod test_run;
#[cfg(test)]
mod wire;
