//! Enters: what a dashboard shows. Leaves: the JSON that Grafana reads.

use serde_json::{Value, json};

/// One dashboard.
pub(crate) struct Dashboard {
    /// Its file's name, and how links name it; never changed, or links break.
    pub(crate) name: &'static str,
    /// What it is called.
    pub(crate) title: &'static str,
    /// What it is for, as one sentence.
    pub(crate) description: &'static str,
    /// From top to bottom.
    pub(crate) rows: Vec<Row>,
}

/// Panels beside each other, under a heading.
pub(crate) struct Row {
    /// The heading.
    pub(crate) title: &'static str,
    /// From left to right; they share the width evenly.
    pub(crate) panels: Vec<Panel>,
}

/// One chart or figure.
pub(crate) struct Panel {
    /// What it is called.
    pub(crate) title: &'static str,
    /// What a reader who has never seen it must know.
    pub(crate) description: &'static str,
    /// How it is drawn.
    pub(crate) shape: Shape,
    /// What its values are, in Grafana's words: `percentunit`, `s`, `bytes`, `reqps`, `short`.
    pub(crate) unit: &'static str,
    /// Expressions, each with what stands beside its line.
    pub(crate) series: Vec<(&'static str, &'static str)>,
}

/// How a panel is drawn.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Shape {
    /// Lines over time.
    Lines,
    /// The latest value, large.
    Figure,
    /// The latest value, as the name of a state.
    State(&'static [(i8, &'static str, &'static str)]),
}

/// A panel of lines.
pub(crate) fn lines(
    title: &'static str,
    unit: &'static str,
    description: &'static str,
    series: &[(&'static str, &'static str)],
) -> Panel {
    Panel { title, description, shape: Shape::Lines, unit, series: series.to_vec() }
}

/// The panel of one figure.
pub(crate) fn figure(
    title: &'static str,
    unit: &'static str,
    description: &'static str,
    series: (&'static str, &'static str),
) -> Panel {
    Panel { title, description, shape: Shape::Figure, unit, series: vec![series] }
}

/// The panel of one state; each has its value, its name and its colour.
pub(crate) fn state(
    title: &'static str,
    states: &'static [(i8, &'static str, &'static str)],
    description: &'static str,
    series: (&'static str, &'static str),
) -> Panel {
    Panel { title, description, shape: Shape::State(states), unit: "short", series: vec![series] }
}

/// Columns of Grafana's grid.
const WIDTH: usize = 24;

impl Dashboard {
    /// All expressions.
    pub(crate) fn expressions(&self) -> impl Iterator<Item = &'static str> {
        self.rows
            .iter()
            .flat_map(|row| &row.panels)
            .flat_map(|panel| panel.series.iter().map(|(expression, _)| *expression))
    }

    /// The dashboard as Grafana's JSON.
    pub(crate) fn json(&self) -> Value {
        let mut panels = Vec::new();
        let mut top = 0;
        for row in &self.rows {
            panels.push(json!({
                "type": "row",
                "id": panels.len() + 1,
                "title": row.title,
                "collapsed": false,
                "panels": [],
                "gridPos": { "x": 0, "y": top, "w": WIDTH, "h": 1 },
            }));
            top += 1;
            let width = WIDTH / row.panels.len().max(1);
            let is_small = row.panels.iter().all(|panel| panel.shape != Shape::Lines);
            let height = if is_small { 5 } else { 8 };
            for (column, panel) in row.panels.iter().enumerate() {
                let mut drawn = panel.json();
                drawn["id"] = json!(panels.len() + 1);
                drawn["gridPos"] = json!({ "x": column * width, "y": top, "w": width, "h": height });
                panels.push(drawn);
            }
            top += height;
        }
        json!({
            "uid": format!("mirror-{}", self.name),
            "title": self.title,
            "description": self.description,
            "tags": ["mirror"],
            "schemaVersion": 39,
            "version": 1,
            "editable": true,
            "graphTooltip": 1,
            "refresh": "30s",
            "time": { "from": "now-6h", "to": "now" },
            "timezone": "",
            "annotations": { "list": [] },
            "links": [{
                "type": "dashboards", "title": "Mirror", "tags": ["mirror"], "asDropdown": false,
                "keepTime": true, "includeVars": true, "icon": "external link", "tooltip": "",
                "targetBlank": false, "url": "",
            }],
            "templating": { "list": variables() },
            "panels": panels,
        })
    }
}

impl Panel {
    fn json(&self) -> Value {
        let targets: Vec<Value> = (b'A'..)
            .zip(&self.series)
            .map(|(letter, (expression, legend))| {
                json!({
                    "refId": char::from(letter).to_string(),
                    "datasource": datasource(),
                    "expr": expression,
                    "legendFormat": legend,
                    "instant": self.shape != Shape::Lines,
                    "range": self.shape == Shape::Lines,
                })
            })
            .collect();
        let (kind, options) = match self.shape {
            Shape::Lines => (
                "timeseries",
                json!({
                    "legend": { "displayMode": "list", "placement": "bottom", "showLegend": true, "calcs": [] },
                    "tooltip": { "mode": "multi", "sort": "desc" },
                }),
            ),
            Shape::Figure | Shape::State(_) => (
                "stat",
                json!({
                    "colorMode": "value", "graphMode": "none", "justifyMode": "auto", "textMode": "auto",
                    "orientation": "auto",
                    "reduceOptions": { "calcs": ["lastNotNull"], "fields": "", "values": false },
                }),
            ),
        };
        let mut defaults = json!({
            "unit": self.unit,
            "color": { "mode": if self.shape == Shape::Lines { "palette-classic" } else { "thresholds" } },
            "thresholds": { "mode": "absolute", "steps": [{ "color": "text", "value": null }] },
            "mappings": [],
        });
        if self.unit == "percentunit" {
            defaults["min"] = json!(0);
        }
        if let Shape::State(states) = self.shape {
            let mut names = json!({});
            for (index, (value, name, colour)) in states.iter().enumerate() {
                names[value.to_string()] = json!({ "text": name, "color": colour, "index": index });
            }
            defaults["mappings"] = json!([{ "type": "value", "options": names }]);
        }
        json!({
            "type": kind,
            "title": self.title,
            "description": self.description,
            "datasource": datasource(),
            "targets": targets,
            "fieldConfig": { "defaults": defaults, "overrides": [] },
            "options": options,
        })
    }
}

fn datasource() -> Value {
    json!({ "type": "prometheus", "uid": "${datasource}" })
}

/// What a reader can choose at the top. `experiment` and `instance` come from the agents' own metrics.
fn variables() -> Value {
    let of_label = |name: &str, label: &str, metric: &str, query: &str| {
        json!({
            "name": name, "label": label, "type": "query", "datasource": datasource(),
            "definition": query, "query": { "query": query, "refId": metric },
            "refresh": 2, "sort": 1, "multi": true, "includeAll": true, "allValue": ".*",
            "current": { "text": "All", "value": "$__all" }, "hide": 0, "regex": "", "options": [],
        })
    };
    json!([
        {
            "name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus",
            "current": {}, "hide": 0, "multi": false, "includeAll": false, "regex": "", "refresh": 1,
            "options": [],
        },
        of_label(
            "experiment", "Experiment", "mirror_experiment_paused",
            "label_values(mirror_experiment_paused, experiment)"
        ),
        of_label("instance", "Agent", "mirror_build_info", "label_values(mirror_build_info, instance)"),
        {
            "name": "shadow_namespace", "label": "Namespaces of shadows", "type": "textbox",
            "query": ".*-shadow", "current": { "text": ".*-shadow", "value": ".*-shadow" },
            "hide": 0, "options": [],
        },
    ])
}

#[cfg(test)]
mod tests {
    use super::{Dashboard, Row, figure, lines};

    fn dashboard() -> Dashboard {
        let panels = || {
            vec![
                figure("One", "short", "One.", ("a", "")),
                lines("Two", "s", "Two.", &[("b", ""), ("c", "")]),
            ]
        };
        let row = || Row { title: "Row", panels: panels() };
        Dashboard { name: "x", title: "X", description: "X.", rows: vec![row(), row()] }
    }

    #[test]
    fn panels_have_ids_of_their_own_and_do_not_overlap() {
        let json = dashboard().json();
        let panels = json["panels"].as_array().unwrap();

        let mut ids: Vec<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
        ids.dedup();
        assert_eq!(ids.len(), 6);
        let mut places: Vec<_> = panels
            .iter()
            .map(|panel| (panel["gridPos"]["y"].as_u64(), panel["gridPos"]["x"].as_u64()))
            .collect();
        places.dedup();
        assert_eq!(places.len(), 6);
        assert_eq!(panels[3]["gridPos"]["y"], 9);
    }

    #[test]
    fn every_expression_is_listed() {
        assert_eq!(dashboard().expressions().collect::<Vec<_>>(), ["a", "b", "c", "a", "b", "c"]);
    }
}
