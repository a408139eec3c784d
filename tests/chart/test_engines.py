"""The rendered start script of TensorRT's engines, run by bash, with small files for engines."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from chart.rendering import nested, one
from wanwu.embedded.server import free_port

NAME = "TensorrtExecutionProvider_TRTKernel_graph_0_sm90.engine"
#: Stands in for Triton, which has no TensorRT here: makes an engine in place unless there is one,
#: and is ready, or not, on its port.
SERVER = """
import http.server, pathlib, sys, os
engine = pathlib.Path(os.environ["WANWU_ENGINES"]) / sys.argv[2]
if not engine.exists():
    engine.write_bytes(sys.argv[3].encode() * 100_000)
class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(int(sys.argv[4]) if self.path == "/v2/health/ready" else 404)
        self.end_headers()
    def log_message(self, *arguments): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Health).serve_forever()
"""


@dataclass
class Pods:
    """Starts pods that keep their engines in one folder."""

    script: Path
    kept: Path
    running: list[subprocess.Popen[bytes]]

    def start(self, name: str, content: str = "e", status: int = 200, every_s: float = 0.3) -> Path:
        """Start one; return the folder of its own engines."""
        port, engines = free_port(), self.script.parent / name
        own = {"WANWU_ENGINES": str(engines), "WANWU_ENGINES_KEPT": str(self.kept)}
        quick = {"WANWU_HTTP_PORT": str(port), "WANWU_ENGINES_EVERY_S": str(every_s)}
        words = [sys.executable, "-c", SERVER, str(port), NAME, content, str(status)]
        environment = {"PATH": os.environ["PATH"], "HOSTNAME": name, **own, **quick}
        with self.log.open("a") as log:
            command = ["bash", self.script, *words]
            self.running.append(subprocess.Popen(command, env=environment, stderr=log))
        return engines

    def end(self) -> None:
        """End the first, as the kubelet does."""
        process = self.running.pop(0)
        process.terminate()
        process.wait(30)

    @property
    def log(self) -> Path:
        return self.script.with_name("log.txt")

    def names(self) -> list[str]:
        return sorted(each.name for each in self.kept.glob("*"))


@pytest.fixture
def pods(render, tmp_path: Path) -> Iterator[Pods]:
    objects = render(nested("triton.tensorrt.enabled", True))
    script = tmp_path / "with-engines.sh"
    script.write_text(one(objects, "ConfigMap", "-triton")["data"]["with-engines.sh"])
    found = Pods(script, tmp_path / "claim" / "tensorrt-1", [])
    yield found
    while found.running:
        found.end()


def until(holds: Callable[[], bool], within_s: float = 60) -> None:
    ends = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < ends
        time.sleep(0.1)


def holds(engine: Path, *contents: str) -> Callable[[], bool]:
    """Return whether an engine is there, and one of these as a whole."""
    whole = [each.encode() * 100_000 for each in contents]
    return lambda: engine.exists() and engine.read_bytes() in whole


def kept_name(content: str) -> str:
    return f"{hashlib.sha256(content.encode() * 100_000).hexdigest()}.{NAME}"


def test_an_engine_is_kept_once_triton_is_ready_and_the_next_pod_has_it(pods: Pods) -> None:
    pods.start("a", "e")
    until(lambda: pods.names() == [kept_name("e")])
    until(holds(pods.start("b", "other") / NAME, "e"))
    assert f"engines: {NAME} is kept in" in pods.log.read_text()


def test_what_a_triton_made_that_is_not_ready_is_not_kept(pods: Pods) -> None:
    engine = pods.start("a", status=503) / NAME
    until(holds(engine, "e"))
    time.sleep(3)
    assert pods.names() == []


def test_an_engine_that_is_cut_short_is_thrown_away_and_made_again(pods: Pods) -> None:
    pods.kept.mkdir(parents=True)
    cut = pods.kept / kept_name("e")
    cut.write_bytes(b"e" * 4096)
    engine = pods.start("a", "new") / NAME
    until(lambda: pods.names() == [kept_name("new")])
    assert engine.read_bytes() == b"new" * 100_000
    assert "is not what its name says, cut short or changed: thrown away" in pods.log.read_text()


def test_a_container_that_begins_again_drops_what_it_left_half_made(pods: Pods) -> None:
    engine = pods.start("a", status=503) / NAME
    until(holds(engine, "e"))
    engine.write_bytes(b"cut")
    pods.end()
    pods.start("a", "whole")
    until(lambda: pods.names() == [kept_name("whole")])


def test_two_pods_that_build_at_once_leave_whole_engines(pods: Pods) -> None:
    pods.start("a", "from-a")
    pods.start("b", "from-b")
    both = {kept_name("from-a"), kept_name("from-b")}
    until(lambda: bool(both & set(pods.names())))
    time.sleep(3)
    assert set(pods.names()) <= both
    until(holds(pods.start("c", "other") / NAME, "from-a", "from-b"))
    until(lambda: len(pods.names()) == 1)


def test_a_pod_that_was_slower_does_not_keep_a_second_engine(pods: Pods) -> None:
    engine = pods.start("a", "slow", every_s=5) / NAME
    until(holds(engine, "slow"))
    pods.start("b", "fast")
    until(lambda: pods.names() == [kept_name("fast")])
    time.sleep(12)
    assert pods.names() == [kept_name("fast")]


def test_an_engine_that_did_not_fit_is_replaced(pods: Pods) -> None:
    pods.start("a", "old")
    until(lambda: pods.names() == [kept_name("old")])
    engine = pods.start("b", "unused") / NAME
    until(holds(engine, "old"))
    # What TensorRT does where the engine that it was given is not for this card.
    engine.write_bytes(b"new" * 100_000)
    until(lambda: pods.names() == [kept_name("new")])


def test_engines_of_before_and_parts_of_killed_pods_are_not_taken(pods: Pods) -> None:
    pods.kept.mkdir(parents=True)
    (pods.kept / NAME).write_bytes(b"written in place")
    old = pods.kept / f".part.gone.1.{NAME}"
    old.write_bytes(b"half")
    os.utime(old, (0, 0))
    engine = pods.start("a", "e") / NAME
    until(lambda: kept_name("e") in pods.names())
    assert engine.read_bytes() == b"e" * 100_000
    assert not old.exists()


def test_a_folder_that_cannot_be_written_is_told(pods: Pods) -> None:
    pods.kept.parent.parent.joinpath("claim").write_text("no folder")
    pods.start("a")
    assert pods.running[0].wait(30) == 1
    assert "check the claim of triton.engineCache" in pods.log.read_text()
