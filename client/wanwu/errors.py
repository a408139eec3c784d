"""Every error Wanwu raises on purpose.

WanwuError
├── InputError       what the caller gave cannot be used
│   ├── ImageError   a picture
│   └── LabelError   a list of labels
├── ServerError      Triton did not answer: not running, not ready, too slow
│   └── OverloadedError   its queue is full: it refused at once
├── ModelError       Triton answered, but what it serves does not fit together
└── SetupError       this machine lacks a file, a package, a port or a platform

Each message says what came, what was expected and what to change. It is an English template with
slots and what fills them, as in `wanwu.catalog`.
"""

from __future__ import annotations

from typing import Any

from wanwu.catalog import message


class WanwuError(Exception):
    """Base of every error that Wanwu raises on purpose.

    Example:
        >>> try:
        ...     recognizer.recognize("none.jpg")
        ... except WanwuError as error:
        ...     print(error)
        there is no file none.jpg; check the path
    """

    def __init__(self, text: str = "", *arguments: Any) -> None:
        """Take a text, or a template and what fills its slots {0}, {1} and so on."""
        super().__init__(message(text, *arguments))


class InputError(WanwuError):
    """What the caller gave cannot be used.

    Example:
        >>> try:
        ...     recognizer.recognize(cat, top_k=0)
        ... except InputError as error:
        ...     print(error)
        top_k is 0; expected a whole number of at least 1
    """


class ImageError(InputError):
    """A picture is missing, unreadable or beyond the limits.

    Example:
        >>> try:
        ...     recognizer.recognize(b"")
        ... except ImageError as error:
        ...     print(error)
        the picture of 0 B is empty; expected an encoded picture such as JPEG
    """


class LabelError(InputError):
    """A list of labels is empty, repeats itself or cannot be read.

    Example:
        >>> try:
        ...     recognizer.recognize(cat, labels=["猫", "猫"])
        ... except LabelError as error:
        ...     print(error)
        label 2 '猫' repeats label 1; remove one of them
    """


class ServerError(WanwuError):
    """Triton did not answer: it is not running, not ready, or too slow.

    Example:
        >>> try:
        ...     Recognizer("127.0.0.1:1").banks()
        ... except ServerError as error:
        ...     print(str(error)[:42])
        no Triton answers gRPC at 127.0.0.1:1 (con
    """


class OverloadedError(ServerError):
    """Triton's queue is full. It refused at once, and did no work: try later, or elsewhere.

    Example:
        >>> try:
        ...     answer = recognizer.recognize(cat)
        ... except OverloadedError:
        ...     answer = None  # `recognize_many` waits for the queue by itself
    """


class ModelError(WanwuError):
    """Triton answered, but what it serves does not fit together.

    Example:
        >>> try:
        ...     Contract.from_json(b"{}")
        ... except ModelError as error:
        ...     print(str(error)[:49])
        the server's CONTRACT is not a Wanwu contract (Ob
    """


class SetupError(WanwuError):
    """This machine lacks a file, a package, a port or a platform.

    Example:
        >>> try:
        ...     Tls(ca="none.pem")
        ... except SetupError as error:
        ...     print(str(error)[:40])
        the TLS file ca=none.pem cannot be read:
    """
