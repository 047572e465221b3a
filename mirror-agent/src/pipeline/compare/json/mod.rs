//! Enters: two JSON values, or lines of them. Leaves: where they differ.

mod align;
mod alike;
mod arrays;
mod fields;
mod hash;
mod number;
mod parse;
mod tree;
mod walk;
mod way;

pub(super) use self::{
    fields::numbers_at,
    number::Bounds,
    parse::is_number,
    tree::Tree,
    walk::{Form, compare},
};
