//! Enters: a tree and the paths of numbers that are followed. Leaves: these numbers.

use super::{
    Form,
    number::to_float,
    tree::{Id, Tree, View},
};
use crate::pipeline::compare::path::{Matcher, Progress};

/// Most numbers that are taken for one path.
const MAX_OF_A_FIELD: usize = 100;

/// The numbers at the paths of `fields`, for each of its `count` marks in the order of the text, [`MAX_OF_A_FIELD`] at
/// most. A string that holds a number is one: amounts of money are often written so.
pub(in crate::pipeline::compare) fn numbers_at(
    tree: &Tree,
    fields: &Matcher,
    count: usize,
    form: Form,
) -> Vec<Vec<f64>> {
    let mut walk = Walk { tree, fields, found: vec![Vec::new(); count] };
    match (form, tree.view(tree.root())) {
        (Form::Lines, View::Array(lines)) => lines.iter().for_each(|line| walk.visit(*line, &fields.start())),
        (Form::Lines | Form::Value, _) => walk.visit(tree.root(), &fields.start()),
    }
    walk.found
}

struct Walk<'a> {
    tree: &'a Tree,
    fields: &'a Matcher,
    found: Vec<Vec<f64>>,
}

impl Walk<'_> {
    fn visit(&mut self, id: Id, at: &Progress) {
        if at.is_done() {
            return;
        }
        match self.tree.view(id) {
            View::Array(elements) => {
                for (index, element) in elements.iter().enumerate() {
                    self.visit(*element, &self.fields.element(at, index));
                }
            }
            View::Object(members) => {
                for (key, value) in members {
                    self.visit(value, &self.fields.member(at, key));
                }
            }
            View::Number(text) | View::String(text) => {
                let Some(number) = to_float(text) else { return };
                for mark in self.fields.marks(at) {
                    if let Some(found) = self.found.get_mut(mark)
                        && found.len() < MAX_OF_A_FIELD
                    {
                        found.push(number);
                    }
                }
            }
            View::Null | View::Bool(_) => {}
        }
    }
}
