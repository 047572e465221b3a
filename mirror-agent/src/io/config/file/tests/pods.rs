//! Enters: files about pods. Leaves: what they mean, and every error with its line.

use super::{README, errors, minimal, parsed};
use crate::io::config::{LabelExpression, LabelOperator, PodPort};

/// A file whose experiment has these lines in place of its ports.
fn with(lines: &str) -> String {
    minimal().replacen("ports: [80]", lines, 1)
}

const SELECTOR: &str = "selector: { matchLabels: { app: shop } }";

#[test]
fn pods_are_read_as_a_deployment_selects_them() {
    let config = parsed(&with(
        "pods:\n    namespace: shop\n    selector:\n      matchLabels: { app.kubernetes.io/name: shop, track: \"1\" }\n      \
         matchExpressions:\n      - { key: tier, operator: NotIn, values: [canary] }\n      - { key: live, operator: Exists }\n    \
         ports: [http, 9090]",
    ));
    let pods = config.experiments[0].pods.as_ref().unwrap();
    assert_eq!(pods.namespace, "shop");
    let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    assert_eq!(pods.selector.labels, [label("app.kubernetes.io/name", "shop"), label("track", "1")]);
    let expression = |key: &str, operator, values: &[&str]| LabelExpression {
        key: key.to_owned(),
        operator,
        values: values.iter().map(|value| (*value).to_owned()).collect(),
    };
    assert_eq!(
        pods.selector.expressions,
        [
            expression("tier", LabelOperator::NotIn, &["canary"]),
            expression("live", LabelOperator::Exists, &[])
        ]
    );
    assert_eq!(pods.ports, [PodPort::Name("http".to_owned()), PodPort::Number(9090)]);
    // Nothing is taken before a pod was found, and nobody else's addresses are any's.
    assert_eq!((config.ports(), config.addresses()), (Vec::new(), Vec::new()));
    assert!(config.asks_for_pods() && pods.servers.is_empty());
}

#[test]
fn an_experiment_without_pods_yet_does_not_widen_what_others_take() {
    let text = with("ports: [80]\n  addresses: [10.0.0.1]");
    let other = with(&format!("pods: {{ namespace: shop, {SELECTOR} }}")).replacen("name: a", "name: b", 1);
    let both = format!("{text}{}", other.split_once("experiments:\n").unwrap().1);
    let config = parsed(&both);
    assert_eq!((config.ports(), config.addresses()), (vec![80], vec!["10.0.0.1/32".parse().unwrap()]));
}

#[test]
fn interfaces_may_be_left_out_where_all_is_about_pods() {
    let about_pods = with(&format!("pods: {{ namespace: shop, {SELECTOR} }}"));
    let without = |text: &str| text.replacen("capture: { interfaces: [lo] }", "capture: {}", 1);
    assert!(parsed(&without(&about_pods)).capture.interfaces.is_empty());
    let errors = errors(&without(&minimal()));
    assert!(errors[0].contains("capture.interfaces: there has to be at least one interface"), "{errors:?}");
}

#[test]
fn the_example_of_the_readme_is_one() {
    let section = README.split_once("### Kubernetes pods\n").expect("a section").1;
    let block = section.split_once("```yaml").expect("an example").1.split_once("```").expect("its end").0;
    // What else stands behind the fence is for those who run the pages' examples.
    let example = block.split_once('\n').expect("its lines").1;
    let config = parsed(&format!("capture: {{}}\n{example}"));
    assert_eq!(config.experiments[0].pods.as_ref().unwrap().ports, [PodPort::Name("http".to_owned())]);
}

#[test]
fn what_is_wrong_is_said_where_it_stands() {
    for (lines, said) in [
        ("owner: me", "experiments[0].ports: there has to be at least one port, or `pods`"),
        (
            "ports: [80]\n  pods: { namespace: shop, selector: { matchLabels: { a: b } } }",
            "experiments[0].ports: an experiment about `pods` has their addresses",
        ),
        (
            "addresses: [10.0.0.1]\n  pods: { namespace: shop, selector: { matchLabels: { a: b } } }",
            "experiments[0].addresses: an experiment about `pods` has their addresses",
        ),
        ("pods: { namespace: shop, selector: {} }", "pods.selector: it means every pod of the namespace"),
        ("pods: { namespace: shop }", "selector"),
        (
            "pods: { namespace: Shop, selector: { matchLabels: { a: b } } }",
            "pods.namespace: \"Shop\" is not a name",
        ),
        (
            "pods: { namespace: shop, selector: { matchLabels: { a: b } }, ports: [0] }",
            "pods.ports[0]: expected a port from 1 to 65535, or the name of one, found the number 0",
        ),
        (
            "pods: { namespace: shop, selector: { matchLabels: { a: b } }, ports: [HTTP] }",
            "pods.ports[0]: \"HTTP\" is not the name of a port",
        ),
        ("pods: { namespace: shop, selector: { matchLabels: { a: b c } } }", "\"b c\" is no part of a label"),
        (
            "pods: { namespace: shop, selector: { matchExpressions: [{ key: a, operator: In }] } }",
            "pods.selector.matchExpressions[0]: the operator needs `values`",
        ),
        (
            "pods: { namespace: shop, selector: { matchExpressions: [{ key: a, operator: Exists, values: [b] }] } }",
            "pods.selector.matchExpressions[0]: the operator takes no `values`",
        ),
        (
            "pods: { namespace: shop, selector: { matchExpressions: [{ key: a, operator: Near }] } }",
            "pods.selector.matchExpressions[0].operator: \"Near\" is not known here; expected",
        ),
    ] {
        let errors = errors(&with(lines));
        assert!(errors.iter().any(|error| error.contains(said)), "{lines}: {errors:?}");
    }
}
