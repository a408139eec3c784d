"""`wanwu labels`, over a model so small that an export of it needs no PyTorch."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from support.tiny import publish_files
from wanwu.cli import app, exit_code
from wanwu.errors import WanwuError
from wanwu.repository import check_repository, newest_release

if importlib.util.find_spec("onnx") is None and os.environ.get("CI") != "true":
    pytest.skip("this machine has no onnx: pip install 'wanwu[export]'", allow_module_level=True)

WANWU = Path(sys.executable).with_name("wanwu")
BIRDS = '''\
label\taliases\tcategory\tdescription\tbroader
[red]鸟\t小鸟|大鸟\t[/动物]\t"会""飞"""\t动物|生物
鱼\t\t\t\t
'''


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model repository with the banks `default` and `pets`; tests only read it."""
    from wanwu_export.concepts import Concept

    folder = tmp_path_factory.mktemp("labels") / "model_repository"
    concepts = [Concept("猫", ("小猫",), "动物"), Concept("狗"), Concept("大鱼")]
    publish_files(folder, 12345, {"default": concepts, "pets": concepts})
    return folder


@pytest.fixture
def repository(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that repository under its default name, in the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "birds.tsv").write_text(BIRDS, "utf-8")
    return shutil.copytree(exported, tmp_path / "model_repository")


def labels(*arguments: str) -> Result:
    """Run `wanwu labels` in this process."""
    return CliRunner().invoke(app, ["labels", *arguments])


def succeed(*arguments: str) -> str:
    """Run what must succeed, and give its standard output."""
    done = labels(*arguments)
    assert done.exit_code == 0, (done.stderr, done.exception)
    return done.stdout


def fail(*arguments: str) -> tuple[int, str]:
    """Run what must fail, and give the exit code and the message."""
    error = labels(*arguments).exception
    assert isinstance(error, WanwuError), error
    return exit_code(error), str(error)


# build


def test_a_bank_is_built_listed_and_shown(repository: Path) -> None:
    output = succeed("build", "birds.tsv", "--bank", "birds")
    assert "bank birds published as version 2 in model_repository: 2 labels in " in output
    assert " labels a second" in output
    assert "`wanwu repository load`" in output
    assert check_repository(repository).banks["birds"].count == 2
    assert "birds" in succeed("list")
    shown = succeed("show", "birds")
    for part in ("[red]鸟", "小鸟|大鸟", "[/动物]", '会"飞"', "鱼"):
        assert part in shown


def test_built_again_it_is_unchanged_whatever_the_files_date(repository: Path) -> None:
    succeed("build", "birds.tsv", "--bank", "birds")
    succeed("build", "birds.tsv", "--bank", "other")
    os.utime("birds.tsv", (0, 0))
    output = succeed("build", "birds.tsv", "--bank", "birds")
    assert "bank birds unchanged, still version 2" in output  # the newest version is 3
    assert "load" not in output


def test_the_default_bank_is_replaced_only_by_name(repository: Path) -> None:
    code, message = fail("build", "birds.tsv")
    assert code == 2
    assert "--bank birds" in message
    assert "`--bank default`, which replaces the default bank" in message
    assert newest_release(repository).banks["default"].count == 3
    succeed("build", "birds.tsv", "--bank", "default")
    assert newest_release(repository).banks["default"].count == 2


def test_what_is_to_be_said_of_the_file_is_said_with_its_name(repository: Path) -> None:
    Path("鸟.txt").write_text("鸟\n\n鸟\n", "utf-8")
    done = labels("build", "鸟.txt", "--bank", "birds")
    assert "wanwu: 鸟.txt: empty rows were left out: 1, in lines 2" in done.stderr
    assert "wanwu: 鸟.txt: labels came more than once" in done.stderr
    assert "1 labels" in done.stdout


@pytest.mark.parametrize("bank", ["Birds", "鸟", "a b", "../up", ""])
def test_a_bad_name_is_refused(repository: Path, bank: str) -> None:
    assert fail("build", "birds.tsv", "--bank", bank)[0] == 2


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("gb.txt", "鸟\n鱼\n".encode("gb18030"), "is not UTF-8: .*`iconv -f gb18030"),
        ("empty.txt", b"", "holds no label"),
        ("blank.tsv", b"label\n\n", "holds no label"),
        ("birds.xls", b"x", "neither .txt"),
        ("long.txt", "鸟".encode() * 17, "is 17 tokens and the model reads 16"),
        ("tab.txt", "鸟\t鱼".encode(), "control character"),
    ],
)
def test_a_bad_file_is_refused(repository: Path, name: str, data: bytes, reason: str) -> None:
    Path(name).write_bytes(data)
    before = (repository / "manifest.json").read_bytes()
    code, message = fail("build", name, "--bank", "birds")
    assert code == 2
    assert re.search(reason, message)
    assert (repository / "manifest.json").read_bytes() == before
    assert not (repository / "label_bank_birds").exists()


def test_a_million_lines_are_refused_at_once(repository: Path) -> None:
    Path("many.txt").write_text("\n".join(map(str, range(1_000_000))), "utf-8")
    started = time.process_time()
    code, message = fail("build", "many.txt", "--bank", "many")
    assert (code, "has 1,000,000 rows" in message) == (2, True)
    assert time.process_time() - started < 10


@pytest.mark.parametrize(
    ("templates", "reason"),
    [("slotless.txt", "has 0 slots"), ("nosuch", "there are no templates 'nosuch'")],
)
def test_bad_templates_are_refused(repository: Path, templates: str, reason: str) -> None:
    Path("slotless.txt").write_text("一张照片\n", "utf-8")
    code, message = fail("build", "birds.tsv", "--bank", "birds", "--templates", templates)
    assert (code, reason in message) == (2, True)


@pytest.mark.parametrize("command", ["build birds.tsv --bank x", "list", "show x", "diff x x"])
def test_a_repository_without_a_model_is_told(repository: Path, command: str) -> None:
    Path("empty").mkdir()
    code, message = fail(*command.split(), "--model-repository", "empty")
    assert code == 5
    assert "`wanwu export starter --output empty`" in message
    assert list(Path("empty").iterdir()) == []


def test_two_builds_at_once_are_refused(repository: Path) -> None:
    from wanwu_export.store import writing

    with writing(repository):
        code, message = fail("build", "birds.tsv", "--bank", "birds")
    assert (code, "is writing to model_repository" in message) == (5, True)


# build, stopped in the middle


def start_long_build() -> subprocess.Popen[str]:
    """Start a build, and give its process once a part of the bank is embedded."""
    command = [WANWU, "labels", "build", "many.txt", "--bank", "pets", "--templates", "zh"]
    process = subprocess.Popen(command, stdout=-1, stderr=-1, text=True)
    while not list(Path("model_repository").glob("image_encoder/.work/*.json")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    return process


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_stopped_build_leaves_the_old_bank_and_is_resumed(
    repository: Path, number: int, code: int
) -> None:
    Path("many.txt").write_text("\n".join(map(str, range(1500))), "utf-8")
    before = newest_release(repository)
    process = start_long_build()
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == code
    assert ("the same command goes on from here" in errors) == (number == signal.SIGINT)
    assert "Traceback" not in errors
    assert check_repository(repository) == before
    again = labels("build", "many.txt", "--bank", "pets", "--templates", "zh")
    assert "going on from an interrupted build: " in again.stderr
    assert "bank pets published as version 2" in again.stdout
    assert check_repository(repository).banks["pets"].count == 1500


# list and show


def test_the_list_in_json_has_a_row_for_each_bank(repository: Path) -> None:
    succeed("build", "birds.tsv", "--bank", "birds", "--templates", "zh-food")
    banks = {bank.pop("name"): bank for bank in json.loads(succeed("list", "--format", "json"))}
    assert banks.keys() == {"default", "pets", "birds"}
    assert banks["birds"].pop("bytes") > 1000
    created = time.strftime("%Y-%m-%d", time.gmtime(Path("birds.tsv").stat().st_mtime))
    assert banks["birds"] == {
        "labels": 2,
        "templates": "zh-food",
        "version": 2,
        "created": created,
    }


def test_a_shown_table_may_be_built_again(repository: Path) -> None:
    succeed("build", "birds.tsv", "--bank", "birds")
    shown = succeed("show", "birds", "--format", "tsv")
    assert shown == BIRDS
    Path("again.tsv").write_text(shown, "utf-8")
    assert "unchanged" in succeed("build", "again.tsv", "--bank", "birds")


def test_a_table_in_a_pipe_is_whole_and_utf_8_in_any_locale(repository: Path) -> None:
    label, aliases = "鸟" * 16, "|".join(f"鸟{n:03}" for n in range(100))
    Path("wide.tsv").write_text(f"label\taliases\n{label}\t{aliases}\n", "utf-8")
    succeed("build", "wide.tsv", "--bank", "wide")
    environment = os.environ | {"COLUMNS": "40", "PYTHONIOENCODING": "gbk"}
    command = [WANWU, "labels", "show", "wide", "--format", "tsv"]
    done = subprocess.run(command, env=environment, capture_output=True, check=True)
    assert f"{label}\t{aliases}\t\t\t\n" in done.stdout.decode()


def test_json_shows_everything_and_the_limit_counts(repository: Path) -> None:
    succeed("build", "birds.tsv", "--bank", "birds")
    (shown,) = json.loads(succeed("show", "birds", "--format", "json", "--limit", "1"))
    assert shown == {
        "label": "[red]鸟",
        "aliases": ["小鸟", "大鸟"],
        "category": "[/动物]",
        "broader": ["动物", "生物"],
        "description": '会"飞"',
    }
    tsv = succeed("show", "birds", "--format", "tsv", "--limit", "1")
    assert tsv == BIRDS[: BIRDS.index("鱼")]
    table = labels("show", "birds", "--limit", "1")
    assert "鱼" not in table.stdout
    assert "1 more labels are not shown" in table.stderr


def test_a_bank_that_is_not_there_is_told_with_those_that_are(repository: Path) -> None:
    code, message = fail("show", "nosuch")
    assert (code, "it has default, pets" in message) == (2, True)


# diff


def test_a_diff_marks_what_came_what_went_and_what_changed(repository: Path) -> None:
    Path("new.tsv").write_text("label\taliases\n[b]鸟\t\n猫\t大猫\n狗\t\n", "utf-8")
    assert succeed("diff", "pets", "new.tsv").splitlines() == [
        "+ [b]鸟",
        "- 大鱼",
        "~ 猫: aliases '小猫' → '大猫'; category '动物' → ''",
        "wanwu: 1 added, 1 removed, 1 changed, 1 the same",
    ]


def test_a_diff_in_json(repository: Path) -> None:
    Path("new.tsv").write_text("label\taliases\n鸟\t\n猫\t大猫\n狗\t\n", "utf-8")
    assert json.loads(succeed("diff", "pets", "new.tsv", "--format", "json")) == {
        "added": ["鸟"],
        "removed": ["大鱼"],
        "changed": [
            {
                "label": "猫",
                "before": {"aliases": ["小猫"], "category": "动物"},
                "after": {"aliases": ["大猫"], "category": ""},
            }
        ],
        "same": 1,
    }


def test_a_bank_is_compared_with_an_older_version_of_it(repository: Path) -> None:
    succeed("build", "birds.tsv", "--bank", "pets")
    summary = succeed("diff", "pets@1", "pets").splitlines()[-1]
    assert summary == "wanwu: 2 added, 3 removed, 0 changed, 0 the same"
    assert fail("diff", "pets@9", "pets")[0] == 2


# remove


def test_a_bank_is_removed(repository: Path) -> None:
    assert "bank pets removed" in succeed("remove", "pets")
    assert list(check_repository(repository).banks) == ["default"]
    assert not (repository / "label_bank_pets").exists()
    assert fail("remove", "pets")[0] == 2


def test_the_default_bank_cannot_be_removed(repository: Path) -> None:
    assert fail("remove", "default")[0] == 2
    assert "default" in check_repository(repository).banks


# The command itself


@pytest.mark.parametrize("command", ["build", "list", "show", "diff", "remove"])
def test_every_command_has_help(command: str) -> None:
    assert f"labels {command}" in succeed(command, "--help")


def test_a_missing_package_is_named_with_the_command_that_installs_it(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wanwu_export.label_banks", None)
    monkeypatch.delattr("wanwu_export.label_banks", raising=False)
    code, message = fail("list")
    assert (code, "pip install 'wanwu[export]'" in message) == (5, True)
