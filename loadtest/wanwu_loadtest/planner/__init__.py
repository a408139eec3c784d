"""How many pods a traffic needs, and what the chart's scaler would make of it."""

from __future__ import annotations

from wanwu_loadtest.planner.answer import Answer, Question, answer
from wanwu_loadtest.planner.capacity import Plan, Price, make_plan
from wanwu_loadtest.planner.document import as_dict, write_json
from wanwu_loadtest.planner.picture import draw
from wanwu_loadtest.planner.pod import PodModel, pod_model
from wanwu_loadtest.planner.queue_model import Run, run_pod
from wanwu_loadtest.planner.simulation import Faults, Outcome, Scenario, simulate
from wanwu_loadtest.planner.surface import Surface, make_surface
from wanwu_loadtest.planner.sweep import Sweep, sweep
from wanwu_loadtest.planner.traffic import Traffic, read_traffic
from wanwu_loadtest.planner.values import ChartValues, chart_values, read_values

__all__ = [
    "Answer",
    "ChartValues",
    "Faults",
    "Outcome",
    "Plan",
    "PodModel",
    "Price",
    "Question",
    "Run",
    "Scenario",
    "Surface",
    "Sweep",
    "Traffic",
    "answer",
    "as_dict",
    "chart_values",
    "draw",
    "make_plan",
    "make_surface",
    "pod_model",
    "read_traffic",
    "read_values",
    "run_pod",
    "simulate",
    "sweep",
    "write_json",
]
