"""Publishing: whole or not at all, the same bytes every time, never over an older version."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from wanwu.errors import ModelError, SetupError
from wanwu.repository import MANIFEST, check_repository, read_manifest
from wanwu_export.publish import TOOLS, Published

Publish = Callable[..., Published]

STEPS = [
    "image tower to ONNX",
    "image tower against PyTorch",
    "text tower to ONNX",
    "text tower against PyTorch",
    "label bank default",
    "label bank pets",
    "hash and publish",
]
HOLD_LOCK = """
import fcntl, sys
lock = open(sys.argv[1], "w")
fcntl.flock(lock, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


class Exported(NamedTuple):
    folder: Path
    published: Published
    told: list[str]


class WrongWhenConverted(nn.Module):
    """Stands for an operator that the ONNX exporter gets wrong."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flip(-1) if torch.compiler.is_exporting() else x


class NotANumber(nn.Module):
    """Stands for a tower that overflows."""

    def forward(self, x: Tensor) -> Tensor:
        return x * float("nan")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A place where nothing was exported yet."""
    return tmp_path / "model_repository"


@pytest.fixture(scope="module")
def exported(publish_tiny: Publish, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """One export, made once; tests only read it."""
    folder, told = tmp_path_factory.mktemp("tiny") / "model_repository", []
    return Exported(folder, publish_tiny(folder, 0, step=told.append), told)


@pytest.fixture
def filled(exported: Exported, folder: Path) -> Path:
    """A copy of that export, to be changed."""
    return shutil.copytree(exported.folder, folder)


def _bytes_of(folder: Path) -> dict[str, bytes]:
    """Give every file of a folder, hidden ones too."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_the_first_export_becomes_version_1_of_every_model(exported):
    folder, published, _ = exported
    assert (published.version, published.unchanged) == (1, False)
    models = {"image_encoder", "text_encoder", "label_bank", "label_bank_pets"}
    assert {path.name for path in folder.iterdir() if path.is_dir()} == models
    configs = {f"configs/{profile}.pbtxt" for profile in ("cpu", "gpu", "embedded")}
    for model in models:
        found = {str(path.relative_to(folder / model)) for path in (folder / model).rglob("*.*")}
        assert found == {"config.pbtxt", "1/model.onnx", "1/model.py", *configs}


def test_each_step_is_told_in_order(exported):
    assert exported.told == STEPS


def test_the_manifest_lists_every_published_file_with_its_hash(exported):
    folder, published, _ = exported
    manifest = read_manifest(folder)
    assert manifest is not None
    assert manifest.exports == {"1": published.export}
    files = published.export.files
    assert {folder / name for name in files} == set(folder.glob("*/1/*"))
    for name, file in files.items():
        data = (folder / name).read_bytes()
        assert (file.sha256, file.bytes) == (hashlib.sha256(data).hexdigest(), len(data))


def test_the_manifest_says_what_was_exported_and_with_what(exported, make_tower):
    export, tower = exported.published.export, make_tower(0)
    assert export.fingerprint == tower.fingerprint()
    assert (export.model, export.precision) == (tower.model, tower.precision)
    assert export.sources == tower.sources
    assert tuple(export.tools) == TOOLS
    assert export.tools["torch"] == torch.__version__
    assert [parity.batches for parity in export.parity.values()] == [(1, 3, 64)] * 2


def test_exporting_again_changes_nothing(publish_tiny, exported, filled):
    before = _bytes_of(filled)
    times = {path: path.stat().st_mtime_ns for path in filled.glob("*/1/*")}
    again = publish_tiny(filled, 0)
    assert (again.version, again.unchanged) == (1, True)
    assert again.export == exported.published.export
    assert _bytes_of(filled) == before
    assert {path: path.stat().st_mtime_ns for path in filled.glob("*/1/*")} == times


def test_two_exports_into_two_folders_are_byte_identical(publish_tiny, exported, folder):
    publish_tiny(folder, 0)
    one, two = _bytes_of(exported.folder), _bytes_of(folder)
    assert MANIFEST in one
    assert one.keys() == two.keys()
    assert [name for name in one if one[name] != two[name]] == []


def test_another_tower_becomes_version_2_and_version_1_stays(publish_tiny, exported, filled):
    first = {name: data for name, data in _bytes_of(filled).items() if "/1/" in name}
    second = publish_tiny(filled, 1)
    assert (second.version, second.unchanged) == (2, False)
    after = _bytes_of(filled)
    assert {name: after[name] for name in first} == first
    manifest = read_manifest(filled)
    assert manifest is not None
    assert manifest.exports == {"1": exported.published.export, "2": second.export}
    assert check_repository(filled) == second.export


def test_going_back_to_an_older_tower_is_a_new_version(publish_tiny, exported, filled):
    publish_tiny(filled, 1)
    back = publish_tiny(filled, 0)
    assert (back.version, back.unchanged) == (3, False)
    assert back.export.fingerprint == exported.published.export.fingerprint


@pytest.mark.parametrize(
    ("side", "end"),
    [("image", WrongWhenConverted()), ("image", NotANumber()), ("text", WrongWhenConverted())],
    ids=["image wrong", "image not a number", "text wrong"],
)
def test_a_tower_that_fails_the_gate_is_not_published(publish_tiny, exported, filled, side, end):
    before = _bytes_of(filled)
    with pytest.raises(ModelError, match=f"the {side} tower's ONNX file is too far from PyTorch"):
        publish_tiny(filled, 1, **{f"{side}_end": end})
    assert _bytes_of(filled) == before
    assert check_repository(filled) == exported.published.export
    assert list(filled.rglob(".staging")) == []


def test_a_first_export_that_fails_the_gate_leaves_nothing_to_serve(publish_tiny, folder):
    with pytest.raises(ModelError, match="nothing was published"):
        publish_tiny(folder, image_end=WrongWhenConverted())
    assert set(_bytes_of(folder)) == {".lock"}
    with pytest.raises(SetupError, match="holds no exported model"):
        check_repository(folder)


@pytest.mark.parametrize("stop_at", [STEPS[0], STEPS[3], STEPS[6]])
def test_an_export_stopped_at_any_step_publishes_nothing(publish_tiny, folder, stop_at):
    def stop(step: str) -> None:
        if step == stop_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        publish_tiny(folder, step=stop)
    assert set(_bytes_of(folder)) == {".lock"}
    assert list(folder.rglob(".staging")) == []


@pytest.mark.parametrize("name", ["occupied", "occupied/deeper/model_repository"])
def test_a_folder_that_cannot_be_made_is_a_setup_error(publish_tiny, tmp_path, name):
    (tmp_path / "occupied").write_text("a file, where a folder is needed")
    with pytest.raises(SetupError, match=r"cannot be written.*nothing was published") as caught:
        publish_tiny(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert "choose another --output" in str(caught.value)


def test_a_manifest_that_cannot_be_read_is_a_setup_error(publish_tiny, folder):
    folder.mkdir()
    (folder / MANIFEST).write_text("{")
    with pytest.raises(SetupError, match=rf"{MANIFEST} cannot be read.*remove it and export again"):
        publish_tiny(folder)
    assert (folder / MANIFEST).read_text() == "{"


def test_a_second_export_at_the_same_time_is_refused(publish_tiny, exported, filled):
    command = [sys.executable, "-c", HOLD_LOCK, str(filled / ".lock")]
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(SetupError, match=f"another export is writing to {filled}"):
            publish_tiny(filled, 1)
        other.communicate()
    assert check_repository(filled) == exported.published.export
    assert publish_tiny(filled, 1).version == 2


def test_a_killed_export_does_not_disturb_the_next(publish_tiny, folder):
    staged = folder / "image_encoder" / ".staging" / "text_encoder" / "version"
    staged.mkdir(parents=True)
    (staged / "model.onnx").write_bytes(b"half")
    (folder / f".{MANIFEST}.{os.getpid() + 1}").write_bytes(b"half")
    published = publish_tiny(folder)
    assert published.version == 1
    assert list(folder.rglob(".staging")) == []
    assert check_repository(folder) == published.export


def test_a_version_that_the_manifest_does_not_list_is_replaced(publish_tiny, filled):
    unlisted = filled / "image_encoder" / "2"
    unlisted.mkdir()
    for name in ("model.onnx", "left.over"):
        (unlisted / name).write_bytes(b"half")
    second = publish_tiny(filled, 1)
    assert second.version == 2
    assert {path.name for path in unlisted.iterdir()} == {"model.onnx", "model.py"}
    assert check_repository(filled) == second.export


@pytest.mark.parametrize("data", [None, b"half"], ids=["missing", "cut short"])
def test_a_damaged_version_is_exported_anew(publish_tiny, filled, data):
    bank = filled / "label_bank_pets" / "1" / "model.onnx"
    bank.unlink()
    if data is not None:
        bank.write_bytes(data)
    again = publish_tiny(filled, 0)
    assert (again.version, again.unchanged) == (2, False)
    assert check_repository(filled) == again.export


def test_a_config_that_was_edited_is_kept(publish_tiny, filled):
    edited = filled / "image_encoder" / "config.pbtxt"
    edited.write_text('backend: "onnxruntime"\nmax_batch_size: 128\n')
    publish_tiny(filled, 1)
    assert edited.read_text() == 'backend: "onnxruntime"\nmax_batch_size: 128\n'


def test_a_config_that_is_missing_is_put_back(publish_tiny, exported, filled):
    config = filled / "image_encoder" / "config.pbtxt"
    config.unlink()
    publish_tiny(filled, 0)
    assert config.is_file()
    original = exported.folder / "image_encoder" / "config.pbtxt"
    assert config.read_bytes() == original.read_bytes()


def test_no_compiled_python_is_published(repository):
    names = [path.name for path in repository.rglob("*")]
    assert names.count("model.py") == 5
    assert [name for name in names if name == "__pycache__" or name.endswith(".pyc")] == []


def test_the_starter_is_published_whole(repository, starter):
    tower, banks = starter
    export = check_repository(repository)
    assert export.fingerprint == tower.fingerprint()
    assert export.parity["image"].least_cosine >= 0.99999
    assert export.parity["text"].least_cosine >= 0.9999
    served = {name.partition("/")[0] for name in export.files}
    assert len(served) == 2 + len(banks)
