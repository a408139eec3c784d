"""Wanwu (万物): private, zero-shot Chinese image recognition on NVIDIA Triton.

The client holds no model: it decodes, asks Triton, and scores. It never imports torch.
"""

from wanwu.answers import Recognition
from wanwu.async_recognizer import AsyncRecognizer
from wanwu.bulk import Answer, Embedded
from wanwu.channel import Tls
from wanwu.contract import Contract
from wanwu.doubts import Doubt
from wanwu.errors import (
    ImageError,
    InputError,
    LabelError,
    ModelError,
    OverloadedError,
    ServerError,
    SetupError,
    WanwuError,
)
from wanwu.labels import read_labels
from wanwu.rank import Prediction
from wanwu.recognizer import Recognizer

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "AsyncRecognizer",
    "Contract",
    "Doubt",
    "Embedded",
    "ImageError",
    "InputError",
    "LabelError",
    "ModelError",
    "OverloadedError",
    "Prediction",
    "Recognition",
    "Recognizer",
    "ServerError",
    "SetupError",
    "Tls",
    "WanwuError",
    "__version__",
    "read_labels",
]
