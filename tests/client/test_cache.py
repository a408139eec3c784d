from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from wanwu import Recognizer
from wanwu.bank import make_bank
from wanwu.cache import FileCache
from wanwu.embedded.server import EmbeddedServer
from wanwu.samples import cat_photo
from wanwu.transport import GrpcTransport

TEXTS = tuple(f"第{number}种东西" for number in range(20))


class Counting(GrpcTransport):
    """The real wire, and how often each model was asked for which outputs."""

    def __init__(self, server: EmbeddedServer) -> None:
        from wanwu.channel import Address

        super().__init__(Address(server.url))
        self.asked: list[tuple[str, tuple[str, ...]]] = []

    def infer(self, model, inputs, outputs, *, timeout_s):
        self.asked.append((model, tuple(outputs)))
        return super().infer(model, inputs, outputs, timeout_s=timeout_s)

    def rows(self) -> int:
        return sum("EMBEDDINGS" in outputs for _, outputs in self.asked)

    def texts(self) -> int:
        return sum(model == "text_encoder" for model, _ in self.asked)


@pytest.fixture
def wire(server: EmbeddedServer) -> Counting:
    return Counting(server)


def again(server: EmbeddedServer, folder: Path | bool) -> tuple[Counting, Recognizer]:
    wire = Counting(server)
    return wire, Recognizer(transport=wire, cache=folder)


def test_a_second_client_fetches_no_row_and_encodes_no_label(server, tmp_path: Path) -> None:
    answers = []
    for rows, texts in ((1, 1), (0, 0)):
        wire, recognizer = again(server, tmp_path / "cache")
        with recognizer:
            answers.append(recognizer.recognize(cat_photo()).predictions)
            answers.append(recognizer.recognize(cat_photo(), labels=TEXTS).predictions)
        assert (wire.rows(), wire.texts()) == (rows, texts)
    assert [item.label for item in answers[0]] == [item.label for item in answers[2]]
    assert answers[1] == answers[3]


def test_without_a_cache_everything_is_fetched_and_nothing_written(server, tmp_path, monkeypatch):
    monkeypatch.setenv("WANWU_CACHE_DIR", str(tmp_path / "cache"))
    for _ in range(2):
        wire, recognizer = again(server, False)
        with recognizer:
            recognizer.recognize(cat_photo())
        assert wire.rows() == 1
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "text", "folder"])
def test_a_damaged_file_is_fetched_again(server, tmp_path: Path, damage: str) -> None:
    _, recognizer = again(server, tmp_path)
    with recognizer:
        expected = recognizer.recognize(cat_photo(), bank="seed18").predictions
    (path,) = tmp_path.glob("bank-*.npz")
    data = bytearray(path.read_bytes())
    if damage == "folder":
        path.unlink()
        path.mkdir()
    else:
        data[len(data) // 2] ^= 1
        new = {"cut": data[: len(data) // 2], "flipped": data, "empty": b"", "text": b"hello"}
        path.write_bytes(new[damage])
    wire, recognizer = again(server, tmp_path)
    with recognizer:
        found = recognizer.recognize(cat_photo(), bank="seed18").predictions
    assert wire.rows() == 1
    assert [item.label for item in found] == [item.label for item in expected]


def test_a_folder_that_cannot_be_written_only_costs_time(server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    wire, recognizer = again(server, tmp_path / "file" / "cache")
    with recognizer:
        assert recognizer.recognize(cat_photo(), bank="seed18").predictions
    assert wire.rows() == 1


def test_what_is_kept_is_private_and_leaves_no_half_file(server, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    _, recognizer = again(server, folder)
    with recognizer:
        recognizer.recognize(cat_photo(), bank="seed18")
    assert folder.stat().st_mode & 0o077 == 0
    files = list(folder.iterdir())
    assert [path.suffix for path in files] == [".npz"]
    assert files[0].stat().st_mode & 0o077 == 0


def test_the_least_recently_used_are_removed_first(server, tmp_path: Path) -> None:
    with Recognizer(server.url, cache=False) as recognizer:
        contract = recognizer.contract()
    cache = FileCache(tmp_path, max_bytes=100_000)
    rows = np.ones((30, contract.embedding_dim), np.float32)
    for number in range(3):
        cache.write_texts(contract, f"{number}" * 64, rows)
        for place, path in enumerate(tmp_path.glob("*.npz")):
            os.utime(path, (1000 + place, 1000 + place) if "0" * 9 not in path.name else (9, 9))
    kept = {path.name.partition("-")[2].rpartition("-")[2][0] for path in tmp_path.glob("*.npz")}
    assert kept == {"2"}
    assert cache.read_texts(contract, "0" * 64, 30) is None
    assert cache.read_texts(contract, "2" * 64, 31) is None  # of another number of texts
    np.testing.assert_array_equal(cache.read_texts(contract, "2" * 64, 30), rows)


def test_a_bank_of_another_export_is_not_taken_for_this_one(server, tmp_path: Path) -> None:
    with Recognizer(server.url, cache=False) as recognizer:
        contract = recognizer.contract("seed18")
    rows = np.ones((18, contract.embedding_dim), np.float16)
    labels = [f"标签{number}" for number in range(18)]
    from wanwu.bank import bank_digest

    other = contract.from_json(
        contract.to_json().replace(
            contract.bank.digest.encode(), bank_digest(labels, [""] * 18, rows).encode()
        )
    )
    bank = make_bank(other, other.to_json(), labels, [""] * 18, rows)
    FileCache(tmp_path).write_bank(bank)
    assert FileCache(tmp_path).read_bank(contract, contract.to_json()) is None
    again = FileCache(tmp_path).read_bank(other, other.to_json())
    assert again is not None
    assert again.labels == bank.labels
    assert again.categories == bank.categories
    np.testing.assert_array_equal(again.stored, rows)
