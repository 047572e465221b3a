//! Enters: nothing. Leaves: the dashboard for who was called.

use super::panel::{Dashboard, Row, lines, state};

pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        name: "on-call",
        title: "Mirror / On call",
        description: "What is wrong now: live beside shadow, what is dropped and why, and what it costs.",
        rows: vec![live_and_shadow(), replay(), losses(), cost()],
    }
}

fn live_and_shadow() -> Row {
    Row {
        title: "Live and shadow",
        panels: vec![
            lines(
                "Errors",
                "percentunit",
                "Attempts at the target that got no answer, and exchanges whose answers have another status than live's.",
                &[
                    (
                        r#"target:mirror_replays_failed:ratio_rate5m{experiment=~"$experiment"}"#,
                        "{{experiment}}/{{target}} no answer",
                    ),
                    (
                        r#"sum by (experiment) (rate(mirror_divergences_total{experiment=~"$experiment", kind="status"}[$__rate_interval])) / experiment:mirror_comparisons:rate5m{experiment=~"$experiment"}"#,
                        "{{experiment}} other status",
                    ),
                ],
            ),
            lines(
                "p50",
                "s",
                "To the last byte of the answer.",
                &[(
                    r#"of:mirror_response_seconds:p50_rate5m{experiment=~"$experiment", phase="last_byte"}"#,
                    "{{experiment}} {{of}}",
                )],
            ),
            lines(
                "p95",
                "s",
                "To the last byte of the answer.",
                &[(
                    r#"of:mirror_response_seconds:p95_rate5m{experiment=~"$experiment", phase="last_byte"}"#,
                    "{{experiment}} {{of}}",
                )],
            ),
            lines(
                "p99",
                "s",
                "To the last byte of the answer.",
                &[(
                    r#"of:mirror_response_seconds:p99_rate5m{experiment=~"$experiment", phase="last_byte"}"#,
                    "{{experiment}} {{of}}",
                )],
            ),
        ],
    }
}

fn replay() -> Row {
    Row {
        title: "Replay",
        panels: vec![
            lines(
                "Lag",
                "s",
                "From the last byte of the live request to the first byte written to the target.",
                &[
                    (
                        r#"histogram_quantile(0.5, sum by (experiment, target, le) (rate(mirror_replay_lag_seconds_bucket{experiment=~"$experiment"}[$__rate_interval])))"#,
                        "{{experiment}}/{{target}} p50",
                    ),
                    (
                        r#"histogram_quantile(0.99, sum by (experiment, target, le) (rate(mirror_replay_lag_seconds_bucket{experiment=~"$experiment"}[$__rate_interval])))"#,
                        "{{experiment}}/{{target}} p99",
                    ),
                ],
            ),
            lines(
                "Queue and in flight",
                "short",
                "Copies that wait for a connection, those under way, and how many may be: that finds itself below maxInFlight.",
                &[
                    (
                        r#"sum by (experiment, target) (mirror_replay_queue_requests{experiment=~"$experiment"})"#,
                        "{{experiment}}/{{target}} waiting",
                    ),
                    (
                        r#"sum by (experiment, target) (mirror_replays_in_flight{experiment=~"$experiment"})"#,
                        "{{experiment}}/{{target}} in flight",
                    ),
                    (
                        r#"sum by (experiment, target) (mirror_replays_in_flight_limit{experiment=~"$experiment"})"#,
                        "{{experiment}}/{{target}} may be in flight",
                    ),
                ],
            ),
            state(
                "Breaker",
                &[(0, "closed", "green"), (1, "half-open", "yellow"), (2, "open", "red")],
                "The worst of all agents.",
                (
                    r#"max by (experiment, target) (mirror_breaker_state{experiment=~"$experiment"})"#,
                    "{{experiment}}/{{target}}",
                ),
            ),
            state(
                "Interlock",
                &[(1, "open", "green"), (0, "shut", "red")],
                "The worst of all agents. Shut: the target does not prove that it is a shadow, and gets no writes.",
                (
                    r#"min by (experiment, target) (mirror_interlock_open{experiment=~"$experiment"})"#,
                    "{{experiment}}/{{target}}",
                ),
            ),
        ],
    }
}

fn losses() -> Row {
    Row {
        title: "What is not mirrored",
        panels: vec![
            lines(
                "Copies dropped",
                "reqps",
                "By reason.",
                &[(
                    r#"sum by (experiment, target, reason) (rate(mirror_copies_dropped_total{experiment=~"$experiment"}[$__rate_interval])) > 0"#,
                    "{{experiment}}/{{target}} {{reason}}",
                )],
            ),
            lines(
                "Requests lost",
                "reqps",
                "By reason.",
                &[(
                    r#"sum by (reason) (rate(mirror_requests_lost_total{instance=~"$instance"}[$__rate_interval])) > 0"#,
                    "{{reason}}",
                )],
            ),
            lines(
                "Not compared",
                "percentunit",
                "Of the exchanges that have a copy, those of the last hour that could not be compared.",
                &[(
                    r#"experiment:mirror_incomparable:ratio_rate1h{experiment=~"$experiment"}"#,
                    "{{experiment}}",
                )],
            ),
            lines(
                "Frames dropped",
                "pps",
                "By reason; the requests in them may not have been seen at all.",
                &[(
                    r#"sum by (reason) (rate(mirror_frames_dropped_total{instance=~"$instance"}[$__rate_interval])) > 0"#,
                    "{{reason}}",
                )],
            ),
        ],
    }
}

fn cost() -> Row {
    Row {
        title: "Cost",
        panels: vec![
            lines(
                "Agents: processors",
                "short",
                "By pod, from the kubelet.",
                &[(
                    r#"sum by (pod) (rate(container_cpu_usage_seconds_total{container="mirror-agent"}[$__rate_interval]))"#,
                    "{{pod}}",
                )],
            ),
            lines(
                "Agents: memory",
                "bytes",
                "By pod, with the rings; and the limit.",
                &[
                    (
                        r#"max by (pod) (container_memory_working_set_bytes{container="mirror-agent"})"#,
                        "{{pod}}",
                    ),
                    (
                        r#"min(kube_pod_container_resource_limits{container="mirror-agent", resource="memory"})"#,
                        "limit",
                    ),
                ],
            ),
            lines(
                "Shadows: processors",
                "short",
                "By pod.",
                &[(
                    r#"sum by (namespace, pod) (rate(container_cpu_usage_seconds_total{namespace=~"$shadow_namespace", container!=""}[$__rate_interval]))"#,
                    "{{namespace}}/{{pod}}",
                )],
            ),
            lines(
                "Shadows: memory",
                "bytes",
                "By pod.",
                &[(
                    r#"sum by (namespace, pod) (container_memory_working_set_bytes{namespace=~"$shadow_namespace", container!=""})"#,
                    "{{namespace}}/{{pod}}",
                )],
            ),
        ],
    }
}
