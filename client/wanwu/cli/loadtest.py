"""`wanwu loadtest`: locust with Wanwu's load."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import typer

from wanwu.cli.packages import needs

SETTINGS = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def loadtest(context: typer.Context) -> None:
    """Load a server by locust, and hold it against objectives; takes locust's options and ours.

    `wanwu loadtest --help` lists them all.
    """
    with needs("loadtest"):
        import locust  # noqa: F401
        import matplotlib  # noqa: F401

        import wanwu_loadtest
    file = Path(wanwu_loadtest.__file__).with_name("locustfile.py")
    # Locust makes the whole of a process cooperative, so it gets this one for itself.
    command = [sys.executable, "-m", "locust", "-f", str(file), "--headless", "--only-summary"]
    if {"-h", "--help"} & set(context.args):
        # Locust itself would tell of its own options alone: it has not read ours by then.
        command = [sys.executable, "-m", "wanwu_loadtest.options"]
    os.execv(command[0], [*command, *context.args])  # noqa: S606 - our own interpreter
