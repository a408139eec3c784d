"""Checks of a running server, from "does it answer" to "does it know Chinese"."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from wanwu.catalog import Message, message_of
from wanwu.errors import SetupError, WanwuError
from wanwu.rank import scores
from wanwu.recognizer import Recognizer
from wanwu.samples import cat_photo
from wanwu.transport import Instances
from wanwu.triton_releases import lacking, table

TOWERS = ("image_encoder", "text_encoder")
MODELS = (*TOWERS, "label_bank")
#: A word, and a text that only this word fits.
WORDS_AND_TEXTS = (
    ("火锅", "麻辣火锅，一锅热汤里涮羊肉和蔬菜"),
    ("高铁站", "高铁站里停着高速列车的站台"),
)
OTHER_WORDS = ("衬衫", "键盘", "大象", "雪山", "小提琴", "医院", "足球", "书架")
#: A flat distribution over n labels gives each 1/n. A real answer gives its label this many times
#: as much.
TIMES_FLAT = 3.0
NOT_READY = "it answers but is not ready; wait, or read its log for a model that fails to load"


@dataclass(frozen=True)
class Finding:
    """One check's outcome. `detail` says what was seen, and what to do about it."""

    what: str
    ok: bool
    detail: str
    #: It is ok and still something to act on.
    warning: bool = False


def examine(recognizer: Recognizer) -> Iterator[Finding]:
    """Run the checks in order; a check that others build on ends the examination when it fails."""
    try:
        ready = recognizer.is_ready()
    except WanwuError as error:
        yield Finding("server", False, message_of(error))
        return
    yield Finding("server", ready, "ready" if ready else NOT_READY)
    yield _release(recognizer)
    models = [
        _guard(Message("model {0}", model), lambda m=model: _model(recognizer, m))  # type: ignore[misc]
        for model in MODELS
    ]
    yield from models
    if not all(model.ok for model in models):
        return
    yield _guard("device", lambda: _device(recognizer))
    contract = _guard("contract", lambda: _contract(recognizer))
    yield contract
    if not contract.ok:
        return
    yield _guard("fingerprint", lambda: _fingerprint(recognizer))
    yield _guard("picture", lambda: _picture(recognizer))
    for word, text in WORDS_AND_TEXTS:
        yield _guard(Message("Chinese, {0}", word), lambda w=word, t=text: _word(recognizer, w, t))  # type: ignore[misc]
    for name in recognizer.banks():
        yield _guard(Message("bank {0}", name), lambda n=name: _bank(recognizer, n))  # type: ignore[misc]


def _guard(what: str, check: Callable[[], tuple[bool, str]]) -> Finding:
    try:
        return Finding(what, *check())
    except WanwuError as error:
        return Finding(what, False, message_of(error))


def _model(recognizer: Recognizer, model: str) -> tuple[bool, str]:
    if recognizer.is_ready(model):
        return True, "ready"
    return False, "not ready; export the model again, or load it, and read the server's log"


def _release(recognizer: Recognizer) -> Finding:
    """Return what is known of this release of Triton; old ones answer right all the same."""
    try:
        version = recognizer.server_version()
    except SetupError:
        return Finding("release", True, "not said: the server restricts its metadata protocol")
    faults = lacking(version)
    if not faults:
        return Finding(
            "release",
            True,
            Message("Triton {0} has no fault known on {1}", version, table().checked),
        )
    ids = ", ".join(name for fault in faults for name in fault.ids)
    return Finding(
        "release",
        True,
        Message(
            "Triton {0} lacks the fixes for {1}; serve others with release {2} or later",
            version,
            ids,
            faults[-1].fixed_in,
        ),
        warning=True,
    )


def _device(recognizer: Recognizer) -> tuple[bool, str]:
    """Return on what the towers run; a server that does not say so is sound all the same."""
    try:
        image, text = (places(recognizer.instances(tower)) for tower in TOWERS)
    except SetupError:
        return True, "not said: the server restricts its model-config protocol"
    return True, Message("image_encoder on {0}, text_encoder on {1}", image, text)


def places(found: Sequence[Instances]) -> str:
    """Return for instances such as two on each of GPUs 0 and 1: `GPU 0, 1 (4 instances)`."""
    gpus = sorted({gpu for group in found for gpu in group.gpus})
    count = sum(group.count * max(1, len(group.gpus)) for group in found)
    where = f"GPU {', '.join(map(str, gpus))}" if gpus else "CPU"
    return Message("{0} ({1} instances)", where, count) if count > 1 else where


def _contract(recognizer: Recognizer) -> tuple[bool, str]:
    contract = recognizer.contract()
    image = contract.image
    return True, (
        Message(
            "{0} revision {1}, {2}x{3}, {4} dimensions, {5} labels",
            contract.model.name,
            contract.model.revision,
            image.width,
            image.height,
            contract.embedding_dim,
            contract.bank.count,
        )
    )


def _fingerprint(recognizer: Recognizer) -> tuple[bool, str]:
    # Both calls raise unless the tower's fingerprint is the contract's.
    recognizer.embed_texts(["猫"])
    recognizer.embed_image(cat_photo())
    return True, Message("towers and bank agree on {0}", recognizer.contract().fingerprint)


def _picture(recognizer: Recognizer) -> tuple[bool, str]:
    labels = ("猫", *(word for word, _ in WORDS_AND_TEXTS), *OTHER_WORDS)
    answer = recognizer.recognize(cat_photo(), labels=labels)
    seen = Message(
        "a cat is {0} at {1} of {2} labels",
        answer.top.label,
        f"{answer.top.score:.0%}",
        len(labels),
    )
    if answer.top.label == "猫" and answer.top.score >= TIMES_FLAT / len(labels):
        return True, Message("{0}, in {1} ms", seen, f"{answer.seconds * 1000:.0f}")
    return False, Message(
        "{0}; expected 猫, clearly. The model was converted wrongly: export it again", seen
    )


def _word(recognizer: Recognizer, word: str, text: str) -> tuple[bool, str]:
    words = (*(each for each, _ in WORDS_AND_TEXTS), *OTHER_WORDS)
    best, share = _closest(recognizer, text, words)
    seen = Message(
        "{0} is closest to {1} at {2} of {3} words", repr(text), best, f"{share:.0%}", len(words)
    )
    if best == word and share >= TIMES_FLAT / len(words):
        return True, seen
    return False, (
        Message(
            "{0}; expected {1}, at {2} or more. A flat or wrong answer means a text tower, "
            "tokenizer or checkpoint without Chinese: check the export",
            seen,
            word,
            f"{TIMES_FLAT / len(words):.0%}",
        )
    )


def _closest(recognizer: Recognizer, text: str, words: Sequence[str]) -> tuple[str, float]:
    contract = recognizer.contract()
    vectors = recognizer.embed_texts([text, *words])
    # A sigmoid's bias is for pictures; between texts the shares are compared as a softmax's.
    score = type(contract.score)(kind="softmax", logit_scale=contract.score.logit_scale)
    shares = scores(vectors[1:] @ vectors[0], score, contract.calibration)
    best = int(np.argmax(shares))
    return words[best], float(shares[best])


def _bank(recognizer: Recognizer, name: str) -> tuple[bool, str]:
    answer = recognizer.recognize(cat_photo(), bank=name)
    count = recognizer.contract(name).bank.count
    return True, Message(
        "{0} labels; a cat is {1} at {2}", count, answer.top.label, f"{answer.top.score:.0%}"
    )
