"""docs/gateway.md lists every setting with its default, and every code."""

from __future__ import annotations

import re
from pathlib import Path

from wanwu.gateway.problems import CODES
from wanwu.gateway.settings import GatewaySettings

TEXT = (Path(__file__).parents[2] / "docs" / "gateway.md").read_text(encoding="utf-8")


def documented_defaults() -> dict[str, str]:
    found = {}
    for line in TEXT.splitlines():
        names = re.findall(r"`WANWU_GATEWAY_(\w+)`", line.split("|")[1]) if "|" in line else []
        defaults = [each.strip() for each in line.split("|")[2].split(",")] if names else []
        for number, name in enumerate(names):
            found[name.lower()] = defaults[min(number, len(defaults) - 1)]
    return found


def test_every_setting_is_listed_with_its_default() -> None:
    defaults = {name: field.default for name, field in GatewaySettings.model_fields.items()}
    texts = {
        name: "none" if value in (None, (), {}) else str(value).lower()
        for name, value in defaults.items()
    }
    assert documented_defaults() == texts


def test_every_code_is_listed() -> None:
    assert [code for code in CODES if f"`{code}`" not in TEXT] == []
