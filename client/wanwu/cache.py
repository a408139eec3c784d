"""A folder where a client keeps what is the same on every start: banks, and encoded labels.

Each file is named by the fingerprint of the export and the digest of what is in it, so nothing in
it is ever out of date. What cannot be read or written is fetched again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wanwu.bank import Bank, make_bank
from wanwu.contract import Contract
from wanwu.errors import ModelError
from wanwu.rank import Floats

#: The least recently used files are removed when all are larger than this.
MAX_BYTES = 1 << 30
#: Fewer texts than this are encoded again as fast as they are read.
LEAST_TEXTS = 8

_UNREADABLE = (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError)


def default_folder() -> Path:
    """Give the folder that WANWU_CACHE_DIR names, else one in the user's cache folder."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("WANWU_CACHE_DIR") or Path(cache) / "wanwu" / "banks")


class FileCache:
    """Banks and encoded labels in a folder; without a folder, nothing is kept."""

    def __init__(self, folder: Path | None, max_bytes: int = MAX_BYTES) -> None:
        self._folder = folder
        self._max_bytes = max_bytes

    def read_bank(self, contract: Contract, contract_json: bytes) -> Bank | None:
        """Give the bank of a contract, if it is kept and whole."""
        found = self._read(_bank_name(contract, contract_json))
        if found is None:
            return None
        try:
            labels, categories = (_split(found[name]) for name in ("labels", "categories"))
            return make_bank(contract, contract_json, labels, categories, found["embeddings"])  # type: ignore[arg-type]
        except (KeyError, UnicodeDecodeError, ModelError):
            return None  # a damaged file

    def write_bank(self, bank: Bank) -> None:
        """Keep a bank."""
        self._write(
            _bank_name(bank.contract, bank.contract_json),
            labels=_joined(bank.labels),
            categories=_joined(bank.categories),
            embeddings=bank.stored,
        )

    def read_texts(self, contract: Contract, digest: str, count: int) -> Floats | None:
        """Give the embeddings of texts, FP32 [count, D], if they are kept."""
        found = self._read(_texts_name(contract, digest))
        rows = None if found is None else found.get("embeddings")
        if rows is None or rows.shape != (count, contract.embedding_dim):
            return None
        return rows.astype(np.float32, copy=False)

    def write_texts(self, contract: Contract, digest: str, embeddings: Floats) -> None:
        """Keep the embeddings of texts."""
        if len(embeddings) >= LEAST_TEXTS:
            self._write(_texts_name(contract, digest), embeddings=embeddings)

    def _read(self, name: str) -> dict[str, npt.NDArray[np.generic]] | None:
        if self._folder is None:
            return None
        path = self._folder / name
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
                arrays = {key: stored[key] for key in stored.files}
            os.utime(path)
        except _UNREADABLE:
            return None
        return arrays

    def _write(self, name: str, **arrays: npt.NDArray[np.generic]) -> None:
        if self._folder is None:
            return
        # A cache that cannot be written only costs time.
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor, half = tempfile.mkstemp(dir=self._folder, suffix=".half")
            try:
                with os.fdopen(descriptor, "wb") as stream:
                    np.savez(stream, **arrays)
                Path(half).replace(self._folder / name)
            except BaseException:
                Path(half).unlink(missing_ok=True)
                raise
            self._remove_oldest(self._folder)

    def _remove_oldest(self, folder: Path) -> None:
        files = sorted(folder.glob("*.npz"), key=lambda path: -path.stat().st_mtime)
        total = 0
        for path in files:
            total += path.stat().st_size
            if total > self._max_bytes:
                path.unlink(missing_ok=True)


def _bank_name(contract: Contract, contract_json: bytes) -> str:
    return f"bank-{contract.fingerprint}-{hashlib.sha256(contract_json).hexdigest()[:32]}.npz"


def _texts_name(contract: Contract, digest: str) -> str:
    return f"texts-{contract.fingerprint}-{digest[:32]}.npz"


def _joined(texts: Iterable[str]) -> npt.NDArray[np.uint8]:
    return np.frombuffer("\0".join(texts).encode(), np.uint8)


def _split(joined: npt.NDArray[np.generic]) -> list[str]:
    return joined.tobytes().decode().split("\0")
