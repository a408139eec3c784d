"""`wanwu audit search` and `wanwu audit export`: lines are found by time, caller, label and id."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.http import post_picture, request
from wanwu.gateway.audit import AuditLog
from wanwu.gateway.keys import create_key
from wanwu.samples import cat_photo


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from wanwu.cli import main; main()", "audit"]
    return subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, timeout=60
    )


def found(*arguments: object) -> list[dict[str, Any]]:
    done = run("search", *arguments)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def log(server, start_gateway, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The log of a gateway that two callers used, in several files."""
    folder = tmp_path_factory.mktemp("search")
    keys = folder / "keys.json"
    mine, other = ({"X-API-Key": create_key(keys, name, ("recognise",))[1]} for name in "ab")
    with start_gateway(
        server.url, "--keys-file", str(keys), AUDIT_ROTATE_BYTES=10_000, folder=folder
    ) as gateway:
        for _ in range(20):
            request(f"{gateway.url}/v1/banks", headers=mine)
        post_picture(gateway.url, "/v1/recognize", cat_photo(), mine, labels="猫,狗")
        post_picture(gateway.url, "/predict", cat_photo(), other | {"X-Request-ID": "order-7"})
        gateway.stop()
    return gateway.audit


def test_lines_are_found_by_the_caller(log: Path) -> None:
    assert {line["principal"]["name"] for line in found(log, "--principal", "a")} == {"a"}
    (line,) = found(log, "--principal", "b")
    assert found(log, "--principal", line["principal"]["id"]) == [line]


def test_lines_are_found_by_a_label_that_is_written_as_its_hash(log: Path) -> None:
    (asked,) = found(log, "--label", "狗")
    assert asked["route"] == "/v1/recognize"
    assert "狗" not in json.dumps(asked, ensure_ascii=False)
    assert found(log, "--label", "飞机") == []


def test_lines_are_found_by_an_answer_of_a_bank(log: Path) -> None:
    (line,) = found(log, "--request-id", "order-7")
    answer = line["pictures"][0]["answers"][0]
    assert line in found(log, "--label", answer)


def test_lines_are_found_by_time(log: Path) -> None:
    lines = found(log)
    middle = lines[len(lines) // 2]["time"]
    before, after = found(log, "--until", middle), found(log, "--since", middle)
    assert before + after == lines
    assert after[0]["time"] == middle
    assert found(log, "--since", "2999-01-01") == found(log, "--until", "2020-01-01T00:00+08:00")


def test_options_narrow_each_other(log: Path) -> None:
    assert found(log, "--principal", "b", "--label", "狗") == []


def test_what_is_no_time_is_named(log: Path) -> None:
    done = run("search", log, "--since", "yesterday")
    assert done.returncode == 2
    assert "--since is 'yesterday'; expected a time such as" in done.stderr


def test_what_is_no_log_is_named(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("[1]\n")
    done = run("search", tmp_path / "other")
    assert done.returncode == 2
    assert "line 1 is no line of an audit log" in done.stderr


def test_lines_are_exported_as_a_table(log: Path, tmp_path: Path) -> None:
    table = tmp_path / "audit.csv"
    done = run("export", log, "--output", table, "--request-id", "order-7")
    assert (done.returncode, f"1 lines in {table}" in done.stdout) == (0, True)
    assert table.read_bytes().startswith(b"\xef\xbb\xbf")
    with table.open(encoding="utf-8-sig", newline="") as stream:
        (row,) = csv.DictReader(stream)
    (line,) = found(log, "--request-id", "order-7")
    assert (row["kind"], row["principal"], row["name"]) == ("key", line["principal"]["id"], "b")
    assert row["pictures"] == line["pictures"][0]["sha256"]
    assert row["answers"].split(",") == line["pictures"][0]["answers"]
    assert (row["time"], row["status"], row["banks"]) == (line["time"], "200", "default")


@pytest.mark.parametrize("text", ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "\t=1"])
def test_a_callers_text_is_no_formula(tmp_path: Path, text: str) -> None:
    log = AuditLog(tmp_path / "audit.jsonl")
    log.write({"event": "request", "agent": text})
    log.close()
    run("export", tmp_path / "audit.jsonl", "--output", tmp_path / "audit.csv")
    with (tmp_path / "audit.csv").open(encoding="utf-8-sig", newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert row["agent"] == f"'{text}"


def test_a_table_that_cannot_be_written_is_named(log: Path, tmp_path: Path) -> None:
    done = run("export", log, "--output", tmp_path)
    assert done.returncode == 5
    assert f"{tmp_path} cannot be written" in done.stderr
