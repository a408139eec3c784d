"""The monitors and the dashboard: switches, labels, and metrics that exist."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from chart.rules.promtool import CHART, SOURCES, groups_of, render, rules_of, write_rules

WATCHED = {"PodMonitor", "PrometheusRule"}
OPERATOR = tuple(f"monitoring.coreos.com/v1/{kind}" for kind in sorted(WATCHED))
DASHBOARD = CHART / "dashboards" / "wanwu.json"
#: What Triton serves, by its own documentation; the live tests meet most of them.
TRITON = {
    *(f"nv_inference_{each}" for each in ("request_success", "request_failure", "count")),
    *(f"nv_inference_{each}" for each in ("exec_count", "pending_request_count")),
    *(f"nv_inference_{each}_duration_us" for each in ("request", "queue")),
    *(f"nv_inference_compute_{each}_duration_us" for each in ("input", "infer", "output")),
    *(f"nv_inference_first_response_histogram_ms_{each}" for each in ("bucket", "count", "sum")),
    *(f"nv_inference_request_summary_us{each}" for each in ("", "_count", "_sum")),
    *("nv_gpu_utilization", "nv_gpu_memory_used_bytes", "nv_gpu_memory_total_bytes"),
}
CLUSTER = {
    *("up", "ALERTS", "DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_PROF_GR_ENGINE_ACTIVE"),
    *("kube_pod_status_ready", "kube_pod_status_phase"),
    *(
        f"kube_horizontalpodautoscaler_{each}"
        for each in ("spec_max_replicas", "status_desired_replicas", "status_current_replicas")
    ),
    "kube_horizontalpodautoscaler_status_condition",
    *(f"certmanager_certificate_{each}_timestamp_seconds" for each in ("expiration", "renewal")),
}


@pytest.fixture(scope="module")
def objects(need) -> list[dict[str, Any]]:
    return render(need, "monitoring.labels.prometheus=main")


def of_kind(objects: list[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    return {each["metadata"]["name"]: each for each in objects if each["kind"] == kind}


def gateway_metrics() -> set[str]:
    from wanwu.gateway.metrics import Metrics

    names = set()
    for family in Metrics().registry.collect():
        endings = {
            "counter": ("_total",),
            "histogram": ("_bucket", "_count", "_sum"),
        }.get(family.type, ("",))
        names |= {family.name + ending for ending in endings}
    return names


def metrics_in(expr: str) -> set[str]:
    """Give the names of metrics: what is left without texts, labels, functions and numbers."""
    bare = re.sub(r"#.*", "", expr)
    bare = re.sub(r'"[^"]*"', "", bare)
    bare = re.sub(r"{[^}]*}|\[[^\]]*\]", "", bare)
    bare = re.sub(r"\b(by|on|without)\s*\([^)]*\)", "", bare)
    words = re.findall(r"\b[a-zA-Z_]\w*\b(?!\s*\()", bare)
    return set(words) - {"or", "and", "unless", "bool", "offset", "d", "h"}


def panel_exprs() -> list[str]:
    board = json.loads(DASHBOARD.read_text("utf-8"))
    found = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    found += [each["expr"] for each in board["annotations"]["list"]]
    return [each.replace("[$__rate_interval]", "[1m]") for each in found]


def known(objects: list[dict[str, Any]], need) -> set[str]:
    need(importlib.util.find_spec("fastapi") is not None, "FastAPI: pip install 'wanwu[gateway]'")
    return TRITON | CLUSTER | gateway_metrics() | set(rules_of(objects, "record"))


def test_every_panel_parses_and_every_metric_exists(need, objects, tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    need(promtool is not None, "promtool: apt-get install prometheus")
    exprs = panel_exprs()
    assert len(exprs) > 25
    rules = [{"record": f"panel_{number}", "expr": expr} for number, expr in enumerate(exprs)]
    file = tmp_path / "panels.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run([promtool, "check", "rules", file], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert set().union(*map(metrics_in, exprs)) <= known(objects, need)


@pytest.mark.parametrize("release", ["24.10", "26.07"])
@pytest.mark.parametrize("source", SOURCES)
def test_every_rule_reads_metrics_that_exist(need, objects, source: str, release: str) -> None:
    values = (*SOURCES[source], f"triton.image.release={release}")
    rules = [rule for group in groups_of(render(need, *values)) for rule in group["rules"]]
    read = set().union(*(metrics_in(rule["expr"]) for rule in rules))
    assert read <= known(objects, need)


def test_the_dashboard_shows_every_signal(objects) -> None:
    shown = set().union(*map(metrics_in, panel_exprs()))
    assert set(rules_of(objects, "record")) - shown == set()


def test_the_dashboard_has_no_address_and_no_place_of_its_own() -> None:
    text = DASHBOARD.read_text("utf-8")
    assert "http" not in text
    board = json.loads(text)
    for panel in board["panels"]:
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] == "${datasource}"
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))


def test_the_config_map_holds_the_dashboard_as_it_is(objects) -> None:
    config = of_kind(objects, "ConfigMap")["x-wanwu-dashboard"]
    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(config["data"]["wanwu.json"]) == json.loads(DASHBOARD.read_text("utf-8"))


@pytest.mark.parametrize("component", ["triton", "gateway"])
def test_a_monitor_selects_the_pods_of_its_component(objects, component: str) -> None:
    monitor = of_kind(objects, "PodMonitor")[f"x-wanwu-{component}"]
    wanted = monitor["spec"]["selector"]["matchLabels"]
    assert wanted["app.kubernetes.io/component"] == component
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert (endpoint["port"], endpoint["interval"]) == ("metrics", "15s")


def test_a_scrape_may_not_take_longer_than_the_time_to_the_next(need) -> None:
    objects = render(need, "monitoring.scrapeIntervalSeconds=5")
    for monitor in of_kind(objects, "PodMonitor").values():
        assert monitor["spec"]["podMetricsEndpoints"][0]["scrapeTimeout"] == "5s"


def test_prometheus_finds_every_object_by_the_labels_of_the_values(objects) -> None:
    found = of_kind(objects, "PodMonitor") | of_kind(objects, "PrometheusRule")
    assert len(found) == 6
    for each in found.values():
        assert each["metadata"]["labels"]["prometheus"] == "main"
        assert each["metadata"]["namespace"] == "shop"


def test_rules_look_for_the_job_that_the_monitor_makes(need, objects) -> None:
    for name in of_kind(objects, "PodMonitor"):
        job = f'job="shop/{name}"'
        exprs = [rule["expr"] for group in groups_of(objects) for rule in group["rules"]]
        assert any(job in expr for expr in exprs), job


def test_without_the_gateway_nothing_of_it_is_watched(need) -> None:
    objects = render(need, "gateway.enabled=false")
    assert set(of_kind(objects, "PodMonitor")) == {"x-wanwu-triton"}
    read = set().union(*(metrics_in(r["expr"]) for g in groups_of(objects) for r in g["rules"]))
    assert not [each for each in read if each.startswith("wanwu_gateway")]


def test_on_cpus_no_gpu_is_watched(need, tmp_path: Path) -> None:
    assert "gpu" not in write_rules(need, tmp_path, "triton.profile=cpu").file.read_text().lower()


def test_without_monitoring_there_is_none_of_it(need) -> None:
    values = ("monitoring.enabled=false", "autoscaling.driver=none")
    objects = render(need, *values, shown=(), served=OPERATOR)
    assert objects
    assert not WATCHED & {each["kind"] for each in objects}


@pytest.mark.parametrize(
    ("served", "kinds"), [((), set()), (OPERATOR[:1], set()), (OPERATOR, WATCHED)]
)
def test_by_default_there_is_monitoring_where_the_operator_is(need, served, kinds) -> None:
    objects = render(need, "monitoring.enabled=auto", shown=(), served=served)
    assert WATCHED & {each["kind"] for each in objects} == kinds
    dashboards = [name for name in of_kind(objects, "ConfigMap") if name.endswith("-dashboard")]
    assert bool(dashboards) == bool(kinds)


def test_the_dashboard_can_be_left_out(need) -> None:
    objects = render(need, "monitoring.dashboard=false")
    assert of_kind(objects, "PodMonitor")
    assert not of_kind(objects, "ConfigMap")
