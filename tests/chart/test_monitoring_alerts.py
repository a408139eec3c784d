"""The alarms: each goes off when it should, stays still when it should, and leads to its advice."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from chart.rules.promtool import (
    NAMESPACE,
    Promtool,
    between,
    counter,
    firing,
    named,
    pod,
    render,
    rules_of,
    steady,
    tower,
    write_rules,
)

RUNBOOK = Path(__file__).parents[2] / "docs" / "runbook.md"
GATEWAY = {"job": f"{NAMESPACE}/x-wanwu-gateway", "pod": "g"}
DAY_S = 86400


@pytest.fixture(scope="module")
def rules(need, tmp_path_factory: pytest.TempPathFactory) -> Promtool:
    return write_rules(need, tmp_path_factory.mktemp("rules"))


@pytest.fixture(scope="module")
def alerts(need) -> dict[str, dict[str, Any]]:
    return rules_of(render(need), "alert")


def gateway(metric: str, **labels: str) -> str:
    return named(f"wanwu_gateway_{metric}", **GATEWAY, **labels)


def cluster(metric: str, **labels: str) -> str:
    return named(metric, job="kube-state-metrics", **labels)


@pytest.mark.parametrize(("share", "minutes", "fires"), [
    (0.84, 4, 0), (0.84, 6, 0), (0.86, 4, 0), (0.86, 6, 1),
])  # fmt: skip
def test_a_gpu_is_busy_above_85_percent_for_five_minutes(
    rules: Promtool, share: float, minutes: int, fires: int
) -> None:
    busy = f"{share}x{minutes * 4} 0.5x40"
    load = {named("nv_gpu_utilization", gpu_uuid="GPU-1"): busy}
    rules.play(
        load,
        ("4m", firing("WanwuGpuBusy"), 0),
        ("6m", firing("WanwuGpuBusy"), fires),
    )


def test_the_gpu_alarm_names_the_one_busy_pod_and_ends_with_the_load(rules: Promtool) -> None:
    load = {named("nv_gpu_utilization", pod="busy"): "0.95x40 0.3x40"}
    load |= {named("nv_gpu_utilization", pod=f"calm-{n}"): steady(0.2) for n in range(9)}
    one = 'count(ALERTS{alertname="WanwuGpuBusy",alertstate="firing",pod="busy"})'
    rules.play(load, ("9m", one, 1), ("9m", firing("WanwuGpuBusy"), 1))
    rules.play(load, ("15m", firing("WanwuGpuBusy"), 0))


@pytest.mark.parametrize(("ratio", "fires"), [(0.049, 0), (0.051, 1)])
def test_errors_are_high_above_five_percent(rules: Promtool, ratio: float, fires: int) -> None:
    calm = pod(rate=100, steps=20)
    burst = pod(rate=100 * (1 - ratio), failed=100 * ratio, steps=40)
    load = {name: f"{values} {continued(values, burst[name])}" for name, values in calm.items()}
    rules.play(
        load,
        ("5m", firing("WanwuErrorsHigh"), 0),
        ("9m", firing("WanwuErrorsHigh"), fires),
    )


def continued(before: str, after: str) -> str:
    """Let a counter go on where it was."""
    if "+" not in before:
        return after
    step, times = before.split("+")[1].split("x")
    return f"{float(step) * (int(times) + 1):g}+{after.split('+')[1]}"


@pytest.mark.parametrize(("waited_ms", "fires"), [(700, 0), (1800, 1)])
def test_latency_is_high_above_a_second(rules: Promtool, waited_ms: float, fires: int) -> None:
    load = pod(rate=50, latencies_ms=[30] * 90 + [waited_ms] * 10)
    rules.play(load, ("1m", firing("WanwuLatencyHigh"), 0))
    rules.play(load, ("6m", firing("WanwuLatencyHigh"), fires))


def test_the_limits_come_from_the_values(need, tmp_path: Path) -> None:
    lower = ("monitoring.alerts.p95Ms=100", "monitoring.alerts.forSeconds=30")
    rules = write_rules(need, tmp_path, *lower)
    rules.play(pod(rate=50, latencies_ms=[180]), ("2m", firing("WanwuLatencyHigh"), 1))


def test_an_idle_fleet_rings_no_alarm(rules: Promtool) -> None:
    calm = pod("a") | {named("nv_gpu_utilization"): steady(0)}
    calm |= {named("up", **GATEWAY): steady(1)}
    rules.play(calm, ("20m", "count(ALERTS) or vector(0)", 0))


def test_refusals_ring_an_alarm_of_their_own(rules: Promtool) -> None:
    load = pod(rate=95, rejected=5)
    rules.play(
        load,
        ("9m", firing("WanwuRequestsRejected"), 1),
        ("9m", firing("WanwuErrorsHigh"), 0),
    )


@pytest.mark.parametrize(("model", "waiting", "fires"), [
    ("image_encoder", 512, 1), ("image_encoder", 470, 1), ("image_encoder", 400, 0),
    ("text_encoder", 64, 1), ("text_encoder", 40, 0), ("label_bank", 900, 0),
])  # fmt: skip
def test_a_full_queue_rings_though_triton_counts_no_refusal(
    rules: Promtool, model: str, waiting: int, fires: int
) -> None:
    gauge = named("nv_inference_pending_request_count", model=model, version="1")
    rules.play(
        pod(rate=50) | {gauge: steady(waiting)},
        ("9m", "sum(wanwu_reject_ratio)", 0),
        ("9m", firing("WanwuRequestsRejected"), fires),
    )


def test_a_queue_without_a_limit_is_never_full(need, tmp_path: Path) -> None:
    none = ("triton.batching.maxQueueSize=0", "triton.batching.text.maxQueueSize=0")
    rules = write_rules(need, tmp_path, *none)
    waiting = {tower("nv_inference_pending_request_count"): steady(9000)}
    rules.play(pod(rate=50) | waiting, ("9m", firing("WanwuRequestsRejected"), 0))
    assert "wanwu_queue_fill" not in rules_of(render(need, *none), "record")


@pytest.mark.parametrize(("ratio", "fires"), [(0.009, 0), (0.02, 1)])
def test_calls_that_triton_refused_to_the_gateway_ring(
    rules: Promtool, ratio: float, fires: int
) -> None:
    count = "triton_call_duration_seconds_count"
    load = {
        gateway(count, model="image_encoder", outcome="ok"): counter(50 * (1 - ratio)),
        gateway(count, model="image_encoder", outcome="overloaded"): counter(50 * ratio),
    }
    low, high = ratio - 0.001, ratio + 0.001
    rules.play(
        load,
        ("9m", between("wanwu_gateway_refused_ratio", low, high), 1),
        ("9m", firing("WanwuRequestsRejected"), fires),
    )


@pytest.mark.parametrize(("queue_ms", "fires"), [(150, 0), (250, 1)])
def test_the_queue_is_long_above_its_limit(rules: Promtool, queue_ms: float, fires: int) -> None:
    rules.play(pod(rate=50, queue_ms=queue_ms), ("9m", firing("WanwuQueueLong"), fires))


def ten_pods(slow_ms: float, queue_ms: float = 0) -> dict[str, str]:
    fleet = {k: v for n in range(9) for k, v in pod(f"fast-{n}", rate=10, queue_ms=4).items()}
    return fleet | pod("slow", rate=10, latencies_ms=[slow_ms], queue_ms=queue_ms)


def test_the_one_pod_of_ten_that_is_three_times_slower_is_named(rules: Promtool) -> None:
    one = 'count(ALERTS{alertname="WanwuPodSlow",alertstate="firing",pod="slow"})'
    load = ten_pods(slow_ms=150)
    rules.play(load, ("5m", firing("WanwuPodSlow"), 0))
    rules.play(
        load,
        ("10m", between("wanwu_pod_latency_ms{pod='slow'}", 149, 151), 1),
        ("10m", one, 1),
        ("10m", firing("WanwuPodSlow"), 1),
    )


def test_of_two_pods_the_one_that_is_three_times_slower_is_named(rules: Promtool) -> None:
    load = pod("fast", rate=10) | pod("slow", rate=10, latencies_ms=[150.0])
    rules.play(load, ("10m", firing("WanwuPodSlow"), 1))


def test_pods_that_are_all_slow_or_hardly_slower_are_not_named(rules: Promtool) -> None:
    slow = [900.0]
    both = pod("a", rate=10, latencies_ms=slow) | pod("b", rate=10, latencies_ms=slow)
    for load in (ten_pods(slow_ms=80), both, pod("only", rate=10, latencies_ms=slow)):
        rules.play(load, ("10m", firing("WanwuPodSlow"), 0))


@pytest.mark.parametrize(("latency_ms", "queue_ms", "fires"), [
    (184, 1, 1), (184, 8, 0), (90, 1, 0),
])  # fmt: skip
def test_a_target_below_the_models_own_latency_is_told(
    rules: Promtool, latency_ms: float, queue_ms: float, fires: int
) -> None:
    load = pod(rate=10, latencies_ms=[latency_ms], queue_ms=queue_ms, steps=100)
    rules.play(load, ("14m", firing("WanwuScalingTargetLow"), 0))
    rules.play(load, ("18m", firing("WanwuScalingTargetLow"), fires))


def test_one_slow_pod_of_ten_does_not_make_the_target_look_low(rules: Promtool) -> None:
    rules.play(ten_pods(slow_ms=400), ("18m", firing("WanwuScalingTargetLow"), 0))


def test_without_a_scaler_no_target_is_too_low(need) -> None:
    found = rules_of(render(need, "autoscaling.driver=none"), "alert")
    assert "WanwuScalingTargetLow" not in found
    assert "WanwuPodSlow" in found


def test_a_pod_that_answers_nothing_is_stuck(rules: Promtool) -> None:
    waiting = "nv_inference_pending_request_count"
    load = pod("stuck") | pod("well", rate=20)
    load |= {tower(waiting, pod="stuck"): steady(40), tower(waiting, pod="well"): steady(40)}
    one = 'count(ALERTS{alertname="WanwuTritonStuck",alertstate="firing",pod="stuck"})'
    rules.play(load, ("9m", one, 1), ("9m", firing("WanwuTritonStuck"), 1))


def test_a_pod_without_the_image_tower_is_told(rules: Promtool) -> None:
    other = {named("up", pod="b"): steady(1)}
    other |= {named("nv_inference_request_success", pod="b", model="text_encoder"): counter(0)}
    rules.play(pod("a") | other, ("9m", firing("WanwuModelMissing"), 1))
    rules.play(pod("a"), ("9m", firing("WanwuModelMissing"), 0))


def test_a_signal_without_a_source_is_told(rules: Promtool) -> None:
    load = {name: values for name, values in pod(rate=9).items() if "histogram" not in name}
    load |= {named("nv_gpu_utilization"): steady(0.3)}
    one = 'count(ALERTS{alertname="WanwuSignalMissing",signal="wanwu_request_p95_ms"})'
    rules.play(load, ("19m", one, 1), ("19m", firing("WanwuSignalMissing"), 1))


def test_a_lost_scrape_is_told_but_not_a_pod_that_starts(rules: Promtool) -> None:
    lost = {name: f"{values} stale" for name, values in pod("lost", steps=20).items()}
    lost |= {named("up", pod="lost"): "1x20 0x40", named("up", pod="starting"): "0x60"}
    one = 'count(ALERTS{alertname="WanwuScrapeLost",alertstate="firing",pod="lost"})'
    rules.play(
        lost,
        ("5m", firing("WanwuScrapeLost"), 0),
        ("9m", one, 1),
        ("9m", firing("WanwuScrapeLost"), 1),
    )


@pytest.mark.parametrize("state", ["0x60", "_x60"])
def test_no_scraped_pod_at_all_is_told_for_triton_and_gateway(rules: Promtool, state: str) -> None:
    seen = {named("up"): state, named("up", **GATEWAY): state, named("up", job="other"): "1x60"}
    rules.play(seen, ("9m", firing("WanwuNothingScraped"), 2))


def test_a_pod_that_never_becomes_ready_is_told_after_its_time(rules: Promtool) -> None:
    labels = {"pod": "x-wanwu-triton-1", "condition": "true"}
    state = {cluster("kube_pod_status_ready", **labels): steady(0, 100)}
    rules.play(
        state,
        ("14m", firing("WanwuPodNotReady"), 0),
        ("16m", firing("WanwuPodNotReady"), 1),
    )
    done = {cluster("kube_pod_status_phase", pod=labels["pod"], phase="Failed"): steady(1, 100)}
    rules.play(state | done, ("20m", firing("WanwuPodNotReady"), 0))


@pytest.mark.parametrize("name", ["x-wanwu-triton", "keda-hpa-x-wanwu-triton"])
@pytest.mark.parametrize(("wanted", "fires"), [(9, 0), (10, 1)])
def test_a_scaler_at_its_maximum_is_told(
    rules: Promtool, name: str, wanted: int, fires: int
) -> None:
    metric, label = "kube_horizontalpodautoscaler", {"horizontalpodautoscaler": name}
    state = {
        cluster(f"{metric}_status_desired_replicas", **label): steady(wanted, 100),
        cluster(f"{metric}_spec_max_replicas", **label): steady(10, 100),
    }
    rules.play(state, ("16m", firing("WanwuScalerAtMaximum"), fires))


@pytest.mark.parametrize(("status", "fires"), [("true", 0), ("false", 1)])
def test_a_scaler_that_sees_no_metric_is_told(rules: Promtool, status: str, fires: int) -> None:
    labels = {"horizontalpodautoscaler": "x-wanwu-triton", "condition": "ScalingActive"}
    state = {
        cluster("kube_horizontalpodautoscaler_status_condition", **labels, status=each): steady(
            each == status, 100
        )
        for each in ("true", "false", "unknown")
    }
    rules.play(state, ("9m", firing("WanwuScalerBlind"), fires))


@pytest.mark.parametrize("label", ["namespace", "exported_namespace"])
@pytest.mark.parametrize(("days", "renewal", "fires"), [
    (13, -1, 1), (13, 1, 0), (15, -1, 0),
])  # fmt: skip
def test_a_certificate_whose_renewal_is_overdue_is_told(
    rules: Promtool, label: str, days: int, renewal: int, fires: int
) -> None:
    where = {"namespace": "cert-manager", "job": "cert-manager", "name": "tls"} | {label: NAMESPACE}
    metric = "certmanager_certificate_%s_timestamp_seconds"
    # promtool's clock begins at 0, and the question comes at 2 h.
    state = {
        named(metric % "expiration", **where): steady(days * DAY_S, 600),
        named(metric % "renewal", **where): steady(renewal * DAY_S, 600),
    }
    rules.play(state, ("2h", firing("WanwuCertificateEnding"), fires))


def test_an_audit_log_that_cannot_be_written_is_told_at_once(rules: Promtool) -> None:
    rules.play(
        {gateway("audit_failures_total"): "0x20 1x200"},
        ("4m", firing("WanwuAuditFailing"), 0),
        ("6m", firing("WanwuAuditFailing"), 1),
        ("20m", firing("WanwuAuditFailing"), 0),
    )


@pytest.mark.parametrize(("free", "fires"), [(21, 0), (19, 1)])
def test_a_volume_of_the_audit_log_that_fills_is_told_before_it_is_full(
    rules: Promtool, free: float, fires: int
) -> None:
    load = {
        gateway("audit_free_bytes"): steady(free * 2**20),
        gateway("audit_volume_bytes"): steady(100 * 2**20),
    }
    rules.play(load, ("9m", firing("WanwuAuditFilling"), fires))


@pytest.mark.parametrize(("ratio", "fires"), [(0.049, 0), (0.051, 1)])
def test_errors_of_the_gateway_are_told(rules: Promtool, ratio: float, fires: int) -> None:
    count = "request_duration_seconds_count"
    load = {
        gateway(count, route="/predict", status="200"): counter(20 * (1 - ratio)),
        # What callers do wrong is no error of the gateway.
        gateway(count, route="/predict", status="422"): counter(20 * (1 - ratio)),
        gateway(count, route="/predict", status="503"): counter(40 * ratio),
        # A probe that finds Triton away is no request of a caller.
        gateway(count, route="/readyz", status="503"): counter(40),
    }
    rules.play(load, ("9m", firing("WanwuGatewayErrors"), fires))


@pytest.mark.parametrize(("edge", "fires"), [("0.5", 0), ("1.5", 1)])
def test_a_slow_gateway_is_told(rules: Promtool, edge: str, fires: int) -> None:
    edges = ["0.3", "0.5", "1", "1.5", "2.5", "+Inf"]
    load = {
        gateway("request_duration_seconds_bucket", route="/predict", status="200", le=each):
        counter(40 if edges.index(each) >= edges.index(edge) else 0)
        for each in edges
    }  # fmt: skip
    rules.play(load, ("9m", firing("WanwuGatewaySlow"), fires))


@pytest.mark.parametrize(("later", "fires"), [(0.15, 0), (0.5, 1)])
def test_a_jump_of_uncertain_answers_is_told(rules: Promtool, later: float, fires: int) -> None:
    def answers(outcome: str, before: float, after: float) -> dict[str, str]:
        steps, first = 3 * 240, before * 15
        values = f"0+{first:g}x{steps} {first * (steps + 1):g}+{after * 15:g}x480"
        return {gateway("recognitions_total", bank="seed18", outcome=outcome): values}

    load = answers("uncertain", 0.1, 2 * later) | answers("answered", 1.9, 2 - 2 * later)
    rules.play(load, ("3h", firing("WanwuAnswersUncertain"), 0))
    rules.play(load, ("4h50m", firing("WanwuAnswersUncertain"), fires))


def test_every_alarm_has_a_severity_and_speaks_both_languages(alerts) -> None:
    assert len(alerts) == 21
    for name, alert in alerts.items():
        told = alert["annotations"]
        assert alert["labels"]["severity"] in ("warning", "critical"), name
        for key in ("summary", "description"):
            assert told[key].isascii(), name
            assert re.search(r"[\u4e00-\u9fff]", told[f"{key}_zh"]), name
            assert placeholders(told[key]) == placeholders(told[f"{key}_zh"]), name


def placeholders(text: str) -> list[str]:
    return sorted(re.findall(r"{{.*?}}", text))


def test_every_alarm_leads_to_its_heading_in_the_runbook(need, alerts) -> None:
    headings = re.findall(r"^## (.+)$", RUNBOOK.read_text("utf-8"), re.MULTILINE)
    anchors = {heading.lower() for heading in headings}
    objects = render(need, "monitoring.runbookUrl=https://wiki.example.internal/wanwu")
    for name, alert in rules_of(objects, "alert").items():
        url, _, anchor = alert["annotations"]["runbook_url"].partition("#")
        assert (url, anchor) == ("https://wiki.example.internal/wanwu", name.lower())
        assert anchor in anchors, name
    # Nor is there advice about an alarm that no longer exists.
    assert {each for each in headings if each.startswith("Wanwu")} == set(alerts)


def test_each_entry_of_the_runbook_says_three_things_in_both_languages(alerts) -> None:
    text = RUNBOOK.read_text("utf-8")
    for name in alerts:
        entry = text.split(f"\n## {name}\n")[1].split("\n## ")[0]
        for part in ("**含义**", "**看什么**", "**怎么做**"):
            assert part in entry, (name, part)
        for part in ("**Meaning**", "**Look at**", "**Do**"):
            assert part in entry, (name, part)
