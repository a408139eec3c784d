"""Files of embeddings: NumPy's .npz, or Parquet."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from wanwu.cli.pictures import spelled
from wanwu.contract import Contract
from wanwu.errors import InputError, SetupError
from wanwu.rank import Floats

#: Embeddings that a row group of a Parquet file holds.
ROW_GROUP = 1024
INSTALL_PARQUET = "pip install 'wanwu[parquet]'"

Add = Callable[[str, Floats], None]


@contextmanager
def vector_file(path: Path, contract: Contract) -> Iterator[Add]:
    """Give a function that adds a named embedding, FP32 [D]; the file is there at the end.

    An .npz is held in memory until then, a Parquet file is written as it grows.

    Raises:
        InputError: the name ends in something else, or the file is there.
        SetupError: pyarrow is missing, or the file cannot be written.
    """
    writers = {".npz": _npz, ".parquet": _parquet}
    if path.suffix.lower() not in writers:
        raise InputError("{0} ends in {1}; expected .npz or .parquet", path, repr(path.suffix))
    if path.exists():
        raise InputError("{0} is there already; remove it, or name another file", path)
    half = path.with_name(f".{path.name}.{os.getpid()}")
    about = {"model": contract.model.name, "fingerprint": str(contract.fingerprint)}
    try:
        with writers[path.suffix.lower()](half, contract.embedding_dim, about) as add:
            yield add
        half.replace(path)
    except OSError as error:
        raise SetupError(
            "{0} cannot be written: {1}; check the folder and the free space", path, error
        ) from error
    finally:
        with suppress(OSError):
            half.unlink()


@contextmanager
def _npz(path: Path, dim: int, about: dict[str, str]) -> Iterator[Add]:
    names: list[str] = []
    vectors: list[Floats] = []

    def add(name: str, vector: Floats) -> None:
        names.append(spelled(name))
        vectors.append(vector)

    yield add
    rows = np.stack(vectors) if vectors else np.zeros((0, dim), np.float32)
    columns: dict[str, Any] = {"name": np.array(names, dtype=str), "embedding": rows, **about}
    with path.open("wb") as stream:
        np.savez(stream, **columns)


@contextmanager
def _parquet(path: Path, dim: int, about: dict[str, str]) -> Iterator[Add]:
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError as error:
        raise SetupError(
            "a Parquet file needs the package pyarrow; run: {0}", INSTALL_PARQUET
        ) from error
    columns = [("name", arrow.string()), ("embedding", arrow.list_(arrow.float32(), dim))]
    schema = arrow.schema(columns, metadata=about)
    names: list[str] = []
    vectors: list[Floats] = []
    with parquet.ParquetWriter(path, schema) as table:

        def flush() -> None:
            flat = arrow.array(np.concatenate(vectors))
            rows = arrow.FixedSizeListArray.from_arrays(flat, dim)
            table.write_table(arrow.table([arrow.array(names), rows], schema=schema))
            names.clear()
            vectors.clear()

        def add(name: str, vector: Floats) -> None:
            names.append(spelled(name))
            vectors.append(vector)
            if len(names) == ROW_GROUP:
                flush()

        yield add
        if names:
            flush()
