"""The table of what is known of Triton's releases, and what a server of each lacks."""

from __future__ import annotations

from datetime import date

import pytest

from wanwu.triton_releases import lacking, table


def number(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def test_the_table_has_the_day_on_which_it_was_checked() -> None:
    assert date.fromisoformat(table().checked) >= date(2026, 11, 28)


def test_the_table_is_in_the_order_of_releases_and_of_versions() -> None:
    # The chart reads the last one's release as the first that is sound.
    for key in ("fixed_in", "server"):
        numbers = [number(getattr(fault, key)) for fault in table().faults]
        assert numbers == sorted(numbers)
    assert "cluster" in table().faults[-1].where


def test_no_fault_is_listed_twice() -> None:
    ids = [name for fault in table().faults for name in fault.ids]
    assert len(ids) == len(set(ids)) > 30


@pytest.mark.parametrize(
    ("version", "ids"),
    [
        ("2.72.0", []),
        ("2.73.1", []),
        ("3.0.0", []),
        ("2.71.0", ["server#8870"]),
        ("2.70.0", ["bulletin 5875", "server#8870"]),
    ],
)
def test_a_server_lacks_what_a_later_one_fixed(version: str, ids: list[str]) -> None:
    assert [name for fault in lacking(version) for name in fault.ids] == ids


def test_faults_of_the_python_backend_are_of_the_embedded_server_alone() -> None:
    found = {
        where: {name for fault in lacking("2.51.0", where) for name in fault.ids}
        for where in ("cluster", "embedded")
    }
    assert "CVE-2025-23316" in found["embedded"] - found["cluster"]
    assert "server#8870" in found["cluster"] - found["embedded"]
    assert "CVE-2026-47627" in found["cluster"] & found["embedded"]


def test_a_patched_release_is_told_from_the_one_before() -> None:
    fixed = {name for fault in lacking("2.59.0") for name in fault.ids}
    assert "CVE-2025-23310" in fixed - {name for fault in lacking("2.59.1") for name in fault.ids}
