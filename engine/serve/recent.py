"""Keys in, values out: made at the first use, and kept while they are among the last that were used."""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable, Sequence
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
        return self.get_many([key], lambda keys: [make(keys[0])])[0]

    def get_many(self, keys: Sequence[Key], make: Callable[[list[Key]], Sequence[Value]]) -> list[Value]:
        """The values of keys; `make` is called once, with those that are not kept."""
        with self._lock:
            found = {key: self._kept[key] for key in keys if key in self._kept}
            for key in found:
                self._kept.move_to_end(key)
            cleared = self._cleared
        missing = [key for key in dict.fromkeys(keys) if key not in found]
        made = dict(zip(missing, make(missing), strict=True)) if missing else {}
        with self._lock:
            if cleared == self._cleared:  # else they may be made of what is no more
                self._kept |= made
                while len(self._kept) > self._most:
                    self._kept.popitem(last=False)
        found |= made
        return [found[key] for key in keys]

    def clear(self) -> None:
        with self._lock:
            self._cleared += 1
            self._kept.clear()
