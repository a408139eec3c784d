from __future__ import annotations

from pathlib import Path

import pytest

from wanwu import InputError
from wanwu.evaluate import Report, TruthRow, read_truth


@pytest.fixture
def truth_file(tmp_path: Path) -> Path:
    return tmp_path / "答案.tsv"


ROWS = (TruthRow(2, "猫 1.jpg", "猫"), TruthRow(3, "b.jpg", "杯子, 红"))


@pytest.mark.parametrize(
    "text",
    [
        "file\tlabel\n猫 1.jpg\t猫\nb.jpg\t杯子, 红\n",
        'file,label\n猫 1.jpg,猫\nb.jpg,"杯子, 红"\n',
        "\ufefffile\tlabel\r\n猫 1.jpg\t 猫 \r\nb.jpg\t杯子, 红\r\n",
        "note\tlabel\tfile\nx\t猫\t猫 1.jpg\n\t杯子, 红\tb.jpg",
    ],
    ids=["tsv", "csv", "bom-crlf-spaces", "other-order"],
)
def test_tsv_and_csv_are_read_as_people_write_them(truth_file: Path, text: str) -> None:
    truth_file.write_text(text, encoding="utf-8", newline="")
    truth = read_truth(truth_file)
    assert truth.rows == ROWS
    assert (truth.path, truth.unlabelled) == (truth_file, 0)


def test_other_columns_can_be_chosen(truth_file: Path) -> None:
    truth_file.write_text("图片,种类,label\na.jpg,猫,x\n", encoding="utf-8")
    truth = read_truth(truth_file, file_column="图片", label_column="种类")
    assert truth.rows == (TruthRow(2, "a.jpg", "猫"),)


def test_rows_without_a_label_are_counted(truth_file: Path) -> None:
    truth_file.write_text("file\tlabel\na.jpg\t\nb.jpg\t猫\nc.jpg\t \nd.jpg\n", encoding="utf-8")
    truth = read_truth(truth_file)
    assert truth.rows == (TruthRow(3, "b.jpg", "猫"),)
    assert truth.unlabelled == 3


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("picture,label\na.jpg,猫\n".encode(), "no column 'file'; it has picture, label"),
        (
            "file,种类\na.jpg,猫\n".encode(),
            "no column 'label'; it has file, 种类: .*--label-column",
        ),
        (b"", "no column 'file'"),
        (b"file,label\n", "no row with a label in column 'label'"),
        (b"file,label\na.jpg,\n", "no row with a label in column 'label'"),
        ("file,label\na.jpg,火锅\n".encode("gbk"), "not UTF-8"),
        ("file,label\na.jpg,猫\n".encode("utf-16"), "not UTF-8"),
    ],
    ids=["file", "label", "empty", "header-only", "no-labels", "gbk", "utf-16"],
)
def test_a_truth_file_that_cannot_be_used_is_refused(
    truth_file: Path, data: bytes, reason: str
) -> None:
    truth_file.write_bytes(data)
    with pytest.raises(InputError, match=rf"答案\.tsv.*{reason}"):
        read_truth(truth_file)


def test_a_missing_truth_file_is_named(truth_file: Path) -> None:
    with pytest.raises(InputError, match=r"no truth file .*答案\.tsv"):
        read_truth(truth_file)


def test_a_row_with_a_label_and_no_file_is_refused_by_its_line(truth_file: Path) -> None:
    truth_file.write_text("label\tfile\n猫\ta.jpg\n狗\n", encoding="utf-8")
    with pytest.raises(InputError, match="line 3"):
        read_truth(truth_file)


def test_an_inch_mark_in_a_tsv_swallows_no_rows(truth_file: Path) -> None:
    truth_file.write_text('label\tfile\n"32寸电视\ta.jpg\n猫\tb.jpg\n', encoding="utf-8")
    try:
        assert len(read_truth(truth_file).rows) == 2
    except InputError as error:
        assert "line" in str(error)  # noqa: PT017 - refusing it is right as well


def test_a_quote_left_open_in_a_long_file_is_an_error_of_ours(truth_file: Path) -> None:
    rows = "".join(f"照片{number}.jpg,猫\n" for number in range(20_000))
    truth_file.write_text(f'file,label\n"{rows}', encoding="utf-8")
    with pytest.raises(InputError, match=r"答案\.tsv"):
        read_truth(truth_file)


def test_a_report_reads_as_figures() -> None:
    report = Report(4, 2, 0.5, 0.75, 0.25, 0.1, 3, (("猫", "狗", 2),), ("a.jpg is empty",))
    text = report.as_text()
    for part in ("4 pictures, 2 labels", "top-1 0.500", "top-5 0.750", "100 ms", "3 rows without"):
        assert part in text
    assert "  猫 -> 狗  2" in text
    assert "failed: a.jpg is empty" in text
    assert report.as_dict()["confusions"] == [{"true": "猫", "predicted": "狗", "count": 2}]
