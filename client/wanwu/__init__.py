"""Wanwu (万物): private, zero-shot Chinese image recognition on NVIDIA Triton.

The client holds no model: it decodes, asks Triton, and scores. It never imports torch.
"""

from wanwu.contract import Contract
from wanwu.errors import (
    ImageError,
    InputError,
    LabelError,
    ModelError,
    ServerError,
    SetupError,
    WanwuError,
)
from wanwu.labels import read_labels
from wanwu.rank import Prediction
from wanwu.recognizer import Recognition, Recognizer

__version__ = "0.1.0"

__all__ = [
    "Contract",
    "ImageError",
    "InputError",
    "LabelError",
    "ModelError",
    "Prediction",
    "Recognition",
    "Recognizer",
    "ServerError",
    "SetupError",
    "WanwuError",
    "__version__",
    "read_labels",
]
