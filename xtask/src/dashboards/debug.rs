//! Enters: nothing. Leaves: the dashboard for who looks for the stage at which something goes missing.

use super::panel::{Dashboard, Row, lines};

pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        name: "debug",
        title: "Mirror / Debug",
        description: "Stage by stage, from frames to verdicts: what came in, what went on, and what stayed, by reason.",
        rows: vec![interfaces(), capture(), flows(), requests(), replay(), comparison(), agent()],
    }
}

fn interfaces() -> Row {
    Row {
        title: "Interfaces",
        panels: vec![
            lines(
                "Attached",
                "short",
                "Interfaces with programs, by agent and role.",
                &[(r#"mirror_interfaces_attached{instance=~"$instance"}"#, "{{instance}} {{role}}")],
            ),
            lines(
                "Segments",
                "pps",
                "Copied at each interface, by side; `other` is those that have no series of their own.",
                &[(
                    r#"rate(mirror_interface_segments_total{instance=~"$instance"}[$__rate_interval])"#,
                    "{{instance}} {{interface}} {{side}}",
                )],
            ),
            lines(
                "One-sided",
                "short",
                "Interfaces that show answers and no requests: packets bypass the hook.",
                &[
                    (r#"mirror_interfaces_one_sided{instance=~"$instance"}"#, "{{instance}}"),
                    (
                        r#"mirror_interface_one_sided{instance=~"$instance"} == 1"#,
                        "{{instance}} {{interface}}",
                    ),
                ],
            ),
            lines(
                "Seen at two interfaces",
                "cps",
                "Connections that were recognised at a second one.",
                &[(
                    r#"rate(mirror_flows_observed_twice_total{instance=~"$instance"}[$__rate_interval])"#,
                    "{{instance}}",
                )],
            ),
        ],
    }
}

fn capture() -> Row {
    Row {
        title: "Kernel and rings",
        panels: vec![
            lines(
                "Frames",
                "pps",
                "Captured by side, and those of the agent's own connections, which are left out.",
                &[
                    (
                        r#"sum by (side) (rate(mirror_frames_captured_total{instance=~"$instance"}[$__rate_interval]))"#,
                        "captured {{side}}",
                    ),
                    (r#"sum(rate(mirror_frames_own_total{instance=~"$instance"}[$__rate_interval]))"#, "own"),
                ],
            ),
            lines(
                "Frames dropped",
                "pps",
                "By agent and reason.",
                &[(
                    r#"rate(mirror_frames_dropped_total{instance=~"$instance"}[$__rate_interval])"#,
                    "{{instance}} {{reason}}",
                )],
            ),
            lines(
                "Ring",
                "percentunit",
                "The highest fill of a ring in the minute before.",
                &[(r#"mirror_ring_utilization_ratio{instance=~"$instance"}"#, "{{instance}}")],
            ),
            lines(
                "Guard",
                "percentunit",
                "What is captured of the connections, and what is used of what the guard allows.",
                &[
                    (r#"mirror_guard_capture_ratio{instance=~"$instance"}"#, "{{instance}} captured"),
                    (r#"mirror_guard_cpu_ratio{instance=~"$instance"}"#, "{{instance}} processor"),
                    (r#"mirror_guard_memory_ratio{instance=~"$instance"}"#, "{{instance}} memory"),
                ],
            ),
        ],
    }
}

fn flows() -> Row {
    Row {
        title: "Connections",
        panels: vec![
            lines(
                "In the table",
                "short",
                "By agent.",
                &[(r#"mirror_flows_active{instance=~"$instance"}"#, "{{instance}}")],
            ),
            lines(
                "Not parsed, evicted",
                "cps",
                "By reason.",
                &[
                    (
                        r#"sum by (reason) (rate(mirror_flows_skipped_total{instance=~"$instance"}[$__rate_interval]))"#,
                        "skipped {{reason}}",
                    ),
                    (
                        r#"sum by (reason) (rate(mirror_flows_evicted_total{instance=~"$instance"}[$__rate_interval]))"#,
                        "evicted {{reason}}",
                    ),
                ],
            ),
            lines(
                "Gaps",
                "Bps",
                "Bytes that the receiver got and the capture did not.",
                &[(
                    r#"sum by (side) (rate(mirror_stream_gap_bytes_total{instance=~"$instance"}[$__rate_interval]))"#,
                    "{{side}}",
                )],
            ),
            lines(
                "Conflicts",
                "cps",
                "Segments that contradict each other, are too far from their connection, are dropped by their receiver, or are not believed to begin a request.",
                &[
                    (
                        r#"sum(rate(mirror_stream_conflicts_total{instance=~"$instance"}[$__rate_interval]))"#,
                        "conflicts",
                    ),
                    (
                        r#"sum(rate(mirror_segments_out_of_window_total{instance=~"$instance"}[$__rate_interval]))"#,
                        "out of window",
                    ),
                    (
                        r#"sum(rate(mirror_segments_refused_total{instance=~"$instance"}[$__rate_interval]))"#,
                        "refused",
                    ),
                    (
                        r#"sum(rate(mirror_request_starts_doubted_total{instance=~"$instance"}[$__rate_interval]))"#,
                        "starts doubted",
                    ),
                ],
            ),
        ],
    }
}

fn requests() -> Row {
    Row {
        title: "Requests: seen = pending + mirrored + skipped + dropped + lost",
        panels: vec![
            lines(
                "Books",
                "reqps",
                "Pending is a number, all others are rates.",
                &[
                    (
                        r#"sum(rate(mirror_requests_seen_total{instance=~"$instance"}[$__rate_interval]))"#,
                        "seen",
                    ),
                    (
                        r#"sum(rate(mirror_requests_mirrored_total{instance=~"$instance"}[$__rate_interval]))"#,
                        "mirrored",
                    ),
                    (r#"sum(mirror_requests_pending{instance=~"$instance"})"#, "pending"),
                ],
            ),
            lines(
                "Skipped",
                "reqps",
                "By reason: deliberately not mirrored.",
                &[(
                    r#"sum by (reason) (rate(mirror_requests_skipped_total{instance=~"$instance"}[$__rate_interval]))"#,
                    "{{reason}}",
                )],
            ),
            lines(
                "Dropped",
                "reqps",
                "By reason: could not be mirrored.",
                &[(
                    r#"sum by (reason) (rate(mirror_requests_dropped_total{instance=~"$instance"}[$__rate_interval]))"#,
                    "{{reason}}",
                )],
            ),
            lines(
                "Lost",
                "reqps",
                "By reason: damaged, and never sent.",
                &[(
                    r#"sum by (reason) (rate(mirror_requests_lost_total{instance=~"$instance"}[$__rate_interval]))"#,
                    "{{reason}}",
                )],
            ),
        ],
    }
}

fn replay() -> Row {
    Row {
        title: "Copies and attempts",
        panels: vec![
            lines(
                "Books of copies",
                "reqps",
                "Pending is a number, all others are rates.",
                &[
                    (
                        r#"sum by (experiment, target) (rate(mirror_copies_total{experiment=~"$experiment", instance=~"$instance"}[$__rate_interval]))"#,
                        "{{experiment}}/{{target}} all",
                    ),
                    (
                        r#"sum by (experiment, target) (rate(mirror_copies_mirrored_total{experiment=~"$experiment", instance=~"$instance"}[$__rate_interval]))"#,
                        "{{experiment}}/{{target}} mirrored",
                    ),
                    (
                        r#"sum by (experiment, target) (mirror_copies_pending{experiment=~"$experiment", instance=~"$instance"})"#,
                        "{{experiment}}/{{target}} pending",
                    ),
                ],
            ),
            lines(
                "Skipped and dropped",
                "reqps",
                "By reason.",
                &[
                    (
                        r#"sum by (experiment, target, reason) (rate(mirror_copies_skipped_total{experiment=~"$experiment", instance=~"$instance"}[$__rate_interval]))"#,
                        "{{experiment}}/{{target}} skipped {{reason}}",
                    ),
                    (
                        r#"sum by (experiment, target, reason) (rate(mirror_copies_dropped_total{experiment=~"$experiment", instance=~"$instance"}[$__rate_interval]))"#,
                        "{{experiment}}/{{target}} dropped {{reason}}",
                    ),
                ],
            ),
            lines(
                "Attempts",
                "reqps",
                "By how they ended.",
                &[(
                    r#"sum by (experiment, target, outcome) (rate(mirror_replays_total{experiment=~"$experiment", instance=~"$instance"}[$__rate_interval]))"#,
                    "{{experiment}}/{{target}} {{outcome}}",
                )],
            ),
            lines(
                "Duration",
                "s",
                "p99 from the first byte written to the last byte of the answer.",
                &[(
                    r#"histogram_quantile(0.99, sum by (experiment, target, le) (rate(mirror_replay_duration_seconds_bucket{experiment=~"$experiment", instance=~"$instance"}[$__rate_interval])))"#,
                    "{{experiment}}/{{target}}",
                )],
            ),
            lines(
                "Changes",
                "short",
                "Of breakers and interlocks over 5 minutes, and addresses that are refused.",
                &[
                    (
                        r#"sum by (experiment, target, to) (increase(mirror_breaker_changes_total{experiment=~"$experiment"}[5m]))"#,
                        "{{experiment}}/{{target}} breaker {{to}}",
                    ),
                    (
                        r#"sum by (experiment, target) (increase(mirror_interlock_changes_total{experiment=~"$experiment"}[5m]))"#,
                        "{{experiment}}/{{target}} interlock",
                    ),
                    (
                        r#"max by (experiment, target) (mirror_target_addresses_refused{experiment=~"$experiment"})"#,
                        "{{experiment}}/{{target}} refused",
                    ),
                ],
            ),
        ],
    }
}

fn comparison() -> Row {
    Row {
        title: "Comparison",
        panels: vec![
            lines(
                "Exchanges",
                "reqps",
                "By result.",
                &[(
                    r#"sum by (experiment, result) (rate(mirror_comparisons_total{experiment=~"$experiment", instance=~"$instance"}[$__rate_interval]))"#,
                    "{{experiment}} {{result}}",
                )],
            ),
            lines(
                "Not comparable",
                "reqps",
                "By reason.",
                &[(
                    r#"sum by (experiment, reason) (rate(mirror_comparisons_incomparable_total{experiment=~"$experiment", instance=~"$instance"}[$__rate_interval]))"#,
                    "{{experiment}} {{reason}}",
                )],
            ),
            lines(
                "Divergences",
                "cps",
                "Places at which answers differ, by kind.",
                &[(
                    r#"sum by (experiment, kind) (rate(mirror_divergences_total{experiment=~"$experiment", instance=~"$instance"}[$__rate_interval]))"#,
                    "{{experiment}} {{kind}}",
                )],
            ),
            lines(
                "Answers without a time",
                "reqps",
                "By reason.",
                &[(
                    r#"sum by (experiment, reason) (rate(mirror_responses_untimed_total{experiment=~"$experiment", instance=~"$instance"}[$__rate_interval]))"#,
                    "{{experiment}} {{reason}}",
                )],
            ),
            lines(
                "Verdicts",
                "short",
                "Agents by what they say.",
                &[(
                    r#"sum by (experiment, state) (mirror_verdict_state{experiment=~"$experiment", instance=~"$instance"})"#,
                    "{{experiment}} {{state}}",
                )],
            ),
        ],
    }
}

fn agent() -> Row {
    Row {
        title: "Agents",
        panels: vec![
            lines(
                "Memory",
                "bytes",
                "What the agent counts itself, by pool.",
                &[(
                    r#"sum by (instance, pool) (mirror_memory_bytes{instance=~"$instance"})"#,
                    "{{instance}} {{pool}}",
                )],
            ),
            lines(
                "Configuration",
                "short",
                "Whether the file that was offered last is in force, and files by result over an hour.",
                &[
                    (
                        r#"mirror_config_last_reload_successful{instance=~"$instance"}"#,
                        "{{instance}} in force",
                    ),
                    (
                        r#"sum by (instance, result) (increase(mirror_config_reloads_total{instance=~"$instance"}[1h]))"#,
                        "{{instance}} {{result}}",
                    ),
                ],
            ),
            lines(
                "Age of the configuration",
                "s",
                "Since it was loaded.",
                &[(
                    r#"time() - mirror_config_last_reload_success_timestamp_seconds{instance=~"$instance"}"#,
                    "{{instance}}",
                )],
            ),
            lines(
                "Log",
                "cps",
                "Lines that standard error did not take in time, and repeated warnings that were held back.",
                &[
                    (
                        r#"rate(mirror_log_lines_dropped_total{instance=~"$instance"}[$__rate_interval])"#,
                        "{{instance}} dropped",
                    ),
                    (
                        r#"rate(mirror_log_lines_held_back_total{instance=~"$instance"}[$__rate_interval])"#,
                        "{{instance}} held back",
                    ),
                ],
            ),
            lines(
                "Waiting",
                "short",
                "1 while another agent of the same network namespace has its turn.",
                &[(r#"mirror_agent_waiting{instance=~"$instance"}"#, "{{instance}}")],
            ),
            lines(
                "Paused",
                "short",
                "1 while all, or the experiment, is paused.",
                &[
                    (r#"mirror_capture_paused{instance=~"$instance"}"#, "{{instance}} all"),
                    (
                        r#"max by (experiment) (mirror_experiment_paused{experiment=~"$experiment", instance=~"$instance"})"#,
                        "{{experiment}}",
                    ),
                ],
            ),
            lines(
                "Audit records",
                "cps",
                "By event, and those that are missing from the file.",
                &[
                    (
                        r#"sum by (event) (rate(mirror_audit_records_total{instance=~"$instance"}[$__rate_interval]))"#,
                        "{{event}}",
                    ),
                    (
                        r#"sum by (reason) (rate(mirror_audit_records_dropped_total{instance=~"$instance"}[$__rate_interval]))"#,
                        "missing: {{reason}}",
                    ),
                ],
            ),
            lines(
                "Versions",
                "short",
                "Agents by version.",
                &[(r#"count by (version) (mirror_build_info{instance=~"$instance"})"#, "{{version}}")],
            ),
        ],
    }
}
