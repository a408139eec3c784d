"""Which of the repository's configs a Triton on this machine serves by, and with which backend."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from wanwu.errors import SetupError

#: `embedded` runs by the Python backend that PyPI's Triton has; `cpu` and `gpu` are those of a
#: cluster and need Triton's onnxruntime backend, which it lacks.
Profile = Literal["embedded", "cpu", "gpu"]
BACKENDS_VARIABLE = "WANWU_TRITON_BACKENDS"

_LIBRARY = Path("onnxruntime") / "libtriton_onnxruntime.so"


def check_backends(profile: Profile, folder: Path | None) -> Path | None:
    """Return the folder of Triton's backends that a profile needs; None for `embedded`.

    Raises:
        SetupError: the profile's backend is not there.
    """
    if profile == "embedded":
        return None
    if folder is None:
        raise SetupError(
            "the profile {0} needs Triton's onnxruntime backend, which the Triton that PyPI ships "
            "lacks; name the folder that holds {1} by --backends or {2}, such as "
            "/opt/tritonserver/backends of Triton's image",
            repr(profile),
            _LIBRARY,
            BACKENDS_VARIABLE,
        )
    if not (folder / _LIBRARY).is_file():
        raise SetupError(
            "the backend folder {0} has no {1}; name a folder of Triton's backends, such as "
            "/opt/tritonserver/backends of Triton's image",
            folder,
            _LIBRARY,
        )
    return folder.resolve()
