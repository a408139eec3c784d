"""UTF-8 text files that people write: labels and truth tables."""

from __future__ import annotations

import os
from pathlib import Path

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
        raise error_type(f"there is no {what} {path}; check the path") from error
    except IsADirectoryError as error:
        raise error_type(f"{path} is a folder; expected a {what}") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        encoding = "utf-16" if error.object[:2] in (b"\xff\xfe", b"\xfe\xff") else "gb18030"
        raise error_type(
            f"the {what} {path} is not UTF-8: byte 0x{error.object[error.start]:02x} in line "
            f"{line}; convert it, e.g. `iconv -f {encoding} -t utf-8 {path}`"
        ) from error
    except (OSError, ValueError) as error:
        raise error_type(f"the {what} {path} cannot be read: {error}") from error
