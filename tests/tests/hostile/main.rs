//! Enters: traffic that means harm, at full size. Leaves: proof that memory stays within its budget, that what gave way
//! is counted, and that the good connection beside it is mirrored in full.

#[cfg(test)]
mod agent;
#[cfg(test)]
mod attack;
#[cfg(test)]
mod floods;
#[cfg(test)]
mod sys;
#[cfg(test)]
mod unending;
