"""The concepts that come with Wanwu, and reading others."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

import wanwu_export
from wanwu.errors import LabelError
from wanwu.labels import check_labels
from wanwu_export.concepts import Concept, built_in_banks, imagenet_concepts, read_concepts

HEADER = "label\taliases\tcategory\tbroader\n"
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
def table(tmp_path: Path) -> Path:
    return tmp_path / "concepts.tsv"


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


@pytest.mark.parametrize("name", ["seed18", "luxury"])
def test_a_bank_holds_labels_a_client_accepts_each_with_a_category(name):
    bank = built_in_banks()[name]
    assert check_labels(concept.label for concept in bank)
    assert [concept.label for concept in bank if not concept.category] == []


def test_reading_gives_every_column(table):
    table.write_text(f"{HEADER} 猫 \t猫咪| 家猫|\t动物\t猫科|动物\n狗\t\t\t\n", encoding="utf-8")
    assert read_concepts(table) == [
        Concept("猫", ("猫咪", "家猫"), "动物", ("猫科", "动物")),
        Concept("狗"),
    ]


@pytest.mark.parametrize("blank", ["", " ", "\u3000"])
def test_a_blank_label_is_refused_with_its_line(table, blank):
    table.write_text(f"{HEADER}猫\t\t\t\n{blank}\t猫咪\t动物\t\n", encoding="utf-8")
    with pytest.raises(LabelError, match=rf"{table} line 3: the label is blank"):
        read_concepts(table)


@pytest.mark.parametrize("again", ["猫", " 猫 "])
def test_a_repeated_label_is_refused_with_both_lines(table, again):
    table.write_text(f"{HEADER}猫\t\t\t\n狗\t\t\t\n{again}\t\t\t\n", encoding="utf-8")
    with pytest.raises(LabelError, match=rf"{table} line 4: '猫' repeats line 2"):
        read_concepts(table)
