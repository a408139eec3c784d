"""What `import wanwu` promises: its names, their types, and examples that run."""

from __future__ import annotations

import asyncio
import doctest
import inspect
from importlib.resources import files
from pathlib import Path

import pytest

import wanwu
from wanwu import Recognizer
from wanwu.embedded.server import EmbeddedServer
from wanwu.samples import cat_photo

PUBLIC = [
    *("Answer", "AsyncRecognizer", "Contract", "Doubt", "Embedded", "ImageError", "InputError"),
    *("LabelError", "ModelError", "OverloadedError", "Prediction", "Recognition", "Recognizer"),
    *("ServerError", "SetupError", "Tls", "WanwuError", "__version__", "read_labels"),
]
DOCUMENTED = [name for name in PUBLIC if name != "__version__"]


def test_the_public_names_are_these_and_no_others() -> None:
    assert wanwu.__all__ == PUBLIC
    imported = {name for name, value in vars(wanwu).items() if not inspect.ismodule(value)}
    assert {name for name in imported if not name.startswith("_")} == set(DOCUMENTED)


def test_the_package_says_that_it_is_typed() -> None:
    assert files("wanwu").joinpath("py.typed").is_file()


@pytest.mark.parametrize("name", DOCUMENTED)
def test_every_public_name_has_an_example_that_runs(
    name: str,
    server: EmbeddedServer,
    recognizer: Recognizer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    known = {each: getattr(wanwu, each) for each in PUBLIC}
    known |= {"url": server.url, "recognizer": recognizer, "cat": cat_photo(), "asyncio": asyncio}
    found = doctest.DocTestFinder().find(getattr(wanwu, name), name, globs=known)
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    for test in found:
        runner.run(test, out=said.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(said)
    assert any(test.name == name and test.examples for test in found)


@pytest.mark.parametrize("kind", [wanwu.Recognizer, wanwu.AsyncRecognizer])
def test_every_public_method_is_documented(kind: type) -> None:
    for name, member in inspect.getmembers(kind, inspect.isfunction):
        if not name.startswith("_"):
            assert (member.__doc__ or "").strip(), name
