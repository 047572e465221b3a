//! Enters: pods that come, move and go on nodes wired as network plugins do, and an API server with troubles. Leaves: the
//! requests of those pods mirrored within a second, for as long as they are there, whatever the API server does.

mod follow;
mod moving;
mod scene;
mod trouble;
mod way_back;
