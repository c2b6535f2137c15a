"""A store's super images in, those of videos that another store lacks out: whole videos, a bounded number of rows.

Two merges into one store would each add a video that both bring, so one waits for the other. Should the file system
not lock across machines, the second copy is not read and `compact` drops it, as that of any two writers.
"""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import fcntl
import logging
import pathlib
from typing import Any

import lance
import numpy as np
import pyarrow as pa

from ... import GridClipError
from ..choices import LEVELS
from .copies import Copies, view_codes
from .record import MODEL_SETTINGS, SAMPLING_DEFAULTS
from .tables import KEY_COLUMNS, LEVEL_COLUMNS, MAY_BE_NULL, SUPER_IMAGES, Tables, has_levels, rows_not_finite

logger = logging.getLogger(__name__)

LOCK_FILE = ".merge.lock"
BATCH_ROWS = 4096
ROWS_PER_COMMIT = 32_768  # 48 MiB of vectors that are 768 wide, twice while they are written
BYTES_AHEAD = 32 << 20  # that Lance may read before they are asked for


@dataclasses.dataclass(frozen=True)
class Copied:
    """What one store gave another: new videos and their rows, new queries, and videos that were there before."""

    videos: int = 0
    rows: int = 0
    queries: int = 0
    already_stored: int = 0

    def __add__(self, other: Copied) -> Copied:
        sums = (getattr(self, field.name) + getattr(other, field.name) for field in dataclasses.fields(self))
        return Copied(*sums)


@dataclasses.dataclass(frozen=True)
class NewVideos:
    """Whole videos that the other store lacks: their rows as a table, their ids, each id's copies' codes [L]."""

    rows: pa.Table
    video_ids: list[str]
    codes: list[np.ndarray]


@contextlib.contextmanager
def only_merge(store: pathlib.Path) -> collections.abc.Iterator[None]:
    """Waits until no other process merges into the store; a killed one holds nobody up.

    Raises:
        GridClipError: the store cannot be written.
    """
    try:
        lock = (store / LOCK_FILE).open("a")
    except OSError as error:
        raise GridClipError(f"cannot write to the store {store}: {error.strerror}; give another `store`") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.warning("another merge into %s is running: waiting for it", store)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def require_alike(
    path: pathlib.Path, record: dict[str, Any], other_path: pathlib.Path, other_record: dict[str, Any]
) -> None:
    """Raises GridClipError where two stores' records name another model or sampling; one that names none fits all."""
    for section in ("model", "sampling"):
        held, other = record[section], other_record[section]
        if held is None or other is None:
            continue
        settings: collections.abc.Iterable[str] = MODEL_SETTINGS
        if section == "sampling":
            held, other = SAMPLING_DEFAULTS | held, SAMPLING_DEFAULTS | other
            settings = sorted(held.keys() | other.keys())
        for name in settings:
            if held.get(name) != other.get(name):
                raise GridClipError(
                    f"the store {other_path} was made with {section} {name} = {other.get(name)!r}, the store {path} "
                    f"with {held.get(name)!r}: their vectors cannot be compared; leave one of them out, or embed its "
                    "videos again as the other's"
                )


def new_videos(
    source: Tables, grid_size: int | None, held: set[str], counted: set[str]
) -> collections.abc.Iterator[NewVideos]:
    """The videos of a store that are not `held`, whole, in the order of its rows; of a video stored twice, the first.

    Args:
        source: the store's tables.
        grid_size: of rows that do not say theirs, None if unknown.
        held: ids that are left out; grows by those that are yielded.
        counted: grows by the ids that were left out because they are held.

    Raises:
        GridClipError: the rows are damaged, or a vector is not finite.
    """
    added: set[str] = set()
    for rows, copies in _whole_copies(source, grid_size):
        wanted = np.zeros(len(copies.begins), bool)
        for copy in np.sort(copies.first):
            name = copies.names[copies.video[copy]]
            if name not in held:
                wanted[copy] = True
                held.add(name)
                added.add(name)
            elif name not in added:
                counted.add(name)
        if not wanted.any():
            continue
        kept = rows.filter(pa.array(wanted.repeat(copies.sizes)))
        _require_finite(source, kept)
        codes = view_codes(rows, grid_size)
        chosen = np.flatnonzero(wanted)
        yield NewVideos(
            kept,
            [copies.names[copies.video[copy]] for copy in chosen],
            [codes[copies.begins[copy] : copies.begins[copy] + copies.sizes[copy]] for copy in chosen],
        )


def _whole_copies(source: Tables, grid_size: int | None) -> collections.abc.Iterator[tuple[pa.Table, Copies]]:
    """All rows in order, about `ROWS_PER_COMMIT` at once: each part ends where a copy of a video does."""
    dataset = source.dataset(SUPER_IMAGES)
    if dataset is None:
        return
    rest: pa.Table | None = None
    with source.reading():
        for batch in _batches(dataset, grid_size):
            rest = batch if rest is None else pa.concat_tables([rest, batch])
            if len(rest) < ROWS_PER_COMMIT:
                continue
            # The last copy may go on in the next batch.
            end = int(source.copies(rest, view_codes(rest, grid_size)).begins[-1])
            if end:
                whole, rest = rest.slice(0, end), rest.slice(end)
                yield whole, source.copies(whole, view_codes(whole, grid_size))
        if rest is not None:
            yield rest, source.copies(rest, view_codes(rest, grid_size))


def _batches(dataset: lance.LanceDataset, grid_size: int | None) -> collections.abc.Iterator[pa.Table]:
    """The rows in order with all columns of this version; those of older stores get level and grid size."""
    leveled = has_levels(dataset)
    names = [*KEY_COLUMNS[SUPER_IMAGES], "vector", *(LEVEL_COLUMNS if leveled else {})]
    scanner = dataset.scanner(
        columns=names,
        scan_in_order=True,
        batch_size=BATCH_ROWS,
        io_buffer_size=BYTES_AHEAD,
        batch_readahead=1,
        fragment_readahead=1,
    )
    for batch in scanner.to_batches():
        for name in set(names) - MAY_BE_NULL:
            if batch[name].null_count:
                raise ValueError(f"{batch[name].null_count} of {len(batch)} rows have no {name}")
        table = pa.Table.from_batches([batch])
        if not leveled:
            table = table.append_column("level", pa.array([LEVELS[0]] * len(table), pa.string()))
            table = table.append_column("grid_size", pa.array([grid_size] * len(table), pa.int32()))
        if len(table):
            yield table


def _require_finite(source: Tables, rows: pa.Table) -> None:
    column = rows["vector"].combine_chunks()
    bad = rows_not_finite(column.flatten().to_numpy().reshape(-1, column.type.list_size))
    if len(bad):
        raise GridClipError(
            f"{len(bad):,} vectors of the store {source.path} are not finite (first: of video "
            f"{rows['video_id'][int(bad[0])]}): embed its videos again before it is merged"
        )
