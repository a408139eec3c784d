from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wanwu import LabelError, read_labels
from wanwu.answers import question
from wanwu.labels import MAX_LABEL_CHARS, check_label, check_labels, look, split_labels


@pytest.fixture
def label_file(tmp_path: Path) -> Path:
    return tmp_path / "标签.txt"


def test_labels_are_stripped_and_keep_their_order() -> None:
    assert check_labels([" 狗 ", "猫", "\u3000一杯咖啡\t"]) == ("狗", "猫", "一杯咖啡")


def test_labels_may_come_from_any_iterable() -> None:
    assert check_labels(label for label in ("猫", "狗")) == ("猫", "狗")


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ([], "the list of labels is empty"),
        (["猫", ""], "label 2 is blank"),
        (["猫", " \u3000\n"], "label 2 is blank"),
        (["猫", "狗", "猫"], "label 3 '猫' repeats label 1"),
        (["猫", " 猫 "], "label 2 '猫' repeats label 1"),
        (["长" * 10_000], "label 1 has 10,000 characters"),
        (["猫", None], "label 2 is NoneType None"),
        (["猫", 3], "label 2 is int 3"),
        ([b"cat"], "label 1 is bytes b'cat'"),
        (b"cat", "label 1 is int 99"),
        ("猫,狗", "labels came as one text '猫,狗'"),
    ],
    ids=lambda value: None if isinstance(value, str) else repr(value)[:20],
)
def test_labels_that_cannot_be_used_are_refused_by_their_place(labels: Any, reason: str) -> None:
    with pytest.raises(LabelError, match=reason):
        check_labels(labels)


#: Texts that look the same and are not: width, accents, spaces, ligatures, radicals, joiners.
ALIKE = [
    ("ABC", "ＡＢＣ"),
    ("カメラ", "ｶﾒﾗ"),
    ("café", "cafe\u0301"),
    ("一杯 咖啡", "一杯\u00a0咖啡"),
    ("一杯 咖啡", "一杯  咖啡"),
    ("人", "⼈"),
    ("office", "oﬃce"),
    ("❤", "❤\ufe0f"),
    ("葛", "葛\U000e0100"),
]


@pytest.mark.parametrize(("one", "other"), ALIKE)
def test_labels_that_look_the_same_are_refused_as_one(one: str, other: str) -> None:
    assert look(one) == look(other)
    for label in (one, other):
        assert check_labels([label, "猫"]) == (label, "猫")
    for first, second in ((one, other), (other, one)):
        with pytest.raises(LabelError, match=r"label 3 .* looks the same as label 1, .*other char"):
            check_labels([first, "猫", second])
        with pytest.raises(LabelError, match="looks the same as"):
            question({"猫": [first], second: []}, None, 1, None, None)


@pytest.mark.parametrize(("one", "other"), [("猫", "貓"), ("a", "A"), ("ab", "a b"), ("O", "0")])
def test_labels_that_look_different_are_two(one: str, other: str) -> None:
    assert check_labels([one, other]) == (one, other)


@pytest.mark.parametrize("unseen", list("\u200b\u00ad\ufeff\u2060\u202e\u3164\U000e0001\u2800"))
def test_a_character_that_nobody_sees_is_refused_by_its_number(unseen: str) -> None:
    with pytest.raises(LabelError, match=rf"label 1 .* U\+{ord(unseen):04X}, which nobody sees"):
        check_labels([f"猫{unseen}狗"])
    with pytest.raises(LabelError, match="label 1 is blank"):
        check_labels([unseen])


def test_an_emoji_of_several_parts_is_one_label() -> None:
    family = "👨\u200d👩\u200d👧"
    assert check_labels([family, "👨", "❤\ufe0f"]) == (family, "👨", "❤\ufe0f")


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("猫,狗，鸟、鱼;马；羊\n牛", ["猫", "狗", "鸟", "鱼", "马", "羊", "牛"]),
        ('["猫","a, b"]', ["猫", "a, b"]),
        (' [ "猫" ] ', ["猫"]),
        ("[]", []),
        ("猫[cat],(b)", ["猫[cat]", "(b)"]),
        ("[cat]猫,[/b]狗", ["[cat]猫", "[/b]狗"]),
        ("[" * 100_000, ["[" * 100_000]),
    ],
)
def test_one_text_holds_several_labels(text: str, labels: list[str]) -> None:
    assert split_labels(text) == labels


@pytest.mark.parametrize(
    "text", ["[猫,狗]", '["猫"', '["猫", 1]', '{"猫": []}', '"猫"', '["' * 50_000, '"猫","狗"']
)
def test_a_text_that_begins_as_json_and_is_no_list_is_refused(text: str) -> None:
    with pytest.raises(LabelError, match="begin as JSON and are no list of texts") as caught:
        split_labels(text)
    assert len(str(caught.value)) < 200


def test_one_label_is_checked_by_the_place_it_is_said_to_have() -> None:
    assert check_label(" 猫\u3000", "line 7: the alias") == "猫"
    with pytest.raises(LabelError, match="line 7: the alias is blank"):
        check_label("\u3000", "line 7: the alias")


def test_a_message_about_a_huge_label_is_short() -> None:
    with pytest.raises(LabelError) as caught:
        check_labels(["长" * 10_000])
    assert len(str(caught.value)) < 200


def test_the_longest_label_allowed_passes_and_one_more_character_does_not() -> None:
    assert check_labels(["长" * MAX_LABEL_CHARS]) == ("长" * MAX_LABEL_CHARS,)
    with pytest.raises(LabelError, match="257 characters"):
        check_labels(["长" * (MAX_LABEL_CHARS + 1)])


@given(st.lists(st.text(alphabet="猫狗ab", min_size=1, max_size=5), min_size=1, unique=True))
def test_good_labels_come_back_as_they_were(labels: list[str]) -> None:
    assert check_labels(labels) == tuple(labels)


@pytest.mark.parametrize(
    "data",
    [
        "猫\n一杯 咖啡\n".encode(),
        "猫\n一杯 咖啡".encode(),
        "猫\r\n一杯 咖啡\r\n".encode(),
        "\ufeff猫\n一杯 咖啡\n".encode(),
        "\ufeff猫\r\n  一杯 咖啡\u3000\r\n".encode(),
    ],
    ids=["plain", "no-last-newline", "CRLF", "BOM", "BOM-CRLF-spaces"],
)
def test_a_label_file_is_read_as_editors_write_it(label_file: Path, data: bytes) -> None:
    label_file.write_bytes(data)
    assert read_labels(label_file) == read_labels(str(label_file)) == ("猫", "一杯 咖啡")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "holds no label"),
        (b"\xef\xbb\xbf\n \n", "holds no label"),
        ("猫\n\n狗\n".encode(), r"标签\.txt line 2 is blank"),
        ("猫\r\n狗\r\n \r\n鸟".encode(), r"标签\.txt line 3 is blank"),
        ("猫\n狗\n 猫\n".encode(), r"line 3 '猫' repeats .*标签\.txt line 1"),
        (("猫\n" + "长" * 300).encode(), r"标签\.txt line 2 has 300 characters"),
    ],
    ids=["empty", "blank", "gap", "gap-CRLF", "duplicate", "long"],
)
def test_a_label_file_that_cannot_be_used_is_refused_by_its_line(
    label_file: Path, data: bytes, reason: str
) -> None:
    label_file.write_bytes(data)
    with pytest.raises(LabelError, match=reason):
        read_labels(label_file)


@pytest.mark.parametrize("encoding", ["gbk", "gb18030"])
def test_a_gbk_file_is_refused_with_its_line_and_the_way_to_convert_it(
    label_file: Path, encoding: str
) -> None:
    label_file.write_bytes("cat\ndog\n火锅\n".encode(encoding))
    with pytest.raises(LabelError, match=r"line 3.*iconv -f gb18030 -t utf-8 .*标签\.txt"):
        read_labels(label_file)


def test_a_utf_16_file_is_refused(label_file: Path) -> None:
    label_file.write_bytes("猫\n狗\n".encode("utf-16"))
    with pytest.raises(LabelError, match="not UTF-8: byte 0xff in line 1"):
        read_labels(label_file)


def test_a_missing_label_file_is_named(label_file: Path) -> None:
    with pytest.raises(LabelError, match=r"there is no label file .*标签\.txt"):
        read_labels(label_file)


def test_a_folder_is_no_label_file(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="is a folder"):
        read_labels(tmp_path)


def test_lines_are_counted_as_editors_count_them(label_file: Path) -> None:
    # U+2028 and U+0085 come with text pasted from the web; no editor or `wc` counts them.
    label_file.write_text("猫\u2028咪\n狗\n\n鸟\n", encoding="utf-8")
    with pytest.raises(LabelError, match="line 3 is blank"):
        read_labels(label_file)


@pytest.mark.parametrize("character", ["\t", "\r", "\x00", "\x1b"])
def test_a_control_character_inside_a_label_is_refused(character: str) -> None:
    with pytest.raises(LabelError, match=r"label 2 .* holds a control character"):
        check_labels(["猫", f"小{character}狗"])


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_kind_of_line_end_divides_labels(tmp_path: Path, end: str) -> None:
    path = tmp_path / "labels.txt"
    path.write_bytes(f"猫{end}狗{end}".encode())
    assert read_labels(path) == ("猫", "狗")


def test_a_utf_16_file_is_told_how_to_convert(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_bytes("猫\n狗\n".encode("utf-16"))
    with pytest.raises(LabelError, match="iconv -f utf-16 -t utf-8"):
        read_labels(path)
