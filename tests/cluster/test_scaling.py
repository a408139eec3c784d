"""The number of pods over a scaler's switch, and over an upgrade."""

from __future__ import annotations

import time

import pytest

from cluster.release import Cluster

SCALED = (
    *("--set", "autoscaling.driver=prometheus-adapter", "--set", "autoscaling.minReplicas=2"),
    *("--set", "gateway.autoscaling.enabled=true", "--set", "gateway.autoscaling.minReplicas=2"),
)
UNSCALED = (
    *("--set", "autoscaling.driver=none", "--set", "triton.replicas=3"),
    *("--set", "gateway.autoscaling.enabled=false", "--set", "gateway.replicas=3"),
    *("--set", "gateway.audit.mode=stdout"),
)


@pytest.mark.parametrize("component", ["triton", "gateway"])
def test_turning_a_scaler_on_keeps_every_pod(installed: Cluster, component: str) -> None:
    name = f"wanwu-{component}"
    installed.upgrade(*UNSCALED)
    made = ("--for=jsonpath={.status.replicas}=3", "--timeout=2m")
    installed.kubectl("wait", f"deployment/{name}", *made)
    before = installed.pods(component)
    assert len(before) == 3
    installed.upgrade(*SCALED)
    assert installed.deployment(name)["spec"]["replicas"] == 3
    time.sleep(10)  # by then the controller would have ended those that are too many
    assert installed.pods(component) == before


@pytest.mark.parametrize("component", ["triton", "gateway"])
def test_an_upgrade_keeps_the_number_that_a_scaler_chose(
    installed: Cluster, component: str
) -> None:
    name = f"wanwu-{component}"
    installed.upgrade(*SCALED)
    installed.kubectl("scale", f"deployment/{name}", "--replicas=4")
    installed.upgrade(*SCALED, "--set", "triton.batching.queueDelayUs=3456")
    assert installed.deployment(name)["spec"]["replicas"] == 4
