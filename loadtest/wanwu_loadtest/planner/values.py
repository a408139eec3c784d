"""The chart's values that decide capacity, with the chart's defaults: a wheel brings no chart."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field, fields
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from wanwu.catalog import Message
from wanwu.errors import InputError
from wanwu_loadtest.planner.behavior import Behavior, Kind, Policy, Rules

DRIVERS = ("prometheus-adapter", "keda", "none")
PROFILES = ("gpu", "cpu")
#: Kubernetes' HPA looks at its metrics this often, seconds.
SYNC_S = 15
#: What autoscaling.p95Ms is by profile where it is 0, milliseconds.
P95_MS = {"gpu": 150, "cpu": 300}


def _value(path: str, default: Any, least: float | None = None) -> Any:
    return field(default=default, metadata={"path": path, "least": least})


def _numbers(path: str, default: tuple[int, ...]) -> Any:
    return field(default=default, metadata={"path": path, "least": 1})


@dataclass(frozen=True)
class ChartValues:
    """Values of helm/wanwu by their paths; units are in the names.

    `given` are the paths that a values file has set. A `p95_ms` of 0 becomes the profile's.
    """

    driver: str = _value("autoscaling.driver", "prometheus-adapter")
    min_replicas: int = _value("autoscaling.minReplicas", 2, 1)
    max_replicas: int = _value("autoscaling.maxReplicas", 10, 1)
    gpu_utilization: float = _value("autoscaling.gpuUtilization", 0.7, 0)
    p95_ms: float = _value("autoscaling.p95Ms", 0, 0)
    queue_ms: float = _value("autoscaling.queueMs", 20, 0.001)
    scale_up_percent: int = _value("autoscaling.scaleUpPercent", 100, 1)
    scale_up_pods: int = _value("autoscaling.scaleUpPods", 4, 1)
    scale_down_stabilization_s: int = _value("autoscaling.scaleDownStabilizationSeconds", 300, 0)
    scale_down_percent: int = _value("autoscaling.scaleDownPercent", 10, 1)
    scrape_interval_s: int = _value("monitoring.scrapeIntervalSeconds", 15, 1)
    rate_window_s: int = _value("monitoring.rateWindowSeconds", 60, 1)
    profile: str = _value("triton.profile", "gpu")
    replicas: int = _value("triton.replicas", 2, 1)
    gpu_count: int = _value("triton.gpu.count", 1, 0)
    max_batch_size: int = _value("triton.batching.maxBatchSize", 0, 0)
    preferred_batch_sizes: tuple[int, ...] = _numbers("triton.batching.preferredBatchSizes", ())
    queue_delay_us: int = _value("triton.batching.queueDelayUs", 1000, 0)
    max_queue_size: int = _value("triton.batching.maxQueueSize", 512, 0)
    queue_timeout_us: int = _value("triton.batching.queueTimeoutUs", 10_000_000, 0)
    latency_buckets_ms: tuple[int, ...] = _numbers(
        "triton.latencyBucketsMs",
        (5, 10, 25, 50, 75, 100, 150, 200, 300, 500, 750, 1000, 2000, 5000, 10000),
    )
    pre_stop_s: int = _value("triton.preStopSeconds", 35, 0)
    exit_timeout_s: int = _value("triton.exitTimeoutSeconds", 30, 0)
    startup_s: int = _value("triton.startupSeconds", 900, 1)
    given: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        """Take the profile's P95 where none is set."""
        if not self.p95_ms:
            object.__setattr__(self, "p95_ms", P95_MS[self.profile])

    @property
    def largest_batch(self) -> int:
        """Most pictures in an execution."""
        return self.max_batch_size or (64 if self.profile == "gpu" else 4)

    @property
    def load_ms(self) -> float:
        """Mean time in the queue that is a sign of load, milliseconds, as the chart has it."""
        return self.queue_delay_us / 1000 + self.queue_ms / 4

    @property
    def window_s(self) -> int:
        """Seconds that rates are over, as the recording rules have it."""
        return max(self.rate_window_s, 4 * self.scrape_interval_s)

    @property
    def behavior(self) -> Behavior:
        """How fast the chart lets Triton's pods come and go."""
        up = (
            Policy(Kind.PERCENT, self.scale_up_percent, 60),
            Policy(Kind.PODS, self.scale_up_pods, 60),
        )
        down = (Policy(Kind.PERCENT, self.scale_down_percent, 60),)
        return Behavior(Rules(up), Rules(down, self.scale_down_stabilization_s))

    @property
    def gpus(self) -> int:
        """GPUs of a pod; 0 on CPU nodes, and 1 where a resource claim asks for it."""
        return max(1, self.gpu_count) if self.profile == "gpu" else 0


def read_values(paths: list[Path]) -> ChartValues:
    """Read values files over the chart's defaults, as helm does: a later file wins.

    Raises:
        InputError: a file is missing or is no YAML of values, or a value cannot be used.
    """
    tree: dict[str, Any] = {}
    for path in paths:
        tree = _merged(tree, _read(path))
    return chart_values(tree)


def chart_values(tree: dict[str, Any]) -> ChartValues:
    """Give the chart's values with those of a tree over them.

    Raises:
        InputError: a value cannot be used, or the chart has none of its name.
    """
    _check_keys(tree)
    found: dict[str, Any] = {}
    given = set()
    for each in fields(ChartValues):
        path = each.metadata.get("path")
        if path is None:
            continue
        there, value = _look(tree, path)
        if there:
            given.add(path)
            found[each.name] = _checked(path, value, each.default, each.metadata["least"])
    values = ChartValues(**found, given=frozenset(given))
    _check_together(values)
    return values


def _read(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            "{0}: cannot be read: {1}; check the path", path, error.strerror
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(
            "{0} is no YAML: {1}; give a values file of the chart", path, error
        ) from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise InputError("{0} holds a {1}; expected values of the chart", path, type(tree).__name__)
    return tree


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    whole = dict(below)
    for key, value in above.items():
        before = whole.get(key)
        if isinstance(before, dict) and isinstance(value, dict):
            whole[key] = _merged(before, value)
        else:
            whole[key] = value
    return whole


@cache
def _chart_keys() -> frozenset[str]:
    """Give the paths of all the chart's values, which helm/generate.py writes."""
    text = resources.files(__package__).joinpath("chart_values.txt").read_text(encoding="utf-8")
    return frozenset(text.splitlines())


def _check_keys(tree: dict[str, Any], above: str = "") -> None:
    """Refuse a key that the chart does not have: planned without it, the plan would be another."""
    leaves = _chart_keys()
    for key, value in tree.items():
        path = f"{above}{key}"
        # The two of charts that have this one as a part.
        if path in leaves or path in ("global", "enabled"):
            continue
        if not any(each.startswith(f"{path}.") for each in leaves):
            close = difflib.get_close_matches(path, leaves, 1)
            hint = Message("; did you mean {0}?", close[0]) if close else ";"
            raise InputError(
                "the chart has no value {0}{1} helm/wanwu/README.md lists them", path, hint
            )
        if isinstance(value, dict):
            _check_keys(value, f"{path}.")


def _look(tree: Any, path: str) -> tuple[bool, Any]:
    walked: list[str] = []
    for key in path.split("."):
        if not isinstance(tree, dict):
            where = ".".join(walked)
            raise InputError(
                "{0} is {1}; expected a map, as the chart's values.yaml has", where, repr(tree)
            )
        if key not in tree:
            return False, None
        tree = tree[key]
        walked.append(key)
    return True, tree


def _checked(path: str, value: Any, default: Any, least: float | None) -> Any:
    choices = {"autoscaling.driver": DRIVERS, "triton.profile": PROFILES}.get(path)
    if choices:
        if value not in choices:
            raise InputError(
                "{0} is {1}; expected one of {2}", path, repr(value), ", ".join(choices)
            )
        return value
    if isinstance(default, tuple):
        if not isinstance(value, list):
            raise InputError("{0} is {1}; expected a list of whole numbers", path, repr(value))
        return tuple(sorted(_number(path, each, True, 1) for each in value))
    # Ratios and latencies may have a fraction; counts and seconds may not.
    whole = not path.endswith(("gpuUtilization", "p95Ms", "queueMs"))
    return _number(path, value, whole, least or 0)


def _number(path: str, value: Any, whole: bool, least: float) -> Any:
    right = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    if isinstance(value, float) and whole and value.is_integer():
        value, right = int(value), True  # YAML reads 1e7 so
    if not right or not value >= least:
        kind = "a whole number" if whole else "a number"
        raise InputError(
            "{0} is {1}; expected {2} of at least {3}", path, repr(value), kind, f"{least:g}"
        )
    return value


def _check_together(values: ChartValues) -> None:
    if values.min_replicas > values.max_replicas:
        raise InputError(
            "autoscaling.minReplicas is {0} and autoscaling.maxReplicas {1}; the first must be at "
            "most the second",
            values.min_replicas,
            values.max_replicas,
        )
