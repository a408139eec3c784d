from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from loadtest.planner_files import results, write
from wanwu import InputError
from wanwu.cli import app
from wanwu_loadtest.planner import (
    Answer,
    ChartValues,
    Price,
    Question,
    Traffic,
    answer,
    chart_values,
)


@pytest.fixture(autouse=True)
def _in_english(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANWU_LANG", "en")


def plan(*options: str) -> Result:
    return CliRunner().invoke(app, ["plan", *options])


def answered(*rates: float, values: ChartValues | None = None, **changes: object) -> Answer:
    traffic = Traffic(
        datetime(2026, 1, 1), False, np.arange(len(rates)) * 3600.0, np.array(rates, dtype=float)
    )
    values = values or chart_values({"autoscaling": {"driver": "prometheus-adapter"}})
    asked: dict[str, object] = {"p95_ms": 50.0, "pod_start_s": 60.0, **changes}
    measured = asked.pop("results", results())
    return answer(Question(measured, traffic, values, **asked))  # type: ignore[arg-type]


def test_each_hour_has_the_pods_of_its_peak_and_those_of_a_node_more() -> None:
    answer = answered(100, 3000, 100, pods_per_node=3)
    rate = answer.plan.rate
    assert answer.surface.percentile_ms(rate) <= 50.01
    assert [each.replicas for each in answer.plan.hours] == 2 * [int(np.ceil(3000 / rate))]
    assert answer.plan.hours[0].with_spare == answer.plan.hours[0].replicas + 3


def test_a_pod_is_planned_for_no_more_than_it_was_measured_to_keep_up_with() -> None:
    assert answered(100, 100, p95_ms=5000.0).plan.rate == pytest.approx(800)
    other = chart_values({"triton": {"batching": {"maxBatchSize": 16}}})
    loose = answered(100, 100, p95_ms=5000.0, values=other)
    assert loose.plan.rate == pytest.approx(0.9 * loose.surface.capacity)


def test_cost_is_that_of_all_gpus() -> None:
    values = chart_values(
        {"triton": {"gpu": {"count": 2}, "replicas": 3}, "autoscaling": {"driver": "none"}}
    )
    answer = answered(100, 100, values=values, price=Price(10.0, "CNY"))
    assert answer.outcome.pod_hours == pytest.approx(3)
    assert answer.cost == pytest.approx(60)
    assert answer.plan.static_cost == pytest.approx(2 * 10 * answer.plan.peak_replicas)


@pytest.mark.parametrize(("measured", "expected"), [({}, 900), ({"pod_start_s": "45"}, 45)])
def test_a_pod_starts_as_measured_or_as_late_as_the_chart_allows(
    measured: dict[str, str], expected: float
) -> None:
    traffic = Traffic(datetime(2026, 1, 1), False, np.array([0.0, 60.0]), np.array([1.0, 1.0]))
    asked = Question(results(options=measured), traffic, ChartValues(), p95_ms=50)
    assert answer(asked).scenario.pod_start_s == expected


def test_a_sweep_finds_that_a_gpu_may_be_busier_when_the_p95_is_watched() -> None:
    swept = answered(100, 1500, 100).sweep()
    best = swept.best
    assert best
    assert best.values.gpu_utilization > 0.7
    assert best.pod_hours < swept.chart.pod_hours
    costs = [each.pod_hours for each in swept.trials if each.meets]
    assert costs == sorted(costs)
    better = {each.path: each.best for each in swept.findings()}
    assert better["autoscaling.gpuUtilization"] == best.values.gpu_utilization


def test_plan_prints_a_table_and_what_to_change(tmp_path: Path) -> None:
    done = plan(*write(tmp_path, 100, 12_000), "--p95-ms", "50", "--price-per-hour", "8")
    assert done.exit_code == 0, done.output
    assert "one pod keeps a P95 of 50 ms up to" in done.output
    assert "08:00" in done.output
    assert "CNY" in done.output
    assert "autoscaling.maxReplicas is 10 and the peak needs" in done.output
    assert "a pod's start is taken as 900 s, the most the chart allows" in done.output


def test_a_target_that_an_idle_pod_misses_is_told(tmp_path: Path) -> None:
    values = tmp_path / "mine.yaml"
    values.write_text("autoscaling: {driver: keda, p95Ms: 3}\n")
    done = plan(*write(tmp_path, 10, 10), "--p95-ms", "50", "--values", str(values))
    assert "autoscaling.p95Ms is 3 and the P95 of an idle pod is" in done.output


def test_plan_writes_a_picture_and_each_tick(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    done = plan(*write(tmp_path, 100, 900, 100), "--p95-ms", "50", "--out", str(out))
    assert done.exit_code == 0, done.output
    with Image.open(out / "plan.png") as picture:
        assert min(picture.size) > 1000
    written = json.loads((out / "plan.json").read_text())
    assert len(written["series"]["p95_ms"]) == 7200 / 5
    assert [each["hour"] for each in written["hours"]] == ["08:00", "09:00"]


def test_plan_as_json_has_the_hours_and_the_sweep(tmp_path: Path) -> None:
    options = write(tmp_path, 100, 900)
    done = plan(*options, "--p95-ms", "50", "--pod-start-s", "30", "--json", "--sweep")
    found = json.loads(done.output)
    assert found["hours"][0]["replicas_with_spare"] == found["hours"][0]["replicas"] + 1
    assert found["simulation"]["driver"] == "prometheus-adapter"
    assert found["sweep"]["trials"][0]["meets"] is True
    assert "series" not in found


def test_values_drive_the_simulated_scaler(tmp_path: Path) -> None:
    values = tmp_path / "mine.yaml"
    values.write_text("autoscaling: {driver: keda, minReplicas: 4, maxReplicas: 5}\n")
    options = write(tmp_path, 5000, 5000)
    done = plan(*options, "--p95-ms", "50", "--values", str(values), "--json")
    simulated = json.loads(done.output)["simulation"]
    assert (simulated["driver"], simulated["most_replicas"]) == ("keda", 5)


def test_faults_are_injected(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("autoscaling: {driver: none}\n")
    options = [*write(tmp_path, 700, 700), "--p95-ms", "50", "--pod-start-s", "600", "--json"]
    options += ["--values", str(tmp_path / "mine.yaml")]
    calm, lost, slow = (
        json.loads(plan(*options, *more).output)["simulation"]["rejected"]
        for more in ([], ["--lost-node-at", "0.5", "--pods-per-node", "2"], ["--slow-pod-at", "0"])
    )
    assert calm == 0
    assert lost == pytest.approx(700 * 615, rel=0.01)
    assert slow > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--p95-ms", "3"], "--p95-ms is 3 and the P95 of a pod that is nearly idle is"),
        (["--p95-ms", "0"], "--p95-ms is 0; expected more than 0"),
        (["--p95-ms", "50", "--values", "none.yaml"], "none.yaml: cannot be read"),
    ],
)
def test_what_cannot_be_planned_is_refused(
    tmp_path: Path, options: list[str], message: str
) -> None:
    error = plan(*write(tmp_path, 1, 2), *options).exception
    assert isinstance(error, InputError)
    assert message in str(error)


def test_a_sweep_needs_a_scaler(tmp_path: Path) -> None:
    values = tmp_path / "mine.yaml"
    values.write_text("autoscaling: {driver: none}\n")
    options = [*write(tmp_path, 1, 2), "--p95-ms", "50", "--values", str(values)]
    assert "autoscaling.driver is none" in str(plan(*options, "--sweep").exception)


def test_results_of_something_else_are_refused(tmp_path: Path) -> None:
    options = write(tmp_path, 1, 2)
    (tmp_path / "R.json").write_text("{}")
    error = plan(*options, "--p95-ms", "50").exception
    assert "holds no results of a load test" in str(error)


def test_a_load_that_no_rate_kept_up_with_is_refused() -> None:
    total = msgspec.structs.replace(results().total, errors=30)
    with pytest.raises(InputError, match=r"30 of the load's 500 requests failed.*--shape steps"):
        answered(100, results=results(knee=None, total=total))
