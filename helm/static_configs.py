"""Renders the model repository's configs for CPU and GPU nodes out of the chart's templates."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).parents[1] / "model_repository"
CONFIG_MAP = "templates/triton/configmap.yaml"
#: Profile: its nodes, and the values that differ from the chart's.
PROFILES = {
    "cpu": ("CPU nodes, at a CPU limit of 2", {"resources": {"limits": {"cpu": 2}}}),
    "gpu": ("GPU nodes", {}),
}
HEADER = """\
# {nodes}. Written by `make chart-docs` from the chart's defaults and
# helm/wanwu/templates/triton/_config.tpl: change those.
"""


def static_configs(chart: Path) -> dict[Path, str]:
    """Return every model's configs/cpu.pbtxt and configs/gpu.pbtxt, as they should be.

    Raises:
        SystemExit: helm is missing, or refuses the chart.
    """
    return {
        REPOSITORY / name.removesuffix(".pbtxt") / "configs" / f"{profile}.pbtxt": (
            HEADER.format(nodes=nodes) + text.rstrip("\n") + "\n"
        )
        for profile, (nodes, values) in PROFILES.items()
        for name, text in _rendered(chart, {"profile": profile, **values}).items()
        if name.endswith(".pbtxt")
    }


def _rendered(chart: Path, triton: dict[str, object]) -> dict[str, str]:
    helm = shutil.which("helm")
    if helm is None:
        sys.exit(
            "no helm on the PATH, which renders model_repository/*/configs: install helm 4 or 3"
        )
    values = {
        "imageRegistry": "registry.example.internal",
        "repository": {"pvc": {"claimName": "models"}},
        "gateway": {"enabled": False},
        # The oldest release that is served: it lacks the histogram that newer ones are rendered.
        "triton": {
            "image": {"release": "24.10"},
            "acceptKnownVulnerabilities": True,
            **triton,
        },
    }
    # The schema is written from the same values.yaml, and may be older here.
    command = [helm, "template", "static", str(chart), "--skip-schema-validation", "--values=-"]
    done = subprocess.run(  # noqa: S603
        [*command, f"--show-only={CONFIG_MAP}"],
        input=yaml.safe_dump(values),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(f"helm cannot render {chart / CONFIG_MAP}: {done.stderr}")
    data: dict[str, str] = yaml.safe_load(done.stdout)["data"]
    return data
