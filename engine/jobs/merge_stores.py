"""Stores of jobs that had one each in, one store out that holds their videos, queries, failures and notices once."""

from __future__ import annotations

import dataclasses
import logging
import os
import pathlib
from collections.abc import Sequence

from ... import ArgumentError
from ..store.merging import Copied, only_merge
from ..store.store import Store
from .failures import CAPTION_STAGE, failures_path
from .line_file import Record, add_records, keep_lines, read_all, read_records
from .notices import notices_path

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Merged:
    """What a merge did.

    Attributes:
        store: what was merged into.
        sources: stores that were read.
        videos, rows: that were copied.
        queries: that were copied.
        already_stored: videos of the sources that were not copied, for the store had them; counted for each source.
        failures: videos that failed in the sources and are in none of the stores.
    """

    store: str
    sources: int
    videos: int
    rows: int
    queries: int
    already_stored: int
    failures: int

    def __str__(self) -> str:
        return (
            f"merged {self.sources:,} stores into {self.store}: {self.videos:,} videos ({self.rows:,} rows) and "
            f"{self.queries:,} queries copied; {self.already_stored:,} videos were there before; "
            + (f"{self.failures:,} failed, see failures.jsonl there" if self.failures else "none failed")
        )


def merge_stores(store_path: pathlib.Path, source_paths: Sequence[pathlib.Path], *, compact: bool = False) -> Merged:
    """Copies what the store lacks from each of the others, in their order; nothing is written where one does not fit.

    Args:
        store_path: made if it is missing.
        source_paths: stores, which stay as they are; jobs may still write to them: what they add later needs another
            merge. With none the store must be there.
        compact: at the end drop second copies and join small files, see `Store.compact`.

    Raises:
        ArgumentError: the store is one of its sources.
        GridClipError: a source is no store or damaged, they are of different models or samplings, or the store cannot
            be written. What was copied stays, and a second call goes on from there.
    """
    for path in source_paths:
        if os.path.realpath(path) == os.path.realpath(store_path):
            raise ArgumentError(f"`store` {store_path} is also among the stores to merge into it: leave it out there")
    sources = [Store.open(path) for path in source_paths]
    for each in sources[1:]:
        sources[0].require_alike(each)
    store = Store.open(store_path, create=bool(sources))
    for each in sources:
        store.require_alike(each)
    with only_merge(store.path):
        total = Copied()
        for each in sources:
            copied = store.copy_from(each)
            logger.info("%s: %d videos copied, %d were there before", each.path, copied.videos, copied.already_stored)
            total += copied
        failures = _merge_failures(store, sources)
        _merge_notices(store, sources)
    if compact:
        store.compact()
    counts = dataclasses.asdict(total)
    return Merged(store=str(store.path), sources=len(sources), failures=failures, **counts)


def _merge_failures(store: Store, sources: Sequence[Store]) -> int:
    """Adds the failures of videos that the store has not got either; returns how many videos failed in all."""
    path, stored = failures_path(store.path), store.finished_videos()

    def stands(record: Record) -> bool:
        return record.get("stage") == CAPTION_STAGE or record.get("video_id") not in stored

    keep_lines(path, stands)
    _add_new(path, [record for each in sources for record in read_all(each.path, "failures") if stands(record)])
    return sum(record.get("stage") != CAPTION_STAGE for record in read_records(path))


def _merge_notices(store: Store, sources: Sequence[Store]) -> None:
    """Adds what is to be known of the videos."""
    path = notices_path(store.path)
    _add_new(path, [record for each in sources for record in read_all(each.path, "notices")])


def _add_new(path: pathlib.Path, records: Sequence[Record]) -> None:
    """Adds the records that the file has not, each once: a failure by its video, a notice as a whole."""

    def key(record: Record) -> tuple[object, ...]:
        return record.get("video_id"), record.get("kind"), record.get("detail"), record.get("stage") == CAPTION_STAGE

    known = {key(record) for record in read_records(path)}
    new = {key(record): record for record in records if record and key(record) not in known}
    if new:
        add_records(path, list(new.values()))
