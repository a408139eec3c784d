"""The language of the command line: English, or Chinese by the catalog."""

from __future__ import annotations

import os
from typing import Any

import typer

from wanwu.catalog import in_chinese, message, recognized
from wanwu.errors import InputError

#: Names of the texts of Typer's own around help and usage errors.
TYPER_TEXTS = (
    "ARGUMENTS_PANEL_TITLE",
    "OPTIONS_PANEL_TITLE",
    "COMMANDS_PANEL_TITLE",
    "ERRORS_PANEL_TITLE",
    "REQUIRED_LONG_STRING",
    "DEFAULT_STRING",
    "ENVVAR_STRING",
    "ABORTED_TEXT",
    "RICH_HELP",
)


def chinese() -> bool:
    """Tell whether the command line speaks Chinese: by WANWU_LANG, else by the locale.

    Raises:
        InputError: WANWU_LANG is neither zh nor en.
    """
    wanted = os.environ.get("WANWU_LANG")
    if wanted:
        if wanted not in ("zh", "en"):
            raise InputError("WANWU_LANG is {0}; expected zh or en", repr(wanted))
        return wanted == "zh"
    locale = next(filter(None, map(os.environ.get, ("LC_ALL", "LC_MESSAGES", "LANG"))), "")
    return locale.startswith("zh")


def translate(text: str, *arguments: Any) -> str:
    """Return a text, or a template filled with arguments, in the language of the command line."""
    filled = message(text, *arguments)
    return in_chinese(filled) if chinese() else filled


def say(text: str, *arguments: Any, err: bool = False, fg: str | None = None) -> None:
    """Print a text, or a template filled with arguments, in the language of the command line."""
    _print(translate(text, *arguments), err, fg)


def tell(text: str, *arguments: Any, err: bool = False, fg: str | None = None) -> None:
    """Print as `say` does, and whom it is from."""
    _print(f"wanwu: {translate(text, *arguments)}", err, fg)


def _print(line: str, err: bool, fg: str | None) -> None:
    typer.echo(typer.style(line, fg=fg) if fg else line, err=err)


def padded(text: str, width: int) -> str:
    """Fill a text up with spaces to the width of a column; a Chinese character takes two."""
    from rich.cells import cell_len

    return text + " " * (width - cell_len(text))


def translate_help(command: Any) -> None:
    """Put usage errors and the help of a command and of its sub-commands into Chinese.

    The command is Click's, whose types are Typer's own or Click's by the release of Typer.
    """
    from typer import rich_utils

    texts: Any = rich_utils
    for name in TYPER_TEXTS:
        setattr(texts, name, in_chinese(getattr(texts, name)))
    show = texts.rich_format_error

    def showin_chinese(error: Any) -> None:
        message = in_chinese(recognized(error.format_message()))
        error.format_message = lambda: message
        show(error)

    texts.rich_format_error = showin_chinese
    _translate_command(command)


def _translate_command(command: Any) -> None:
    command.help = _paragraphs(command.help)
    command.epilog = _paragraphs(command.epilog)
    for parameter in command.get_params(typer.Context(command)):
        parameter.help = _paragraphs(getattr(parameter, "help", None))
    for each in getattr(command, "commands", {}).values():
        _translate_command(each)


def paragraphs(text: str) -> list[str]:
    """Give the paragraphs of a help text, each as one line: the catalog has them so."""
    return [" ".join(paragraph.split()) for paragraph in text.strip().split("\n\n")]


def _paragraphs(text: str | None) -> str | None:
    return text and "\n\n".join(map(in_chinese, paragraphs(text)))
