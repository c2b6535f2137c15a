"""A store in, its index made or brought up to date: the means of its videos, and Lance's indexes of them and all rows.

Every step is one commit of one table, so that a killed run leaves what was there or more, and is just repeated. Jobs
may append meanwhile; what they add is found without the index until the next run.
"""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import fcntl
import logging
from typing import Any

from ... import GridClipError
from ..choices import Level
from ..store.copies import View
from ..store.store import Store
from ..store.tables import SUPER_IMAGES, Tables
from . import means
from .vectors import index_bytes, index_rows

logger = logging.getLogger(__name__)

LOCK_FILE = ".index.lock"
# Of each dimension. At 50,000 videos and 750,000 super images, 768 wide, these found the best 10 of every query among
# 100 candidates; one bit for super images lost 8 in 100 of them where a query is far from all, and took 80 MB less.
MEAN_BITS, ROW_BITS = 3, 2


@dataclasses.dataclass(frozen=True)
class Indexed:
    """What `gridclip index` did.

    Attributes:
        store: that was indexed.
        view: the level and grid size whose videos it finds.
        videos, new_videos: whose means it has, and how many of these are new.
        rows, new_rows: super images (and cells, of all levels and grid sizes) that it has, and how many are new.
        size_bytes: of both indexes on disk, without the means.
    """

    store: str
    view: View
    videos: int
    new_videos: int
    rows: int
    new_rows: int
    size_bytes: int

    def to_json(self) -> dict[str, Any]:
        """As a dict of plain values."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        return (
            f"indexed {self.store}, {self.view}: {self.videos:,} videos ({self.new_videos:,} new), "
            f"{self.rows:,} rows ({self.new_rows:,} new), {self.size_bytes / 2**20:,.1f} MiB"
        )


def index_store(store: Store, level: Level | None = None, grid_size: int | None = None) -> Indexed:
    """Makes the index of a store, or adds to it what has come since.

    Args:
        store: holds super images.
        level, grid_size: whose videos are to be found, see `Store.read_super_images`.

    Raises:
        ValueError: an unknown level.
        GridClipError: the store holds no videos, or none of this level and grid size; its vectors are damaged, or of a
            width that no index takes; or it cannot be written.
    """
    held = Tables(store.path)
    with _only_indexing(store):
        means.name_table(held)
        reader = store.reader(level, grid_size)
        mean_table = means.add_means(held, reader)
        with held.indexing():
            new_videos = index_rows(mean_table, bits=MEAN_BITS)
            rows = held.dataset(SUPER_IMAGES)
            if rows is None:  # another process cleared the store
                raise held.no_videos()
            new_rows = index_rows(rows, bits=ROW_BITS)
        return Indexed(
            store=str(store.path),
            view=reader.view,
            videos=mean_table.count_rows(),
            new_videos=new_videos,
            rows=rows.count_rows(),
            new_rows=new_rows,
            size_bytes=index_bytes(mean_table) + index_bytes(rows),
        )


@contextlib.contextmanager
def _only_indexing(store: Store) -> collections.abc.Iterator[None]:
    """Waits until no other process indexes the store; a killed one holds nobody up."""
    try:
        lock = (store.path / LOCK_FILE).open("a")
    except OSError as error:
        raise GridClipError(
            f"cannot write to the store {store.path}: {error.strerror}; searching it needs no rights, indexing does: "
            "give another `store`, or the right to write"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.warning("the store %s is being indexed by another process: waiting for it", store.path)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
