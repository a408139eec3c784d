"""Every recording rule and every alarm is played by a test, in good times and in bad."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from chart.rules.promtool import render, rules_of

PLAYING = ("test_monitoring_alerts.py", "test_monitoring_rules.py")


def words_of_players() -> set[str]:
    """Give the words of the test modules' constants, and of their tests that play series."""
    found: set[str] = set()
    for name in PLAYING:
        module = ast.parse(Path(__file__).with_name(name).read_text(encoding="utf-8"))
        for node in module.body:
            text = ast.unparse(node)  # without comments
            plays = isinstance(node, ast.FunctionDef) and "rules.play(" in text
            if plays or isinstance(node, ast.Assign):
                found |= set(re.findall(r"\w+", text))
    return found


def test_every_recording_rule_and_every_alarm_is_played(need) -> None:
    objects = render(need)
    names = {*rules_of(objects, "record"), *rules_of(objects, "alert")}
    assert len(names) > 25
    unplayed = names - words_of_players()
    assert not unplayed, f"no promtool test names {', '.join(sorted(unplayed))}"
