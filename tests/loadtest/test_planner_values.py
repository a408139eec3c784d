from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from wanwu import InputError
from wanwu_loadtest.planner import ChartValues, chart_values, read_values
from wanwu_loadtest.planner.behavior import Kind, Policy
from wanwu_loadtest.planner.hpa import ExternalAverage, ExternalValue, PodsMetric, PodValues
from wanwu_loadtest.planner.signals import Recorded, chart_metrics

CHART = Path(__file__).parents[2] / "helm" / "wanwu"
PATHS = {each.metadata["path"]: each for each in fields(ChartValues) if each.metadata}
RECORDED = Recorded(p95_ms=120.5, queue_ms=3.25, gpu=0.6, measured=4)


def charts_own(path: str) -> Any:
    found = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    for key in path.split("."):
        found = found[key]
    return tuple(found) if isinstance(found, list) else found


@pytest.mark.parametrize("path", PATHS)
def test_a_default_is_the_charts(path: str) -> None:
    assert PATHS[path].default == charts_own(path)


def test_the_behavior_is_that_of_the_charts_template() -> None:
    template = (CHART / "templates" / "triton" / "_scaling.tpl").read_text(encoding="utf-8")
    written = [
        "{type: Percent, value: {{ int .scaleUpPercent }}, periodSeconds: 60}",
        "{type: Pods, value: {{ int .scaleUpPods }}, periodSeconds: 60}",
        "{type: Percent, value: {{ int .scaleDownPercent }}, periodSeconds: 60}",
    ]
    places = [template.index(each) for each in written]
    assert places == sorted(places)
    assert (template.count("type:"), template.count("selectPolicy: Max")) == (3, 2)


def test_values_drive_the_behavior() -> None:
    behavior = chart_values(
        {
            "autoscaling": {
                "scaleUpPercent": 80,
                "scaleUpPods": 7,
                "scaleDownPercent": 25,
                "scaleDownStabilizationSeconds": 60,
            }
        }
    ).behavior
    assert behavior.up.policies == (Policy(Kind.PERCENT, 80, 60), Policy(Kind.PODS, 7, 60))
    assert behavior.down.policies == (Policy(Kind.PERCENT, 25, 60),)
    assert (behavior.up.stabilization_s, behavior.down.stabilization_s) == (0, 60)


def test_prometheus_adapter_has_the_gpu_a_pod_and_latencies_of_all() -> None:
    values = chart_values({"autoscaling": {"driver": "prometheus-adapter", "queueMs": 12.5}})
    assert chart_metrics(values, RECORDED, status=7, ready=4, pending=1) == [
        PodsMetric(PodValues(2400, 4, missing=2, unready=1), 700),
        ExternalValue(120_500, 150_000),
        ExternalValue(3250, 12_500),
    ]


def test_keda_has_the_sum_of_the_gpus() -> None:
    values = chart_values({"autoscaling": {"driver": "keda"}})
    metrics = chart_metrics(values, RECORDED, status=7, ready=4, pending=1)
    assert metrics[0] == ExternalAverage(2400, 700)


def test_cpu_nodes_scale_without_a_gpu() -> None:
    values = chart_values({"triton": {"profile": "cpu"}})
    metrics = chart_metrics(values, RECORDED, status=4, ready=4, pending=0)
    assert [type(each) for each in metrics] == [ExternalValue, ExternalValue]
    assert values.gpus == 0


@pytest.mark.parametrize(("profile", "p95_ms"), [("gpu", 150), ("cpu", 300)])
def test_without_a_p95_the_profiles_is_held_as_the_chart_has_it(
    profile: str, p95_ms: float
) -> None:
    values = chart_values({"triton": {"profile": profile}, "autoscaling": {"p95Ms": 0}})
    assert values.p95_ms == p95_ms
    template = (CHART / "templates" / "triton" / "_scaling.tpl").read_text(encoding="utf-8")
    assert '(ternary 150 300 (eq .Values.triton.profile "gpu"))' in template


def test_a_sign_of_load_is_the_charts() -> None:
    tree = {"triton": {"batching": {"queueDelayUs": 2000}}, "autoscaling": {"queueMs": 40}}
    assert chart_values(tree).load_ms == 12


def test_a_rate_is_over_four_scrapes_at_least() -> None:
    assert chart_values({"monitoring": {"scrapeIntervalSeconds": 30}}).window_s == 120


def test_a_later_file_wins_as_helm_has_it(tmp_path: Path) -> None:
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text("autoscaling: {driver: keda, maxReplicas: 30}\ntriton: {gpu: {count: 2}}\n")
    second.write_text(
        "autoscaling: {maxReplicas: 40}\ntriton: {batching: {queueTimeoutUs: 5.0e+6}}\n"
    )
    values = read_values([first, second])
    assert (values.driver, values.max_replicas, values.gpu_count) == ("keda", 40, 2)
    assert values.queue_timeout_us == 5_000_000
    assert "autoscaling.maxReplicas" in values.given
    assert "autoscaling.minReplicas" not in values.given


@pytest.mark.parametrize("path", sorted((CHART / "ci").glob("*.yaml")))
def test_every_example_of_the_chart_is_read(path: Path) -> None:
    assert read_values([CHART / "values.yaml", path]).given


def test_values_of_a_chart_that_has_this_one_as_a_part_are_read() -> None:
    assert chart_values({"global": {"region": "cn"}}).driver == "prometheus-adapter"


def test_an_example_says_what_it_says() -> None:
    values = read_values([CHART / "ci" / "gpu-values.yaml"])
    assert (values.driver, values.preferred_batch_sizes) == ("prometheus-adapter", (8, 16, 32))


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"autoscaling": {"driver": "vpa"}}, "autoscaling.driver is 'vpa'; expected one of prom"),
        ({"autoscaling": {"minReplicas": 0}}, "minReplicas is 0; expected a whole number of at"),
        ({"autoscaling": {"minReplicas": None}}, "minReplicas is None; expected a whole number"),
        ({"autoscaling": {"p95Ms": "150"}}, "p95Ms is '150'; expected a number of at least"),
        ({"autoscaling": {"queueMs": True}}, "queueMs is True; expected a number"),
        ({"autoscaling": {"minReplicas": 11}}, "minReplicas is 11 and autoscaling.maxReplicas 10"),
        ({"autoscaling": 3}, "autoscaling is 3; expected a map"),
        (
            {"autoscaling": {"maxReplica": 9}},
            r"no value autoscaling.maxReplica; did you mean autoscaling.maxReplicas\?",
        ),
        ({"autoscalling": {"maxReplicas": 9}}, "no value autoscalling;"),
        ({"gateway": {"ingress": {"hosts": ["a"]}}}, "no value gateway.ingress.hosts"),
        ({"triton": {"latencyBucketsMs": 5}}, "latencyBucketsMs is 5; expected a list of whole"),
    ],
)
def test_a_wrong_value_is_told_with_its_path(tree: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        chart_values(tree)


@pytest.mark.parametrize(
    ("text", "message"),
    [("[1]", "holds a list; expected values"), ("a: [", "is no YAML"), (None, "cannot be read")],
)
def test_a_file_that_holds_no_values(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "values.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_values([path])
