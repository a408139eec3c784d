from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from wanwu import InputError, SetupError, Tls
from wanwu.channel import Address
from wanwu.settings import Settings


def test_without_anything_set_the_defaults_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    expected = Settings(Address("127.0.0.1:8001"), 10.0, Path("/cache/wanwu/banks"))
    assert Settings.from_env() == expected


def test_the_environment_sets_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANWU_URL", "triton:9001")
    monkeypatch.setenv("WANWU_TIMEOUT_S", "2.5")
    monkeypatch.setenv("WANWU_API_KEY", "secret")
    monkeypatch.setenv("WANWU_CACHE_DIR", "/var/banks")
    expected = Settings(Address("triton:9001", None, "secret"), 2.5, Path("/var/banks"))
    assert Settings.from_env() == expected


def test_what_is_given_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANWU_URL", "triton:9001")
    monkeypatch.setenv("WANWU_TIMEOUT_S", "broken")
    monkeypatch.setenv("WANWU_API_KEY", "secret")
    monkeypatch.setenv("WANWU_TLS", "broken")
    settings = Settings.from_env(url="other:1", timeout_s=3, api_key="mine", tls=Tls(), cache=False)
    assert settings == Settings(Address("other:1", Tls(), "mine"), 3.0, None)


def test_an_empty_address_in_the_environment_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANWU_URL", "")
    assert Settings.from_env().address.url == "127.0.0.1:8001"


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


def test_tls_of_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert Settings.from_env().address.tls is None
    monkeypatch.setenv("WANWU_TLS", "1")
    assert Settings.from_env().address.tls == Tls()
    monkeypatch.delenv("WANWU_TLS")
    pem = tmp_path / "ca.pem"
    pem.write_text("x")
    monkeypatch.setenv("WANWU_TLS_CA", str(pem))
    assert Settings.from_env().address.tls == Tls(ca=str(pem))
    monkeypatch.setenv("WANWU_TLS_CERT", str(pem))
    with pytest.raises(SetupError, match=r"mutual TLS needs a certificate and its key.*key=None"):
        Settings.from_env()
    monkeypatch.setenv("WANWU_TLS_KEY", str(tmp_path / "none.pem"))
    with pytest.raises(SetupError, match=r"TLS file key=.*none\.pem cannot be read"):
        Settings.from_env()


def test_another_value_of_tls_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANWU_TLS", "yes")
    with pytest.raises(InputError, match="WANWU_TLS is 'yes'; expected 1"):
        Settings.from_env()


@pytest.mark.parametrize("key", ["密钥", "a\nb"])
def test_a_key_that_no_header_can_carry_is_refused(key: str) -> None:
    with pytest.raises(InputError, match="the API key holds characters"):
        Settings.from_env(api_key=key)
