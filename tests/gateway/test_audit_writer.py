"""The audit log's thread: what blocks it stops no probe, and refusals are summed."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.gateway import PROGRAM
from support.http import Answer, post_picture, request
from wanwu.embedded.server import free_port
from wanwu.gateway.audit import AuditError, AuditLog, AuditWriter, verify, writer
from wanwu.gateway.audit.sums import MOST_CALLERS, Refused
from wanwu.gateway.keys import create_key
from wanwu.samples import cat_photo

TIMEOUT_S = 1.0


@dataclass
class Piped:
    """A gateway whose audit log, and its own log too, go into a small pipe that nobody reads."""

    url: str
    pipe: int
    process: subprocess.Popen[bytes]

    def read_until_it_ends(self) -> bytes:
        read = b""
        while part := os.read(self.pipe, 65_536):
            read += part
        return read


@contextmanager
def piped(triton: str, *, stderr_too: bool) -> Iterator[Piped]:
    reads, writes = os.pipe()
    fcntl.fcntl(writes, fcntl.F_SETPIPE_SZ, 4_096)
    port = free_port()
    arguments = ("gateway", "--no-auth", "--url", triton, "--port", str(port))
    settings = {"WANWU_LANG": "en", "WANWU_GATEWAY_AUDIT_TIMEOUT_S": str(TIMEOUT_S)}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments],
        env=os.environ | settings,
        stdout=writes,
        stderr=writes if stderr_too else subprocess.DEVNULL,
    )
    os.close(writes)
    found = Piped(f"http://127.0.0.1:{port}", reads, process)
    try:
        _wait_for(found.url)
        yield found
    finally:
        process.kill()
        process.wait(30)
        os.close(reads)


def _wait_for(url: str) -> None:
    ends = time.monotonic() + 60
    while time.monotonic() < ends:
        try:
            request(f"{url}/healthz")
            return
        except OSError:
            time.sleep(0.05)
    pytest.fail("the gateway did not start")


def timed(url: str) -> tuple[Answer, float]:
    started = time.monotonic()
    return request(url), time.monotonic() - started


@pytest.mark.parametrize("stderr_too", [False, True])
def test_a_blocked_pipe_refuses_requests_in_time_and_stops_no_probe(server, stderr_too) -> None:
    with piped(server.url, stderr_too=stderr_too) as gateway:
        answers = [timed(f"{gateway.url}/v1/banks") for _ in range(60)]
        probes = [timed(f"{gateway.url}/healthz") for _ in range(20)]
        ready, took_s = timed(f"{gateway.url}/readyz")
    refused = [(answer, s) for answer, s in answers if answer.status != 200]
    assert {(each.status, each.json()["code"]) for each, _ in refused} == {(503, "audit_failed")}
    assert all(s < TIMEOUT_S + 2 for _, s in [*refused, (ready, took_s)])
    assert sum(s > TIMEOUT_S / 2 for _, s in refused) <= 3  # those after it do not wait
    assert all(probe.status == 200 and s < 1 for probe, s in probes)
    assert ready.status == 503
    assert 0 < len(refused) < len(answers)


def test_a_pipe_that_is_read_again_has_a_line_for_each_answer(server, tmp_path: Path) -> None:
    with piped(server.url, stderr_too=False) as gateway:
        answers = [request(f"{gateway.url}/v1/banks") for _ in range(30)]
        assert answers[-1].status == 503
        gateway.process.terminate()
        (tmp_path / "read.jsonl").write_bytes(gateway.read_until_it_ends())
    lines = [json.loads(line) for line in (tmp_path / "read.jsonl").read_bytes().splitlines()]
    noted = {line["request_id"] for line in lines if line["event"] == "request"}
    withdrawn = {line["request_id"] for line in lines if line["event"] == "unanswered"}
    ids = {each.headers["X-Request-ID"] for each in answers if each.status == 200}
    # A line that was written too late is corrected by another.
    assert noted - withdrawn == ids
    assert withdrawn
    assert verify([tmp_path / "read.jsonl"]).lines == len(lines)


def test_lines_that_wait_together_are_written_together(tmp_path: Path) -> None:
    async def write() -> None:
        log = AuditLog(tmp_path / "audit.jsonl", rotate_bytes=10**9, fsync=True)
        audit = AuditWriter(log, timeout_s=30, own_lines=0)
        await asyncio.gather(*(audit.write({"event": "request", "n": n}) for n in range(500)))
        audit.close({"event": "stop"})

    asyncio.run(write())
    lines = lines_of(tmp_path / "audit.jsonl")
    assert [line.get("n") for line in lines] == [*range(500), None]
    assert verify([tmp_path / "audit.jsonl"]).lines == 501


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_no_more_lines_wait_than_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "MOST_WAITING", 10)

    async def write() -> list[BaseException | None]:
        log = AuditLog(tmp_path / "audit.jsonl", rotate_bytes=10**9, fsync=False)
        audit = AuditWriter(log, timeout_s=30, own_lines=0)
        writes = [audit.write({"event": "request"}) for _ in range(200)]
        done = await asyncio.gather(*writes, return_exceptions=True)
        audit.close({"event": "stop"})
        return done

    refused = [error for error in asyncio.run(write()) if error is not None]
    assert refused
    assert all(isinstance(error, AuditError) for error in refused)
    assert len(lines_of(tmp_path / "audit.jsonl")) == 200 - len(refused) + 1


def test_a_record_that_cannot_be_a_line_fails_alone(tmp_path: Path) -> None:
    async def write() -> None:
        log = AuditLog(tmp_path / "audit.jsonl", rotate_bytes=10**9, fsync=False)
        audit = AuditWriter(log, timeout_s=30, own_lines=0)
        with pytest.raises(AuditError):
            await audit.write({"event": object()})
        await audit.check()
        await audit.write({"event": "request"})
        await audit.check()
        audit.close({"event": "stop"})

    asyncio.run(write())
    events = [line["event"] for line in lines_of(tmp_path / "audit.jsonl")]
    assert events == ["resumed", "request", "stop"]


def test_unknown_callers_are_summed_and_nothing_is_lost(
    server, start_gateway, tmp_path: Path
) -> None:
    keys = tmp_path / "keys.json"
    create_key(keys, "front desk", ("recognise",))
    with start_gateway(
        server.url, "--keys-file", str(keys), AUDIT_REFUSED_LINES=3, TRUSTED_PROXIES="127.0.0.1"
    ) as gateway:
        for _ in range(20):
            assert post_picture(gateway.url, "/predict", cat_photo()).status == 401
        for _ in range(5):
            request(f"{gateway.url}/static/page.css")
        for n in range(2 * MOST_CALLERS):
            request(f"{gateway.url}/nowhere", headers={"X-Forwarded-For": f"10.0.{n // 256}.{n}"})
        gateway.stop()
    lines = lines_of(gateway.audit)
    sums = [line for line in lines if line["event"] in ("refused", "served")]
    counted = Counter({(x["event"], x["source"], x["code"]): x["count"] for x in sums})
    assert counted["refused", "127.0.0.1", "credentials_missing"] == 17
    assert counted["served", "127.0.0.1", None] == 5
    assert counted["refused", "others", "route_unknown"] == MOST_CALLERS + 1
    assert counted.total() + sum(line["event"] == "request" for line in lines) == 225
    assert len(lines) < 20 + MOST_CALLERS


def test_a_key_that_is_refused_by_its_rate_is_summed(server, start_gateway, tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    key, token = create_key(keys, "front desk", ("recognise",), rate="2/minute")
    with start_gateway(server.url, "--keys-file", str(keys), AUDIT_REFUSED_LINES=1) as gateway:
        for _ in range(12):
            request(f"{gateway.url}/v1/banks", headers={"X-API-Key": token})
        gateway.stop()
    (line,) = (line for line in lines_of(gateway.audit) if line["event"] == "refused")
    assert (line["principal"], line["code"], line["count"]) == (key.id, "rate_limited", 9)


def test_sums_are_written_at_the_end_of_each_window(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "WINDOW_S", 0.2)
    who = Refused("10.0.0.1", None, 401, "credentials_missing")

    async def refuse() -> None:
        log = AuditLog(tmp_path / "audit.jsonl", rotate_bytes=10**9, fsync=False)
        audit = AuditWriter(log, timeout_s=30, own_lines=1)
        for _ in range(2):
            for _ in range(5):
                await audit.write_or_count(who, {"event": "request"})
            await asyncio.sleep(0.5)
        audit.close({"event": "stop"})

    asyncio.run(refuse())
    lines = [(line["event"], line.get("count")) for line in lines_of(tmp_path / "audit.jsonl")]
    assert lines == [("request", None), ("refused", 4)] * 2 + [("stop", None)]


def test_counts_are_kept_while_the_log_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "WINDOW_S", 0.1)
    path, aside = tmp_path / "audit.jsonl", tmp_path / "aside"
    who = Refused("10.0.0.1", None, 401, "credentials_missing")

    async def refuse() -> None:
        log = AuditLog(path, rotate_bytes=10**9, fsync=False)
        audit = AuditWriter(log, timeout_s=30, own_lines=0)
        path.rename(aside)
        for _ in range(7):
            await audit.write_or_count(who, {"event": "request"})
            await asyncio.sleep(0.05)
        aside.rename(path)
        await asyncio.sleep(0.5)
        audit.close({"event": "stop"})

    asyncio.run(refuse())
    counts = [line["count"] for line in lines_of(path) if line["event"] == "refused"]
    assert sum(counts) == 7
