"""Run the `wanwu` command and measure it."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from pathlib import Path


def run_wanwu(*arguments: str) -> tuple[float, int]:
    """Run `wanwu`: seconds, and the largest resident memory in bytes.

    Call it from a small process: the caller's own largest memory counts for what it starts.
    """
    command = [str(Path(sys.executable).with_name("wanwu")), *arguments]
    started = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        errors = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}:\n{errors.decode()}")
    return time.monotonic() - started, usage.ru_maxrss * 1024


def machine() -> str:
    """Give the machine's cores and processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(os.sched_getaffinity(0))} cores of {names[0] if names else platform.processor()}"
