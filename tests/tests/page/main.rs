//! Enters: an agent that compares real traffic, and a browser. Leaves: what people see in its page, and can do there.

mod fleet;
mod hostile;
mod scene;
mod tour;
mod views;
