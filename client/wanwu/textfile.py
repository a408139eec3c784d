"""UTF-8 text files that people write: labels and truth tables."""

from __future__ import annotations

import os
from pathlib import Path

from wanwu.catalog import Message
from wanwu.errors import InputError


def read_utf8(path: str | os.PathLike[str], what: str, error_type: type[InputError]) -> str:
    """Read a whole file as UTF-8, with or without a byte order mark.

    Args:
        path: the file.
        what: what the file is to the caller, for messages: "label file".
        error_type: the error to raise.

    Raises:
        InputError: as `error_type`, when the file is missing, a folder, unreadable or not UTF-8.
    """
    path = Path(path)
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise error_type(Message("there is no {0} {1}; check the path", what, path)) from error
    except IsADirectoryError as error:
        raise error_type(Message("{0} is a folder; expected a {1}", path, what)) from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        encoding = "utf-16" if error.object[:2] in (b"\xff\xfe", b"\xfe\xff") else "gb18030"
        raise error_type(
            Message(
                "the {0} {1} is not UTF-8: byte 0x{2} in line {3}; convert it, e.g. `iconv -f "
                "{4} -t utf-8 {5}`",
                what,
                path,
                f"{error.object[error.start]:02x}",
                line,
                encoding,
                path,
            )
        ) from error
    except (OSError, ValueError) as error:
        raise error_type(Message("the {0} {1} cannot be read: {2}", what, path, error)) from error
