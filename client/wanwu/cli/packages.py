"""Packages that some commands need and a thin client does without."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager

from wanwu.errors import SetupError


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Import inside of this what an extra installs.

    Raises:
        SetupError: a package is missing.
    """
    try:
        yield
    except ImportError as error:
        raise SetupError(
            "this command needs the package {0}; run: pip install 'wanwu[{1}]'", error.name, extra
        ) from error


def need_export(module: str) -> None:
    """Check that what a module of `wanwu_export` needs is installed.

    Raises:
        SetupError: a package is missing.
    """
    with needs("export"):
        importlib.import_module(f"wanwu_export.{module}")
