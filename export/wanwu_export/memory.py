"""Memory of a long export: what one step is done with goes back to the system before the next."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import mmap

from torch import Tensor

from wanwu_export.dual_tower import DualTower

#: madvise(2) of Linux 5.4: put these pages out of memory; they come back when they are read.
_MADV_PAGEOUT = 21


def give_back(tower: DualTower) -> None:
    """Return freed memory, and put a model's weights out of memory until they are needed again.

    Safetensors are mapped from their file, so nothing is written for that. Dropping the tensors
    would not do: the ONNX exporter's caches outlive the export and keep them.
    """
    gc.collect()
    libc = ctypes.CDLL(None)
    for module in (tower.image, tower.text):
        for tensor in (*module.parameters(), *module.buffers()):
            _page_out(libc, tensor)
    # Of glibc; elsewhere the allocator keeps what was freed.
    with contextlib.suppress(AttributeError):
        libc.malloc_trim(0)


def _page_out(libc: ctypes.CDLL, tensor: Tensor) -> None:
    first = -(-tensor.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
    length = (tensor.data_ptr() + tensor.nbytes - first) // mmap.PAGESIZE * mmap.PAGESIZE
    if length > 0:
        # Twice: the first time the kernel spares pages that were read a moment ago. It is advice:
        # an old kernel refuses it, and the export needs more memory.
        for _ in range(2):
            libc.madvise(ctypes.c_void_p(first), ctypes.c_size_t(length), _MADV_PAGEOUT)
