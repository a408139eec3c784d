"""`wanwu repository`, as a person runs it, over a repository of small hand-made models."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.tiny import publish_files
from wanwu.contract import Model, Precision
from wanwu.embedded.server import EmbeddedServer, ServerOptions, free_port
from wanwu.repository import check_repository, read_manifest

WANWU = Path(sys.executable).with_name("wanwu")
MODEL = Model(name="小[模型]", revision="1", licence="Apache-2.0")
PRECISION = Precision(image="fp16", text="fp32")

Need = Callable[[bool, str], None]
Result = subprocess.CompletedProcess[str]
Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run `wanwu repository` in the folder that holds the repository."""

    def command(*arguments: str, **environment: str) -> Result:
        settings = os.environ | {"COLUMNS": "140", "NO_COLOR": "1", "LC_ALL": "C.UTF-8"}
        done = subprocess.run(
            [WANWU, "repository", *arguments],
            cwd=tmp_path,
            env=settings | environment,
            capture_output=True,
            timeout=60,
        )
        output, errors = done.stdout.decode(), done.stderr.decode()
        assert "Traceback" not in errors, errors[-3000:]
        return Result(done.args, done.returncode, output, errors)

    return command


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, need: Need) -> Path:
    """Version 1 of one model, version 2 of another, version 3 with another bank `pets`."""
    need(importlib.util.find_spec("onnx") is not None, "onnx: pip install 'wanwu[export]'")
    folder = tmp_path_factory.mktemp("made") / "model_repository"
    from wanwu_export.banks import BankPlan
    from wanwu_export.concepts import Concept
    from wanwu_export.label_banks import build

    for fingerprint in (1, 2):
        publish(folder, fingerprint, {"default": ("猫", "狗"), "pets": ("猫",)})
    pets = [Concept(label) for label in ("猫", "狗", "鸟")]
    build(folder, BankPlan("pets", pets, None, "2026-11-22"), step=lambda text: None)
    return folder


@pytest.fixture
def repository(made: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "model_repository"
    shutil.copytree(made, folder)
    return folder


def publish(folder: Path, fingerprint: int, banks: dict[str, tuple[str, ...]]) -> None:
    from wanwu_export.concepts import Concept

    concepts = {name: [Concept(label) for label in labels] for name, labels in banks.items()}
    publish_files(folder, fingerprint, concepts, model=MODEL, precision=PRECISION)


@pytest.mark.parametrize("command", ["list", "verify", "rollback", "prune", "load"])
def test_every_command_has_help(run: Run, command: str) -> None:
    done = run(command, "--help")
    assert done.returncode == 0
    assert f"wanwu repository {command}" in done.stdout


@pytest.mark.parametrize("command", ["list", "verify", "rollback", "prune", "load"])
def test_a_folder_that_is_missing_ends_with_code_5(run: Run, tmp_path: Path, command: str) -> None:
    done = run(command, "--model-repository", "typo")
    assert done.returncode == 5
    assert "there is no model repository at typo" in done.stderr
    assert not (tmp_path / "typo").exists()


def test_the_list_has_three_lines_a_version_and_marks_the_one_served(
    run: Run, repository: Path
) -> None:
    done = run("list", COLUMNS="80")
    assert done.returncode == 0, done.stderr
    header, *lines, total = done.stdout.splitlines()
    assert header.split() == ["version", "published", "(UTC)", "what", "size"]
    heads, models, banks = lines[::3], lines[1::3], lines[2::3]
    day = heads[0].split()[2]
    assert [head.split()[:2] for head in heads] == [["*", "3"], ["2", day], ["1", day]]
    assert all(head.endswith(" kB") for head in heads)
    assert {head.index(day) for head in heads} == {header.index("published")}
    assert heads[0].index("bank pets") == heads[1].index("export") == header.index("what")
    assert {line.strip() for line in models} == {"小[模型], image=fp16, text=fp32"}
    told = ["default 2, pets 3", "default 2, pets 1", "default 2, pets 1"]
    assert [line.strip() for line in banks] == told
    assert "on disk" in total


def test_banks_that_do_not_fit_into_a_line_are_counted(run: Run, repository: Path) -> None:
    names = ["default", *(f"industry-{number}" for number in range(1, 7)), "pets"]
    publish(repository, 3, dict.fromkeys(names, ("猫", "狗")))
    named = " " * 12 + ", ".join(f"{name} 2" for name in names)
    wide, narrow, usual = (
        run("list", COLUMNS=str(columns)).stdout.splitlines()
        for columns in (len(named), len(named) - 1, 80)
    )
    assert wide[3] == named
    assert narrow[3] == usual[3] == " " * 12 + "8 banks, 16 labels"
    assert max(map(len, usual)) <= 80


def test_json_tells_the_same(run: Run, repository: Path) -> None:
    listed = json.loads(run("list", "--format", "json").stdout)
    manifest = read_manifest(repository)
    assert manifest is not None
    newest = manifest.releases["3"]
    assert [version["version"] for version in listed["versions"]] == [3, 2, 1]
    assert [version["served"] for version in listed["versions"]] == [True, False, False]
    assert listed["versions"][0] == {
        "version": 3,
        "served": True,
        "published": newest.published,
        "what": "bank pets",
        "model": "小[模型]",
        "revision": "1",
        "fingerprint": "2",
        "precision": {"image": "fp16", "text": "fp32"},
        "banks": {"default": 2, "pets": 3},
        "bytes": sum(file.bytes for file in newest.files.values()),
    }
    files = [path for path in repository.rglob("*") if path.is_file()]
    assert listed["bytes_on_disk"] == sum(path.stat().st_size for path in files)


def test_verify_counts_what_is_as_published(run: Run, repository: Path) -> None:
    done = run("verify")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "wanwu: 10 files of version 3 are as published\n"
    done = run("verify", "--all")
    assert done.stdout == "wanwu: 23 files of versions 3, 2, 1 are as published\n"


def test_verify_gives_each_problem_a_line_and_ends_with_code_1(run: Run, repository: Path) -> None:
    (repository / "image_encoder" / "2" / "model.onnx").write_bytes(b"half")
    (repository / "label_bank_pets" / "config.pbtxt").unlink()
    (repository / "text_encoder" / "1" / "model.py").unlink()
    done = run("verify")
    assert (done.returncode, done.stdout) == (1, "")
    first, second = done.stderr.splitlines()
    assert first.startswith("wanwu: model_repository/image_encoder/2/model.onnx has 4 bytes")
    assert second.startswith("wanwu: model_repository/label_bank_pets/config.pbtxt is missing")
    assert len(run("verify", "--all").stderr.splitlines()) == 3


def test_a_rollback_says_what_comes_next(run: Run, repository: Path) -> None:
    done = run("rollback")
    assert done.returncode == 0, done.stderr
    assert "version 4 in model_repository is what 2 was" in done.stdout
    assert "`wanwu repository load`" in done.stdout
    assert check_repository(repository).banks["pets"].count == 1


def test_a_rollback_goes_to_the_version_named(run: Run, repository: Path) -> None:
    assert run("rollback", "--to", "1", "--keep", "2").returncode == 0
    manifest = read_manifest(repository)
    assert manifest is not None
    assert sorted(manifest.releases) == ["3", "4"]
    assert check_repository(repository).fingerprint == 1
    assert run("verify", "--all").returncode == 0


def test_a_rollback_to_what_is_served_says_so(run: Run, repository: Path) -> None:
    done = run("rollback", "--to", "3")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "wanwu: version 3 is what is served now; nothing was changed\n"


@pytest.mark.parametrize(
    ("to", "reason"), [("9", "does not keep version 9; it keeps 3, 2, 1"), ("0", "--to")]
)
def test_a_version_that_is_not_there_ends_with_code_2(
    run: Run, repository: Path, to: str, reason: str
) -> None:
    done = run("rollback", "--to", to)
    assert (done.returncode, done.stdout) == (2, "")
    assert reason in done.stderr


def test_prune_says_what_it_removed_and_how_much_that_freed(run: Run, repository: Path) -> None:
    before = sum(path.stat().st_size for path in repository.rglob("*") if path.is_file())
    done = run("prune", "--keep", "1")
    assert done.returncode == 0, done.stderr
    after = sum(path.stat().st_size for path in repository.rglob("*") if path.is_file())
    *removed, last = done.stdout.splitlines()
    assert removed == [
        f"wanwu: removed {folder}"
        for folder in (
            "image_encoder/1",
            "label_bank/1",
            "label_bank_pets/1",
            "label_bank_pets/2",
            "text_encoder/1",
        )
    ]
    assert last == f"wanwu: {(before - after) / 1e3:.1f} kB freed; kept: 3"
    assert list(repository.glob("*/1")) == []


def test_what_versions_share_is_counted_once(run: Run, repository: Path) -> None:
    def sizes() -> tuple[int, int]:
        listed = json.loads(run("list", "--format", "json").stdout)
        audit = sum(path.stat().st_size for path in repository.glob("manifest.audit.*"))
        return listed["bytes_on_disk"] - audit, (repository / "manifest.json").stat().st_size

    before, manifest_before = sizes()
    assert run("rollback", "--to", "1", "--keep", "9").returncode == 0
    after, manifest_after = sizes()
    assert after - before == manifest_after - manifest_before > 0


def test_prune_removes_what_a_killed_command_left(run: Run, repository: Path) -> None:
    (repository / "image_encoder" / "4").mkdir()
    (repository / "label_bank_food").mkdir()
    assert run("verify").returncode == 1
    done = run("prune")
    assert "removed image_encoder/4" in done.stdout
    assert "removed label_bank_food" in done.stdout
    assert run("verify").returncode == 0
    assert run("prune").stdout == "wanwu: nothing to remove; kept: 3, 2, 1\n"


def test_load_without_a_server_ends_with_code_3(run: Run, repository: Path) -> None:
    url = f"127.0.0.1:{free_port()}"
    for done in (run("load", "--url", url), run("load", WANWU_URL=url)):
        assert done.returncode == 3
        assert f"no Triton answers gRPC at {url}" in done.stderr


def test_load_needs_an_address_with_a_port(run: Run, repository: Path) -> None:
    done = run("load", "--url", "triton")
    assert done.returncode == 2
    assert "'triton' is not HOST:PORT" in done.stderr


def test_load_refuses_a_damaged_repository(run: Run, repository: Path) -> None:
    (repository / "text_encoder" / "2" / "model.onnx").unlink()
    done = run("load", "--url", f"127.0.0.1:{free_port()}")
    assert done.returncode == 5
    assert "is missing although" in done.stderr


@pytest.fixture(scope="module")
def served(
    made: Path, tmp_path_factory: pytest.TempPathFactory, need: Need
) -> Iterator[tuple[EmbeddedServer, Path]]:
    """A Triton over those hand-made models, with its repository."""
    need(importlib.util.find_spec("pytriton") is not None, "Triton: pip install 'wanwu[server]'")
    folder = tmp_path_factory.mktemp("served") / "model_repository"
    shutil.copytree(made, folder)
    with EmbeddedServer(ServerOptions(folder, grpc_port=free_port(), metrics_port=None)) as server:
        yield server, folder


def test_load_tells_what_changed(run: Run, served: tuple[EmbeddedServer, Path]) -> None:
    server, folder = served
    options = ("load", "--url", server.url, "--model-repository", str(folder))
    done = run(*options, "--admin-key", server.admin_key)
    assert done.stdout == f"wanwu: {server.url} serves version 3 already; nothing was changed\n"
    assert run("rollback", "--model-repository", str(folder)).returncode == 0
    done = run(*options, WANWU_ADMIN_KEY=server.admin_key)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "wanwu: label_bank_pets 3 → 4\n"


@pytest.mark.parametrize(("key", "code"), [(None, 5), ("wrong", 3)])
def test_load_needs_the_key(
    run: Run, served: tuple[EmbeddedServer, Path], key: str | None, code: int
) -> None:
    server, folder = served
    given = ("--admin-key", key) if key else ()
    done = run("load", "--url", server.url, "--model-repository", str(folder), *given)
    assert done.returncode == code
    assert "--admin-key or WANWU_ADMIN_KEY" in done.stderr
