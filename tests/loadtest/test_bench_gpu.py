"""The benchmark of a GPU: its page, its judgement, its time, and one dry run on the CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import onnxruntime
import pytest

from wanwu.embedded.cuda import CUDA

ROOT = Path(__file__).parents[2]
BENCH = ROOT / "loadtest" / "bench"
MACHINE = {"cpu": "a CPU", "cores": [0, 1], "python": "3.12.1"}


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The benchmark's modules find each other beside the script."""
    known = set(sys.modules)
    monkeypatch.syspath_prepend(BENCH)
    yield
    for name in set(sys.modules) - known:
        if getattr(sys.modules[name], "__file__", None) and str(BENCH) in str(
            sys.modules[name].__file__
        ):
            del sys.modules[name]


def report(gpu: str | None = "NVIDIA H100", best: float = 900.0):  # type: ignore[no-untyped-def]
    from gpu_page import FP16, Report
    from gpu_served import Cell
    from gpu_tower import Found, Speed

    speeds = [Speed(1, 10.0, 100.0), Speed(64, 64.0, 1000.0)]
    found = Report(gpu, "2026-11-27", MACHINE, towers={"ViT-B/16": {FP16: Found(speeds, 1, 2)}})
    for in_flight, rate in ((1, 90.0), (128, best)):
        found.served.append(
            Cell(
                size="ViT-B/16",
                precision="fp16",
                kind="pixels",
                labels=18,
                in_flight=in_flight,
                rate=rate,
                p50_ms=1.0,
                p95_ms=2.0,
                batches={32: 5, 64: 9},
                mean_batch=40.0,
                callers=1,
                caller_cores=1.0,
                server_cores=2.0,
                gpu_use_triton=0.5,
                gpu_use_smi=None,
                failures=[],
            )
        )
    return found


def test_the_committed_page_is_of_the_figures_beside_it() -> None:
    from gpu_page import NOT_RUN, page

    text = (ROOT / "docs" / "gpu-benchmark.md").read_text(encoding="utf-8")
    if NOT_RUN in text:
        assert text == page(None)
        return
    import msgspec
    from gpu_page import Report

    figures = (ROOT / "docs" / "gpu-benchmark.json").read_bytes()
    assert text == page(msgspec.json.decode(figures, type=Report))


@pytest.mark.parametrize(("best", "verdict"), [(900.0, "0.90, reached"), (700.0, "**missed**")])
def test_goals_are_judged_by_the_best_rate(best: float, verdict: str) -> None:
    from gpu_page import goals

    share, batches, alone = goals(report(best=best))
    assert verdict in share.verdict
    assert batches.reached == pytest.approx(best / 100)
    assert alone.reached == pytest.approx(best / 90)


def test_a_goal_without_its_figures_is_not_reached() -> None:
    from gpu_page import goals

    found = report()
    found.served.clear()
    assert {goal.verdict for goal in goals(found)} == {"not measured"}


def test_a_page_names_the_card_and_what_was_left_out() -> None:
    from gpu_page import page

    found = report()
    found.left_out.append("ViT-L/14: PyTorch fp16, compiled: no time left of 450 s")
    text = page(found)
    assert "NVIDIA H100\n" in text
    assert "| 900 | 1.0 | 2.0 | 40.0 | 64, 32 |" in text
    assert "* ViT-L/14: PyTorch fp16, compiled: no time left" in text
    assert "A dry run" not in text


def test_a_dry_run_reaches_no_goal() -> None:
    from gpu_page import page

    text = page(report(gpu=None))
    assert "**A dry run on the CPU provider" in text
    assert "reached" not in text


def test_a_part_without_time_is_left_out_and_a_part_that_fails_is_told(tmp_path: Path) -> None:
    from bench_gpu import QUICK, Bench

    def broken() -> None:
        raise RuntimeError("no memory")

    bench = Bench(QUICK, tmp_path, None, 10.0, report(), skip=["unwanted"])
    done: list[str] = []
    bench.part("unwanted part", 1.0, lambda: done.append("unwanted"))
    bench.part("long", 11.0, lambda: done.append("long"))
    bench.part("broken", 1.0, broken)
    bench.part("short", 1.0, lambda: done.append("short"))
    assert done == ["short"]
    assert bench.report.left_out == [
        "unwanted part: by --skip",
        "long: no time left of 10 s",
        "broken: RuntimeError: no memory",
    ]


@pytest.mark.timeout(600)
@pytest.mark.skipif(CUDA in onnxruntime.get_available_providers(), reason="it would take the GPU")
def test_a_dry_run_measures_every_part_and_writes_nothing_into_docs(tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (ROOT / "docs").iterdir()}
    # Compiling takes minutes on two cores.
    options = ["--quick", "--skip", "compiled", "--output", str(tmp_path)]
    command = [sys.executable, str(BENCH / "bench_gpu.py"), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {path: path.stat().st_mtime_ns for path in (ROOT / "docs").iterdir()} == before
    found = json.loads((tmp_path / "gpu-benchmark.json").read_text())
    assert found["gpu"] is None
    assert found["left_out"] == ["small: PyTorch fp16, compiled: by --skip"]
    assert len(found["served"]) == 6
    assert all(cell["rate"] > 0 and not cell["failures"] for cell in found["served"])
    engines = {"onnxruntime fp16", "onnxruntime fp32", "PyTorch fp16, eager"}
    assert engines <= set(found["towers"]["small"])
    assert found["cosines"]["small"]["onnxruntime fp16"] > 0.99
