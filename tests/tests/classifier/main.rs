//! Enters: packets made by hand and real connections, past the loaded classifiers. Leaves: nothing; their facts.
//!
//! Needs root and the object that the build makes, whose path `MIRROR_EBPF_OBJECT` may give; without either each test
//! says `SKIPPED` and why.

#[cfg(test)]
mod choice;
#[cfg(test)]
mod connections;
#[cfg(test)]
mod cost;
#[cfg(test)]
mod fragments;
#[cfg(test)]
mod kernel;
#[cfg(test)]
mod live;
#[cfg(test)]
mod namesakes;
#[cfg(test)]
mod packet;
#[cfg(test)]
mod records;
#[cfg(test)]
mod sys;
#[cfg(test)]
mod tunnels;
