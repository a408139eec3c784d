"""Every error Wanwu raises on purpose.

WanwuError
├── InputError       what the caller gave cannot be used
│   ├── ImageError   a picture
│   └── LabelError   a list of labels
├── ServerError      Triton did not answer: not running, not ready, too slow
│   └── OverloadedError   its queue is full: it refused at once
├── ModelError       Triton answered, but what it serves does not fit together
└── SetupError       this machine lacks a file, a package, a port or a platform

Each message says what came, what was expected and what to change.
"""


class WanwuError(Exception):
    """Base of every error that Wanwu raises on purpose."""


class InputError(WanwuError):
    """What the caller gave cannot be used."""


class ImageError(InputError):
    """A picture is missing, unreadable or beyond the limits."""


class LabelError(InputError):
    """A list of labels is empty, repeats itself or cannot be read."""


class ServerError(WanwuError):
    """Triton did not answer: it is not running, not ready, or too slow."""


class OverloadedError(ServerError):
    """Triton's queue is full. It refused at once, and did no work: try later, or elsewhere."""


class ModelError(WanwuError):
    """Triton answered, but what it serves does not fit together."""


class SetupError(WanwuError):
    """This machine lacks a file, a package, a port or a platform."""
