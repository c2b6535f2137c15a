"""Files by key in, the same out again as long as there is room: what was used longest ago goes first."""

from __future__ import annotations

import collections
import threading
from collections.abc import Hashable

from .orders import Made


class Held:
    """Finished pictures or clips in memory, at most `most_bytes` of them; several threads may use it."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._kept: collections.OrderedDict[Hashable, Made] = collections.OrderedDict()
        self._lock = threading.Lock()
        self.bytes = 0

    def get(self, key: Hashable) -> Made | None:
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
            return found

    def put(self, key: Hashable, made: Made) -> None:
        """Keeps it, unless it alone is more than there is room for."""
        if len(made.data) > self._most_bytes:
            return
        with self._lock:
            old = self._kept.pop(key, None)
            self.bytes += len(made.data) - (len(old.data) if old else 0)
            self._kept[key] = made
            while self.bytes > self._most_bytes:
                _, dropped = self._kept.popitem(last=False)
                self.bytes -= len(dropped.data)
