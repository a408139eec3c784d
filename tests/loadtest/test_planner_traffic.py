from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wanwu import InputError
from wanwu_loadtest.planner import Traffic, read_traffic

HEADER = "time,pictures_per_second\n"


def read(folder: Path, text: str) -> Traffic:
    path = folder / "T.csv"
    path.write_text(text, encoding="utf-8")
    return read_traffic(path)


def test_rates_are_linear_between_the_rows(tmp_path: Path) -> None:
    traffic = read(tmp_path, HEADER + "08:00,0\n09:00,100\n\n10:00,100\n")
    arrived = traffic.arrived(np.array([0.0, 1800.0, 3600.0, 7200.0]))
    assert arrived == pytest.approx([0, 45_000, 180_000, 540_000])
    assert (traffic.peak, traffic.length_s, traffic.pictures) == (100, 7200, 540_000)


@pytest.mark.parametrize(
    "rows",
    [
        "time,pictures_per_minute\n00:00,600\n24:00,1200\n",
        "\ufefftime,pictures_per_minute\r\n2026-03-01T00:00,600\r\n2026-03-02 00:00,1200\r\n",
        HEADER + "2026-03-01T00:00:00Z,10\n2026-03-02T08:00:00+08:00,20\n",
    ],
    ids=["clock", "dates", "zones"],
)
def test_a_day_as_people_write_it(tmp_path: Path, rows: str) -> None:
    traffic = read(tmp_path, rows)
    assert traffic.length_s == 86_400
    assert traffic.rates.tolist() == [10, 20]


def test_hours_are_those_of_the_clock(tmp_path: Path) -> None:
    hours = read(tmp_path, HEADER + "08:30,10\n10:15,220\n").hours()
    assert [each.label for each in hours] == ["08:30", "09:00", "10:00"]
    assert [each.seconds for each in hours] == [1800, 3600, 900]
    assert [round(each.peak) for each in hours] == [70, 190, 220]
    assert hours[0].pictures == pytest.approx(1800 * 40)


def test_a_peak_inside_an_hour_is_seen(tmp_path: Path) -> None:
    hours = read(tmp_path, HEADER + "08:00,10\n08:20,500\n08:40,10\n11:00,10\n").hours()
    assert [each.peak for each in hours] == [500, 10, 10]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1 is ''; expected time,pictures_per_second or"),
        ("time,rate\n", "line 1 is 'time,rate'; expected"),
        (HEADER + "08:00,1\n", "has 1 rows of traffic; expected at least 2"),
        (HEADER + "08:00,1\n8am,2\n", "line 3 has the time '8am'; expected HH:MM, or ISO"),
        (HEADER + "08:00,1\n08:60,2\n", "line 3 has the time '08:60'; expected HH:MM"),
        (HEADER + "08:00,1\n24:01,2\n", "line 3 has the time '24:01'"),
        (HEADER + "08:00,1\n09:00,-2\n", "line 3 has the rate '-2'; expected a number of at least"),
        (HEADER + "08:00,nan\n09:00,2\n", "line 2 has the rate 'nan'"),
        (HEADER + "08:00,1\n08:00,2\n", "line 3 has the time '08:00', not after the line before"),
        (HEADER + "23:00,1\n01:00,2\n", "give dates when they cross midnight"),
        (HEADER + "23:00,1\n2026-01-01T01:00,2\n", "line 3 .* written otherwise than the line"),
        (HEADER + "08:00,1,3\n09:00,2\n", "line 2 has 3 columns; expected 2"),
    ],
)
def test_a_wrong_line_is_told_by_its_number(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(tmp_path, text)


def test_a_missing_file_and_one_in_another_encoding(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_traffic(tmp_path / "none.csv")
    path = tmp_path / "gbk.csv"
    path.write_bytes("时间,x\n".encode("gbk"))
    with pytest.raises(InputError, match="is no CSV in UTF-8"):
        read_traffic(path)
