"""Publishing: whole or not at all, the same bytes every time, never over an older version."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from wanwu.contract import Precision
from wanwu.errors import ModelError, SetupError
from wanwu.repository import MANIFEST, check_repository, read_manifest, version_folders
from wanwu_export import publish as publishing
from wanwu_export.banks import BankPlan, published_plan
from wanwu_export.concepts import Concept
from wanwu_export.dual_tower import DualTower
from wanwu_export.onnx_bank import StoredBank, read_bank
from wanwu_export.publish import TOOLS, publish
from wanwu_export.store import Published
from wanwu_export.templates import Templates
from wanwu_export.text_tower import TextTower

Publish = Callable[..., Published]
Write = Callable[[DualTower, Path], None]

WRITE = {name: getattr(publishing, name) for name in ("write_image_encoder", "write_text_encoder")}

#: How the weights of a lower precision are stored.
#: The type of a tower's weights: signed bytes are the fastest, unsigned ones the most exact.
KINDS = {
    ("image", "fp16"): onnx.TensorProto.FLOAT16,
    ("text", "fp16"): onnx.TensorProto.FLOAT16,
    ("image", "int8"): onnx.TensorProto.INT8,
    ("text", "int8"): onnx.TensorProto.UINT8,
}
EPOCH = 1_800_000_000
MODELS = ("image_encoder", "text_encoder", "label_bank", "label_bank_pets")
PROFILES = ("cpu", "gpu", "embedded", "embedded-gpu")
STEPS = [
    "the original's own answers",
    "image tower to ONNX",
    "image tower against the original",
    "text tower to ONNX",
    "text tower against the original",
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


@pytest.fixture(scope="module", autouse=True)
def _conversions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Each tower is converted once: torch.onnx takes most of an export's time."""
    kept = tmp_path_factory.mktemp("conversions")

    def once(write: Write) -> Write:
        def write_or_copy(tower: DualTower, path: Path) -> None:
            known = kept / f"{write.__name__}-{tower.fingerprint}"
            if not known.exists():
                write(tower, path)
                shutil.copyfile(path, known)
            shutil.copyfile(known, path)

        return write_or_copy

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCE_DATE_EPOCH", str(EPOCH))
        for name, write in WRITE.items():
            patch.setattr(publishing, name, once(write))
        yield


@pytest.fixture
def afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every tower is converted again."""
    for name, write in WRITE.items():
        monkeypatch.setattr(publishing, name, write)


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
    assert {path.name for path in folder.iterdir() if path.is_dir()} == set(MODELS)
    configs = {f"configs/{profile}.pbtxt" for profile in PROFILES}
    for model in MODELS:
        files = (path for path in (folder / model).rglob("*") if path.is_file())
        found = {str(path.relative_to(folder / model)) for path in files}
        labels = {"1/labels.tsv"} if model.startswith("label_bank") else set()
        assert found == {"config.pbtxt", "1/model.onnx", "1/model.py", *configs, *labels}


def test_each_step_is_told_in_order(exported):
    assert exported.told == STEPS


def test_the_manifest_lists_every_published_file_with_its_hash(exported):
    folder, published, _ = exported
    manifest = read_manifest(folder)
    assert manifest is not None
    assert manifest.releases == {"1": published.release}
    files = published.release.files
    assert {folder / name for name in files} == set(folder.glob("*/1/*"))
    for name, file in files.items():
        data = (folder / name).read_bytes()
        assert (file.sha256, file.bytes) == (hashlib.sha256(data).hexdigest(), len(data))


def test_the_manifest_says_what_was_exported_and_with_what(exported, make_tower):
    release, tower = exported.published.release, make_tower(0)
    assert (release.what, release.published) == ("export", "2027-01-15T08:00:00Z")
    assert release.fingerprint == tower.fingerprint
    assert (release.model, release.precision) == (tower.model, tower.precision)
    assert release.sources == tower.sources
    assert tuple(release.tools) == TOOLS
    assert release.tools["torch"] == torch.__version__
    assert (release.describe.templates, release.describe.alias) == ("bare", 0.5)
    assert release.served == dict.fromkeys(MODELS, 1)


def test_an_export_with_the_package_of_cuda_names_its_onnxruntime(
    publish_tiny: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(tool: str) -> str:
        if tool == "onnxruntime":
            raise PackageNotFoundError(tool)  # onnxruntime-gpu is a package of another name
        return "1"

    monkeypatch.setattr(publishing, "package_version", version)
    tools = publish_tiny(tmp_path).release.tools
    assert tools["onnxruntime"] == onnxruntime.__version__


def test_a_manifest_made_on_the_cpu_can_be_read_by_releases_that_know_no_device(
    publish_tiny: Publish, tmp_path: Path
) -> None:
    release = publish_tiny(tmp_path).release
    assert {check.device for checks in release.parity.towers.values() for check in checks} == {
        "CPU"
    }
    assert '"device"' not in (tmp_path / MANIFEST).read_text("utf-8")


def test_the_manifest_holds_the_parity_report(exported):
    parity = exported.published.release.parity
    assert parity.pixel_levels == 0.0
    assert list(parity.towers) == ["image", "text"]
    assert [[check.precision for check in checks] for checks in parity.towers.values()] == [
        ["fp32"],
        ["fp32"],
    ]
    assert [checks[0].batches for checks in parity.towers.values()] == [(1, 3, 64)] * 2
    assert (parity.answers.pictures, parity.answers.ties) == (10, 0)


def test_the_manifest_names_each_bank_by_its_digest(exported):
    folder, published, _ = exported
    assert list(published.release.banks) == ["default", "pets"]
    for model, bank in zip(MODELS[2:], published.release.banks.values(), strict=True):
        stored = read_bank(folder / model / "1" / "model.onnx").contract.bank
        assert (bank.count, bank.digest) == (stored.count, stored.digest) == (2, stored.digest)
        assert bank.templates is None


def test_the_time_of_an_export_is_now_in_utc(publish_tiny, folder, monkeypatch):
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    before = datetime.now(timezone.utc).replace(microsecond=0)
    published = publish_tiny(folder).release.published
    moment = datetime.strptime(published, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
    assert before <= moment <= datetime.now(timezone.utc)


def test_labels_are_published_beside_their_bank(exported):
    for model in MODELS[2:]:
        lines = (exported.folder / model / "1" / "labels.tsv").read_text().splitlines()
        assert [line.split("\t")[0] for line in lines[-2:]] == ["猫", "狗"]
        assert f"{model}/1/labels.tsv" in exported.published.release.files


def test_exporting_again_changes_nothing(publish_tiny, exported, filled):
    before = _bytes_of(filled)
    times = {path: path.stat().st_mtime_ns for path in filled.glob("*/1/*")}
    again = publish_tiny(filled, 0)
    assert (again.version, again.unchanged) == (1, True)
    assert again.release == exported.published.release
    assert _bytes_of(filled) == before
    assert {path: path.stat().st_mtime_ns for path in filled.glob("*/1/*")} == times


def test_two_exports_into_two_folders_are_byte_identical(publish_tiny, exported, folder, afresh):
    assert publish_tiny(folder, 0) == exported.published
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
    assert manifest.releases == {"1": exported.published.release, "2": second.release}
    assert check_repository(filled) == second.release


def test_going_back_to_an_older_tower_is_a_new_version(publish_tiny, exported, filled):
    publish_tiny(filled, 1)
    back = publish_tiny(filled, 0)
    assert (back.version, back.unchanged) == (3, False)
    assert back.release.fingerprint == exported.published.release.fingerprint


@pytest.mark.parametrize(
    ("side", "end"),
    [("image", WrongWhenConverted()), ("image", NotANumber()), ("text", WrongWhenConverted())],
    ids=["image wrong", "image not a number", "text wrong"],
)
def test_a_tower_that_fails_the_gate_is_not_published(publish_tiny, exported, filled, side, end):
    before = _bytes_of(filled)
    with pytest.raises(ModelError, match=f"the {side} tower in fp32 is too far from the original"):
        publish_tiny(filled, 1, **{f"{side}_end": end})
    assert _bytes_of(filled) == before
    assert check_repository(filled) == exported.published.release
    assert list(filled.rglob(".staging")) == []


def test_a_first_export_that_fails_the_gate_leaves_nothing_to_serve(publish_tiny, folder):
    with pytest.raises(ModelError, match="nothing was published"):
        publish_tiny(folder, image_end=WrongWhenConverted())
    assert not folder.exists()


@pytest.mark.parametrize("stop_at", [STEPS[0], STEPS[1], STEPS[4], STEPS[6], STEPS[7]])
def test_an_export_stopped_at_any_step_publishes_nothing(publish_tiny, folder, stop_at):
    def stop(step: str) -> None:
        if step == stop_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        publish_tiny(folder, step=stop)
    assert not folder.exists()


def _refuse(step: str) -> None:
    raise ModelError("nothing was published")


@pytest.mark.parametrize("before", ["", "here", "here/is"])
def test_a_first_export_that_fails_leaves_the_folders_as_they_were(publish_tiny, tmp_path, before):
    (tmp_path / before).mkdir(parents=True, exist_ok=True)
    found = sorted(tmp_path.rglob("*"))
    with pytest.raises(ModelError):
        publish_tiny(tmp_path / "here/is/model_repository", step=_refuse)
    assert sorted(tmp_path.rglob("*")) == found


def test_a_first_export_that_fails_leaves_an_empty_folder_empty(publish_tiny, folder):
    folder.mkdir()
    with pytest.raises(ModelError):
        publish_tiny(folder, step=_refuse)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("name", ["notes.txt", "image_encoder/.work/half.rows"])
def test_a_first_export_that_fails_leaves_what_it_did_not_make(publish_tiny, folder, name):
    (folder / name).parent.mkdir(parents=True)
    (folder / name).write_text("not to be lost")
    with pytest.raises(ModelError):
        publish_tiny(folder, step=_refuse)
    assert (folder / name).read_text() == "not to be lost"


def test_half_made_banks_of_a_first_export_are_kept(publish_tiny, folder):
    def stop(step: str) -> None:
        if step == "label bank default":
            (folder / "image_encoder" / ".work").mkdir()
            (folder / "image_encoder" / ".work" / "half.rows").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        publish_tiny(folder, step=stop)
    assert set(_bytes_of(folder)) == {"image_encoder/.work/half.rows"}


def test_a_lock_that_its_holder_removed_is_not_taken(publish_tiny, folder, monkeypatch):
    lock = fcntl.flock

    def late(descriptor: int, operation: int) -> None:
        (folder / ".lock").unlink()  # as an export does that ends between our open and our lock
        lock(descriptor, operation)

    def late_and_made_anew(descriptor: int, operation: int) -> None:
        late(descriptor, operation)
        (folder / ".lock").touch()

    for flock in (late, late_and_made_anew):
        monkeypatch.setattr(fcntl, "flock", flock)
        with pytest.raises(SetupError, match="another command is writing to"):
            publish_tiny(folder)
    assert (folder / ".lock").exists()  # the third process's


def test_a_file_in_the_repositorys_place_is_told(publish_tiny, folder):
    folder.write_text("a file")
    with pytest.raises(SetupError, match=f"^{folder} is a file; expected a folder"):
        publish_tiny(folder)
    assert folder.read_text() == "a file"


def test_a_folder_that_cannot_be_made_is_a_setup_error(publish_tiny, tmp_path):
    (tmp_path / "occupied").write_text("a file, where a folder is needed")
    folder = tmp_path / "occupied" / "deeper" / "model_repository"
    with pytest.raises(SetupError, match=r"cannot be written.*nothing was published") as caught:
        publish_tiny(folder)
    assert str(folder) in str(caught.value)
    assert "name another folder" in str(caught.value)


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
        with pytest.raises(SetupError, match=f"another command is writing to {filled}"):
            publish_tiny(filled, 1)
        other.communicate()
    assert check_repository(filled) == exported.published.release
    assert publish_tiny(filled, 1).version == 2


def test_a_killed_export_does_not_disturb_the_next(publish_tiny, folder):
    staged = folder / "image_encoder" / ".staging" / "text_encoder" / "version"
    staged.mkdir(parents=True)
    (staged / "model.onnx").write_bytes(b"half")
    (folder / f".{MANIFEST}.{os.getpid() + 1}").write_bytes(b"half")
    published = publish_tiny(folder)
    assert published.version == 1
    assert list(folder.rglob(".staging")) == []
    assert check_repository(folder) == published.release


def test_a_version_that_the_manifest_does_not_list_is_replaced(publish_tiny, filled):
    unlisted = filled / "image_encoder" / "2"
    unlisted.mkdir()
    for name in ("model.onnx", "left.over"):
        (unlisted / name).write_bytes(b"half")
    second = publish_tiny(filled, 1)
    assert second.version == 2
    assert {path.name for path in unlisted.iterdir()} == {"model.onnx", "model.py"}
    assert check_repository(filled) == second.release


@pytest.mark.parametrize("data", [None, b"half"], ids=["missing", "cut short"])
def test_a_damaged_version_is_exported_anew(publish_tiny, filled, data):
    bank = filled / "label_bank_pets" / "1" / "model.onnx"
    bank.unlink()
    if data is not None:
        bank.write_bytes(data)
    again = publish_tiny(filled, 0)
    assert (again.version, again.unchanged) == (2, False)
    assert check_repository(filled) == again.release


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


def test_the_starter_is_published_whole(repository, starter, plans):
    release = check_repository(repository)
    assert release.fingerprint == starter.fingerprint
    assert release.parity.towers["image"][0].least_cosine >= 0.99999
    assert release.parity.towers["text"][0].least_cosine >= 0.9999
    assert release.parity.pixel_levels <= 0.01
    assert release.parity.answers.largest_difference < 1e-3
    assert release.parity.answers.ties == 0
    served = {name.partition("/")[0] for name in release.files}
    assert len(served) == 2 + len(plans)
    assert {name: bank.count for name, bank in release.banks.items()} == {
        name: len(plan.concepts) for name, plan in plans.items()
    }


@pytest.mark.parametrize("keep", [1, 2])
def test_only_the_releases_to_keep_are_left(publish_tiny, filled, keep):
    for seed in (1, 2):
        published = publish_tiny(filled, seed, keep=keep)
    manifest = read_manifest(filled)
    assert manifest is not None
    kept = [3, 2][:keep][::-1]
    assert sorted(manifest.releases) == [str(version) for version in kept]
    assert all(version_folders(filled / model) == kept for model in MODELS)
    assert check_repository(filled) == published.release


def test_a_folder_that_no_release_lists_goes_with_the_next_export(publish_tiny, filled):
    for name in ("image_encoder/7", "label_bank_gone/1"):
        (filled / name).mkdir(parents=True)
    published = publish_tiny(filled, 1)
    assert version_folders(filled / "image_encoder") == [1, 2]
    assert not (filled / "label_bank_gone").exists()
    assert check_repository(filled) == published.release


def test_three_releases_are_kept_unless_told_otherwise(make_tower, make_banks, filled):
    for seed in (1, 2, 3):
        publish(make_tower(seed), make_banks("default", "pets"), filled, step=len)
    manifest = read_manifest(filled)
    assert manifest is not None
    assert sorted(manifest.releases) == ["2", "3", "4"]
    assert version_folders(filled / "text_encoder") == [2, 3, 4]


def _bank(folder: Path, published: Published, model: str) -> StoredBank:
    return read_bank(folder / model / str(published.version) / "model.onnx")


def test_a_bank_that_an_export_does_not_name_is_built_for_the_new_model(
    make_tower, make_banks, filled
):
    tower, told = make_tower(1), []
    published = publish(tower, make_banks("default"), filled, step=told.append)
    assert list(published.release.banks) == ["default", "pets"]
    assert "label bank pets" in told
    first = read_bank(filled / "label_bank_pets" / "1" / "model.onnx")
    second = _bank(filled, published, "label_bank_pets")
    assert (second.labels, second.categories) == (first.labels, first.categories)
    assert second.contract.fingerprint == tower.fingerprint != first.contract.fingerprint
    assert second.contract.bank.created == first.contract.bank.created
    expected = _bank(filled, published, "label_bank").embeddings
    assert second.embeddings.tolist() == expected.tolist()
    assert second.embeddings.tolist() != first.embeddings.tolist()


def test_a_carried_bank_keeps_its_whole_concepts(make_tower, make_banks, folder):
    concepts = [
        Concept("猫", ("猫咪",), "动物", ("宠物",), "在睡觉的猫"),
        Concept("狗", (), "动物", ("宠物",)),
    ]
    own = BankPlan("own", concepts, None, "2020-02-02")
    publish(make_tower(0), [*make_banks("default"), own], folder, step=len)
    published = publish(make_tower(1), make_banks("default"), folder, step=len)
    carried = published_plan(folder, published.release, "own")
    assert (list(carried.concepts), carried.created) == (concepts, "2020-02-02")
    given = publish(make_tower(1), [*make_banks("default"), own], folder, step=len)
    assert given.unchanged  # so its rows are what the same plan gives


def test_a_carried_bank_keeps_the_templates_that_were_chosen_for_it(make_tower, folder):
    concepts = [Concept("猫"), Concept("狗")]
    chosen = Templates("own.txt", ("一张{}的照片", "一只{}"))
    plans = [BankPlan("default", concepts, None, "d"), BankPlan("own", concepts, chosen, "d")]
    publish(make_tower(0), plans, folder, step=len)
    second = replace(make_tower(1), templates="zh")
    published = publish(second, plans[:1], folder, step=len)
    own = _bank(folder, published, "label_bank_own").contract.bank
    assert own.templates == chosen.texts
    assert published.release.banks["own"].templates == "own.txt"
    # The model's own choice follows the model.
    default = _bank(folder, published, "label_bank").contract.bank
    assert len(default.templates) > 2
    assert published.release.banks["default"].templates is None


def test_without_a_default_bank_the_repositorys_is_kept(make_tower, make_banks, filled):
    published = publish(make_tower(1), make_banks("more"), filled, step=len)
    assert set(published.release.banks) == {"default", "pets", "more"}
    assert published.release.served == dict.fromkeys((*MODELS, "label_bank_more"), 2)


def test_a_bank_is_described_by_the_exported_text_tower(exported, make_tower):
    stored = read_bank(exported.folder / "label_bank" / "1" / "model.onnx")
    path = exported.folder / "text_encoder" / "1" / "model.onnx"
    rows = TextTower(path, stored.tokenizer, stored.contract).encode(["猫", "狗"])
    np.testing.assert_allclose(stored.embeddings, rows, rtol=0, atol=5e-4)


@pytest.mark.parametrize(
    ("image", "text"), [("int8", "int8"), ("fp16", "fp16"), ("fp32", "fp16"), ("int8", "fp32")]
)
def test_a_lower_precision_is_compared_beside_fp32(make_tower, make_banks, folder, image, text):
    precision, told = Precision(image=image, text=text), []
    tower = replace(make_tower(text_end=nn.Linear(8, 8)), precision=precision)
    published = publish(tower, make_banks("default"), folder, step=told.append)
    lowered = {"image": image, "text": text}
    found = {
        side: [check.precision for check in checks]
        for side, checks in published.release.parity.towers.items()
    }
    assert found == {
        side: ["fp32"] if lower == "fp32" else ["fp32", lower] for side, lower in lowered.items()
    }
    assert published.release.precision == precision
    for side, lower in lowered.items():
        assert (f"{side} tower in {lower} against the original" in told) == (lower != "fp32")
        version = folder / f"{side}_encoder" / "1"
        assert {path.name for path in version.iterdir()} == {"model.onnx", "model.py"}
        kinds = {tensor.data_type for tensor in onnx.load(version / "model.onnx").graph.initializer}
        expected = {KINDS[side, lower]} if (side, lower) in KINDS else set()
        assert kinds & set(KINDS.values()) == expected
    contract = _bank(folder, published, "label_bank").contract
    assert (contract.precision, contract.fingerprint) == (precision, tower.fingerprint)


def test_a_model_keeps_its_weights_and_may_be_exported_again(
    make_tower, make_banks, exported, folder
):
    tower, fresh = make_tower(0), make_tower(0)
    assert publish(tower, make_banks("default", "pets"), folder, step=len) == exported.published
    for side in ("image", "text"):
        weights, expected = getattr(tower, side).state_dict(), getattr(fresh, side).state_dict()
        assert weights.keys() == expected.keys()
        assert all(torch.equal(weights[name], expected[name]) for name in expected)
    assert publish(tower, make_banks("default", "pets"), folder, step=len).unchanged


def test_progress_tells_each_bank_and_how_far_it_is(make_tower, make_banks, folder):
    told = []
    publish(
        make_tower(0),
        make_banks("default", "pets"),
        folder,
        step=len,
        progress=lambda *values: told.append(values),
    )
    assert told == [("default", 0, 2), ("default", 2, 2), ("pets", 0, 2), ("pets", 2, 2)]


def test_exporting_again_brings_the_configs_that_an_earlier_release_lacked(
    publish_tiny: Publish, tmp_path: Path
) -> None:
    publish_tiny(tmp_path)
    configs = list(tmp_path.glob("*/configs/embedded-gpu.pbtxt"))
    assert len(configs) == 4  # two towers and two banks
    for config in configs:
        config.unlink()
    assert publish_tiny(tmp_path).unchanged
    assert all(config.is_file() for config in configs)
