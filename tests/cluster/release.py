"""A release of the chart in a namespace of a real cluster, and what a test does to it."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "wanwu"
KINDS = "deployments,statefulsets,services,configmaps,secrets,serviceaccounts,poddisruptionbudgets"
KINDS += ",networkpolicies,horizontalpodautoscalers,ingresses,pods,jobs,roles,rolebindings"
#: Without values of one's own, the objects are made and their images are nowhere.
VALUES = os.environ.get("VALUES")
NOWHERE = (
    *("--set", "imageRegistry=registry.example.internal", "--set", "gateway.auth.keysSecret=keys"),
    *("--set", "repository.pvc.claimName=models", "--set", "triton.profile=cpu"),
)
BASE = ("-f", VALUES) if VALUES else NOWHERE


@dataclass(frozen=True)
class Cluster:
    """A namespace of a cluster."""

    namespace: str

    def kubectl(self, *arguments: str, given: str = "", check: bool = True) -> str:
        return run("kubectl", "-n", self.namespace, *arguments, given=given, check=check)

    def helm(self, *arguments: str, check: bool = True) -> str:
        return run("helm", "-n", self.namespace, *arguments, check=check)

    def upgrade(self, *values: str) -> None:
        self.helm("upgrade", "--install", "wanwu", str(CHART), *BASE, *values)

    def objects(self) -> list[dict[str, Any]]:
        """Return what there is of the release, of every kind that a chart makes."""
        chosen = ("-l", "app.kubernetes.io/instance=wanwu", "-o", "json")
        items: list[dict[str, Any]] = json.loads(self.kubectl("get", KINDS, *chosen))["items"]
        return items

    def deployment(self, name: str = "wanwu-triton") -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.kubectl("get", "deployment", name, "-o", "json"))
        return found

    def pods(self, component: str) -> set[str]:
        """Return the names of a component's pods that are not about to end."""
        chosen = f"app.kubernetes.io/instance=wanwu,app.kubernetes.io/component={component}"
        found = json.loads(self.kubectl("get", "pods", "-l", chosen, "-o", "json"))["items"]
        return {
            each["metadata"]["name"]
            for each in found
            if "deletionTimestamp" not in each["metadata"]
        }

    def follow(self, heading: str, *values: str, swapped: bool = False) -> None:
        """Run the commands of a section of docs/runbook.md, with these values at the upgrade.

        Args:
            heading: English part of the section's heading.
            values: arguments of helm that make the change.
            swapped: `deploy` and `sts` change places, which is the way back.
        """
        text = (ROOT / "docs" / "runbook.md").read_text("utf-8")
        section = text.split(f" · {heading}\n")[1].partition("\n## ")[0]
        lines = re.findall(r"^\$ (.+?)(?:    #.*)?$", section, re.MULTILINE)
        script = re.sub(r"\bNS\b", self.namespace, "\n".join(lines))
        script = re.sub(r"\b(upgrade|test) R\b", r"\1 wanwu", re.sub(r"\bX-", "wanwu-", script))
        mine = shlex.join((*BASE, *values))
        script = script.replace("-f model_repository/values.yaml -f mine.yaml", mine)
        if swapped:
            places = {"deploy": "sts", "sts": "deploy"}
            script = re.sub(r"\b(deploy|sts)\b", lambda found: places[found[1]], script)
        run("bash", "-euxc", script, timeout_s=3000)


def run(*command: str, given: str = "", check: bool = True, timeout_s: float = 1000) -> str:
    done = subprocess.run(
        command, input=given, capture_output=True, text=True, timeout=timeout_s, cwd=ROOT
    )
    assert not check or done.returncode == 0, f"{' '.join(command)}:\n{done.stdout}{done.stderr}"
    return done.stdout + ("" if done.returncode == 0 else done.stderr)
