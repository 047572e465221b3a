//! Enters: what is known of numbers that are followed, by their positions. Leaves: the same by their paths.

use serde_json::{Value, json};

use crate::{
    io::ledger::{FieldFigures, NumberFigures},
    pipeline::judge::{FieldSummary, NumbersSummary},
};

/// The figures of one target for the books; of `paths` that were not seen yet, that there are none.
pub(super) fn figures(target: &str, paths: &[String], known: &[FieldSummary]) -> Vec<FieldFigures> {
    let figures = |(number, path): (usize, &String)| {
        let known = known.iter().find(|known| known.field == number);
        FieldFigures {
            target: target.to_owned(),
            path: path.clone(),
            live: known.map(|known| of_side(&known.live)).unwrap_or_default(),
            shadow: known.map(|known| of_side(&known.shadow)).unwrap_or_default(),
        }
    };
    paths.iter().enumerate().map(figures).collect()
}

fn of_side(numbers: &NumbersSummary) -> NumberFigures {
    NumberFigures { count: numbers.count, sum: numbers.sum, quantiles: numbers.quantiles.clone() }
}

/// Puts the paths of the fields in the place of their positions.
pub(super) fn name(summary: &mut Value, paths: &[String]) {
    for field in summary["fields"].as_array_mut().into_iter().flatten() {
        let path = field["field"].as_u64().and_then(|number| paths.get(usize::try_from(number).ok()?));
        field["field"] = json!(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_known_by_their_paths() {
        let paths = ["$.total".to_owned(), "$.items[*].price".to_owned()];
        let numbers = |count, sum| NumbersSummary {
            count,
            sum,
            mean: None,
            deviation: None,
            quantiles: vec![(0.5, 2.0)],
        };
        let known = [FieldSummary {
            field: 1,
            live: numbers(3, 6.0),
            shadow: numbers(2, 4.0),
            difference: None,
            difference_interval: None,
        }];

        let figures = figures("v2", &paths, &known);

        assert_eq!(figures.iter().map(|figures| &*figures.path).collect::<Vec<_>>(), paths);
        assert_eq!((figures[0].live.count, figures[1].live.count, figures[1].shadow.sum), (0, 3, 4.0));
        let mut summary = json!({ "fields": known });
        name(&mut summary, &paths);
        assert_eq!(summary["fields"][0]["field"], "$.items[*].price");
    }
}
