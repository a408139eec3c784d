from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from wanwu import Answer, ImageError, InputError, Prediction, Recognition, SetupError
from wanwu.cli.output import COLUMNS, answered_before, writer


def answer(picture: str, *labels: str, uncertain: bool = False) -> Answer:
    predictions = tuple(
        Prediction(label, 0.5 / rank, 0.2, "动物" if rank == 1 else None)
        for rank, label in enumerate(labels, start=1)
    )
    recognition = Recognition(predictions, uncertain, 0.2, "starter", 7, ("default",), 0.01)
    return Answer(0, picture, recognition, None)


ANSWERS = (
    answer("a.jpg", "猫", "狗"),
    answer("有,逗号\n和换行.jpg", "猫"),
    Answer(2, "坏.jpg", None, ImageError("坏.jpg is damaged")),
    answer("e.jpg", uncertain=True),
)
PICTURES = [str(each.source) for each in ANSWERS]


def write(path: Path, *answers: Answer, resume: bool = False) -> None:
    with writer(path, resume=resume) as emit:
        for each in answers:
            emit(each)


def pictures_in(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".jsonl":
        return [json.loads(line)["picture"] for line in text.splitlines()]
    with path.open(encoding="utf-8", newline="") as stream:
        return list(dict.fromkeys(row["picture"] for row in csv.DictReader(stream)))


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.JSONL"])
def test_what_is_written_is_known_as_answered(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write(path, *ANSWERS)
    done = answered_before(path, ["default"])
    if path.suffix == ".csv":  # its last picture may lack rows, so it is done again
        assert done == set(PICTURES[:-1])
        write(path, ANSWERS[-1], resume=True)
    else:
        assert done == set(PICTURES)
    write(path, answer("f.jpg", "猫"), resume=True)
    if path.suffix != ".JSONL":
        assert pictures_in(path) == [*PICTURES, "f.jpg"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_wherever_it_was_cut_each_picture_is_there_once_after_resuming(tmp_path, name) -> None:
    whole = tmp_path / f"whole-{name}"
    write(whole, *ANSWERS)
    data = whole.read_bytes()
    for size in range(len(data)):
        path = tmp_path / name
        path.write_bytes(data[:size])
        if name == "a.csv" and b"\n" not in data[:size]:
            path.unlink()  # half a header
        done = answered_before(path, ["default"])
        write(path, *(each for each in ANSWERS if str(each.source) not in done), resume=True)
        assert sorted(pictures_in(path)) == sorted(PICTURES), size
        path.unlink()


def test_a_table_has_a_row_for_each_label_and_each_error(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", *ANSWERS)
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as stream:
        rows = [tuple(row) for row in csv.reader(stream)]
    assert rows == [
        COLUMNS,
        ("a.jpg", "1", "猫", "0.500000", "动物", ""),
        ("a.jpg", "2", "狗", "0.250000", "", ""),
        (PICTURES[1], "1", "猫", "0.500000", "动物", ""),
        ("坏.jpg", "", "", "", "", "坏.jpg is damaged"),
        ("e.jpg", "1", "不确定", "0.000000", "", ""),
    ]


def test_parquet_holds_the_same_rows(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    many = [answer(f"{number}.jpg", "猫", "狗") for number in range(1200)]
    write(tmp_path / "a.parquet", *ANSWERS, *many)
    table = parquet.read_table(tmp_path / "a.parquet")
    assert tuple(table.column_names) == COLUMNS
    assert table.num_rows == 5 + 2 * len(many)
    first, bad = table.slice(0, 1).to_pylist()[0], table.slice(3, 1).to_pylist()[0]
    assert first == {
        **dict.fromkeys(COLUMNS),
        **{"picture": "a.jpg", "rank": 1, "label": "猫", "score": 0.5, "category": "动物"},
    }
    assert bad == {**dict.fromkeys(COLUMNS), "picture": "坏.jpg", "error": "坏.jpg is damaged"}
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]


def test_a_parquet_file_that_was_interrupted_is_not_there(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    with writer(tmp_path / "a.parquet", resume=False) as emit:
        emit(ANSWERS[0])
        assert not (tmp_path / "a.parquet").exists()
    (tmp_path / "a.parquet").unlink()

    def interrupted() -> None:
        with writer(tmp_path / "a.parquet", resume=False) as emit:
            emit(ANSWERS[0])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "resume", "reason"),
    [
        ("a.txt", False, r"ends in '\.txt'; expected \.jsonl, \.csv or \.parquet"),
        ("a", False, "ends in ''; expected"),
        ("a.parquet", True, "cannot be resumed"),
        ("there.jsonl", False, "is there already; add --resume"),
    ],
)
def test_a_file_that_cannot_be_written_so_is_refused(tmp_path, name, resume, reason) -> None:
    (tmp_path / "there.jsonl").write_text("")
    with pytest.raises(InputError, match=reason):
        write(tmp_path / name, resume=resume)


@pytest.mark.parametrize(
    ("name", "text"), [("a.jsonl", "[1]\n"), ("a.jsonl", "猫\n"), ("a.csv", "name,label\nx,y\n")]
)
def test_a_file_of_something_else_is_not_resumed(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match="is no file of answers"):
        answered_before(tmp_path / name, ["default"])
    assert (tmp_path / name).read_text(encoding="utf-8") == text


def test_a_folder_that_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"none/a\.jsonl cannot be written"):
        write(tmp_path / "none" / "a.jsonl", ANSWERS[0])


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet"])
def test_a_name_that_is_not_utf_8_is_spelled_out(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, answer("bad\udcff.jpg", "猫"))
    if name == "a.parquet":
        table = pytest.importorskip("pyarrow.parquet").read_table(tmp_path / name)
        assert table.to_pylist()[0]["picture"] == r"bad\udcff.jpg"
    else:
        assert pictures_in(tmp_path / name) == [r"bad\udcff.jpg"]


def test_a_run_with_other_banks_is_not_gone_on_with(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", *ANSWERS)
    with pytest.raises(
        InputError, match=r"by the banks \['default'\] and this run asks \['pets'\]"
    ):
        answered_before(tmp_path / "a.jsonl", ["pets"])
