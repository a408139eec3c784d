"""What is asked of the server."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from wanwu.errors import InputError
from wanwu_loadtest.work import Questions, read_mix, read_photos


def questions(mix: str) -> Questions:
    labels = ["猫", "狗", "猫", *(f"标签{each}" for each in range(40))]
    return Questions([b"a", b"b"], labels, read_mix(mix), 8, random.Random(1))


def test_a_mix_keeps_its_proportions() -> None:
    asked = questions("single=8,batch=1,labels=1")
    kinds = Counter(asked.next().kind for _ in range(5000))
    assert kinds["single"] / 5000 == pytest.approx(0.8, abs=0.03)
    assert kinds["batch"] / 5000 == pytest.approx(0.1, abs=0.03)


def test_only_a_batch_has_several_pictures_and_only_own_labels_are_sent() -> None:
    for kind, pictures, labels in (("single", 1, 0), ("batch", 8, 0), ("labels", 1, 18)):
        question = questions(kind).next()
        assert (len(question.images), len(question.labels or [])) == (pictures, labels)


def test_own_labels_are_told_once_each() -> None:
    labels = questions("labels").next().labels or []
    assert len(set(labels)) == len(labels)


@pytest.mark.parametrize("text", ["", "double", "single=0", "single=-1", "single=x", "single=inf"])
def test_a_mix_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"--mix has .*expected KIND=WEIGHT"):
        read_mix(text)


def test_photographs_are_read_from_a_folder_and_its_folders(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "a.JPG").write_bytes(b"a")
    (tmp_path / "notes.txt").write_bytes(b"no picture")
    assert read_photos(str(tmp_path)) == [b"a"]


def test_a_folder_without_photographs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no picture"):
        read_photos(str(tmp_path))


def test_without_a_folder_the_demo_lends_its_photographs() -> None:
    assert len(read_photos(None)) >= 3
