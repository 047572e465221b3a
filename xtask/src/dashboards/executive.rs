//! Enters: nothing. Leaves: the dashboard for who wants to know whether the new version is fit.

use super::panel::{Dashboard, Row, figure, lines, state};

/// What the fleet's verdict is called.
pub(super) const VERDICTS: &[(i8, &str, &str)] =
    &[(1, "pass", "green"), (0, "not enough data", "yellow"), (-1, "fail", "red")];

pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        name: "executive",
        title: "Mirror / Executive",
        description: "Is the new version fit? How much of live it has seen, where it differs, and the verdict.",
        rows: vec![
            Row {
                title: "Now",
                panels: vec![
                    state(
                        "Verdict",
                        VERDICTS,
                        "Fail as soon as one agent says so; pass if one says so and none says fail. From intervals, \
                         not from points.",
                        (r#"experiment:mirror_verdict:state{experiment=~"$experiment"}"#, "{{experiment}}"),
                    ),
                    figure(
                        "Budget of divergences left, last day",
                        "percentunit",
                        "Of the divergences that the gate allows, the share that is left. Below 0: more than allowed.",
                        (
                            r#"1 - experiment:mirror_divergence:ratio_rate1d{experiment=~"$experiment"} / on (experiment) experiment:mirror_divergence_allowed:ratio{experiment=~"$experiment"}"#,
                            "{{experiment}}",
                        ),
                    ),
                    figure(
                        "Share of live that is mirrored",
                        "percentunit",
                        "Of all requests that were seen at live's ports: the sample, less what could not be mirrored.",
                        ("mirror:requests_mirrored:ratio_rate5m", ""),
                    ),
                    figure(
                        "Mirrored of what was to be",
                        "percentunit",
                        "The worst agent. What is missing was dropped or lost, and is not compared.",
                        ("1 - max(instance:mirror_requests_unmirrored:ratio_rate5m)", ""),
                    ),
                    figure(
                        "Ends in",
                        "s",
                        "When the experiment stops by itself.",
                        (
                            r#"min by (experiment) ((mirror_experiment_expiry_timestamp_seconds{experiment=~"$experiment"} > 0) - time())"#,
                            "{{experiment}}",
                        ),
                    ),
                ],
            },
            Row {
                title: "Trend",
                panels: vec![
                    lines(
                        "Exchanges that diverge",
                        "percentunit",
                        "Of those that could be compared; noise is not among them.",
                        &[
                            (
                                r#"experiment:mirror_divergence:ratio_rate1h{experiment=~"$experiment"}"#,
                                "{{experiment}}",
                            ),
                            (
                                r#"experiment:mirror_divergence_allowed:ratio{experiment=~"$experiment"}"#,
                                "{{experiment}} allowed",
                            ),
                        ],
                    ),
                    lines(
                        "Verdict",
                        "short",
                        "1 pass, 0 not enough data, -1 fail.",
                        &[(
                            r#"experiment:mirror_verdict:state{experiment=~"$experiment"}"#,
                            "{{experiment}}",
                        )],
                    ),
                ],
            },
            Row {
                title: "Extent",
                panels: vec![
                    lines(
                        "Exchanges compared",
                        "reqps",
                        "What the verdict is drawn from.",
                        &[(
                            r#"experiment:mirror_comparisons:rate5m{experiment=~"$experiment"}"#,
                            "{{experiment}}",
                        )],
                    ),
                    lines(
                        "Copies mirrored",
                        "reqps",
                        "By target.",
                        &[(
                            r#"target:mirror_copies_mirrored:rate5m{experiment=~"$experiment"}"#,
                            "{{experiment}}/{{target}}",
                        )],
                    ),
                    lines(
                        "p95, shadow by live",
                        "short",
                        "How many times as long as live's the shadow's answers take, to their last byte.",
                        &[(
                            r#"of:mirror_response_seconds:p95_rate5m{experiment=~"$experiment", of="shadow", phase="last_byte"} / ignoring (of) of:mirror_response_seconds:p95_rate5m{experiment=~"$experiment", of="live", phase="last_byte"}"#,
                            "{{experiment}}",
                        )],
                    ),
                ],
            },
        ],
    }
}
