"""The head of the audit log: what is missing at either end is told from what was removed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from support.http import post_picture, request
from wanwu.embedded.server import free_port
from wanwu.errors import InputError, SetupError
from wanwu.gateway.audit import AuditLog, files_of, verify
from wanwu.gateway.audit.head import head_path, read_head
from wanwu.samples import cat_photo

#: Over the lines of a day, so that there are several files.
ROTATE_BYTES = 10_000


def written(path: Path, count: int, **options: Any) -> Path:
    log = AuditLog(path, rotate_bytes=ROTATE_BYTES, **options)
    for number in range(count):
        log.write({"event": "request", "source": f"10.0.0.{number}"})
    log.close()
    return path


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from wanwu.cli import main; main()", "audit"]
    return subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, timeout=60
    )


def without_last_line(path: Path) -> None:
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def without_oldest_file(path: Path) -> None:
    files_of(path)[0].unlink()


def begun_again(path: Path) -> None:
    remove_all(path)
    written(path, 300)  # as long as it was


def begun_elsewhere(path: Path) -> None:
    remove_all(path)
    other = written(path.parent / "other" / path.name, 300)
    for file in files_of(other):
        shutil.move(file, path.parent)


def remove_all(path: Path) -> None:
    for file in files_of(path):
        file.unlink()


CUT: dict[Callable[[Path], None], str] = {
    without_last_line: "lines are missing at the end",
    emptied: "lines are missing at the end",
    without_oldest_file: "the oldest lines are missing",
    begun_again: "the oldest lines are missing",
    begun_elsewhere: "the log was begun again, or replaced",
    remove_all: "there is no audit log",
}


@pytest.mark.parametrize("cut", CUT)
@pytest.mark.parametrize("signed", [False, True])
def test_what_is_missing_at_the_ends_is_found(
    tmp_path: Path, cut: Callable[[Path], None], signed: bool
) -> None:
    key = new_key(tmp_path) if signed else None
    path = written(tmp_path / "audit.jsonl", 300, key=key)
    options = ("--key", key) if key else ()
    assert len(files_of(path)) > 3
    assert run("verify", path, *options).returncode == 0
    if key and cut is begun_again:
        remove_all(path)
        written(path, 300, key=key)
    else:
        cut(path)
    found = run("verify", path, *options)
    assert found.returncode == 2
    assert CUT[cut] in found.stderr


def test_a_cut_log_that_goes_on_stays_found(tmp_path: Path) -> None:
    path = written(tmp_path / "audit.jsonl", 5)
    without_last_line(path)
    written(path, 3)
    assert [json.loads(line)["event"] for line in path.read_bytes().splitlines()][4:] == [
        "broken",
        *["request"] * 3,
    ]
    found = run("verify", path)
    assert found.returncode == 2
    assert "line 5 is number 6 and does not follow number 4" in found.stderr


def new_key(folder: Path) -> Path:
    path = folder / "key.pem"
    if not path.exists():
        subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", path], check=True)
    return path


def public_half(key: Path) -> Path:
    path = key.with_name("public.pem")
    subprocess.run(["openssl", "pkey", "-in", key, "-pubout", "-out", path], check=True)
    return path


def test_the_public_half_checks_a_signed_head(tmp_path: Path) -> None:
    key = new_key(tmp_path)
    path = written(tmp_path / "audit.jsonl", 5, key=key)
    found = run("verify", path, "--key", public_half(key))
    assert (found.returncode, "as its signed head says" in found.stdout) == (0, True)


def test_a_head_of_another_key_or_of_none_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "audit.jsonl", 5)
    (tmp_path / "other").mkdir()
    with pytest.raises(InputError, match="no head of an audit log that is signed by this key"):
        read_head(head_path(path), new_key(tmp_path))
    signed = written(tmp_path / "signed.jsonl", 5, key=new_key(tmp_path))
    with pytest.raises(InputError, match="signed by this key"):
        read_head(head_path(signed), new_key(tmp_path / "other"))
    with pytest.raises(InputError, match="signed by this key"):
        written(signed, 1, key=new_key(tmp_path / "other"))


def test_a_log_that_could_not_be_opened_is_free_for_the_next(tmp_path: Path) -> None:
    path = written(tmp_path / "audit.jsonl", 5)
    with pytest.raises(InputError):
        written(path, 1, key=new_key(tmp_path))
    assert verify([written(path, 1)]).lines == 6


def test_a_changed_head_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "audit.jsonl", 5, key=new_key(tmp_path))
    head = head_path(path).read_bytes()
    forged = head.replace(b"e30", b"e31").replace(b".", b".A")
    head_path(path).write_bytes(forged)
    assert run("verify", path, "--key", tmp_path / "key.pem").returncode == 2


@pytest.mark.parametrize("content", ["no key", "public"])
def test_a_key_that_cannot_sign_is_named(tmp_path: Path, content: str) -> None:
    key = tmp_path / "wrong.pem"
    key.write_text("no key")
    if content == "public":
        key = public_half(new_key(tmp_path))
    with pytest.raises(SetupError, match=r"the key .* of the audit log cannot be used"):
        written(tmp_path / "audit.jsonl", 1, key=key)


def test_without_its_head_a_log_is_not_called_whole(tmp_path: Path) -> None:
    path = written(tmp_path / "audit.jsonl", 5)
    head_path(path).unlink()
    found = run("verify", path)
    assert found.returncode == 2
    assert "there is no head" in found.stderr
    written(path, 1)
    assert json.loads(path.read_bytes().splitlines()[5])["event"] == "anchored"
    assert run("verify", path).returncode == 0


def test_half_a_head_leaves_the_one_before_it(tmp_path: Path) -> None:
    path = written(tmp_path / "audit.jsonl", 5)
    head = head_path(path).read_bytes()
    newest = 0 if b'"sequence": 5' in head[:4096] else 4096
    torn = head[: newest + 20] + bytes(4096 - 20) + head[newest + 4096 :]
    head_path(path).write_bytes(torn)
    assert read_head(head_path(path), None).last.sequence == 4
    found = run("verify", path)
    assert (found.returncode, "1 lines are newer than the head" in found.stdout) == (0, True)


def test_a_gateway_that_is_killed_leaves_a_log_that_fits_its_head(server, start_gateway) -> None:
    with start_gateway(server.url) as gateway:
        for _ in range(3):
            post_picture(gateway.url, "/predict", cat_photo())
        os.kill(gateway.process.pid, signal.SIGKILL)
        gateway.process.wait()
    assert run("verify", gateway.audit).returncode == 0
    without_last_line(gateway.audit)
    assert run("verify", gateway.audit).returncode == 2


def test_lines_that_outlived_their_head_are_taken_over(tmp_path: Path) -> None:
    path = written(tmp_path / "audit.jsonl", 5)
    before = head_path(path).read_bytes()
    written(path, 5)
    head_path(path).write_bytes(before)
    written(path, 1)
    assert verify(files_of(path), read_head(head_path(path), None)).lines == 11


def test_the_head_may_lie_elsewhere(server, start_gateway, tmp_path: Path) -> None:
    head, key = tmp_path / "far" / "head", new_key(tmp_path)
    with start_gateway(server.url, AUDIT_HEAD=head, AUDIT_KEY=key) as gateway:
        request(f"{gateway.url}/v1/banks")
        gateway.stop()
    assert not head_path(gateway.audit).exists()
    options = ("--head", head, "--key", public_half(key))
    assert run("verify", gateway.audit, *options).returncode == 0
    without_last_line(gateway.audit)
    assert run("verify", gateway.audit, *options).returncode == 2


def test_on_standard_output_the_chain_goes_on_by_its_head(
    server, start_gateway, tmp_path: Path
) -> None:
    read = b""
    for _ in range(2):
        with start_gateway(server.url, audit=Path("-"), AUDIT_HEAD=tmp_path / "head") as gateway:
            gateway.stop()
        lines = gateway.log.read_bytes().splitlines(keepends=True)
        read += b"".join(line for line in lines if line.startswith(b"{"))
    (tmp_path / "read.jsonl").write_bytes(read)
    assert verify([tmp_path / "read.jsonl"], read_head(tmp_path / "head", None)).lines == 4


def later(monkeypatch: pytest.MonkeyPatch, days: float) -> None:
    moved = datetime.now(timezone.utc) + timedelta(days=days)
    for module in ("chain", "files", "log"):
        monkeypatch.setattr(f"wanwu.gateway.audit.{module}.now", lambda: moved)


@pytest.mark.parametrize(("days", "removed"), [(179.9, False), (180.1, True)])
def test_files_are_removed_after_180_days_and_verify_tells_them_from_lost_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days: float, removed: bool
) -> None:
    path = written(tmp_path / "audit.jsonl", 200)
    old = files_of(path)[:-1]
    later(monkeypatch, days)
    written(path, 200)
    assert [file.exists() for file in old] == [not removed] * len(old)
    found = run("verify", path)
    assert (found.returncode, "were removed by the gateway" in found.stdout) == (0, removed)
    files_of(path)[0].unlink()
    assert "it was not the gateway that removed them" in run("verify", path).stderr


def test_a_log_that_is_too_large_loses_its_oldest_files_and_says_how_young_they_were(
    tmp_path: Path,
) -> None:
    path = written(tmp_path / "audit.jsonl", 300, max_bytes=30_000)
    assert sum(file.stat().st_size for file in files_of(path)) < 30_000 + ROTATE_BYTES
    found = run("verify", path)
    assert found.returncode == 2
    assert "removed lines that were 0 days old; expected 180" in found.stderr
    assert run("verify", path, "--kept-days", 0).returncode == 0


def test_a_removal_that_was_cut_short_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "audit.jsonl", 200)
    oldest = files_of(path)[0]
    shutil.copy(oldest, tmp_path / "kept")
    later(monkeypatch, 181)
    written(path, 200)
    shutil.copy(tmp_path / "kept", oldest)
    written(path, 1)
    assert not oldest.exists()
    assert run("verify", path).returncode == 0


def test_a_file_that_was_changed_is_not_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "audit.jsonl", 200)
    oldest = files_of(path)[0]
    oldest.write_bytes(oldest.read_bytes()[:-3] + b"0}\n")
    later(monkeypatch, 181)
    written(path, 1)
    assert oldest.exists()
    assert run("verify", path).returncode == 2


def test_each_day_has_a_file_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "audit.jsonl", 3)
    written(path, 3)
    assert len(files_of(path)) == 1
    later(monkeypatch, 1)
    written(path, 3)
    assert [len(file.read_bytes().splitlines()) for file in files_of(path)] == [6, 3]


def test_hashes_may_be_sm3(tmp_path: Path) -> None:
    path = written(tmp_path / "audit.jsonl", 3)
    written(path, 3, algorithm="sm3")
    line = path.read_bytes().splitlines()[5]
    head, _, stated = line.partition(b',"hash":"sm3:')
    digest = subprocess.run(["openssl", "dgst", "-sm3"], input=head, capture_output=True).stdout
    assert digest.split()[-1] == stated.removesuffix(b'"}')
    assert run("verify", path).returncode == 0
    path.write_bytes(path.read_bytes().replace(b"10.0.0.1", b"10.0.0.9"))
    assert run("verify", path).returncode == 2


def test_the_metrics_tell_the_size_of_the_log_and_of_its_volume(server, start_gateway) -> None:
    port = free_port()
    with start_gateway(server.url, "--metrics-port", str(port)) as gateway:
        request(f"{gateway.url}/v1/banks")
        found = request(f"http://127.0.0.1:{port}/metrics").body.decode()
        size = gateway.audit.stat().st_size
    values = dict(re.findall(r"^wanwu_gateway_audit_(\w+) (\S+)$", found, re.MULTILINE))
    volume = os.statvfs(gateway.audit)
    assert float(values["bytes"]) == size
    assert float(values["volume_bytes"]) == volume.f_blocks * volume.f_frsize
    assert 0 < float(values["free_bytes"]) <= float(values["volume_bytes"])
