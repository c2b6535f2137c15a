"""Keys in, values out: made at the first use, and kept while they are among the last that were used."""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class Recent(Generic[Key, Value]):
    """At most `most` values; several threads may use it, two of which may make the same value at once."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: collections.OrderedDict[Key, Value] = collections.OrderedDict()
        self._lock = threading.Lock()
        self._cleared = 0

    def get(self, key: Key, make: Callable[[Key], Value]) -> Value:
        """The value of a key; what `make` raises is raised."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            cleared = self._cleared
        value = make(key)
        with self._lock:
            if cleared == self._cleared:  # else it may be made of what is no more
                self._kept[key] = value
                if len(self._kept) > self._most:
                    self._kept.popitem(last=False)
        return value

    def clear(self) -> None:
        with self._lock:
            self._cleared += 1
            self._kept.clear()
