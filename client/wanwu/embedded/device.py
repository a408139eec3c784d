"""Which device the embedded Triton, or the gate of an export, runs towers on, and why not another.

CUDA is tried in a process of its own: a driver that hangs or crashes must not take this one along.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from wanwu.catalog import Message, message_of
from wanwu.embedded.profiles import Profile
from wanwu.errors import InputError, SetupError
from wanwu.repository import newest_release

Kind = Literal["cpu", "gpu"]
WANTED = ("auto", "cpu", "gpu")
#: Triton's configs/NAME.pbtxt by the device, in the embedded profile.
CONFIG_NAMES = {"cpu": "embedded", "gpu": "embedded-gpu"}
#: CUDA's and cuDNN's libraries are a gigabyte to read.
TRIAL_S = 120.0
CUDA_LIBRARY = "libonnxruntime_providers_cuda.so"
INSTALL_GPU = "pip install 'wanwu[server-gpu]'"
NO_PROVIDER = (
    "onnxruntime has no CUDA provider; for a GPU run: "
    "pip uninstall -y onnxruntime && pip install 'wanwu[server-gpu]'"
)


@dataclass(frozen=True)
class Device:
    """Where the towers run. `why` is a sentence about how that was decided."""

    kind: Kind
    why: str = "as chosen"

    @property
    def config_name(self) -> str:
        """The name of Triton's config in the embedded profile."""
        return CONFIG_NAMES[self.kind]


CPU = Device("cpu")


class CudaError(Exception):
    """CUDA cannot be used here; the message says why, and what to do."""


def choose_device(
    wanted: str,
    model_repository: Path | None,
    *,
    profile: Profile = "embedded",
    try_gpu: Callable[[], str] | None = None,
) -> Device:
    """Decide where the towers run.

    Args:
        wanted: `auto`, `cpu` or `gpu`.
        model_repository: what is to be served; None where nothing is.
        profile: `cpu` and `gpu` say by themselves where the towers run, and Triton's own
            onnxruntime backend loads CUDA there.
        try_gpu: returns a GPU's name or raises CudaError; by default `try_cuda`.

    Raises:
        InputError: there is no such device, or the profile is for the other one.
        SetupError: `gpu` is wanted and cannot be had.
    """
    if wanted not in WANTED:
        raise InputError("the device is {0}; expected one of {1}", repr(wanted), ", ".join(WANTED))
    if profile != "embedded":
        return _of_profile(wanted, profile)
    if wanted == "cpu":
        return CPU
    try:
        if wanted == "gpu":
            _check_configs(model_repository)  # at once, before CUDA is tried for seconds
        name = (try_gpu or try_cuda)()
        _check_configs(model_repository)
    except CudaError as error:
        if wanted == "gpu":
            raise SetupError("the device gpu cannot be used: {0}", error) from error
        return Device("cpu", message_of(error))
    return Device("gpu", name)


def _of_profile(wanted: str, profile: Literal["cpu", "gpu"]) -> Device:
    if wanted not in ("auto", profile):
        raise InputError(
            "the device {0} does not fit the profile {1}; leave the device out, or choose the "
            "other profile",
            wanted,
            profile,
        )
    return Device(profile, Message("as the profile {0} says", profile))


def _check_configs(model_repository: Path | None) -> None:
    if model_repository is None:
        return
    for model in newest_release(model_repository).served:
        config = f"{model}/configs/{CONFIG_NAMES['gpu']}.pbtxt"
        if not (model_repository / config).is_file():
            raise CudaError(
                Message(
                    "{0} has no {1}, so an earlier release exported it; export again",
                    model_repository,
                    config,
                )
            )


def try_cuda() -> str:
    """Run a small model on the first GPU, in a process of its own, and return the GPU's name.

    Raises:
        CudaError: that does not work.
    """
    if not _has_cuda_library():
        raise CudaError(NO_PROVIDER)
    own = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([own, *filter(None, sys.path)])}
    command = [sys.executable, "-m", "wanwu.embedded.cuda"]
    try:
        done = subprocess.run(  # noqa: S603 - our own module
            command,
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TRIAL_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise CudaError(
            Message("a small model did not run on CUDA within {0} s", f"{TRIAL_S:.0f}")
        ) from error
    if done.returncode:
        raise CudaError(why_not(done.stdout + done.stderr))
    return done.stdout.strip()


def _has_cuda_library() -> bool:
    """Return whether onnxruntime's package holds CUDA's provider, without importing it."""
    found = importlib.util.find_spec("onnxruntime")
    if found is None or found.origin is None:
        return False
    return (Path(found.origin).parent / "capi" / CUDA_LIBRARY).is_file()


def why_not(log: str) -> str:
    """Return the reason that a failed trial of CUDA printed, and what to do."""
    if "has no CUDA provider" in log:
        return _why_hidden()
    missing = re.search(r"(lib[\w.+-]+\.so[.\d]*): cannot open shared object", log)
    if missing and missing[1] == "libcuda.so.1":
        return (
            "libcuda.so.1 cannot be loaded; NVIDIA's driver brings it, "
            "and in a container the option --gpus"
        )
    if missing:
        return Message("{0} cannot be loaded; run: {1}", missing[1], INSTALL_GPU)
    failure = re.search(r"CUDA failure \d+: (.+?) ; GPU", log)
    if failure:
        return Message("CUDA says: {0}; look at the driver with nvidia-smi", failure[1].strip())
    lines = log.strip().splitlines() or ["no reason given"]
    return Message("a small model did not run on CUDA: {0}", lines[-1].strip()[:300])


def _why_hidden() -> str:
    """Return why a package with CUDA is not used: two fill one folder, and the last one counts."""
    try:
        installed = version("onnxruntime-gpu")
    except PackageNotFoundError:
        return NO_PROVIDER
    return Message(
        "onnxruntime has no CUDA provider, since the package onnxruntime was installed "
        "over onnxruntime-gpu; run: pip uninstall -y onnxruntime && pip install "
        "--force-reinstall --no-deps onnxruntime-gpu=={0}",
        installed,
    )
