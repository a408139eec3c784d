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
    Export,
    File,
    Manifest,
    Parity,
    check_repository,
    describe_file,
    read_manifest,
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
    write_manifest(folder, Manifest(exports={"1": export_of(folder)}))
    return folder


def export_of(folder: Path) -> Export:
    return Export(
        fingerprint=2**63 - 1,
        model=Model(name="starter", revision="1", licence="Apache-2.0"),
        precision=Precision(image="fp32", text="fp32"),
        sources={"vision": "somewhere"},
        tools={"torch": "2.9"},
        parity={"image": Parity(batches=(1, 2), least_cosine=0.9999999)},
        files={ONNX: describe_file(folder / ONNX)},
    )


def test_a_file_is_described_by_its_size_and_hash(folder: Path) -> None:
    expected = File(sha256=hashlib.sha256(WEIGHTS).hexdigest(), bytes=len(WEIGHTS))
    assert describe_file(folder / ONNX) == expected


def test_a_manifest_goes_round_to_the_same_bytes(folder: Path) -> None:
    before = (folder / MANIFEST).read_bytes()
    manifest = read_manifest(folder)
    assert manifest == Manifest(exports={"1": export_of(folder)})
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
    manifest = Manifest(exports=dict.fromkeys(versions, export_of(folder)))
    assert manifest.newest == newest


def test_a_whole_repository_gives_its_newest_export(folder: Path) -> None:
    assert check_repository(folder) == export_of(folder)


def test_an_older_version_that_lost_its_files_does_not_matter(folder: Path) -> None:
    old = json.loads((folder / MANIFEST).read_text())["exports"]["1"]
    old["files"] = {"image_encoder/0/model.onnx": {"sha256": "00", "bytes": 1}}
    new = json.loads((folder / MANIFEST).read_text())["exports"]["1"]
    (folder / MANIFEST).write_text(json.dumps({"exports": {"9": old, "10": new}}))
    assert check_repository(folder) == export_of(folder)


def test_there_is_no_manifest_where_nothing_was_exported(tmp_path: Path) -> None:
    assert read_manifest(tmp_path) is None
    assert read_manifest(tmp_path / "missing") is None


def test_a_missing_folder_is_told_with_the_command_that_makes_it(tmp_path: Path) -> None:
    missing = tmp_path / "无"
    with pytest.raises(SetupError, match=f"wanwu export starter --output {missing}"):
        check_repository(missing)


@pytest.mark.parametrize("manifest", [None, '{"exports": {}}'], ids=["none", "empty"])
def test_a_folder_without_an_export_is_told(tmp_path: Path, manifest: str | None) -> None:
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
        b'{"exports": {"1": {}}}',
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
    manifest["exports"] = {version: manifest["exports"]["1"]}
    (folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(SetupError, match=MANIFEST):
        check_repository(folder)


def test_a_manifest_of_a_newer_release_is_told(folder: Path) -> None:
    manifest = json.loads((folder / MANIFEST).read_text()) | {"schema_version": 2}
    (folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(SetupError, match="version"):
        check_repository(folder)
