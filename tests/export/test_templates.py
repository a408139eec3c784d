"""Prompt templates: the sets that come with Wanwu, and files of one's own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from wanwu.errors import LabelError
from wanwu_export.templates import Templates, built_in_templates, load_templates

DOMAINS = ("zh-document", "zh-food", "zh-industry", "zh-medical", "zh-product", "zh-scene")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "模板.txt"


def test_the_built_in_sets_are_bare_two_general_ones_and_one_for_each_domain():
    assert built_in_templates() == ("bare", "zh", *DOMAINS, "zh-short")


def test_bare_is_the_label_itself():
    assert load_templates("bare") == Templates("bare", ("{}",))


@pytest.mark.parametrize(("name", "at_least"), [("zh", 24), *((name, 12) for name in DOMAINS)])
def test_a_built_in_set_has_enough_templates(name, at_least):
    templates = load_templates(name)
    assert templates.name == name
    assert len(templates.texts) >= at_least


@pytest.mark.parametrize("name", ["zh", *DOMAINS])
def test_a_built_in_template_is_chinese_and_short(name):
    odd = [text for text in load_templates(name).texts if not re.search("[\u4e00-\u9fff]", text)]
    assert odd == []
    # Chinese-CLIP reads 50 tokens; a label needs most of them.
    assert max(map(len, load_templates(name).texts)) <= 20


def test_the_general_set_varies_distance_light_quality_and_source():
    texts = "".join(load_templates("zh").texts)
    kinds = "照片 近照 特写 远景 侧面 逆着光 模糊 夜景 黑白 插画 屏幕截图 手机 监控画面 商品图"
    assert [kind for kind in kinds.split() if kind not in texts] == []


def test_the_short_set_is_of_the_general_one_and_four_times_shorter():
    short, general = load_templates("zh-short").texts, load_templates("zh").texts
    assert set(short) < set(general)
    assert 4 <= len(general) / len(short) <= 5


def test_no_other_template_is_in_two_sets():
    sets = set(built_in_templates()) - {"zh-short"}
    texts = [text for name in sets for text in load_templates(name).texts]
    assert [text for text in texts if texts.count(text) > 1] == []


@pytest.mark.parametrize(
    "data",
    [
        "# 我的模板\n\n一张{}\n  手绘的{}\u3000\n".encode(),
        "\ufeff一张{}\r\n # 手绘\r\n手绘的{}".encode(),
    ],
    ids=["plain", "BOM-CRLF"],
)
def test_a_file_is_read_without_its_comments(file, data):
    file.write_bytes(data)
    assert load_templates(str(file)) == Templates("模板.txt", ("一张{}", "手绘的{}"))


@pytest.mark.parametrize("name", ["mine.txt", "./zh"])
def test_what_looks_like_a_path_is_one(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path(name).write_text("我的{}\n", encoding="utf-8")
    assert load_templates(name).texts == ("我的{}",)


@pytest.mark.parametrize("name", ["ZH", "", "clip", "../templates"])
def test_an_unknown_set_or_a_missing_file_is_refused(name):
    reason = "there are no templates .*; choose one of bare, zh, zh-document"
    with pytest.raises(
        LabelError, match=reason if "/" not in name else "there is no template file"
    ):
        load_templates(name)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", r"模板\.txt holds no template; write one a line, such as '这是\{\}'"),
        ("# 一张{}\n\n", "holds no template"),
        ("一张{}\n一张照片\n", r"line 2 '一张照片' has 0 slots \{\}; expected one"),
        ("# 注释\n\n{}和{}\n", r"line 3 '\{\}和\{\}' has 2 slots \{\}"),
        ("一张{x}\n", r"line 1 '一张\{x\}' holds a brace that is no slot"),
        ("一张{label}的{}\n", "line 1 .* holds a brace that is no slot"),
        ("一张{}}\n", "line 1 .* holds a brace that is no slot"),
        ("一张{{}}\n", "line 1 .* holds a brace that is no slot"),
        ("一张{}\n手绘的{}\n 一张{} \n", r"line 3 '一张\{\}' repeats line 1"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_by_its_line(file, content, reason):
    file.write_text(content, encoding="utf-8")
    with pytest.raises(LabelError, match=reason):
        load_templates(str(file))


def test_a_file_in_another_encoding_is_told_how_to_convert(file):
    file.write_bytes("一张{}\n".encode("gb18030"))
    with pytest.raises(LabelError, match=r"the template file .* is not UTF-8.*iconv -f gb18030"):
        load_templates(str(file))
