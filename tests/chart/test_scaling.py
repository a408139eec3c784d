"""templates/triton/hpa.yaml and scaledobject.yaml: two scalers that mean the same, or none."""

from __future__ import annotations

import re

import pytest

from chart.rendering import ROOT, kinds, merged, nested, one

BOUNDS = {"minReplicas": 3, "maxReplicas": 7, "p95Ms": 200, "queueMs": 30, "gpuUtilization": 0.65}
ADAPTER = {
    "autoscaling": {"driver": "prometheus-adapter", **BOUNDS},
    "monitoring": {"enabled": True},
}
KEDA = merged(ADAPTER, nested("autoscaling.driver", "keda"))
CPU = nested("triton.profile", "cpu")


def hpa(objects) -> dict:
    return one(objects, "HorizontalPodAutoscaler", "-triton")["spec"]


def scaled_object(objects) -> dict:
    return one(objects, "ScaledObject")["spec"]


def triggers(objects) -> dict[str, dict]:
    return {each["name"]: each for each in scaled_object(objects)["triggers"]}


@pytest.mark.parametrize("values", [ADAPTER, KEDA], ids=["prometheus-adapter", "keda"])
def test_without_a_cluster_a_scaler_starts_from_its_least(render, values) -> None:
    objects = render(merged(values, nested("gateway.autoscaling.minReplicas", 3)))
    for name in ("-triton", "-gateway"):
        assert one(objects, "Deployment", name)["spec"]["replicas"] == 3


def test_by_default_gpu_utilization_p95_and_queue_scale_triton(render) -> None:
    signals = [each[each["type"].lower()]["metric"]["name"] for each in hpa(render())["metrics"]]
    assert signals == ["wanwu_gpu_utilization", "wanwu_p95_ms", "wanwu_queue_ms"]


def test_without_a_scaler_the_values_say_how_many(render) -> None:
    objects = render(merged(nested("triton.replicas", 5), nested("autoscaling.driver", "none")))
    assert one(objects, "Deployment", "-triton")["spec"]["replicas"] == 5
    assert "ScaledObject" not in kinds(objects)
    assert "HorizontalPodAutoscaler" not in kinds(objects, "triton")


def test_the_adapters_signals(render) -> None:
    gpu, p95, queue = hpa(render(ADAPTER))["metrics"]
    assert gpu["pods"] == {
        "metric": {"name": "wanwu_gpu_utilization"},
        "target": {"type": "AverageValue", "averageValue": "0.65"},
    }
    assert p95["external"]["metric"]["name"] == "wanwu_p95_ms"
    assert p95["external"]["target"] == {"type": "Value", "value": "200"}
    assert queue["external"]["metric"]["name"] == "wanwu_queue_ms"
    assert queue["external"]["metric"]["selector"] == {"matchLabels": {"release": "w"}}


def test_kedas_signals_are_the_adapters(render) -> None:
    found = triggers(render(KEDA))
    thresholds = {name: each["metadata"]["threshold"] for name, each in found.items()}
    assert thresholds == {"gpu": "0.65", "p95": "200", "queue": "30"}
    types = {name: each["metricType"] for name, each in found.items()}
    assert types == {"gpu": "AverageValue", "p95": "Value", "queue": "Value"}
    assert "wanwu_scaling_p95_ms{" in found["p95"]["metadata"]["query"]
    assert "wanwu_scaling_queue_ms{" in found["queue"]["metadata"]["query"]


@pytest.mark.parametrize("file", ["config.yaml", "values.yaml"])
def test_the_adapter_serves_the_series_that_keda_reads(render, file: str) -> None:
    rules = (ROOT / "k8s" / "prometheus-adapter" / file).read_text(encoding="utf-8")
    for each in ("p95", "queue"):
        series = re.findall(r"wanwu_\w+", triggers(render(KEDA))[each]["metadata"]["query"])[0]
        assert re.search(f"seriesQuery: '{series}{{.*\n.*\n *name: {{as: wanwu_{each}_ms}}", rules)


@pytest.mark.parametrize(("profile", "p95"), [("gpu", "150"), ("cpu", "300")])
def test_without_a_p95_the_profiles_is_held(render, profile: str, p95: str) -> None:
    by_profile = {"triton": {"profile": profile}, "autoscaling": {"p95Ms": 0}}
    external = hpa(render(merged(ADAPTER, by_profile)))["metrics"][-2]
    assert external["external"]["target"]["value"] == p95
    objects = render(merged(KEDA, by_profile))
    assert triggers(objects)["p95"]["metadata"]["threshold"] == p95
    (expr,) = (
        rule["expr"]
        for rule in one(objects, "PrometheusRule", "-recording")["spec"]["groups"][0]["rules"]
        if rule["record"] == "wanwu_scaling_p95_ms"
    )
    assert f"<= {p95}\n" in expr


def test_both_scalers_have_the_same_bounds_and_steps(render) -> None:
    adapter, keda = hpa(render(ADAPTER)), scaled_object(render(KEDA))
    bounds = (keda["minReplicaCount"], keda["maxReplicaCount"])
    assert (adapter["minReplicas"], adapter["maxReplicas"]) == bounds == (3, 7)
    assert adapter["behavior"] == keda["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]


def test_steps_up_are_capped_and_down_are_slow(render) -> None:
    values = merged(ADAPTER, {"autoscaling": {"scaleUpPercent": 40, "scaleDownPercent": 5}})
    behavior = hpa(render(values))["behavior"]
    assert behavior["scaleUp"]["policies"] == [
        {"type": "Percent", "value": 40, "periodSeconds": 60},
        {"type": "Pods", "value": 4, "periodSeconds": 60},
    ]
    assert behavior["scaleDown"]["stabilizationWindowSeconds"] == 300
    assert behavior["scaleDown"]["policies"][0]["value"] == 5


def test_keda_does_not_take_an_outage_for_idleness(render) -> None:
    objects = render(KEDA)
    for each in triggers(objects).values():
        assert each["metadata"]["ignoreNullValues"] == "false"
        assert "vector(0)" not in each["metadata"]["query"]
    fallback = scaled_object(objects)["fallback"]
    assert fallback["behavior"] == "currentReplicasIfHigher"
    assert fallback["replicas"] == 3


def test_each_query_has_one_answer_of_this_release(render) -> None:
    for each in triggers(render(KEDA)).values():
        query = each["metadata"]["query"]
        assert query.startswith(("sum(", "(max("))
        assert query.count('namespace="vision",release="w"') == query.count("{")


@pytest.mark.parametrize(("driver", "count"), [("prometheus-adapter", 2), ("keda", 2)])
def test_on_cpus_there_is_no_gpu_to_ask(render, driver, count) -> None:
    objects = render(merged(ADAPTER, CPU, nested("autoscaling.driver", driver)))
    if driver == "keda":
        # KEDA refuses a fallback that no AverageValue can carry out.
        assert "fallback" not in scaled_object(objects)
        assert list(triggers(objects)) == ["p95", "queue"]
    else:
        assert len(hpa(objects)["metrics"]) == count


@pytest.mark.parametrize("values", [ADAPTER, KEDA], ids=["prometheus-adapter", "keda"])
def test_a_gpu_that_others_use_too_can_be_no_signal(render, values) -> None:
    objects = render(merged(values, nested("autoscaling.gpuUtilization", 0)))
    if "ScaledObject" in kinds(objects):
        assert list(triggers(objects)) == ["p95", "queue"]
    else:
        assert [each["type"] for each in hpa(objects)["metrics"]] == ["External", "External"]


def test_keda_shows_a_protected_prometheus_who_it_is(render) -> None:
    reference = {"name": "thanos", "kind": "ClusterTriggerAuthentication"}
    auth = {"prometheusAuthModes": "bearer", "prometheusAuthenticationRef": reference}
    for each in triggers(render(merged(KEDA, {"autoscaling": auth}))).values():
        assert each["metadata"]["authModes"] == "bearer"
        assert each["authenticationRef"] == reference
    assert "authenticationRef" not in triggers(render(KEDA))["gpu"]


def test_keda_asks_the_prometheus_of_the_values(render) -> None:
    values = merged(KEDA, nested("autoscaling.prometheusUrl", "http://p:9"))
    addresses = {each["metadata"]["serverAddress"] for each in triggers(render(values)).values()}
    assert addresses == {"http://p:9"}
