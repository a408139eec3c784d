from __future__ import annotations

import subprocess
import sys

import pytest

import wanwu
from wanwu import channel
from wanwu.cli import EXIT_CODES, exit_code


def family(kind: type[wanwu.WanwuError]) -> list[type[wanwu.WanwuError]]:
    return [each for child in kind.__subclasses__() for each in (child, *family(child))]


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (wanwu.InputError, 2),
        (wanwu.ImageError, 2),
        (wanwu.LabelError, 2),
        (wanwu.ServerError, 3),
        (channel.ModelMissingError, 3),
        (wanwu.ModelError, 4),
        (channel.ShapeError, 4),
        (wanwu.SetupError, 5),
    ],
)
def test_every_kind_of_error_has_its_exit_code(kind: type[wanwu.WanwuError], code: int) -> None:
    assert exit_code(kind("reason")) == code


def test_no_error_is_without_an_exit_code() -> None:
    kinds = family(wanwu.WanwuError)
    assert len(kinds) >= 8
    for kind in kinds:
        assert exit_code(kind.__new__(kind)) in EXIT_CODES.values()


def test_no_two_exit_codes_are_the_same_and_none_is_used_otherwise() -> None:
    codes = list(EXIT_CODES.values())
    assert len(set(codes)) == len(codes)
    assert not {0, 1} & set(codes)


def modules_after(statement: str) -> set[str]:
    code = f"{statement}; import sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("statement", ["import wanwu", "import wanwu.cli"])
def test_importing_the_client_brings_no_model_framework(statement: str) -> None:
    loaded = modules_after(statement)
    assert "wanwu.recognizer" in loaded
    heavy = {
        *("torch", "transformers", "onnx", "onnxruntime", "tritonclient.http", "sentencepiece"),
        *("wanwu_export", "fastapi", "pyarrow", "numkong"),
    }
    assert not heavy & loaded


def test_importing_the_library_brings_no_command_line() -> None:
    assert not {"typer", "click", "rich", "wanwu.cli"} & modules_after("import wanwu")
