"""Packages that some commands need and a thin client does without."""

from __future__ import annotations

import importlib

from wanwu.errors import SetupError

INSTALL_EXPORT = "pip install 'wanwu[export]'"


def need_export(module: str) -> None:
    """Check that what a module of `wanwu_export` needs is installed.

    Raises:
        SetupError: a package is missing.
    """
    try:
        importlib.import_module(f"wanwu_export.{module}")
    except ImportError as error:
        raise SetupError(
            f"this command needs the package {error.name}; run: {INSTALL_EXPORT}"
        ) from error
