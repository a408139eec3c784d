"""Servers that end, stay silent, or join: every picture is answered once, or its error is told."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton

from support.fleet import Name, served_name, wait_until
from support.serving import server_options
from wanwu import Recognizer, ServerError
from wanwu.embedded.server import EmbeddedServer, ServerOptions, free_port
from wanwu.samples import cat_photo

PICTURES = 500
WANWU = Path(sys.executable).with_name("wanwu")


def options(repository: Path, port: int, host: str = "127.0.0.1") -> ServerOptions:
    return server_options(repository, host=host, grpc_port=port, metrics_port=None)


def kill(server: EmbeddedServer) -> None:
    os.kill(server.pid, signal.SIGKILL)
    server.stop()


def test_a_server_killed_and_restarted_in_a_bulk_run_loses_and_doubles_nothing(
    repository: Path,
) -> None:
    port = free_port()
    with ExitStack() as stack:
        first = stack.enter_context(EmbeddedServer(options(repository, port)))
        recognizer = stack.enter_context(Recognizer(first.url, timeout_s=120))
        answers = []
        for answer in recognizer.recognize_many([cat_photo()] * PICTURES, bank="seed18"):
            answers.append(answer)
            if len(answers) == 100:  # the threads that ask go on asking meanwhile
                kill(first)
                stack.enter_context(EmbeddedServer(options(repository, port)))
    assert [answer.index for answer in answers] == list(range(PICTURES))
    assert [answer.error for answer in answers] == [None] * PICTURES
    assert len({answer.recognition.top.label for answer in answers if answer.recognition}) == 1


@pytest.mark.parametrize("name", ["answers.jsonl", "answers.csv"])
def test_an_interrupted_command_goes_on_and_answers_each_picture_once(
    repository: Path, tmp_path: Path, name: str
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(PICTURES):
        (photos / f"{number:03}.jpg").write_bytes(cat_photo())
    port, output = free_port(), tmp_path / name
    command = [
        *(str(WANWU), "recognize", "photos", "--bank", "seed18", "--output", name),
        *("--url", f"127.0.0.1:{port}", "--timeout-s", "2"),
    ]
    with EmbeddedServer(options(repository, port)) as server:
        with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as run:
            wait_until(lambda: output.exists() and output.read_bytes().count(b"\n") > 100)
            kill(server)
            assert run.stderr is not None
            told = run.stderr.read()
        assert run.returncode == 3
        assert "the same command with --resume goes on" in told
    with output.open("ab") as half:
        half.write(b'{"picture": "photos/4' if name.endswith("jsonl") else b"photos/4")
    with EmbeddedServer(options(repository, port)):
        refused = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert refused.returncode == 2
        assert "add --resume to go on" in refused.stderr
        done = subprocess.run([*command, "--resume"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "pictures are done already" in done.stderr
    lines = output.read_text(encoding="utf-8").splitlines()
    if name.endswith("jsonl"):
        pictures = [json.loads(line)["picture"] for line in lines]
    else:
        pictures = [line.partition(",")[0] for line in lines if ",1," in line]
    assert sorted(pictures) == [f"photos/{number:03}.jpg" for number in range(PICTURES)]


@contextmanager
def silent() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@contextmanager
def black_hole() -> Iterator[int]:
    """A port whose queue of connections is full, so that packets to it are dropped."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.1", port))
        yield port


@pytest.mark.parametrize("hole", [silent, black_hole])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("timeout_s", [1.0, 3.0])
def test_the_deadline_holds_where_nothing_ever_answers(hole, host: str, timeout_s: float) -> None:
    with hole() as port, Recognizer(f"{host}:{port}", timeout_s=timeout_s) as recognizer:
        started = time.monotonic()
        with pytest.raises(ServerError, match=r"gave no answer within|no Triton answers"):
            recognizer.recognize(cat_photo())
        assert 0.9 * timeout_s <= time.monotonic() - started <= 1.1 * timeout_s


def pictures_of(server: EmbeddedServer) -> int:
    with triton.InferenceServerClient(server.url) as client:
        statistics = client.get_inference_statistics("image_encoder").model_stats
    return sum(entry.inference_count for entry in statistics)


def test_a_server_added_behind_a_name_gets_its_share(repository: Path) -> None:
    port = free_port()
    name = Name("127.0.0.1")
    picture = np.zeros((260, 260, 3), np.uint8)
    with (
        EmbeddedServer(options(repository, port)) as first,
        EmbeddedServer(options(repository, port, "127.0.0.2")) as second,
        served_name(name, port) as url,
        Recognizer(url) as recognizer,
    ):
        for _ in range(10):
            recognizer.recognize(picture, bank="seed18")
        # Triton counts a picture after it has answered.
        wait_until(lambda: (pictures_of(first), pictures_of(second)) == (10, 0))
        name.addresses.append("127.0.0.2")
        added = time.monotonic()
        asked = 10
        while pictures_of(second) == 0 and time.monotonic() - added < 40:
            recognizer.recognize(picture, bank="seed18")
            asked += 1
            time.sleep(0.2)
        assert time.monotonic() - added < 30
        wait_until(lambda: pictures_of(first) + pictures_of(second) == asked)
        before = pictures_of(first), pictures_of(second)
        for _ in range(20):
            recognizer.recognize(picture, bank="seed18")
        wait_until(lambda: pictures_of(first) + pictures_of(second) == asked + 20)
        gained = pictures_of(first) - before[0], pictures_of(second) - before[1]
        assert min(gained) >= 9  # they take turns; a new channel may begin with either
        # And when the first one ends, the other answers alone.
        kill(first)
        for _ in range(10):
            recognizer.recognize(picture, bank="seed18")


def test_the_deadline_holds_for_many_that_wait_for_the_same_bank() -> None:
    with silent() as port, Recognizer(f"127.0.0.1:{port}", timeout_s=2.0) as recognizer:
        started = time.monotonic()
        answers = list(recognizer.recognize_many([cat_photo()] * 64, in_flight=64))
        assert time.monotonic() - started < 2 * 2.2
    assert len(answers) == 64
    assert all(isinstance(answer.error, ServerError) for answer in answers)
