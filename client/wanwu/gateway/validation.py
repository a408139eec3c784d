"""What pydantic says of a value, as one of our messages."""

from __future__ import annotations

from typing import Any

from wanwu.catalog import message_of, recognized


def reason_of(error: Any) -> str:
    """Return why a value was refused, by an entry of `ValidationError.errors`.

    A reason of our own is the ValueError of a validator; others are pydantic's texts.
    """
    own = error.get("ctx", {}).get("error")
    if isinstance(own, ValueError):
        return message_of(own)
    return recognized(str(error["msg"]).removeprefix("Value error, "))
