"""Log records of a child process in, the same records in its parent's logging out, over the connection they have."""

from __future__ import annotations

import dataclasses
import logging
import math
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection

PACKAGE = __name__.partition(".")[0]


@dataclasses.dataclass(frozen=True)
class Levels:
    """From which level on a parent wants records: of this package, and of other libraries."""

    package: int
    others: int

    @staticmethod
    def here() -> Levels:
        """What this process wants."""
        return Levels(logging.getLogger(PACKAGE).getEffectiveLevel(), logging.getLogger().getEffectiveLevel())


@dataclasses.dataclass(frozen=True)
class Logged:
    """A record on its way: the logger's name, the level, and the whole text, a traceback included."""

    name: str
    level: int
    text: str

    def emit(self, video_id: str = "") -> None:
        """Logs it here; a text that does not name the video gets its id before it."""
        text = self.text if video_id in self.text else f"{video_id}: {self.text}"
        logging.getLogger(self.name).log(self.level, "%s", text)


class Sender:
    """A connection that several threads of a process may send over."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def send(self, message: object) -> None:
        """Sends it, whole."""
        with self._lock:
            self._connection.send(message)


class ParentLog(logging.Handler):
    """Sends records to the parent, at most `max_records` of each task."""

    def __init__(self, send: Callable[[Logged], None], max_records: float) -> None:
        super().__init__()
        self._send = send
        self._left = self._max_records = max_records

    def next_task(self) -> None:
        """Begins to count anew."""
        self._left = self._max_records

    def emit(self, record: logging.LogRecord) -> None:
        if self._left <= 0:
            return
        self._left -= 1
        text = self.format(record)
        if self._left <= 0:
            text += f" (further log records of this video are left out after {self._max_records})"
        try:
            self._send(Logged(record.name, record.levelno, text))
        except OSError:  # the parent is gone
            pass


def log_to_parent(send: Callable[[Logged], None], levels: Levels, *, max_records: float = math.inf) -> ParentLog:
    """Makes all logging of this process go to its parent; see ParentLog."""
    handler = ParentLog(send, max_records)
    logging.basicConfig(handlers=[handler], level=levels.others, format="%(message)s", force=True)
    logging.getLogger(PACKAGE).setLevel(levels.package)
    return handler
