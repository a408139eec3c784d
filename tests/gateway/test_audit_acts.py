"""Acts of administration have their lines: who did what to which file, and the outcome."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from wanwu.gateway.audit import files_of, verify
from wanwu.gateway.audit.acts import audited
from wanwu.gateway.audit.head import head_path, read_head


def run(*arguments: object, **environment: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from wanwu.cli import main; main()", *map(str, arguments)]
    settings = {name: str(value) for name, value in environment.items()}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, env=os.environ | settings
    )


def acts_of(path: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert verify(files_of(path), read_head(head_path(path), None)).lines == len(lines)
    return lines


def test_keys_that_are_created_and_revoked_are_recorded(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    secret = run("keys", "create", "--name", "front desk", "--file", keys).stdout.strip()
    run("keys", "revoke", "front desk", "--file", keys)
    assert run("keys", "revoke", "nobody", "--file", keys).returncode == 2
    created, *_, failed = acts = acts_of(tmp_path / "keys.audit.jsonl")
    # Before the first key there was no file to protect.
    assert [(act["act"], act["state"]) for act in acts] == [
        ("keys.create", "done"),
        ("keys.revoke", "begun"),
        ("keys.revoke", "done"),
        ("keys.revoke", "begun"),
        ("keys.revoke", "failed"),
    ]
    (key,) = json.loads(keys.read_text())["keys"]
    assert created["id"] == acts[2]["id"] == key["id"]
    assert (created["name"], created["scopes"]) == ("front desk", ["recognise"])
    assert (created["user"], created["file"]) == (getpass.getuser(), str(keys))
    assert failed["error"] == "InputError"
    assert secret not in (tmp_path / "keys.audit.jsonl").read_text()


def test_an_act_that_cannot_be_recorded_is_not_done(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    run("keys", "create", "--name", "front desk", "--file", keys, WANWU_AUDIT="off")
    before = keys.read_bytes()
    (tmp_path / "keys.audit.jsonl").write_text("of another kind")
    done = run("keys", "revoke", "front desk", "--file", keys)
    assert done.returncode == 5
    assert "is no audit log" in done.stderr
    assert "name another file by WANWU_AUDIT" in done.stderr
    assert keys.read_bytes() == before


def test_the_file_of_acts_may_be_another_or_none(tmp_path: Path) -> None:
    keys, acts = tmp_path / "keys.json", tmp_path / "log" / "acts.jsonl"
    run("keys", "create", "--name", "a", "--file", keys, WANWU_AUDIT="off")
    run("keys", "create", "--name", "b", "--file", keys, WANWU_AUDIT=acts)
    assert [act["state"] for act in acts_of(acts)] == ["begun", "done"]
    assert not (tmp_path / "keys.audit.jsonl").exists()


def test_acts_at_the_same_time_wait_for_each_other(tmp_path: Path) -> None:
    thing = tmp_path / "keys.json"
    thing.touch()
    program = (
        "import sys; from pathlib import Path; from wanwu.gateway.audit.acts import audited\n"
        "for n in range(20):\n    with audited('test', Path(sys.argv[1]), n=n): pass"
    )
    command = [sys.executable, "-c", program, str(thing)]
    running = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    assert len(acts_of(tmp_path / "keys.audit.jsonl")) == 3 * 20 * 2


def test_what_changes_a_model_repository_is_recorded(repository: Path, tmp_path: Path) -> None:
    repository = Path(shutil.copytree(repository, tmp_path / "model_repository"))
    labels = tmp_path / "pets.txt"
    labels.write_text("猫\n狗\n", encoding="utf-8")
    here = ("--model-repository", repository)
    for arguments in (
        ("labels", "build", labels, "--bank", "pets", *here),
        ("labels", "build", labels, "--bank", "default", *here),
        ("repository", "rollback", *here),
        ("labels", "remove", "pets", *here),
        ("repository", "prune", *here),
    ):
        done = run(*arguments)
        assert done.returncode == 0, done.stderr
    assert run("repository", "load", "--url", "127.0.0.1:1", "--timeout-s", 0.2, *here).returncode
    acts = [
        each for each in acts_of(repository / "manifest.audit.jsonl") if each["state"] != "begun"
    ]
    assert [(act["act"], act["state"]) for act in acts] == [
        ("labels.build", "done"),
        ("labels.build", "done"),
        ("repository.rollback", "done"),
        ("labels.remove", "done"),
        ("repository.prune", "done"),
        ("repository.load", "failed"),
    ]
    assert (acts[0]["bank"], len(acts[0]["digest"])) == ("pets", 64)
    assert acts[2]["version"] > acts[2]["to"]


def test_an_interrupted_act_is_recorded_as_failed(tmp_path: Path) -> None:
    thing = tmp_path / "keys.json"
    thing.touch()
    with pytest.raises(KeyboardInterrupt), audited("test", thing):
        raise KeyboardInterrupt
    assert [act.get("error") for act in acts_of(tmp_path / "keys.audit.jsonl")] == [
        None,
        "KeyboardInterrupt",
    ]
