"""A label bank as the client holds it: labels, embeddings, contract."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wanwu.calls import Infer, Steps
from wanwu.channel import as_bytes
from wanwu.contract import Contract
from wanwu.errors import InputError, ModelError
from wanwu.rank import Floats
from wanwu.similarity import LabelRows

DEFAULT_BANK = "default"
#: Rows asked for at a time: 8,192 x 512 x 2 bytes are 8 MB a message.
PAGE_ROWS = 8192

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


@dataclass(frozen=True)
class Bank:
    """Labels ready to be scored; `stored` is FP16 [count, D] as the server sent it."""

    contract: Contract
    contract_json: bytes
    labels: tuple[str, ...]
    categories: tuple[str, ...]
    stored: npt.NDArray[np.float16]
    rows: LabelRows


def bank_model(bank: str | None) -> str:
    """Give the Triton model that serves a bank: `label_bank`, or `label_bank_NAME`.

    Raises:
        InputError: the name is not one a bank can have.
    """
    if bank is None or bank == DEFAULT_BANK:
        return "label_bank"
    if not _NAME.fullmatch(bank):
        raise InputError(
            "{0} cannot be a bank's name; expected lower-case letters, digits, _ and -, such as "
            "'seed18'",
            repr(bank),
        )
    return f"label_bank_{bank}"


def bank_digest(
    labels: Sequence[str], categories: Sequence[str], embeddings: npt.NDArray[np.float16]
) -> str:
    """Give the SHA-256 over a bank's labels, categories and FP16 embeddings, as hex."""
    digest = hashlib.sha256()
    for texts in (labels, categories):
        digest.update("\0".join(texts).encode())
        digest.update(b"\0\0")
    digest.update(np.ascontiguousarray(embeddings, dtype="<f2").tobytes())
    return digest.hexdigest()


def fetch_contract(bank: str | None, *, timeout_s: float) -> Steps[tuple[Contract, bytes]]:
    """Fetch a bank's contract, without its rows: read, and as it came."""
    outputs = yield _ask(bank, 0, 0, ["CONTRACT"], timeout_s)
    data = as_bytes(outputs["CONTRACT"][0])
    return Contract.from_json(data), data


def fetch_tokenizer(bank: str | None, *, timeout_s: float) -> Steps[tuple[bytes, bytes]]:
    """Fetch the tokenizer, and the contract it belongs to, in one answer."""
    outputs = yield _ask(bank, 0, 0, ["TOKENIZER", "CONTRACT"], timeout_s)
    return as_bytes(outputs["TOKENIZER"][0]), as_bytes(outputs["CONTRACT"][0])


def fetch_bank(
    bank: str | None, contract: Contract, contract_json: bytes, *, timeout_s: float
) -> Steps[Bank | None]:
    """Fetch the rows of a bank, page by page.

    Returns:
        The bank, or None when another version took its place meanwhile.

    Raises:
        ServerError: no answer, or the bank is not served.
        ModelError: the bank does not match its own contract.
    """
    labels: list[str] = []
    categories: list[str] = []
    pages: list[npt.NDArray[np.float16]] = []
    names = ["LABELS", "CATEGORIES", "EMBEDDINGS", "CONTRACT"]
    for first in range(0, contract.bank.count, PAGE_ROWS):
        last = min(first + PAGE_ROWS, contract.bank.count)
        page = yield _ask(bank, first, last, names, timeout_s)
        if as_bytes(page["CONTRACT"][0]) != contract_json:
            return None
        labels += [as_bytes(label).decode() for label in page["LABELS"]]
        categories += [as_bytes(category).decode() for category in page["CATEGORIES"]]
        pages.append(page["EMBEDDINGS"])
    return make_bank(contract, contract_json, labels, categories, np.concatenate(pages))


def make_bank(
    contract: Contract,
    contract_json: bytes,
    labels: Sequence[str],
    categories: Sequence[str],
    stored: npt.NDArray[np.float16],
) -> Bank:
    """Check a bank's parts against its contract and put them together.

    Raises:
        ModelError: they are not what the contract says.
    """
    _check(contract, labels, categories, stored)
    rows = LabelRows(normalise(stored.astype(np.float32)))
    return Bank(contract, contract_json, tuple(labels), tuple(categories), stored, rows)


def normalise(vectors: Floats) -> Floats:
    """Bring each row of FP32 [N, D] to unit length."""
    unit: Floats = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return unit


def _ask(bank: str | None, first: int, last: int, outputs: list[str], timeout_s: float) -> Infer:
    rows = np.array([first, last], dtype=np.int64)
    return Infer(bank_model(bank), {"ROWS": rows}, outputs, timeout_s)


def _check(
    contract: Contract,
    labels: Sequence[str],
    categories: Sequence[str],
    stored: npt.NDArray[np.float16],
) -> None:
    expected = (contract.bank.count, contract.embedding_dim)
    if stored.shape != expected or len(labels) != expected[0]:
        raise ModelError(
            "bank {0} sent {1} labels and embeddings {2}; its contract says {3}; publish the bank "
            "again",
            repr(contract.bank.name),
            len(labels),
            list(stored.shape),
            list(expected),
        )
    digest = bank_digest(labels, categories, stored)
    if digest != contract.bank.digest:
        raise ModelError(
            "bank {0} has digest {1}… and its contract says {2}…; its file is damaged: publish "
            "the bank again",
            repr(contract.bank.name),
            digest[:12],
            contract.bank.digest[:12],
        )
