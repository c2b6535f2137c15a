"""A table of super images in, whole videos out, a few thousand rows at a time: memory does not grow with the store.

A reader gives the rows of one level and grid size.

What stays in memory is which rows a video has: its id and two numbers. A reader is of one version of the table, so that
what it says holds together; `newest` makes one of the newest version, and reads the keys of appended rows only.
"""

from __future__ import annotations

import collections
import collections.abc
import concurrent.futures
import dataclasses
import itertools

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ... import GridClipError
from ..choices import Level
from .copies import View, view_codes, views
from .tables import LEVEL_COLUMNS, SUPER_IMAGES, Tables, has_levels
from .vector_files import VectorFiles, vectors_of

ROWS = 2048  # of super images that are read at once: 3 MiB of vectors that are 768 wide, which caches hold
BYTES_AHEAD = 32 << 20  # that Lance may read before they are asked for; by default 2 GiB
BLOCKS_AHEAD = 1  # that are read while one is worked on

Scan = collections.abc.Callable[[int, int], np.ndarray]  # first row and count in, float16 [count, D] out


@dataclasses.dataclass(frozen=True)
class Videos:
    """Which rows of one view the V videos of a table have, in their order; of a video stored twice, the first copy.

    Attributes:
        names: string [V], the videos' ids.
        begins: int64 [V], first row of each, rising.
        sizes: int64 [V], rows of each, >= 1.
    """

    names: pa.Array
    begins: np.ndarray
    sizes: np.ndarray

    def __len__(self) -> int:
        return len(self.begins)

    def position(self, video_id: str) -> int | None:
        """Where a video is, None where it is not."""
        found: int = pc.index(self.names, video_id).as_py()
        return None if found < 0 else found


@dataclasses.dataclass(frozen=True)
class Rows:
    """The super images of n whole videos.

    Attributes:
        videos: int64 [n], positions among `Videos`.
        offsets: int64 [n + 1]; the video videos[i] owns the rows offsets[i] to offsets[i + 1].
        vectors: float16 [R, D].
    """

    videos: np.ndarray
    offsets: np.ndarray
    vectors: np.ndarray


class SuperImageReader:
    """One version of a store's super images (or cells); made by `Store.reader`. Several threads may read at once.

    Attributes:
        path: the store's.
        view: the level and grid size of the rows.
        videos: what the version holds.
        dataset: the version.
    """

    def __init__(self, tables: Tables, dataset: lance.LanceDataset, copies: _Copies, view: View) -> None:
        self.path = tables.path
        self.view = view
        self._tables = tables
        self._copies = copies
        self.dataset = dataset
        self.videos = _first_copies(copies, view)

    @classmethod
    def open(
        cls, tables: Tables, level: Level | None, grid_size: int | None, recorded_grid_size: int | None
    ) -> SuperImageReader:
        """Opens the newest version.

        Args:
            level, grid_size: which rows, see `Store.read_super_images`.
            recorded_grid_size: of rows that do not say theirs, None if unknown.

        Raises:
            ValueError: an unknown level.
            GridClipError: the store holds no videos, or none of this level and grid size, or its rows are damaged.
        """
        dataset = _newest(tables)
        copies = _read_copies(tables, dataset, dataset.get_fragments(), recorded_grid_size)
        return cls(tables, dataset, copies, tables.choose(views(copies.codes), level, grid_size))

    def newest(self) -> SuperImageReader:
        """A reader of the newest version, itself where that is its own; of appended rows only the keys are read.

        Raises:
            GridClipError: the store holds no videos any more, or its rows are damaged.
        """
        dataset = _newest(self._tables)
        old, new = _files(self.dataset), _files(dataset)
        if new == old and dataset.version == self.dataset.version:
            return self
        if new == old:
            return SuperImageReader(self._tables, dataset, self._copies, self.view)
        grid_size = self._copies.recorded_grid_size
        if new[: len(old)] != old:
            return SuperImageReader.open(self._tables, self.view.level, self.view.grid_size, grid_size)
        appended = dataset.get_fragments()[len(self.dataset.get_fragments()) :]
        copies = _joined(self._copies, _read_copies(self._tables, dataset, appended, grid_size))
        return SuperImageReader(self._tables, dataset, copies, self.view)

    def has_rows_of(self, other: SuperImageReader) -> bool:
        """Whether both have the same rows at the same places, though maybe of two versions."""
        return self._copies is other._copies and self.view == other.view

    @property
    def width(self) -> int:
        """D, the width of the vectors."""
        width: int = self.dataset.schema.field("vector").type.list_size
        return width

    @property
    def rows(self) -> int:
        """How many super images all videos have together."""
        return int(self.videos.sizes.sum())

    def blocks(self) -> collections.abc.Iterator[range]:
        """Cuts the videos into runs of about `ROWS` rows; a longer video is a run of its own."""
        return self._blocks(0, len(self.videos))

    def blocks_of(self, videos: np.ndarray) -> collections.abc.Iterator[range]:
        """The same of some videos only.

        Args:
            videos: int64 [n], positions among `videos`, rising; those that follow each other share runs.
        """
        for run in np.split(videos, np.flatnonzero(np.diff(videos) != 1) + 1):
            if len(run):
                yield from self._blocks(int(run[0]), int(run[-1]) + 1)

    def _blocks(self, first_video: int, end: int) -> collections.abc.Iterator[range]:
        begins = self.videos.begins[:end]
        ends = begins + self.videos.sizes[:end]
        while first_video < end:
            most = int(begins[first_video]) + ROWS
            last_video = max(first_video + 1, int(np.searchsorted(ends, most, side="right")))
            yield range(first_video, last_video)
            first_video = last_video

    def owners(self, rows: np.ndarray) -> np.ndarray:
        """int64 [n]: which videos have these rows of the table, int64 [n]; -1: second copies, and other views."""
        videos = np.searchsorted(self.videos.begins, rows, side="right") - 1
        inside = (videos >= 0) & (rows < self.videos.begins[videos] + self.videos.sizes[videos])
        return np.where(inside, videos, -1)

    def not_finite(self, videos: np.ndarray) -> GridClipError:
        """What to raise where videos, int64 [n], have vectors that are not finite."""
        rows, _ = self.read(videos)
        bad = int((~np.isfinite(rows.vectors).all(axis=1)).sum())
        names = sorted(self.videos.names.take(pa.array(videos)).to_pylist())
        shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        return GridClipError(
            f"{bad:,} vectors of {len(videos):,} videos of the store {self.path} are not finite ({shown}), so "
            "that they have no scores: embed again with `overwrite=True`"
        )

    def read_block(self, block: range) -> Rows:
        """The videos of a run; several threads may read at once.

        Raises:
            GridClipError: the store is damaged or cannot be read.
        """
        return self._read_block(block, self._scan)

    def read_blocks(self, blocks: collections.abc.Iterable[range]) -> collections.abc.Iterator[Rows]:
        """The videos of several runs, as `read_block`; the next ones are read while a run is worked on."""
        files = VectorFiles.of(self.dataset)
        scan = self._scan if files is None else files.read
        left = iter(blocks)
        with concurrent.futures.ThreadPoolExecutor(1, "read") as ahead:  # one thread: the files are for one
            reads = collections.deque(
                ahead.submit(self._read_block, block, scan) for block in itertools.islice(left, BLOCKS_AHEAD)
            )
            while reads:
                rows = reads.popleft().result()
                reads.extend(ahead.submit(self._read_block, block, scan) for block in itertools.islice(left, 1))
                yield rows

    def _read_block(self, block: range, scan: Scan) -> Rows:
        videos = np.arange(block.start, block.stop)
        begins, sizes = self.videos.begins[videos], self.videos.sizes[videos]
        first_row, offsets = int(begins[0]), _offsets(sizes)
        with self._tables.reading():
            count = int(begins[-1] + sizes[-1]) - first_row
            vectors = scan(first_row, count)
        if len(vectors) == offsets[-1]:
            return Rows(videos, offsets, vectors)
        return Rows(videos, offsets, vectors[_rows(begins - first_row, offsets)])  # other rows lie between

    def read(self, videos: np.ndarray) -> tuple[Rows, np.ndarray]:
        """Some videos, in the order asked for, and the spans of their rows: float64 [R, 2], in seconds, NaN if unknown.

        Args:
            videos: int64 [n], positions among `videos`.
        """
        rows, columns = self._taken(videos, ["start_s", "end_s", "vector"])
        return rows, np.stack([columns["start_s"], columns["end_s"]], axis=1)

    def read_vectors(self, videos: np.ndarray) -> Rows:
        """The same without their times, which take Lance longer to find than the vectors."""
        rows, _ = self._taken(videos, ["vector"])
        return rows

    def _taken(self, videos: np.ndarray, columns: list[str]) -> tuple[Rows, dict[str, np.ndarray]]:
        """The rows of some videos, in the order asked for, and what other columns hold of them."""
        offsets = _offsets(self.videos.sizes[videos])
        rows = _rows(self.videos.begins[videos], offsets)
        order = np.argsort(rows)  # Lance takes rows in their order
        with self._tables.reading():
            table = self.dataset.take(rows[order], columns=columns)
            vectors = vectors_of(table["vector"].combine_chunks())
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        others = {name: table[name].to_numpy()[back] for name in columns if name != "vector"}
        return Rows(videos, offsets, vectors[back]), others

    def _scan(self, first_row: int, count: int) -> np.ndarray:
        """float16 [count, D]."""
        scanner = self.dataset.scanner(
            columns=["vector"],
            offset=first_row,
            limit=count,
            scan_in_order=True,
            batch_size=min(count, 4 * ROWS),
            io_buffer_size=BYTES_AHEAD,
            batch_readahead=1,
            fragment_readahead=1,
        )
        return vectors_of(scanner.to_table()["vector"].combine_chunks())


@dataclasses.dataclass(frozen=True)
class _Copies:
    """All views of all copies of videos in a table, C of them: ids string [C], first rows int64 [C], codes int64 [C].

    Attributes:
        rows: in the table.
        recorded_grid_size: of rows that do not say theirs, None if unknown.
    """

    names: pa.Array
    begins: np.ndarray
    codes: np.ndarray
    rows: int
    recorded_grid_size: int | None


def _read_copies(
    tables: Tables, dataset: lance.LanceDataset, fragments: list[lance.LanceFragment], recorded_grid_size: int | None
) -> _Copies:
    """The copies in some fragments, whose rows are counted from 0 on; raises GridClipError where rows are out of order.

    The rows of an append are contiguous, so that a row with index 0 starts one view of one copy of one video.
    """
    names: list[pa.Array] = []
    begins: list[np.ndarray] = []
    codes: list[np.ndarray] = []
    rows, last_name, last_index, last_code = 0, None, -1, -1
    with tables.reading():
        for batch in _key_batches(dataset, fragments):
            ids, index = batch["video_id"], batch["index"].to_numpy()
            code = view_codes(pa.Table.from_batches([batch]), recorded_grid_size)
            before = np.concatenate([[last_index], index[:-1]])
            goes_on = index != 0
            same = np.concatenate([[ids[0].as_py() == last_name], pc.equal(ids[1:], ids[:-1]).to_numpy(False)])
            same &= np.diff(code, prepend=last_code) == 0
            if (goes_on & ((index != before + 1) | ~same)).any():
                raise tables.not_in_order()
            starts = np.flatnonzero(~goes_on)
            names.append(ids.take(pa.array(starts)))
            begins.append(starts + rows)
            codes.append(code[starts])
            rows, last_name, last_index, last_code = rows + len(index), ids[-1].as_py(), int(index[-1]), int(code[-1])
    return _Copies(pa.concat_arrays(names), np.concatenate(begins), np.concatenate(codes), rows, recorded_grid_size)


def _joined(copies: _Copies, appended: _Copies) -> _Copies:
    names = pa.concat_arrays([copies.names, appended.names])
    begins = np.concatenate([copies.begins, appended.begins + copies.rows])
    codes = np.concatenate([copies.codes, appended.codes])
    return _Copies(names, begins, codes, copies.rows + appended.rows, copies.recorded_grid_size)


def _first_copies(copies: _Copies, view: View) -> Videos:
    of_view = np.flatnonzero(copies.codes == view.code)
    sizes = np.diff(np.append(copies.begins, copies.rows))
    encoded = copies.names.take(pa.array(of_view)).dictionary_encode()
    first = of_view[np.sort(np.unique(encoded.indices.to_numpy(), return_index=True)[1])]
    return Videos(copies.names.take(pa.array(first)), copies.begins[first], sizes[first])


def _offsets(sizes: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


def _rows(begins: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Every row of videos that begin at `begins` [n], one video after the other."""
    rows: np.ndarray = np.repeat(begins - offsets[:-1], np.diff(offsets)) + np.arange(offsets[-1])
    return rows


def _key_batches(
    dataset: lance.LanceDataset, fragments: list[lance.LanceFragment]
) -> collections.abc.Iterator[pa.RecordBatch]:
    levels = LEVEL_COLUMNS if has_levels(dataset) else {}
    scanner = dataset.scanner(
        columns=["video_id", "index", *levels],
        fragments=fragments,
        scan_in_order=True,
        batch_size=16 * ROWS,
        io_buffer_size=BYTES_AHEAD,
        batch_readahead=1,
        fragment_readahead=1,
    )
    for batch in scanner.to_batches():
        for name in ("video_id", "index"):
            if batch[name].null_count:
                raise ValueError(f"{batch[name].null_count} of {len(batch)} rows have no {name}")
        if len(batch):
            yield batch


def _newest(tables: Tables) -> lance.LanceDataset:
    dataset = tables.dataset(SUPER_IMAGES)
    if dataset is None or not dataset.count_rows():
        raise tables.no_videos()
    return dataset


def _files(dataset: lance.LanceDataset) -> list[str]:
    """Names of the data files by fragment: no two are alike, also where a store was cleared and filled again."""
    return [file.path for fragment in dataset.get_fragments() for file in fragment.metadata.files]
