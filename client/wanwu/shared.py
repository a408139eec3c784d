"""What the tasks and threads of one client share."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")
Lock = TypeVar("Lock")


class Newest(Generic[K, V]):
    """The values of the newest few keys."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._values: dict[K, V] = {}

    def get(self, key: K) -> V | None:
        """Give the value of a key, if it is kept."""
        return self._values.get(key)

    def put(self, key: K, value: V) -> V:
        """Keep a value and give it back."""
        kept = list(self._values.items())[1 - self._size :]
        self._values = {**dict(kept), key: value}
        return value


class Locks(Generic[Lock]):
    """A lock for each key, as long as anyone holds or waits for it."""

    def __init__(self, make: Callable[[], Lock]) -> None:
        self._make = make
        self._guard = threading.Lock()
        self._locks: weakref.WeakValueDictionary[Hashable, Lock] = weakref.WeakValueDictionary()

    def of(self, key: Hashable) -> Lock:
        """Give the lock of a key."""
        with self._guard:
            return self._locks.setdefault(key, self._make())
