"""Locust drives a real Triton, and a real gateway."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from wanwu.embedded.server import EmbeddedServer, free_port

QUICK = ("--run-time", "4s", "--rate", "10", "--shape", "constant", "--steps", "2")


def test_a_load_is_answered_and_reported(server: EmbeddedServer, load: Any) -> None:
    done = load("--host", server.url, *QUICK, "--mix", "single=4,batch=1,labels=2")
    assert done.code == 0, done.text
    results = done.results
    assert results.total.errors == 0
    assert results.total.sent == pytest.approx(40, rel=0.5)
    assert results.total.pictures > results.total.sent
    assert results.model
    assert [window.name for window in results.windows] == ["part 1", "part 2"]
    with Image.open(done.folder / "latency.png") as picture:
        assert picture.width > 1000
    page = (done.folder / "report.html").read_text()
    assert "The objectives were met." in page
    assert "http://" not in page.replace(f"http://{server.url}", "")


def test_tritons_own_counts_agree_with_the_senders(server: EmbeddedServer, load: Any) -> None:
    done = load("--host", server.url, *QUICK, "--decode", "once")
    total, service = done.results.total, done.results.service
    # Each stream asks once before the load.
    assert total.pictures <= total.server.pictures <= total.pictures + 1
    assert total.server.queue_ms + total.server.compute_ms <= total.server.request_ms
    assert total.server.request_ms <= total.call.mean_ms <= total.latency.mean_ms
    assert service.instances == 2
    assert sum(each.count for each in service.batches) == total.server.executions


def test_a_pause_of_the_server_is_in_the_latency(
    server: EmbeddedServer, start_load: Any, tmp_path: Path
) -> None:
    from wanwu_loadtest.results import Results

    process = start_load(
        *("--host", server.url, "--run-time", "8s", "--rate", "20", "--shape", "constant"),
        *("--steps", "1", "--decode", "once", "--arrivals", "even"),
    )
    time.sleep(6)
    # Not its stubs: Triton would find them dead when it wakes.
    os.kill(server.pid, signal.SIGSTOP)
    try:
        time.sleep(2)
    finally:
        os.kill(server.pid, signal.SIGCONT)
    text, _ = process.communicate(timeout=60)
    total = Results.read(tmp_path / "report" / "results.json").total
    assert total.errors == 0, text
    assert total.latency.p99_ms > 1700
    # Of 8 seconds the server stood still for 2: a fourth of all callers waited, 1 s on average.
    assert total.latency.mean_ms > 150
    assert total.sent == pytest.approx(160, abs=2)


def test_an_objective_that_is_missed_ends_with_1_and_says_why(
    server: EmbeddedServer, load: Any
) -> None:
    done = load("--host", server.url, *QUICK, "--p95-ms", "1")
    assert done.code == 1
    assert "FAILED: part 1: P95 was" in done.text
    assert "above 1 ms" in (done.folder / "report.html").read_text()


def test_errors_beyond_the_objective_end_with_1(server: EmbeddedServer, load: Any) -> None:
    done = load("--host", server.url, *QUICK, "--timeout-s", "0.002")
    assert done.code in (1, 2), done.text
    assert "FAILED" in done.text


def test_steps_show_a_knee(server: EmbeddedServer, load: Any) -> None:
    done = load(
        *("--host", server.url, "--run-time", "6s", "--steps", "4", "--rate", "12"),
        # An objective that a busy machine keeps as well.
        *("--decode", "once", "--p95-ms", "20000"),
    )
    assert done.results.knee.rate == 12
    assert "knee: 12.0 requests/s" in done.text


def test_options_come_from_the_environment(server: EmbeddedServer, load: Any) -> None:
    done = load(
        "--run-time=4s",
        WANWU_URL=server.url,
        WANWU_LOAD_SHAPE="day",
        WANWU_LOAD_RATE="5",
        WANWU_LOAD_P95_MS="5000",
    )
    assert done.code == 0, done.text
    assert (done.results.shape, len(done.results.windows)) == ("day", 24)
    assert done.results.verdict.p95_ms == 5000


def test_a_master_adds_up_what_its_workers_send(
    server: EmbeddedServer, start_load: Any, load: Any
) -> None:
    port = str(free_port())
    workers = [
        start_load("--worker", "--master-host=127.0.0.1", f"--master-port={port}") for _ in "ab"
    ]
    done = load(
        *("--host", server.url, *QUICK, "--master", "--expect-workers=2"),
        *("--master-bind-host=127.0.0.1", f"--master-bind-port={port}", "--arrivals", "even"),
    )
    for worker in workers:
        worker.communicate(timeout=30)
    assert done.code == 0, done.text
    assert done.results.options["streams"] == "2"
    assert done.results.total.sent == pytest.approx(40, abs=4)
    assert done.results.total.errors == 0


def test_a_gateway_is_loaded_over_rest(
    server: EmbeddedServer, start_gateway: Any, load: Any
) -> None:
    with start_gateway(server.url) as gateway:
        done = load(
            *("--host", gateway.url, "--triton", server.url, *QUICK),
            *("--mix", "single=4,batch=1,labels=2"),
        )
    assert done.code == 0, done.text
    assert (done.results.wire, done.results.total.errors) == ("rest", 0)
    assert done.results.total.server.pictures >= done.results.total.pictures
    assert done.results.model


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--rate=0",), "--rate is 0; expected more than 0"),
        (("--mix=double",), "--mix has 'double'"),
        (("--batch-size=0",), "--batch-size is 0"),
        (("--shape=zigzag",), "invalid choice: 'zigzag'"),
        (("--host=nowhere",), "nowhere"),
    ],
)
def test_an_option_out_of_range_ends_it_at_once(load: Any, arguments: Any, said: str) -> None:
    done = load(*arguments, "--run-time", "2s")
    assert done.code != 0
    assert said in done.text
    assert "Traceback" not in done.text


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_lists_our_options_and_locusts(load: Any, flag: str) -> None:
    done = load(flag)
    assert done.code == 0
    for option in ("--rate", "--shape", "--p95-ms", "WANWU_LOAD_P95_MS", "--run-time", "--master"):
        assert option in done.text


def test_a_server_that_is_not_there_is_told(load: Any) -> None:
    done = load("--host", f"127.0.0.1:{free_port()}", *QUICK)
    assert done.code == 1
    assert "the load cannot begin" in done.text
    assert "FAILED: none of" in done.text
    assert "Traceback" not in done.text


def test_a_folder_without_photographs_is_told(
    server: EmbeddedServer, load: Any, tmp_path: Path
) -> None:
    done = load("--host", server.url, *QUICK, "--photos", str(tmp_path))
    assert done.code == 1
    assert "holds no picture" in done.text
    assert "Traceback" not in done.text
