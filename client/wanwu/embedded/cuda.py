"""onnxruntime on CUDA: sessions that run there or fail, and a trial of it as a program.

onnxruntime itself takes the CPU without an error where CUDA cannot be loaded.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import importlib.util
import io
import sys
from pathlib import Path
from typing import Any

import onnxruntime

CUDA = "CUDAExecutionProvider"
#: Of each session: ViT-L/14 in FP32 with batches of 64 fits.
MEMORY_MB = 4096
#: An ONNX model of one convolution and one product, so that cuDNN and cuBLAS have to load:
#: x FLOAT [1, 1, 2, 2] to y FLOAT [1, 1].
TRIAL_MODEL = base64.b64decode(
    "CAg6hwEKKAoBeAoBeBIBYyIEQ29udioVCgxrZXJuZWxfc2hhcGVAAkACoAEHOgAKEQoBYxIBZiIHRmxhdHRlbjoAChMK"
    "AWYKAWYSAXkiBk1hdE11bDoAEgFnWhsKAXgSFgoUCAESEAoCCAEKAggBCgIIAgoCCAJiEwoBeRIOCgwIARIICgIIAQoC"
    "CAFCBAoAEBI="
)


def cuda_session(
    model: Path | bytes,
    options: Any = None,
    *,
    device_id: int = 0,
    memory_mb: int = MEMORY_MB,
    tf32: bool = False,
) -> Any:
    """Load an ONNX model onto a GPU.

    Args:
        model: the file, or its bytes.
        options: onnxruntime's SessionOptions.
        device_id: the GPU's number, of those that this process sees.
        memory_mb: the most that the session's arena takes on the device. cuDNN's and cuBLAS's own
            memory comes on top.
        tf32: let products of FP32 numbers be rounded to TF32. By default an FP32 file runs in FP32.

    Raises:
        RuntimeError: CUDA is not there, or did not load.
    """
    if CUDA not in onnxruntime.get_available_providers():
        raise RuntimeError(f"onnxruntime {onnxruntime.__version__} has no CUDA provider")
    _preload()
    provider = (CUDA, _provider_options(device_id, memory_mb, tf32))
    session = onnxruntime.InferenceSession(
        model, options, providers=[provider, "CPUExecutionProvider"], enable_fallback=False
    )
    if CUDA not in session.get_providers():
        raise RuntimeError(
            f"the session runs on {', '.join(session.get_providers())} and not on {CUDA}; "
            "the lines above this one say which library cannot be loaded"
        )
    return session


def _preload() -> None:
    """Load CUDA's and cuDNN's libraries from the packages `nvidia-*`, wherever they are installed.

    onnxruntime looks beside itself alone, and an environment may take packages from another.
    """
    found = importlib.util.find_spec("nvidia")
    places = (
        [] if found is None else [Path(each) for each in found.submodule_search_locations or ()]
    )
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it cannot find
        for folder in (place / part for place in places for part in ("cu13/lib", "cudnn/lib")):
            if folder.is_dir():
                onnxruntime.preload_dlls(directory=str(folder))
        onnxruntime.preload_dlls()


def _provider_options(device_id: int, memory_mb: int, tf32: bool) -> dict[str, str]:
    return {
        "device_id": str(device_id),
        "gpu_mem_limit": str(memory_mb << 20),
        # Powers of two would take up to twice what a batch needs, and keep it.
        "arena_extend_strategy": "kSameAsRequested",
        # The exhaustive search runs again for each new size of a batch.
        "cudnn_conv_algo_search": "HEURISTIC",
        "use_tf32": "1" if tf32 else "0",
    }


def gpu_name(device_id: int = 0) -> str:
    """Return a GPU's name, as its driver has it.

    Raises:
        OSError: there is no driver, or it has no such GPU.
    """
    driver = ctypes.CDLL("libcuda.so.1")
    device, name = ctypes.c_int(), ctypes.create_string_buffer(128)
    code = (
        driver.cuInit(0)
        or driver.cuDeviceGet(ctypes.byref(device), device_id)
        or driver.cuDeviceGetName(name, len(name), device)
    )
    if code:
        raise OSError(f"the NVIDIA driver answers with error {code} about GPU {device_id}")
    return name.value.decode()


def main() -> None:
    """Run a model on the first GPU and print the GPU's name; end with an error where that fails."""
    import numpy as np

    session = cuda_session(TRIAL_MODEL, memory_mb=256)
    (found,) = session.run(None, {"x": np.ones((1, 1, 2, 2), np.float32)})
    if found.tolist() != [[16.0]]:
        raise RuntimeError(f"CUDA computes {found.tolist()} where 16 is right")
    sys.stdout.write(gpu_name())


if __name__ == "__main__":
    main()
