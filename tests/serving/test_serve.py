"""`wanwu serve`: how the embedded Triton starts, refuses to start, and ends."""

from __future__ import annotations

import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.serving import profile, serve_arguments, server_options
from wanwu import Recognizer, SetupError
from wanwu.embedded.server import (
    TRITON_VERSION,
    EmbeddedServer,
    ServerOptions,
    check_platform,
    free_port,
)
from wanwu.samples import cat_photo

WANWU = Path(sys.executable).with_name("wanwu")


@contextmanager
def start_serve(repository: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [str(WANWU), "serve", "--model-repository", str(repository), *arguments]
    command += serve_arguments()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def read_until(process: subprocess.Popen[str], word: str) -> list[str]:
    lines = []
    for line in process.stdout or ():
        lines.append(line)
        if word in line:
            return lines
    raise AssertionError(f"{word!r} was not printed: {lines}")


def descendants(pid: int) -> set[int]:
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended meanwhile
        parents[int(path.parent.name)] = int(fields[1])
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {pid}


def alive(pids: set[int]) -> set[int]:
    living = set()
    for pid in pids:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state != "Z":
            living.add(pid)
    return living


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_serve_within_ten_seconds_and_leaves_no_process(
    repository: Path, number: signal.Signals
) -> None:
    with start_serve(repository, "--grpc-port", str(free_port()), "--metrics-port", "0") as process:
        read_until(process, "Ctrl-C ends")
        started = descendants(process.pid)
        assert len(started) >= (6 if profile() == "embedded" else 1)  # Triton and its stubs
        process.send_signal(number)
        assert process.wait(10) == 0
        assert alive(started) == set()


@pytest.mark.parametrize("seconds", [0.5, 2.0, 3.5])
def test_ctrl_c_during_the_start_leaves_nothing_behind(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    with start_serve(repository, "--grpc-port", str(free_port()), "--metrics-port", "0") as process:
        read_until(process, "starting Triton")
        time.sleep(seconds)
        started = descendants(process.pid)
        for _ in range(3):
            process.send_signal(signal.SIGINT)
        printed, _ = process.communicate(timeout=10)
    assert process.returncode == (0 if "Ctrl-C ends" in printed else 1)
    assert alive(started) == set()
    assert list(Path("/dev/shm").glob(f"wanwu-{process.pid}-*")) == []  # noqa: S108
    assert list((tmp_path / "tmp").iterdir()) == []


def test_killing_serve_ends_triton_too(repository: Path) -> None:
    with start_serve(repository, "--grpc-port", str(free_port()), "--metrics-port", "0") as process:
        read_until(process, "Ctrl-C ends")
        started = descendants(process.pid)
        process.kill()
        process.wait()
        deadline = time.monotonic() + 15
        while alive(started) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert alive(started) == set()


def test_serve_tells_address_versions_and_where_the_admin_key_is(
    repository: Path, tmp_path: Path
) -> None:
    port, key_file = free_port(), tmp_path / "key"
    ports = ("--grpc-port", str(port), "--metrics-port", "0")
    with start_serve(repository, *ports, "--admin-key-file", str(key_file)) as process:
        printed = "".join(read_until(process, "Ctrl-C ends"))
        assert f"gRPC at 127.0.0.1:{port}" in printed
        assert "image_encoder version 1" in printed
        assert key_file.stat().st_mode & 0o777 == 0o600
        key = key_file.read_text()
        assert key not in printed
        with start_serve(repository, *ports, "--admin-key-file", str(key_file)) as second:
            assert second.wait(20) == 5  # the port is taken, and the key is the first one's
        assert key_file.read_text() == key
        process.send_signal(signal.SIGINT)
        process.wait(10)
    assert not key_file.exists()


@pytest.mark.parametrize(
    ("host", "warned"),
    [("0.0.0.0", True), ("127.0.0.2", False), ("localhost", False)],  # noqa: S104
)
def test_serve_warns_where_other_machines_reach_it(
    repository: Path, host: str, warned: bool
) -> None:
    ports = ("--grpc-port", str(free_port()), "--metrics-port", "0")
    with start_serve(repository, *ports, "--host", host) as process:
        printed = "".join(read_until(process, "Ctrl-C ends"))
    assert (f"{host} is reached from other machines, and this Triton, 2.51.0" in printed) is warned


def test_serve_listens_on_ipv6(repository: Path) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"this machine has no IPv6: {error}")
    grpc, http, metrics = (free_port() for _ in range(3))
    ports = ("--grpc-port", grpc, "--http-port", http, "--metrics-port", metrics)
    with start_serve(repository, *map(str, ports), "--host", "::1") as process:
        printed = "".join(read_until(process, "Ctrl-C ends"))
        assert f"gRPC at [::1]:{grpc}" in printed
        assert f"metrics at http://[::1]:{metrics}/metrics" in printed
        assert "is reached from other machines" not in printed
        with Recognizer(f"[::1]:{grpc}") as client:
            assert client.recognize(cat_photo()).top.label
        for port, path in ((http, "v2/health/ready"), (metrics, "metrics")):
            with urllib.request.urlopen(f"http://[::1]:{port}/{path}") as answer:
                assert answer.status == 200


def test_the_version_that_serve_names_is_that_of_the_server(server: EmbeddedServer) -> None:
    with Recognizer(server.url) as client:
        assert client.server_version() == TRITON_VERSION


def test_serving_writes_nothing_into_the_installed_packages_nor_the_repository(
    repository: Path,
) -> None:
    import pytriton

    watched = [Path(pytriton.__file__).parent, repository]
    before = {path: path.stat().st_mtime_ns for top in watched for path in top.rglob("*")}
    with EmbeddedServer(server_options(repository, grpc_port=free_port(), metrics_port=None)):
        pass
    after = {path: path.stat().st_mtime_ns for top in watched for path in top.rglob("*")}
    assert after == before


def test_a_port_in_use_is_named(repository: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        options = server_options(repository, grpc_port=port)
        with pytest.raises(SetupError, match=f"port {port} .* choose another --grpc-port"):
            EmbeddedServer(options).__enter__()


def test_one_port_for_two_services_is_refused(repository: Path) -> None:
    port = free_port()
    options = server_options(repository, grpc_port=port, metrics_port=port)
    with pytest.raises(SetupError, match=f"port {port} was given twice"):
        EmbeddedServer(options).__enter__()


def test_a_missing_repository_tells_how_to_export(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="wanwu export starter --output"):
        EmbeddedServer(server_options(tmp_path / "none")).__enter__()


def test_a_repository_that_was_never_exported_tells_how_to_export(tmp_path: Path) -> None:
    (tmp_path / "image_encoder").mkdir()
    with pytest.raises(SetupError, match=r"no manifest\.json.*wanwu export starter"):
        EmbeddedServer(server_options(tmp_path)).__enter__()


@pytest.mark.parametrize("model", ["image_encoder", "text_encoder", "label_bank_seed18"])
def test_a_half_written_model_is_refused_before_triton_starts(
    repository: Path, tmp_path: Path, model: str
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(repository, copy)
    path = copy / model / "1" / "model.onnx"
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    with pytest.raises(SetupError, match=f"{model}/1/model.onnx has .* export again"):
        EmbeddedServer(server_options(copy)).__enter__()


def test_a_version_that_no_export_finished_is_refused_before_triton_starts(
    repository: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(repository, copy, copy_function=os.link)
    shutil.copytree(copy / "text_encoder" / "1", copy / "text_encoder" / "2")
    with pytest.raises(SetupError, match="text_encoder/2 was left by an interrupted command"):
        EmbeddedServer(server_options(copy)).__enter__()


def test_a_model_that_triton_cannot_load_is_named_with_its_reason(
    repository: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(repository, copy)
    (copy / "text_encoder" / "configs" / f"{profile()}.pbtxt").write_text('backend: "none-such"')
    options = server_options(copy, grpc_port=free_port(), metrics_port=None)
    with pytest.raises(SetupError, match=r"(?s)before it was ready.*text_encoder.*none-such"):
        EmbeddedServer(options).__enter__()


@pytest.mark.parametrize(
    ("system", "machine"), [("Darwin", "arm64"), ("Windows", "AMD64"), ("Linux", "aarch64")]
)
def test_another_platform_is_told_to_use_the_container(
    monkeypatch: pytest.MonkeyPatch, system: str, machine: str
) -> None:
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    with pytest.raises(SetupError, match=f"this is {system} {machine}; run Triton's container"):
        check_platform()


def test_serve_reports_a_triton_that_dies_by_itself(repository: Path) -> None:
    with start_serve(repository, "--grpc-port", str(free_port()), "--metrics-port", "0") as process:
        read_until(process, "Ctrl-C ends")
        triton = next(
            pid
            for pid in descendants(process.pid)
            if Path(f"/proc/{pid}/comm").read_text().strip() == "tritonserver"
        )
        os.kill(triton, signal.SIGKILL)
        output, _ = process.communicate(timeout=20)
        assert process.returncode == 5
        assert "ended by itself" in output


def test_two_servers_stand_side_by_side(repository: Path) -> None:
    first = server_options(repository, grpc_port=free_port(), metrics_port=None)
    with EmbeddedServer(first) as one:
        second = server_options(repository, grpc_port=free_port(), metrics_port=None)
        with EmbeddedServer(second) as two:
            assert one.versions == two.versions


@pytest.mark.parametrize("name", ["with space", "中文 模型"])
def test_paths_may_hold_spaces_and_chinese(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    copy = tmp_path / name / "model_repository"
    shutil.copytree(repository, copy)
    temporary = tmp_path / f"{name} tmp"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    options = server_options(copy, grpc_port=free_port(), metrics_port=None)
    with EmbeddedServer(options) as server:
        assert server.versions["image_encoder"] == ["1"]


def test_a_profile_of_a_cluster_needs_its_backend(repository: Path, tmp_path: Path) -> None:
    for backends, why in ((None, "name the folder"), (tmp_path, "has no onnxruntime/libtriton")):
        options = ServerOptions(repository, profile="cpu", backends=backends)
        with pytest.raises(SetupError, match=why):
            EmbeddedServer(options).__enter__()


def test_options_of_the_metrics_reach_triton(repository: Path) -> None:
    port, metrics = free_port(), free_port()
    ports = ("--grpc-port", str(port), "--metrics-port", str(metrics))
    config = ("--metrics-config", "summary_latencies=true")
    with start_serve(repository, *ports, *config) as process:
        read_until(process, "Ctrl-C ends")
        with urllib.request.urlopen(f"http://127.0.0.1:{metrics}/metrics") as answer:
            assert b"nv_inference_request_summary_us" in answer.read()


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--backends", "/opt/backends"], "came with the profile embedded"),
        (["--metrics-config", "summaries"], "'summaries' is not KEY=VALUE"),
        (
            ["--metrics-config", "summary_latencies=true", "--metrics-port", "0"],
            "came with --metrics-port 0, which closes the metrics",
        ),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(arguments: list[str], why: str) -> None:
    done = subprocess.run([str(WANWU), "serve", *arguments], capture_output=True, text=True)
    assert done.returncode == 2
    assert why in done.stderr
