"""The concepts that come with Wanwu, and label files: reading and writing them."""

from __future__ import annotations

import contextlib
import csv
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import wanwu_export
from wanwu.errors import LabelError
from wanwu.labels import check_label, check_labels, look
from wanwu_export.concepts import (
    MAX_LABELS,
    Concept,
    built_in_banks,
    imagenet_concepts,
    read_concepts,
    write_concepts,
)

CATEGORIES = """
    乐器 书籍 交通工具 人 办公用品 动物 医疗用品 家具 家用电器
    容器 工具 建筑 日用品 服装 机械设备 标志 植物 武器
    玩具 电子产品 自然景观 设施 运动器材 配饰 食物 餐具厨具 饮料
"""
SEED18 = """
    人 车 建筑 动物 植物 食物 电子产品 书籍 服装
    饮料 道路 天空 水体 标志 办公用品 家用电器 交通工具 自然景观
"""


@pytest.fixture(scope="module")
def concepts() -> list[Concept]:
    return imagenet_concepts()


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str | bytes], Path]:
    """Give a function that writes a label file and gives its path."""

    def run(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return run


def test_there_is_a_concept_for_each_class_in_the_order_of_the_outputs():
    source = Path(wanwu_export.__file__).parent / "starter" / "concepts.tsv"
    with source.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    assert [int(row["index"]) for row in rows] == list(range(1000))
    assert [row["label"] for row in rows] == [concept.label for concept in imagenet_concepts()]


def test_labels_are_unique_and_such_as_a_client_accepts(concepts):
    labels = [concept.label for concept in concepts]
    assert len(set(labels)) == 1000
    assert check_labels(labels) == tuple(labels)


def test_no_alias_is_another_concepts_label(concepts):
    labels = {concept.label for concept in concepts}
    taken = [(c.label, alias) for c in concepts for alias in c.aliases if alias in labels]
    assert taken == []


def test_no_concept_repeats_an_alias_or_a_broader_word(concepts):
    repeating = [
        concept.label
        for concept in concepts
        if len(set(concept.aliases)) < len(concept.aliases)
        or len(set(concept.broader)) < len(concept.broader)
    ]
    assert repeating == []


def test_the_set_of_categories_is_closed(concepts):
    assert {concept.category for concept in concepts} == set(CATEGORIES.split())


def test_every_concept_has_broader_words(concepts):
    assert [concept.label for concept in concepts if not concept.broader] == []


def test_every_label_is_chinese(concepts):
    assert [c.label for c in concepts if not re.search(r"[\u4e00-\u9fff]", c.label)] == []
    latin = {concept.label for concept in concepts if re.search("[A-Za-z]", concept.label)}
    assert latin == {"CD播放器", "iPod播放器", "T恤衫", "福特T型车"}


def test_no_text_holds_stray_white_space_or_a_bad_character(concepts):
    texts = [t for c in concepts for t in (c.label, *c.aliases, c.category, *c.broader)]
    assert [text for text in texts if re.search(r"^\s|\s$|[\t\n|\u200b\ufeff\ufffd]", text)] == []


@pytest.mark.parametrize(
    ("index", "label", "broader"),
    [
        (1, "金鱼", "鱼"),
        (207, "金毛犬", "狗"),
        (281, "虎斑猫", "猫"),
        (388, "大熊猫", "熊"),
        (670, "踏板摩托车", "摩托车"),
        (817, "跑车", "汽车"),
        (926, "火锅", "菜肴"),
        (967, "浓缩咖啡", "咖啡"),
        (985, "雏菊", "花"),
    ],
)
def test_a_well_known_class_has_its_place(concepts, index, label, broader):
    assert concepts[index].label == label
    assert broader in concepts[index].broader


def test_the_built_in_banks_are_seed18_and_luxury():
    assert list(built_in_banks()) == ["luxury", "seed18"]


def test_seed18_holds_the_18_labels_in_order():
    assert [concept.label for concept in built_in_banks()["seed18"]] == SEED18.split()


def test_luxury_tells_the_genuine_from_the_counterfeit():
    labels = {concept.label for concept in built_in_banks()["luxury"]}
    assert {"奢侈品包", "仿冒品", "正品吊牌"} <= labels


def test_the_files_of_the_built_in_banks_need_no_notes():
    folder = Path(wanwu_export.__file__).parent / "banks"
    assert [read_concepts(path).notes for path in folder.glob("*.tsv")] == [[], []]


def test_no_alias_of_imagenet_belongs_to_two_concepts(concepts):
    aliases = [alias for concept in concepts for alias in concept.aliases]
    assert len(set(aliases)) == len(aliases)


@pytest.mark.parametrize("name", ["seed18", "luxury"])
def test_a_bank_holds_labels_a_client_accepts_each_with_a_category(name):
    bank = built_in_banks()[name]
    assert check_labels(concept.label for concept in bank)
    assert [concept.label for concept in bank if not concept.category] == []


@pytest.mark.parametrize(
    ("name", "header", "delimiter"),
    [
        ("labels.tsv", "label aliases category description broader", "\t"),
        ("labels.csv", "label aliases category description broader", ","),
        ("标签.CSV", "标签 别名 类别 描述 上位词", ","),
        ("标签.tsv", "标签 aliases 类别 description 上位词", "\t"),
    ],
)
def test_a_table_gives_every_column(write, name, header, delimiter):
    cells = (" 猫 ", "猫咪| 家猫|｜喵", "动物", "爱抓老鼠。 ", "猫科｜动物")
    path = write(name, f"{delimiter.join(header.split())}\n{delimiter.join(cells)}\n")
    read = read_concepts(str(path))
    cat = Concept("猫", ("猫咪", "家猫", "喵"), "动物", ("猫科", "动物"), "爱抓老鼠。")
    assert (read.concepts, read.notes) == ([cat], [])


def test_columns_may_come_in_any_order_and_be_left_out(write):
    path = write("labels.csv", "类别,label\n动物,猫\n,狗\n")
    assert read_concepts(path).concepts == [Concept("猫", category="动物"), Concept("狗")]


def test_columns_that_a_spreadsheet_left_empty_do_not_matter(write):
    path = write("labels.csv", "label,category,,\n猫,动物,,\n狗,动物\n鸟\n")
    assert [concept.label for concept in read_concepts(path).concepts] == ["猫", "狗", "鸟"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_text_file_has_one_label_a_line(write, end):
    path = write("labels.txt", f"猫{end} 狗|犬,\u3000{end}一杯\u2028咖啡")
    labels = [Concept("猫"), Concept("狗|犬,"), Concept("一杯\u2028咖啡")]
    assert read_concepts(path).concepts == labels


@pytest.mark.parametrize("name", ["labels.txt", "labels.csv", "labels.tsv"])
def test_a_byte_order_mark_belongs_to_no_label(write, name):
    content = "label\n猫\n" if name != "labels.txt" else "猫\n"
    assert read_concepts(write(name, content.encode("utf-8-sig"))).concepts == [Concept("猫")]


@pytest.mark.parametrize("name", ["labels.txt", "labels.csv", "labels.tsv"])
@pytest.mark.parametrize("encoding", ["gb18030", "utf-16"])
def test_a_file_in_another_encoding_is_told_how_to_convert(write, name, encoding):
    path = write(name, "label\n火锅\n".encode(encoding))
    with pytest.raises(LabelError, match=rf"not UTF-8.*iconv -f {encoding} -t utf-8 .*{name}"):
        read_concepts(path)


@pytest.mark.parametrize("name", ["labels.xlsx", "labels", "labels.json"])
def test_another_kind_of_file_is_refused_with_the_kinds_that_are_read(write, name):
    with pytest.raises(LabelError, match=rf"{name} is neither \.txt .* nor \.csv or \.tsv"):
        read_concepts(write(name, "猫\n"))


def test_a_line_separator_of_the_web_ends_no_row_of_a_table(write):
    path = write("labels.csv", "label,category\n一杯\u2028咖啡,饮料\n")
    assert read_concepts(path).concepts == [Concept("一杯\u2028咖啡", category="饮料")]


def test_a_missing_label_file_is_named(tmp_path):
    with pytest.raises(LabelError, match=r"there is no label file .*none\.csv"):
        read_concepts(tmp_path / "none.csv")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.txt", "", "holds no label"),
        ("a.txt", "\ufeff \n\n", "holds no label"),
        ("a.csv", "", "has no column 'label'"),
        ("a.csv", "label,aliases\n", "holds no label"),
        ("a.csv", "label,aliases\n,\n \n", "holds no label"),
        ("a.csv", "aliases,category\n猫,动物\n", "has no column 'label'"),
        ("a.csv", "猫,狗\n", "has a column '猫'; its first row .* label, aliases, .*标签"),
        ("a.csv", "label;aliases\n猫;猫咪\n", "has a column 'label;aliases'"),
        ("a.csv", "label,,category\n猫,,动物\n", "has a column ''"),
        ("a.csv", "label,标签\n猫,狗\n", "has the column 'label' twice"),
        ("a.csv", "label,aliases\n猫,猫咪,动物\n", r"a\.csv line 2 has 3 cells and the header 2"),
        ("a.csv", 'label\n"猫"咪\n', r"a\.csv line 2 is no row of a table"),
        ("a.csv", 'label\n猫\n"狗\n鸟\n鱼\n', r"a\.csv line 3 is no row of a table"),
        ("a.csv", "label\n" + "长" * 200_000, r"a\.csv line 2 is no row .*field limit"),
        ("a.tsv", "label\tcategory\n\u3000\t动物\n", "line 2: the label is blank"),
        ("a.tsv", "category\tlabel\n动物\n", "line 2: the label is blank"),
        ("a.txt", "猫\n" + "长" * 257, "line 2: the label has 257 characters"),
        ("a.txt", "猫\n狗\x1b[1m", "line 2: the label .* holds a control character"),
        ("a.csv", 'label\n"猫\n咪"\n', "line 2: the label .* holds a control character"),
        ("a.tsv", f"label\taliases\n猫\t喵|{'长' * 300}", "line 2: the alias has 300 characters"),
        ("a.csv", "label,broader\n猫,动\x07物", "line 2: the broader word .* control character"),
        ("a.csv", "label,category\n猫,动\x07物", "line 2: the category .* control character"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(write, name, content, reason):
    with pytest.raises(LabelError, match=reason):
        read_concepts(write(name, content))


def test_empty_rows_are_left_out_and_noted(write):
    read = read_concepts(write("labels.csv", "label,category\n猫,动物\n\n狗,\n , \n鸟,\n"))
    assert [concept.label for concept in read.concepts] == ["猫", "狗", "鸟"]
    assert read.notes == ["empty rows were left out: 2, in lines 3, 5"]


def test_a_note_names_only_the_first_lines(write):
    (note,) = read_concepts(write("labels.txt", "猫\n" + "\n" * 1200)).notes
    assert note.endswith("1,200, in lines 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 1,190 more")


def test_a_cell_of_several_lines_does_not_shift_the_line_numbers(write):
    table = 'label,description\r\n猫,"爱抓\r\n\r\n老鼠"\r\n\r\n狗,"看\n家"\r\n猫,\r\n'
    read = read_concepts(write("labels.csv", table))
    assert read.concepts == [
        Concept("猫", description="爱抓 老鼠"),
        Concept("狗", description="看 家"),
    ]
    assert read.notes == [
        "empty rows were left out: 1, in lines 5",
        "labels came more than once and their rows were merged: '猫' (lines 2, 8)",
    ]


def test_rows_of_the_same_label_are_merged(write):
    rows = [
        "猫\t猫咪\t\t\t猫科",
        "狗\t\t\t\t",
        " 猫\t喵|猫咪\t动物\t\t动物",
        "猫\t\t动物\t抓老鼠\t猫科",
    ]
    header = "label\taliases\tcategory\tdescription\tbroader"
    read = read_concepts(write("labels.tsv", "\n".join([header, *rows])))
    cat = Concept("猫", ("猫咪", "喵"), "动物", ("猫科", "动物"), "抓老鼠")
    assert read.concepts == [cat, Concept("狗")]
    assert read.notes == [
        "labels came more than once and their rows were merged: '猫' (lines 2, 4, 5)"
    ]


@pytest.mark.parametrize("column", ["category", "description"])
def test_rows_of_the_same_label_must_not_contradict_each_other(write, column):
    path = write("labels.csv", f"label,{column}\n猫,\n猫,动物\n狗,\n猫,宠物\n")
    reason = f"the label '猫' has the {column} '动物' in line 3 and '宠物' in line 5"
    with pytest.raises(LabelError, match=reason):
        read_concepts(path)


def test_labels_that_look_the_same_are_refused(write):
    with pytest.raises(LabelError, match=r"line 2 'ＡＢ' looks the same as .* line 1, 'AB'"):
        read_concepts(write("a.txt", "AB\nＡＢ\n"))


def test_aliases_that_look_the_same_are_one(write):
    (concept,) = read_concepts(write("a.csv", "label,aliases\nAB,ＡＢ|cd|ｃｄ\n")).concepts
    assert concept.aliases == ("cd",)


def test_an_alias_that_says_nothing_new_is_folded(write):
    read = read_concepts(write("labels.csv", "label,aliases\n猫,喵|猫| 喵 |猫咪\n"))
    assert (read.concepts, read.notes) == ([Concept("猫", ("喵", "猫咪"))], [])


@pytest.mark.parametrize(
    ("rows", "shared"),
    [
        (("苹果,", "手机,苹果"), "'苹果' (lines 2, 3)"),
        (("手机,苹果", "苹果,"), "'苹果' (lines 2, 3)"),
        (("手机,苹果", "狗,", "水果,果子|苹果"), "'苹果' (lines 2, 4)"),
    ],
    ids=["label-then-alias", "alias-then-label", "two-aliases"],
)
def test_a_name_of_two_concepts_is_kept_and_noted(write, rows, shared):
    read = read_concepts(write("labels.csv", "\n".join(["label,aliases", *rows])))
    assert sum("苹果" in (c.label, *c.aliases) for c in read.concepts) == 2
    assert read.notes == [
        f"names belong to several labels, which the model cannot tell apart by them: {shared}"
    ]


def test_as_many_rows_as_a_bank_holds_are_read_and_one_more_is_refused(write):
    full = "label\n" + "".join(f"{n}\n" for n in range(MAX_LABELS))
    assert len(read_concepts(write("labels.csv", full)).concepts) == MAX_LABELS
    with pytest.raises(LabelError, match="has 100,001 rows of labels"):
        read_concepts(write("labels.csv", f"{full}猫"))


@pytest.mark.parametrize("name", ["labels.txt", "labels.csv"])
def test_a_million_lines_are_refused_before_a_label_is_read(write, name):
    unseen = "猫\u200b\n"  # which would be refused first
    path = write(name, "label\n" + unseen + "".join(f"标签{n}\n" for n in range(999_999)))
    with pytest.raises(
        LabelError, match=r"1,000,00[01] rows .* at most 100,000: split it into sev"
    ):
        read_concepts(path)


CHARACTERS = st.sampled_from("猫狗'\"|｜,;#\u3000\u2028\ufeff ") | st.characters(
    exclude_categories=["Cc", "Cs"]
)
# Lists, since st.text would draw the awkward characters no more often than any other.
TEXTS = st.lists(CHARACTERS, max_size=8).map("".join).map(str.strip)


def is_label(text: str) -> bool:
    with contextlib.suppress(LabelError):
        return check_label(text, "text") == text
    return False


LABELS = TEXTS.filter(is_label)
WORDS = LABELS.filter(lambda text: not {"|", "｜"} & set(text))
CONCEPTS = st.builds(
    Concept,
    label=LABELS,
    aliases=st.lists(WORDS, max_size=4, unique_by=look).map(tuple),
    category=st.just("") | LABELS,
    broader=st.lists(WORDS, max_size=4, unique=True).map(tuple),
    description=TEXTS,
).filter(lambda concept: look(concept.label) not in map(look, concept.aliases))


@given(st.lists(CONCEPTS, min_size=1, max_size=6, unique_by=lambda concept: look(concept.label)))
def test_what_is_written_is_read_back(tmp_path_factory, concepts):
    path = tmp_path_factory.mktemp("written") / "concepts.tsv"
    write_concepts(concepts, path)
    assert read_concepts(path).concepts == concepts


def test_every_concept_is_written_on_one_line_of_utf_8(tmp_path):
    write_concepts([Concept('13"屏幕', ("显示器",), description="一\n二")], tmp_path / "out.tsv")
    assert (tmp_path / "out.tsv").read_bytes().decode() == (
        'label\taliases\tcategory\tdescription\tbroader\n"13""屏幕"\t显示器\t\t一 二\t\n'
    )


@pytest.mark.parametrize("fields", [{"aliases": ("甲|乙",)}, {"broader": ("甲｜乙",)}])
def test_a_word_that_holds_the_separator_is_not_written(tmp_path, fields):
    with pytest.raises(LabelError, match=r"'甲.乙', a word of the label '猫', holds a \|"):
        write_concepts([Concept("猫", **fields)], tmp_path / "out.tsv")
    assert not (tmp_path / "out.tsv").exists()


@pytest.mark.parametrize("separator", ["、", "，", ",", "；", ";", "/"])
def test_an_alias_that_looks_like_several_is_noted(tmp_path, separator):
    path = tmp_path / "labels.tsv"
    path.write_text(f"label\taliases\n手机\t移动电话{separator}智能手机\n", encoding="utf-8")
    (note,) = read_concepts(path).notes
    assert f"separated by |: '移动电话{separator}智能手机' (lines 2)" in note
