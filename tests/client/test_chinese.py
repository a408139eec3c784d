"""The command line in Chinese, and that its catalog has all that it may print."""

from __future__ import annotations

import ast
import copy
import json
import os
import pickle
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer import rich_utils

import wanwu
import wanwu_export
import wanwu_loadtest
from wanwu.catalog import CATALOG, Message, byte_size, in_chinese, recognized, shortened
from wanwu.cli import app
from wanwu.cli.language import TYPER_TEXTS, chinese, paragraphs, tell, translate
from wanwu.errors import InputError, LabelError, ServerError
from wanwu.labels import check_labels

ENTRIES: dict[str, str] = json.loads(CATALOG.read_text(encoding="utf-8"))
SOURCES = [Path(module.__file__ or "").parent for module in (wanwu, wanwu_export, wanwu_loadtest)]
SLOT = re.compile(r"\{\d+\}")
NO_TEXTS = ("triton_statistics.py", "picture.py", "plot.py", "machine.py", "catalog.py")
#: A text of at least two words is a message, other than these.
TWO_WORDS = re.compile(r"[A-Za-z{}0-9)'`,:;.…]\s+\S*[A-Za-z{`]")
NO_MESSAGES = {
    # Triton's and gRPC's, which are looked for
    "This protocol is restricted",
    "unknown model",
    "has no available versions",
    "is not ready",
    "exceeds maximum queue size",
    "Request timeout expired",
    "protocol is restricted",
    "explicit model load / unload is not allowed",
    "GPU metrics",
    # onnxruntime's, in the log of a trial of CUDA
    "has no CUDA provider",
    "(lib[\\w.+-]+\\.so[.\\d]*): cannot open shared object",
    "CUDA failure \\d+: (.+?) ; GPU",
    # of Triton's stub or an export that lost its GPU, with a traceback: no text for a user
    "onnxruntime {0} has no CUDA provider",
    "the session runs on {0} and not on {1}; the lines above this one say which library cannot be "
    "loaded",
    "the NVIDIA driver answers with error {0} about GPU {1}",
    "CUDA computes {0} where 16 is right",
    "closed channel",
    # Pillow's
    "not supported",
    "not yet supported",
    "not available",
    "not installed",
    # commands, code and data
    "pip install 'wanwu[parquet]'",
    "pip install 'wanwu[server]'",
    "pip install 'wanwu[server-gpu]'",
    "pip install 'wanwu[demo]'",
    "import sys; sys.dont_write_bytecode = True",
    "Sequence[str] | Mapping[str, Sequence[str]]",
    "a photo of a CAT",
    "pad_id={0}, end_pads={1}, masked={2}",
    "iPhone 15 Pro 手机壳",
    # of the API, which OpenAPI has in one language
    "Beside a body of {0}* alone. {1}",
    # HTTP
    "Authorization: Bearer TOKEN",
    'Bearer realm="wanwu"',
    "Too many files",
    "Value error, ",
    "camera=(self), microphone=(), geolocation=()",
    "connection: close",
    "content-length: {0}",
    "content-type: {0}",
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "media-src 'self' blob:; connect-src 'self'; form-action 'none'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "%(asctime)s %(levelname)s %(name)s: %(message)s",
    "({0} lines before this one were lost) {1}",
    # the same in both languages, or around a text that is translated
    "wanwu {0}",
    "wanwu: {0}",
    "wanwu: {0}\n",
    "wanwu:   {0}",
    "wanwu:   {0}{1}",
    "wanwu: {0} …",
    "{0}  {1} ms",
    "top-1 {0}",
    "top-5 {0}",
    # names of a load's stages, which are data
    "after, first half",
    "after, second half",
    "part {0}",
    "no code",
    # many in one sentence, between labels
    "{0} (lines {1})",
    # for the one who wrote the code
    "{0} is no lower precision",
    # into Triton's log, where the rest is English
    "Triton did not end in time; killing it",
}
#: How Typer's usage errors begin. Its releases word them differently; an unknown one stays English.
USAGE_ERRORS = (
    "Missing ",
    "No such ",
    "Got unexpected ",
    "Option ",
    "Invalid value ",
    "Input should be ",
    "Value error, ",
    # pydantic's, of the gateway's questions
    "Extra inputs ",
    "Field required",
    "Invalid JSON: ",
    "List should ",
    "Data should ",
)

LANGUAGE = ("WANWU_LANG", "LC_ALL", "LC_MESSAGES", "LANG")


@pytest.fixture(autouse=True)
def _in_chinese(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in LANGUAGE:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANWU_LANG", "zh")


def literals(path: Path) -> Iterator[str]:
    """Give the strings of a module as templates, without its docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inner: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr):
            inner.add(id(node.value))  # a docstring
        elif isinstance(node, ast.JoinedStr):
            inner.update(map(id, node.values))
        elif isinstance(node, ast.FormattedValue) and node.format_spec:
            inner.add(id(node.format_spec))
        elif isinstance(node, ast.keyword) and node.arg == "description":
            inner.add(id(node.value))  # of the API, which OpenAPI has in one language
        elif isinstance(node, ast.Call) and ast.unparse(node.func).startswith("log."):
            inner.update(map(id, node.args))
    for node in ast.walk(tree):
        if id(node) in inner:
            continue
        if isinstance(node, ast.JoinedStr):
            yield template(node)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def template(text: ast.JoinedStr) -> str:
    slot = 0
    parts = []
    for value in text.values:
        if isinstance(value, ast.Constant):
            parts.append(str(value.value))
        else:
            parts.append(f"{{{slot}}}")
            slot += 1
    return "".join(parts)


def f_strings(path: Path) -> Iterator[str]:
    """Give the f-strings of a module as templates, without those of a log."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    logged = {
        id(text)
        for each in calls
        if ast.unparse(each.func).startswith("log.")
        for text in each.args
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr) and id(node) not in logged:
            yield template(node)


def help_texts(command: Any) -> Iterator[str]:
    parameters = command.get_params(typer.Context(command))
    texts = [command.help, command.epilog, *(getattr(each, "help", None) for each in parameters)]
    for text in filter(None, texts):
        yield from paragraphs(text)
    for each in getattr(command, "commands", {}).values():
        yield from help_texts(each)


HELP = {
    *help_texts(typer.main.get_command(app)),
    *(getattr(rich_utils, name) for name in TYPER_TEXTS),
}
#: Without what Prometheus shows beside each metric, a file for Helm, names of statistics, figures,
#: whose fonts have no Chinese, and how templates begin.
MODULES = [
    path
    for source in SOURCES
    for path in sorted(source.rglob("*.py"))
    if path.name not in ("metrics.py", "chart_values.py", *NO_TEXTS)
]
LITERALS = {text: f"{path.name}: {text}" for path in MODULES for text in literals(path)}


def is_message(text: str) -> bool:
    words = SLOT.sub("", text)
    return bool(re.search("[a-z]{2}", words) and TWO_WORDS.search(text))


F_STRINGS = {text for path in MODULES for text in f_strings(path) if is_message(text)}


def test_every_help_text_has_an_entry() -> None:
    assert sorted(HELP - set(ENTRIES)) == []


def test_every_message_has_an_entry() -> None:
    # Help may come from a text that is not yet made paragraphs.
    known = {*ENTRIES, *NO_MESSAGES, *HELP}
    missing = [
        where
        for text, where in LITERALS.items()
        if is_message(text) and text not in known and not set(paragraphs(text)) <= known
    ]
    assert missing == []


def test_no_message_is_an_f_string() -> None:
    """It would be English for good: its template and its arguments cannot be told apart."""
    assert sorted(F_STRINGS - NO_MESSAGES) == []


def test_no_entry_is_unused() -> None:
    unused = [
        entry
        for entry in ENTRIES
        if entry not in HELP and not entry.startswith(USAGE_ERRORS) and entry not in LITERALS
    ]
    assert unused == []


def test_no_exemption_is_unused() -> None:
    assert sorted(NO_MESSAGES - set(LITERALS)) == []


@pytest.mark.parametrize("entry", ENTRIES)
def test_both_languages_have_the_same_slots(entry: str) -> None:
    def slots(text: str) -> list[str]:
        return sorted(re.findall(r"\{[^{}]*\}", text))

    assert slots(ENTRIES[entry].replace(":t}", "}")) == slots(entry)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1_000, "1 kB"),
        (311_234, "311.2 kB"),
        (32_000_000, "32 MB"),
        (10**18, "1,000,000,000 GB"),
    ],
)
def test_a_number_of_bytes_is_told_as_people_read_it(count: int, text: str) -> None:
    assert byte_size(count) == text


def cli(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if name not in LANGUAGE}
    clean |= {"WANWU_LANG": "zh", "COLUMNS": "160", "PYTHONUTF8": "1", "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, "-c", "from wanwu.cli import main; main()", *arguments],
        env=clean | environment,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, False),
        ({"LANG": "zh_CN.UTF-8"}, True),
        ({"LC_MESSAGES": "zh_CN.UTF-8", "LANG": "en_US.UTF-8"}, True),
        ({"LC_ALL": "en_US.UTF-8", "LANG": "zh_CN.UTF-8"}, False),
        ({"LC_ALL": "", "LANG": "zh_TW.UTF-8"}, True),
        ({"WANWU_LANG": "en", "LC_ALL": "zh_CN.UTF-8"}, False),
        ({"WANWU_LANG": "zh", "LC_ALL": "C"}, True),
        ({"WANWU_LANG": "", "LANG": "zh_CN"}, True),
    ],
)
def test_the_environment_tells_the_language(
    environment: dict[str, str], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANWU_LANG")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert chinese() is expected


def test_another_language_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANWU_LANG", "fr")
    with pytest.raises(InputError, match="WANWU_LANG is 'fr'; expected zh or en"):
        chinese()


def test_another_language_ends_the_command() -> None:
    done = cli("--help", WANWU_LANG="fr")
    assert done.returncode == 2
    assert done.stderr == "wanwu: WANWU_LANG is 'fr'; expected zh or en\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            Message("there is no file {0}; check the path", "none.jpg"),
            "没有文件 none.jpg，请检查路径",
        ),
        (
            Message("there is no {0} {1}; check the path", "label file", "my own file.txt"),
            "没有标签文件 my own file.txt，请检查路径",
        ),
        (
            Message(
                "{0} {1} repeats {2}; remove one of them",
                Message("label {0}", 2),
                "'hot dog'",
                Message("label {0}", 1),
            ),
            "第 2 个标签 'hot dog' 与第 1 个标签重复，请删除其中一个",
        ),
        (
            Message("failed: {0}", ServerError("there is no file {0}; check the path", "a.jpg")),
            "失败：没有文件 a.jpg，请检查路径",
        ),
        (Message("device {0}: {1}", "cpu", "--device cpu"), "设备 cpu：--device cpu"),
        (Message("{0} is of no catalog", Message("label {0}", 2)), "label 2 is of no catalog"),
        ("all queues are full; try again", "队列已满，请稍后重试"),
    ],
)
def test_messages_and_those_inside_them(text: str, expected: str) -> None:
    assert translate(text) == expected


@pytest.mark.parametrize(
    "value",
    [
        "{0}",
        "{1:t}",
        "{}",
        "a{b}c",
        "a.*(b)[c]+?\\d$^|",
        r"\1\g<0>",
        "ready",
        "label 2",
        "device",
        "the array",
        "a; check the path",
        "文件，请检查.jpg",
        "a\nb",
        " ",
        "%s %(x)s",
        "1,234",
        "x repeats label 9",
        " has fingerprint and  says of version : they are of different exports; export again",
    ],
)
def test_what_came_is_kept_to_the_letter(value: str) -> None:
    text = Message("there is no file {0}; check the path", value)
    assert text == f"there is no file {value}; check the path"
    assert translate(text) == f"没有文件 {value}，请检查路径"
    assert translate(Message("failed: {0}", text)) == f"失败：没有文件 {value}，请检查路径"


@pytest.mark.parametrize(
    "labels", [["x repeats label 9"] * 2, ["a", "' repeats label", "' repeats label"]]
)
def test_labels_that_look_like_messages_are_kept_to_the_letter(labels: list[str]) -> None:
    with pytest.raises(LabelError) as caught:
        check_labels(labels)
    n = len(labels)
    shown = repr(labels[-1])
    assert in_chinese(caught.value) == (
        f"第 {n} 个标签 {shown} 与第 {n - 1} 个标签重复，请删除其中一个"
    )


def test_a_message_survives_a_copy() -> None:
    error = ServerError("there is no file {0}; check the path", Path("a.jpg"))
    pickled = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    for copied in (pickled, copy.deepcopy(error)):
        assert str(copied) == "there is no file a.jpg; check the path"
        assert in_chinese(copied) == "没有文件 a.jpg，请检查路径"


def test_the_arguments_of_a_message_are_shortened_and_not_its_text() -> None:
    inner = Message("label {0}", "长" * 500)
    found = shortened(Message("there is no {0} {1}; check the path", inner, "x" * 500), 200)
    assert found == f"there is no label {'长' * 199}… {'x' * 199}…; check the path"
    assert translate(found).startswith("没有第 长")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("No such option: --nope", "没有选项 --nope"),
        ("rollback to 3", "回滚到 3"),
        ("Invalid JSON: No such command 'x'.", "JSON 无效：没有命令 'x'。"),
    ],
)
def test_texts_of_others_are_recognized(text: str, expected: str) -> None:
    assert translate(recognized(text)) == expected


def test_recognizing_takes_time_that_grows_with_the_text_alone() -> None:
    """Not with a power of it: 3 kB once took 36 s."""
    hostile = "No such option: " + " Did you mean ?" * 20_000
    began = time.monotonic()
    recognized(hostile)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("text", ["", "something else", "[libprotobuf] oops {0} (x)", "猫"])
def test_an_unknown_text_stays_english(text: str) -> None:
    assert translate(text) == text


def test_english_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANWU_LANG", "en")
    tell("nothing to remove")
    assert capsys.readouterr().out == "wanwu: nothing to remove\n"


@pytest.mark.parametrize(
    ("arguments", "environment", "code", "expected"),
    [
        (("recognize", "none.jpg", "--url", "127.0.0.1:1"), {}, 3, "没有 Triton 应答 gRPC（"),
        (("recognize", "a.jpg", "--shard", "4/4"), {}, 2, "--shard 是 '4/4'，应为 I/N"),
        (("recognize", "a.jpg", "--labels", "猫,猫"), {}, 2, "第 2 个标签 '猫' 与第 1 个标签重复"),
        (
            ("recognize", "a.jpg", "--labels-file", "none {0}.txt"),
            {},
            2,
            "没有标签文件 none {0}.txt，",
        ),
        (("recognize", "a.jpg", "--resume"), {}, 2, "给出了 --resume 但没有 --output"),
        (("doctor",), {"WANWU_TLS": "yes"}, 2, "WANWU_TLS 是 'yes'，应为 1（启用 TLS）或 0"),
        (("doctor",), {"WANWU_URL": "http://h:1"}, 2, "地址 'http://h:1' 以 http:// 开头"),
        (
            ("repository", "list", "--model-repository", "no/where"),
            {},
            5,
            "no/where 处没有模型仓库",
        ),
    ],
)
def test_errors_in_chinese(
    arguments: tuple[str, ...], environment: dict[str, str], code: int, expected: str
) -> None:
    done = cli(*arguments, **environment)
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith("wanwu: ")
    assert expected in done.stderr


def test_a_server_that_does_not_answer_in_a_list_of_checks() -> None:
    done = cli("doctor", "--url", "127.0.0.1:1", "--timeout-s", "0.5")
    assert done.returncode == 1
    assert done.stdout.startswith("FAIL 服务器: 127.0.0.1:1 上没有 Triton 应答 gRPC（")


@pytest.mark.parametrize(
    ("arguments", "environment", "expected"),
    [
        (
            ["doctor"],
            {"WANWU_TIMEOUT_S": "ten"},
            "（环境变量：'WANWU_TIMEOUT_S'）的值无效：应为数字",
        ),
        (["recognize"], {}, "缺少参数 'PICTURE...'。"),
        (["recognize", "a.jpg", "--top-k", "0"], {}, "'--top-k' 的值无效："),
        (["recognize", "a.jpg", "--nope"], {}, "没有选项 --nope"),
        (["nope"], {}, "没有命令 'nope'。"),
    ],
)
def test_usage_errors_in_chinese(
    arguments: list[str], environment: dict[str, str], expected: str
) -> None:
    done = cli(*arguments, **environment)
    assert done.returncode == 2
    assert "错误" in done.stderr
    assert expected in done.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), ("基于 NVIDIA Triton 的私有化零样本中文图像识别。", "退出码：0 全部成功；", "命令")),
        (
            ("recognize",),
            ("识别图片内容", "--labels-file", "自定义标签文件", "[必填]", "显示本帮助"),
        ),
        (("labels",), ("构建、列出、查看", "彻底删除标签库")),
        (("labels", "build"), ("标签库名称，必填",)),
        (("repository", "rollback"), ("要回到的版本", "[默认：3]")),
        (("export",), ("把模型导出到 Triton 模型仓库", "WANWU_MODEL_REPOSITORY")),
    ],
)
def test_help_in_chinese(arguments: tuple[str, ...], expected: tuple[str, ...]) -> None:
    done = cli(*arguments, "--help")
    assert done.returncode == 0
    for text in expected:
        assert text in done.stdout
    assert "expected" not in done.stdout


def test_help_stays_english_otherwise() -> None:
    done = cli("--help", WANWU_LANG="en")
    assert "Private, zero-shot" in done.stdout
    assert not re.search("[\u4e00-\u9fff]", done.stdout)
