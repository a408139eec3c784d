"""A real Triton with a full queue, by the chart's configs: its own metrics make the alarm ring."""

from __future__ import annotations

import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc

from chart.live import ChartServer, Machine, lay, secrets_of
from chart.rendering import merged, of_release, one
from chart.rules.promtool import between, firing, scraped, write_rules
from wanwu.embedded.server import ServerOptions, free_port

LIMIT, CALLERS, PAGES = 8, 40, 20
#: Each page of metrics stands for a scrape: 15 s of promtool's clock.
ENDS = f"{(PAGES - 1) * 15}s"


@pytest.fixture(scope="module")
def serving(
    render, model, repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ChartServer]:
    values = {"triton": {"profile": "cpu", "batching": {"maxQueueSize": LIMIT}}, "model": model}
    objects = render(merged(values, of_release("24.10")))
    folder = tmp_path_factory.mktemp("pod")
    assert lay(objects, repository, folder).returncode == 0
    machine = Machine(folder, secrets_of(objects), {"/models": folder / "models"})
    ports = {name: free_port() for name in ("grpc_port", "http_port", "metrics_port")}
    container = machine.container(one(objects, "Deployment", "-triton"))
    with ChartServer(ServerOptions(repository, **ports), container) as server:
        yield server


def call(url: str, size: tuple[int, int], stop: threading.Event, refused: list[str]) -> None:
    pixels = triton_grpc.InferInput("PIXELS", [1, *size, 3], "UINT8")
    pixels.set_data_from_numpy(np.zeros((1, *size, 3), np.uint8))
    with triton_grpc.InferenceServerClient(url) as client:
        while not stop.is_set():
            try:
                client.infer("image_encoder", [pixels])
            except triton_grpc.InferenceServerException as error:
                refused.append(str(error))
                time.sleep(0.02)


@pytest.fixture(scope="module")
def full(serving: ChartServer, model: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Pages of metrics while callers ask for more than the queue takes, and what was refused."""
    stop, refused, pages = threading.Event(), [], []
    size = (model["image"]["height"], model["image"]["width"])
    asked = (serving.url, size, stop, refused)
    callers = [threading.Thread(target=call, args=asked) for _ in range(CALLERS)]
    for caller in callers:
        caller.start()
    try:
        time.sleep(3)
        for _ in range(PAGES):
            time.sleep(0.3)
            url = f"http://127.0.0.1:{serving.options.metrics_port}/metrics"
            with urllib.request.urlopen(url) as answer:
                pages.append(answer.read().decode())
    finally:
        stop.set()
        for caller in callers:
            caller.join()
    return pages, refused


def test_triton_counts_none_of_what_its_full_queue_refuses(full) -> None:
    pages, refused = full
    assert len(refused) > CALLERS
    assert all("Exceeds maximum queue size" in each for each in refused)
    failures = scraped(pages, "nv_inference_request_failure")
    assert failures
    assert {value for values in failures.values() for value in values.split()} == {"0"}


def test_the_alarm_rings_by_what_waits_in_the_queue(full, need, tmp_path: Path) -> None:
    rules = write_rules(need, tmp_path, f"triton.batching.maxQueueSize={LIMIT}")
    pages, _ = full
    series = scraped(pages, "nv_inference_pending_request_count")
    failed = scraped(pages, "nv_inference_request_failure")
    succeeded = scraped(pages, "nv_inference_request_success")
    rules.play(
        series | failed | succeeded,
        (ENDS, between("wanwu_queue_fill{model='image_encoder'}", 0.9, 1.5), 1),
        (ENDS, "sum(wanwu_reject_ratio)", 0),
        (ENDS, firing("WanwuRequestsRejected"), 1),
    )
