"""A label bank's embeddings, made in chunks that a killed export need not make again.

It knows nothing of the model but a key that changes whenever the model's embeddings do.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from wanwu.errors import ModelError, SetupError
from wanwu_export.concepts import Concept
from wanwu_export.describe import Encode, Weights, describe
from wanwu_export.templates import Templates

#: Concepts described at a time with one template; with many, fewer, so that a chunk takes as long.
CHUNK, LEAST_CHUNK = 512, 16
#: Work of another model or bank that nobody resumed in this time is removed.
STALE_S = 7 * 24 * 3600

_WORK_FILE = re.compile(r"[0-9a-f]{64}\.(rows|json|json\.new)")

Progress = Callable[[int, int], None]


def embed_concepts(
    concepts: Sequence[Concept],
    encode: Encode,
    templates: Templates,
    weights: Weights,
    *,
    dim: int,
    key: str,
    work: Path,
    progress: Progress,
) -> npt.NDArray[np.float16]:
    """Describe concepts chunk by chunk: FP16 [len(concepts), dim].

    Args:
        concepts: the bank's concepts.
        encode: gives the embeddings of texts.
        templates: the sentences around each label.
        weights: how much a concept's other texts count.
        dim: numbers in an embedding.
        key: the model's fingerprint.
        work: folder of finished chunks, made where there is none. They stay there when this
            call fails or is killed, and the next call with the same arguments goes on from them.
        progress: told how many concepts are done, and of how many.

    Raises:
        LabelError: `encode` refuses a text.
        ModelError: an embedding is not finite, or not of `dim` numbers.
        SetupError: another process is embedding the same bank.
        OSError: `work` cannot be written.
    """
    work.mkdir(parents=True, exist_ok=True)
    name = _name(concepts, templates, weights, dim, key)
    _remove_stale(work, name)
    rows_path, done_path = work / f"{name}.rows", work / f"{name}.json"
    total, row_bytes = len(concepts), dim * np.dtype(np.float16).itemsize
    size = max(LEAST_CHUNK, CHUNK // len(templates.texts))
    with rows_path.open("a+b") as rows:
        _lock(rows, work)
        done = _resume(rows, done_path, row_bytes)
        progress(done, total)
        while done < total:
            chunk = concepts[done : done + size]
            described = describe(chunk, encode, templates, weights)
            _check_width(described.shape[1], dim)
            done += len(chunk)
            _store(described.astype(np.float16), rows, done, done_path)
            progress(done, total)
        rows.seek(0)
        embeddings = np.fromfile(rows, dtype=np.float16).reshape(total, dim)
        done_path.unlink(missing_ok=True)
        rows_path.unlink(missing_ok=True)
    with suppress(OSError):  # another bank's work is in it
        work.rmdir()
    return embeddings


def _name(
    concepts: Sequence[Concept], templates: Templates, weights: Weights, dim: int, key: str
) -> str:
    """Name the work by everything that decides the rows."""
    digest = hashlib.sha256(repr((key, dim, templates.texts, weights)).encode())
    for concept in concepts:
        digest.update(repr(concept).encode())
    return digest.hexdigest()


def _lock(rows: BinaryIO, work: Path) -> None:
    try:
        fcntl.flock(rows, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise SetupError(
            "another export is embedding the same label bank in {0}; wait for it, or stop it", work
        ) from error


def _resume(rows: BinaryIO, done_path: Path, row_bytes: int) -> int:
    """Cut off rows that are not counted as done, and give how many are."""
    done = int(json.loads(done_path.read_bytes())["done"]) if done_path.exists() else 0
    if rows.seek(0, os.SEEK_END) < done * row_bytes:
        # The rows were lost: somebody removed them, or the machine lost power.
        done_path.unlink()
        done = 0
    rows.truncate(done * row_bytes)
    return done


def _store(described: npt.NDArray[np.float16], rows: BinaryIO, done: int, done_path: Path) -> None:
    """Append a chunk, and count it only when its rows are on the disk."""
    rows.write(described.tobytes())
    _sync(rows)
    new = done_path.with_suffix(".json.new")
    with new.open("wb") as stream:
        stream.write(json.dumps({"done": done}).encode())
        _sync(stream)
    new.replace(done_path)


def _sync(stream: BinaryIO) -> None:
    stream.flush()
    os.fsync(stream.fileno())


def _remove_stale(work: Path, name: str) -> None:
    oldest = time.time() - STALE_S
    for path in work.iterdir():
        ours = _WORK_FILE.fullmatch(path.name) and path.stem.split(".")[0] != name
        # Another export may remove its own files meanwhile.
        with suppress(FileNotFoundError):
            if ours and path.stat().st_mtime < oldest:
                path.unlink()


def _check_width(width: int, dim: int) -> None:
    if width != dim:
        raise ModelError(
            "the text tower gives embeddings of {0} numbers and the model's contract says {1}; "
            "the two towers are not of one model: check the checkpoint",
            width,
            dim,
        )
