"""Embedding a bank in chunks: the same rows whether or not the export was killed on the way."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from wanwu.bank import normalise
from wanwu.errors import LabelError, ModelError, SetupError
from wanwu.rank import Floats
from wanwu_export.bank_embedding import CHUNK, STALE_S, embed_concepts
from wanwu_export.concepts import Concept
from wanwu_export.describe import Weights, describe
from wanwu_export.templates import load_templates

DIM = 8
BARE = load_templates("bare")
WEIGHTS = Weights(alias=0.3, description=0.3, broader=0.6)
#: Two whole chunks and a part of one.
CONCEPTS = [Concept(f"标签{n}", (f"别名{n}",)) for n in range(2 * CHUNK + 100)]

#: Embeds CONCEPTS, and kills itself at the moment that the first argument names.
KILLED = """
import os, signal, sys
from pathlib import Path
from wanwu_export import bank_embedding
from test_bank_embedding import CHUNK, CONCEPTS, embed

moment, work = sys.argv[1], Path(sys.argv[2])

def kill(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

def torn(described, rows, done, done_path, store=bank_embedding._store):
    if done <= CHUNK:
        return store(described, rows, done, done_path)
    rows.write(described.tobytes()[:999])
    rows.flush()
    kill()

def before_the_count(self, target, replace=Path.replace):
    return kill() if b"1024" in self.read_bytes() else replace(self, target)

if moment == "in the rows":
    bank_embedding._store = torn
if moment == "before the count":
    Path.replace = before_the_count
if moment == "before the removal":
    Path.unlink = kill
kill_at = 2 * CHUNK if moment == "after the count" else None
embed(work, progress=lambda done, total: kill() if done == kill_at else None)
"""


class Encoder:
    """Gives each text a direction of its own, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def __call__(self, texts: Sequence[str]) -> Floats:
        self.asked.append(list(texts))
        seeds = [int.from_bytes(text.encode()[-6:], "big") for text in texts]
        rows = [np.random.default_rng(seed).standard_normal(DIM) for seed in seeds]
        return normalise(np.array(rows, dtype=np.float32))

    @property
    def labels(self) -> list[str]:
        return [text for texts in self.asked for text in texts if text.startswith("标签")]


def embed(work: Path, **changed: Any) -> npt.NDArray[np.float16]:
    arguments = {
        "concepts": CONCEPTS,
        "encode": Encoder(),
        "templates": BARE,
        "weights": WEIGHTS,
        "dim": DIM,
        "key": "model 1",
        "work": work,
        "progress": lambda done, total: None,
    }
    return embed_concepts(**{**arguments, **changed})


def stop_after(chunks: int, work: Path, **changed: Any) -> None:
    """Embed until so many chunks are done, then fail as an interrupted export does."""

    def progress(done: int, total: int) -> None:
        if done == chunks * CHUNK:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed(work, progress=progress, **changed)


@pytest.fixture(scope="module")
def whole() -> bytes:
    """What an undisturbed run must give: every concept described by itself."""
    rows = [describe([concept], Encoder(), BARE, WEIGHTS) for concept in CONCEPTS]
    return np.concatenate(rows).astype(np.float16).tobytes()


def test_the_embeddings_are_the_descriptions_in_fp16(tmp_path, whole):
    found = embed(tmp_path)
    assert (found.shape, found.dtype) == ((len(CONCEPTS), DIM), np.float16)
    assert found.tobytes() == whole
    assert found.flags.writeable


def test_each_chunk_is_one_call_and_nothing_is_left(tmp_path):
    encode = Encoder()
    embed(tmp_path / "made" / "here", encode=encode)
    assert [len(texts) for texts in encode.asked] == [2 * CHUNK, 2 * CHUNK, 200]
    assert not (tmp_path / "made" / "here").exists()


def test_progress_counts_the_concepts_done(tmp_path):
    steps: list[tuple[int, int]] = []
    embed(tmp_path, progress=lambda done, total: steps.append((done, total)))
    total = len(CONCEPTS)
    assert steps == [(0, total), (CHUNK, total), (2 * CHUNK, total), (total, total)]


def test_an_interrupted_run_is_resumed_where_it_stopped(tmp_path, whole):
    stop_after(1, tmp_path)
    encode, steps = Encoder(), []
    found = embed(tmp_path, encode=encode, progress=lambda done, total: steps.append(done))
    assert found.tobytes() == whole
    assert steps == [CHUNK, 2 * CHUNK, len(CONCEPTS)]
    assert set(encode.labels) == {concept.label for concept in CONCEPTS[CHUNK:]}


@pytest.mark.parametrize(
    ("moment", "done"),
    [
        ("in the rows", CHUNK),
        ("before the count", CHUNK),
        ("after the count", 2 * CHUNK),
        ("before the removal", len(CONCEPTS)),
    ],
)
def test_a_killed_run_is_resumed_with_the_same_bytes(tmp_path, whole, moment, done):
    work = tmp_path / "work"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, moment, work], env=environment, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    encode = Encoder()
    assert embed(work, encode=encode).tobytes() == whole
    assert set(encode.labels) == {concept.label for concept in CONCEPTS[done:]}
    assert not work.exists()


@pytest.mark.parametrize(
    "changed",
    [
        {"key": "model 2"},
        {"templates": load_templates("zh-food")},
        {"weights": Weights(alias=0.4, description=0.3, broader=0.6)},
        {"concepts": [*CONCEPTS[:-1], Concept("别的")]},
        {"concepts": [Concept(CONCEPTS[0].label, description="新"), *CONCEPTS[1:]]},
    ],
    ids=["key", "templates", "weights", "last-label", "description"],
)
def test_the_work_of_another_bank_is_not_taken_for_this_ones(tmp_path, changed):
    stop_after(1, tmp_path)
    fresh = embed(tmp_path / "fresh", **changed)
    assert embed(tmp_path, **changed).tobytes() == fresh.tobytes()
    assert len([path for path in tmp_path.iterdir() if path.is_file()]) == 2  # may be resumed yet


def test_lost_rows_are_made_again(tmp_path, whole):
    stop_after(2, tmp_path)
    (rows,) = tmp_path.glob("*.rows")
    rows.write_bytes(rows.read_bytes()[:-1])
    encode = Encoder()
    assert embed(tmp_path, encode=encode).tobytes() == whole
    assert len(encode.labels) == len(CONCEPTS)


def test_rows_are_on_the_disk_before_they_are_counted(tmp_path, monkeypatch):
    events: list[str] = []
    replace, fsync = Path.replace, os.fsync

    def note_replace(path: Path, target: Path) -> Path:
        events.append(f"count {json.loads(path.read_bytes())['done']}")
        return replace(path, target)

    def note_fsync(number: int) -> None:
        events.append(f"sync {Path(f'/proc/self/fd/{number}').readlink().suffix}")
        fsync(number)

    monkeypatch.setattr(Path, "replace", note_replace)
    monkeypatch.setattr(os, "fsync", note_fsync)
    embed(tmp_path, concepts=CONCEPTS[: CHUNK + 1])
    chunks = [["sync .rows", "sync .new", f"count {done}"] for done in (CHUNK, CHUNK + 1)]
    assert events == chunks[0] + chunks[1]


def test_only_work_that_nobody_resumed_in_a_week_is_removed(tmp_path):
    stop_after(1, tmp_path, key="old")
    old = list(tmp_path.iterdir())
    stop_after(1, tmp_path, key="recent")
    other = tmp_path / "notes.json"
    other.touch()
    for path in (*old, other):
        os.utime(path, (time.time() - STALE_S - 60,) * 2)
    recent = set(tmp_path.iterdir()) - set(old)
    embed(tmp_path)
    assert set(tmp_path.iterdir()) == recent
    assert (len(old), other in recent) == (2, True)


def test_old_work_of_this_very_bank_is_resumed(tmp_path):
    stop_after(1, tmp_path)
    for path in tmp_path.iterdir():
        os.utime(path, (time.time() - STALE_S - 60,) * 2)
    encode = Encoder()
    embed(tmp_path, encode=encode)
    assert len(encode.labels) == len(CONCEPTS) - CHUNK


def test_two_exports_do_not_write_to_the_same_work(tmp_path):
    stop_after(1, tmp_path)
    (rows,) = tmp_path.glob("*.rows")
    before = rows.read_bytes()
    with rows.open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(SetupError, match=f"another export is embedding .* in {tmp_path}"):
            embed(tmp_path)
    assert rows.read_bytes() == before


def test_an_embedding_that_is_not_finite_is_refused_by_its_label(tmp_path):
    def broken(texts: Sequence[str]) -> Floats:
        rows = Encoder()(texts)
        rows[[text == "标签600" for text in texts]] = np.nan
        return rows

    with pytest.raises(ModelError, match="no finite embedding for label '标签600'"):
        embed(tmp_path, encode=broken)


def test_embeddings_of_another_width_are_refused(tmp_path):
    with pytest.raises(ModelError, match="embeddings of 8 numbers and the model's contract says 9"):
        embed(tmp_path, dim=9)


def test_a_label_that_the_model_cannot_read_is_told_and_the_work_before_it_stays(tmp_path):
    def refuse(texts: Sequence[str]) -> Floats:
        if "标签600" in texts:
            raise LabelError("label '标签600'… is 80 tokens and the model reads 52; shorten it")
        return Encoder()(texts)

    with pytest.raises(LabelError, match="is 80 tokens"):
        embed(tmp_path, encode=refuse)
    encode = Encoder()
    embed(tmp_path, encode=encode)
    assert len(encode.labels) == len(CONCEPTS) - CHUNK


def test_never_more_than_a_chunk_is_encoded_at_a_time(tmp_path):
    encode = Encoder()
    embed(tmp_path, encode=encode, concepts=[Concept(f"标签{n}") for n in range(5 * CHUNK)])
    assert max(map(len, encode.asked)) == CHUNK
