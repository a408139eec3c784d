from __future__ import annotations

from typing import Any

import pytest

from wanwu import InputError
from wanwu.settings import Settings


def test_without_anything_set_the_defaults_hold() -> None:
    assert Settings.from_env() == Settings("127.0.0.1:8001", 10.0)


def test_the_environment_sets_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANWU_URL", "triton:9001")
    monkeypatch.setenv("WANWU_TIMEOUT_S", "2.5")
    assert Settings.from_env() == Settings("triton:9001", 2.5)


def test_what_is_given_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANWU_URL", "triton:9001")
    monkeypatch.setenv("WANWU_TIMEOUT_S", "broken")
    assert Settings.from_env(url="other:1", timeout_s=3) == Settings("other:1", 3.0)


def test_an_empty_address_in_the_environment_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANWU_URL", "")
    assert Settings.from_env().url == "127.0.0.1:8001"


BAD = ["ten", "10s", "", "0", "-1", "nan", "inf", "-inf", "1e999"]


@pytest.mark.parametrize("value", BAD)
def test_a_timeout_that_is_no_positive_number_is_refused(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("WANWU_TIMEOUT_S", value)
    with pytest.raises(InputError, match=rf"the timeout is '{value}'.*WANWU_TIMEOUT_S"):
        Settings.from_env()


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_a_given_timeout_is_checked_as_well(value: Any) -> None:
    with pytest.raises(InputError, match="expected a positive number of seconds"):
        Settings.from_env(timeout_s=value)
