"""The machine that the benchmark ran on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version

from wanwu_loadtest.machine import processor

PACKAGES = (
    "wanwu",
    "nvidia-pytriton",
    "onnxruntime",
    "tritonclient",
    "numpy",
    "numkong",
    "aiohttp",
)


def describe() -> dict[str, object]:
    """Give the processor, cores in use, memory and versions."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu": processor(),
        "cores": sorted(os.sched_getaffinity(0)),
        "memory_gb": round(pages / 1e9, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0],
        "packages": {name: _version(name) for name in PACKAGES},
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
