from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import pytest

from wanwu import InputError
from wanwu.cli.pictures import Shard, find_pictures

WHOLE = Shard.parse(None)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of pictures and other files, which is the current one."""
    for name in ("b.jpg", "a.PNG", "下/猫.webp", "下/深/狗.tiff", "notes.txt", "下/x.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def found(*named: str, shard: Shard = WHOLE, done: set[str] | None = None) -> list[str]:
    return list(find_pictures(named, shard, done or set()).paths)


def test_a_folder_gives_every_picture_below_it_and_tells_what_it_left_out() -> None:
    pictures = find_pictures(["."], WHOLE, set())
    expected = ["./a.PNG", "./b.jpg", "./下/猫.webp", "./下/深/狗.tiff"]
    assert list(pictures.paths) == expected
    assert pictures.total == 4
    assert pictures.notes == ("2 files that are no pictures by their names were left out",)


def test_files_are_given_as_they_were_named_and_once() -> None:
    named = ["b.jpg", "notes.txt", "none.jpg", "b.jpg"]
    assert found(*named) == ["b.jpg", "notes.txt", "none.jpg"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jpg", ["b.jpg"]),
        ("[ab].*", ["a.PNG", "b.jpg"]),
        ("**/*.webp", ["下/猫.webp"]),
        ("下/**", ["下/x.json", "下/深/狗.tiff", "下/猫.webp"]),
    ],
)
def test_a_glob_gives_the_files_it_matches(pattern: str, expected: list[str]) -> None:
    assert sorted(found(pattern)) == sorted(expected)


def test_a_file_whose_name_looks_like_a_glob_is_that_file(folder: Path) -> None:
    (folder / "[1].jpg").write_bytes(b"")
    assert found("[1].jpg") == ["[1].jpg"]


@pytest.mark.parametrize(
    ("named", "reason"),
    [
        (["*.bmp"], r"no file matches '\*\.bmp'"),
        (["空"], "空 holds no picture; expected files that end in .jpg"),
        (["-", "b.jpg"], "- was given with 1 other paths"),
    ],
)
def test_what_holds_no_picture_is_refused(folder: Path, named: list[str], reason: str) -> None:
    (folder / "空").mkdir()
    with pytest.raises(InputError, match=reason):
        found(*named)


def test_a_list_comes_from_standard_input_as_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = "b.jpg\n\n下/猫.webp\r\n没有.jpg".encode() + b"\n\xff.jpg\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines)))
    pictures = find_pictures(["-"], WHOLE, {"b.jpg"})
    assert pictures.total is None
    assert list(pictures.paths) == ["下/猫.webp", "没有.jpg", os.fsdecode(b"\xff.jpg")]


def test_a_byte_order_mark_is_no_part_of_the_first_name(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = "\ufeff猫.jpg\r\n\ufeff狗.jpg\r\n".encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines)))
    assert list(find_pictures(["-"], WHOLE, set()).paths) == ["猫.jpg", "\ufeff狗.jpg"]


def test_what_is_done_is_left_out_and_told() -> None:
    pictures = find_pictures(["."], WHOLE, {"./b.jpg", "other.jpg"})
    assert "./b.jpg" not in list(pictures.paths)
    assert pictures.notes[-1] == "1 of 4 pictures are done already"


@pytest.mark.parametrize("count", [2, 3, 8])
def test_parts_hold_every_picture_once_and_about_as_many_each(count: int) -> None:
    names = [f"photos/{number:04}.jpg" for number in range(4000)]
    parts = [[name for name in names if name in Shard(index, count)] for index in range(count)]
    assert sorted(name for part in parts for name in part) == names
    for part in parts:
        assert 0.8 < len(part) * count / len(names) < 1.2


@pytest.mark.parametrize("text", ["", "1", "4/4", "-1/4", "1/0", "a/b", "1/4/2", "0/²", "1.0/2"])
def test_what_is_no_part_is_refused(text: str) -> None:
    if text == "":
        assert Shard.parse(text) == WHOLE
        return
    with pytest.raises(InputError, match="expected I/N with I from 0 to N-1"):
        Shard.parse(text)
