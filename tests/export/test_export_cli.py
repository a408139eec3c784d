"""`wanwu export`, up to the work itself: what it would build."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
from typer.testing import CliRunner

from wanwu.cli import app
from wanwu.embedded.cuda import CUDA
from wanwu.errors import SetupError
from wanwu_export import publish as publishing
from wanwu_export.banks import BankPlan


class PublishedEnoughError(Exception):
    """Ends a command at its work."""


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Give a function that runs an export and gives the banks it would build, by name."""
    given: list[BankPlan] = []

    def publish(tower: object, plans: list[BankPlan], output: Path, **options: object) -> None:
        given.extend(plans)
        raise PublishedEnoughError

    monkeypatch.setattr(import_module("wanwu.cli.export"), "_load", lambda *source: None)
    monkeypatch.setattr(publishing, "publish", publish)
    monkeypatch.chdir(tmp_path)
    Path("mine.txt").write_text("猫\n", "utf-8")

    def run(*arguments: str) -> dict[str, BankPlan]:
        done = CliRunner().invoke(app, ["export", *arguments])
        assert isinstance(done.exception, PublishedEnoughError), done.exception
        return {plan.name: plan for plan in given}

    return run


def sets(plans: dict[str, BankPlan]) -> dict[str, str | None]:
    return {name: plan.templates and plan.templates.name for name, plan in plans.items()}


def test_the_built_in_banks_of_a_checkpoint_take_the_short_templates(planned):
    plans = planned("./checkpoint")
    assert sets(plans) == {"default": "zh-short", "luxury": "zh-short", "seed18": "zh-short"}
    assert len(plans["default"].concepts) == 1000


def test_the_starters_banks_take_its_own_templates(planned):
    assert sets(planned("starter")) == {"default": None, "luxury": None, "seed18": None}


@pytest.mark.parametrize("source", ["starter", "./checkpoint"])
def test_the_templates_asked_for_are_taken(planned, source):
    plans = planned(source, "--templates", "bare")
    assert sets(plans) == {"default": "bare", "luxury": "bare", "seed18": "bare"}


def test_a_label_file_takes_the_models_own_templates(planned):
    plans = planned("./checkpoint", "--labels", "mine.txt")
    assert sets(plans) == {"default": None}


def test_a_label_file_of_another_bank_leaves_the_built_in_ones(planned):
    plans = planned("./checkpoint", "--labels", "mine.txt", "--bank", "mine")
    assert sets(plans) == {
        "default": "zh-short",
        "luxury": "zh-short",
        "seed18": "zh-short",
        "mine": None,
    }


def test_a_gpu_that_is_not_there_is_refused_before_the_weights_are_read(tmp_path):
    if CUDA in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    command = ["export", str(tmp_path / "no-checkpoint"), "--device", "gpu"]
    done = CliRunner().invoke(app, command)
    assert isinstance(done.exception, SetupError)
    assert "the device gpu cannot be used: onnxruntime has no CUDA" in str(done.exception)


@pytest.mark.usefixtures("planned")
def test_auto_says_on_which_device_an_export_is_compared():
    if CUDA in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    done = CliRunner().invoke(app, ["export", "starter", "--device", "auto"])
    assert "wanwu: device cpu: onnxruntime has no CUDA provider" in done.output
    assert "device" not in CliRunner().invoke(app, ["export", "starter"]).output
