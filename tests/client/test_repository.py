from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from wanwu import SetupError
from wanwu.contract import Model, Precision
from wanwu.repository import (
    MANIFEST,
    Answers,
    BankRelease,
    Describe,
    File,
    Manifest,
    Parity,
    Release,
    TowerParity,
    check_file,
    check_repository,
    describe_file,
    newest_release,
    read_manifest,
    version_folders,
    write_manifest,
)

WEIGHTS = bytes(range(256)) * 40
ONNX = "image_encoder/1/model.onnx"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model repository of one version and one file."""
    folder = tmp_path / "模型"
    (folder / ONNX).parent.mkdir(parents=True)
    (folder / ONNX).write_bytes(WEIGHTS)
    write_manifest(folder, Manifest(releases={"1": release_of(folder)}))
    return folder


def release_of(folder: Path, *files: str) -> Release:
    image = TowerParity(
        precision="fp32",
        required_cosine=0.9999,
        batches=(1, 3, 64),
        cosines={"16:9": 0.9999999, "tiny": 0.9999},
    )
    return Release(
        what="export",
        published="2026-11-22T08:00:00Z",
        fingerprint=2**63 - 1,
        model=Model(name="starter", revision="1", licence="Apache-2.0"),
        precision=Precision(image="fp32", text="fp32"),
        sources={"vision": "somewhere"},
        tools={"torch": "2.9"},
        parity=Parity(
            pixel_levels=0.5,
            towers={"image": (image,)},
            answers=Answers(pictures=10, ties=1, largest_difference=0.0001),
        ),
        describe=Describe(templates="bare", alias=0.3, description=0.3, broader=0.6),
        banks={"default": BankRelease(count=1, digest="ab" * 32)},
        files={name: describe_file(folder / name) for name in files or (ONNX,)},
    )


def test_a_file_is_described_by_its_size_and_hash(folder: Path) -> None:
    expected = File(sha256=hashlib.sha256(WEIGHTS).hexdigest(), bytes=len(WEIGHTS))
    assert describe_file(folder / ONNX) == expected


def test_a_manifest_goes_round_to_the_same_bytes(folder: Path) -> None:
    before = (folder / MANIFEST).read_bytes()
    manifest = read_manifest(folder)
    assert manifest == Manifest(releases={"1": release_of(folder)})
    write_manifest(folder, manifest)
    assert (folder / MANIFEST).read_bytes() == before


def test_writing_a_manifest_leaves_nothing_else_behind(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == ["image_encoder", MANIFEST]


@pytest.mark.parametrize(
    ("versions", "newest"), [([], 0), (["1"], 1), (["2", "10", "9"], 10)], ids=str
)
def test_the_newest_version_is_the_largest_number(
    folder: Path, versions: list[str], newest: int
) -> None:
    manifest = Manifest(releases=dict.fromkeys(versions, release_of(folder)))
    assert manifest.newest == newest


def test_a_whole_repository_gives_its_newest_release(folder: Path) -> None:
    assert check_repository(folder) == release_of(folder)


def test_an_older_version_that_lost_its_files_does_not_matter(folder: Path) -> None:
    old = json.loads((folder / MANIFEST).read_text())["releases"]["1"]
    old["files"] = {"image_encoder/0/model.onnx": {"sha256": "00", "bytes": 1}}
    new = json.loads((folder / MANIFEST).read_text())["releases"]["1"]
    (folder / MANIFEST).write_text(json.dumps({"releases": {"9": old, "10": new}}))
    assert check_repository(folder) == release_of(folder)


def test_there_is_no_manifest_where_nothing_was_exported(tmp_path: Path) -> None:
    assert read_manifest(tmp_path) is None
    assert read_manifest(tmp_path / "missing") is None


def test_a_missing_folder_is_told_with_the_command_that_makes_it(tmp_path: Path) -> None:
    missing = tmp_path / "无"
    with pytest.raises(SetupError, match=f"wanwu export starter --output {missing}"):
        check_repository(missing)


@pytest.mark.parametrize("manifest", [None, '{"releases": {}}'], ids=["none", "empty"])
def test_a_folder_without_a_release_is_told(tmp_path: Path, manifest: str | None) -> None:
    if manifest:
        (tmp_path / MANIFEST).write_text(manifest)
    with pytest.raises(SetupError, match=f"{tmp_path} holds no exported model"):
        check_repository(tmp_path)


def flip(path: Path) -> None:
    path.write_bytes(b"\xff" + WEIGHTS[1:])


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (Path.unlink, "is missing although manifest.json lists it"),
        (lambda path: path.write_bytes(WEIGHTS[:-1]), "has 10239 bytes .* says 10240"),
        (lambda path: path.write_bytes(b""), "has 0 bytes"),
        (flip, "has SHA-256"),
        (replace_by_folder, ""),
    ],
    ids=["missing", "truncated", "emptied", "flipped", "folder"],
)
def test_a_harmed_file_is_named_with_what_to_do(
    folder: Path, harm: Callable[[Path], object], reason: str
) -> None:
    harm(folder / ONNX)
    with pytest.raises(SetupError, match=f"{ONNX}.*{reason}") as caught:
        check_repository(folder)
    assert "export again" in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe{",
        b'{"releases": {"1": {}}}',
        b'{"colour": 1}',
        b'{"schema_version": "1"}',
    ],
)
def test_a_broken_manifest_is_named_with_what_to_do(tmp_path: Path, data: bytes) -> None:
    (tmp_path / MANIFEST).write_bytes(data)
    with pytest.raises(SetupError, match=f"{MANIFEST} cannot be read: .*export again"):
        check_repository(tmp_path)


@pytest.mark.parametrize("version", ["new", "01", "1.5", ""])
def test_a_version_that_is_no_number_is_a_broken_manifest(folder: Path, version: str) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["releases"] = {version: manifest["releases"]["1"]}
    (folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(SetupError, match=MANIFEST):
        check_repository(folder)


def test_a_manifest_of_a_newer_release_is_told(folder: Path) -> None:
    manifest = json.loads((folder / MANIFEST).read_text()) | {"schema_version": 2}
    (folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(SetupError, match="version"):
        check_repository(folder)


def publish(folder: Path, *files: str) -> None:
    """Lay out files, and a release that lists them as version 10."""
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    write_manifest(folder, Manifest(releases={"10": release_of(folder, *files)}))


def test_each_model_is_served_at_the_version_that_brought_its_files(tmp_path: Path) -> None:
    publish(tmp_path, ONNX, "image_encoder/1/model.py", "label_bank/10/model.onnx")
    assert check_repository(tmp_path).served == {"image_encoder": 1, "label_bank": 10}


def test_a_file_that_an_earlier_version_brought_is_checked_too(tmp_path: Path) -> None:
    publish(tmp_path, ONNX, "label_bank/10/model.onnx")
    (tmp_path / ONNX).write_bytes(b"x")
    with pytest.raises(SetupError, match=f"{ONNX} has 1 bytes"):
        check_repository(tmp_path)


@pytest.mark.parametrize("model", ["image_encoder", "label_bank"])
def test_a_newer_version_that_no_release_lists_is_refused(tmp_path: Path, model: str) -> None:
    publish(tmp_path, ONNX, "label_bank/10/model.onnx")
    (tmp_path / model / "11").mkdir()
    with pytest.raises(SetupError, match=f"{model}/11 was left by .* in place of") as caught:
        check_repository(tmp_path)
    assert "wanwu repository prune" in str(caught.value)


def test_the_same_number_unlisted_in_a_model_served_at_an_older_one_is_refused(
    tmp_path: Path,
) -> None:
    publish(tmp_path, ONNX, "label_bank/10/model.onnx")
    (tmp_path / "image_encoder" / "10").mkdir()
    with pytest.raises(SetupError, match=r"image_encoder/10 was left .* in place of version 1;"):
        check_repository(tmp_path)


@pytest.mark.parametrize("name", ["9", "1", "011", "11.old", ".staging", "configs"])
def test_what_triton_would_not_serve_in_its_place_does_not_matter(
    tmp_path: Path, name: str
) -> None:
    publish(tmp_path, "label_bank/10/model.onnx")
    (tmp_path / "label_bank" / name).mkdir()
    assert check_repository(tmp_path).served == {"label_bank": 10}


def test_the_newest_release_is_given_without_reading_its_files(folder: Path) -> None:
    release = release_of(folder)
    (folder / ONNX).unlink()
    assert newest_release(folder) == release


def test_version_folders_are_numbers_in_order(tmp_path: Path) -> None:
    for name in ("2", "10", "1", "03", "0", "configs", "-1", "²", "1.5"):
        (tmp_path / name).mkdir()
    assert version_folders(tmp_path) == [1, 2, 10]
    assert version_folders(tmp_path / "none") == []


def test_one_file_is_checked_by_itself(folder: Path) -> None:
    check_file(folder / ONNX, describe_file(folder / ONNX))
    with pytest.raises(SetupError, match=f"{ONNX} has SHA-256"):
        check_file(folder / ONNX, File(sha256="00" * 32, bytes=len(WEIGHTS)))


def test_the_least_cosine_is_that_of_the_worst_kind_of_input(folder: Path) -> None:
    (image,) = release_of(folder).parity.towers["image"]
    assert image.least_cosine == 0.9999


def test_a_bank_without_chosen_templates_has_the_models_own(folder: Path) -> None:
    data = json.loads((folder / MANIFEST).read_text())
    assert data["releases"]["1"]["banks"]["default"]["templates"] is None
    del data["releases"]["1"]["banks"]["default"]["templates"]
    (folder / MANIFEST).write_text(json.dumps(data))
    assert check_repository(folder).banks["default"].templates is None
