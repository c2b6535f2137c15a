"""Frames that were looked at again in, the same out for the next query: a table of bounded size beside the store's own.

`refined.lance` lies in the store's folder, and nothing of it counts as the store's: it can be removed at any time.
Every row says what it was made of (model, sampling and file), so that rows of other sources are never read; when there
are too many, the oldest go. Readers take no lock. Where the folder cannot be written to, nothing is kept.
"""

from __future__ import annotations

import collections.abc
import contextlib
import hashlib
import json
import logging
import pathlib

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ... import GridClipError
from ...dali_pipes.contract import VideoFile
from ..store import care, tables
from ..store.record import Record
from ..store.store import Store
from .score import Frames

logger = logging.getLogger(__name__)

KEYS = ["video_id", "index", "source"]
MOST_FRAGMENTS = 32  # data files, one of every append, before they are joined


class FrameCache:
    """The cache of one store.

    Args:
        path: the store's folder.
        made_with: what the vectors depend on beside the videos' files, ready for json.dumps.
        most_frames: rows that are kept, at most; 0: none are read or written.
    """

    def __init__(self, path: pathlib.Path, made_with: dict[str, object], *, most_frames: int) -> None:
        self._tables = tables.Tables(path)
        self._record = Record(path)
        self._made_with = json.dumps(made_with, sort_keys=True)
        self._most_frames = most_frames

    @classmethod
    def of(cls, store: Store, *, most_frames: int) -> FrameCache:
        """For frames that the store's model makes of videos sampled as the store's."""
        model, sampling = store.model or {}, dict(store.sampling or {})
        for name in ("grid_size", "stride", "cells", "source"):  # a frame is the same in all of them
            sampling.pop(name, None)
        made_with = {"model": model.get("fingerprint"), "precision": model.get("precision"), "sampling": sampling}
        return cls(store.path, made_with, most_frames=most_frames)

    def read(self, videos: collections.abc.Sequence[VideoFile]) -> dict[str, Frames]:
        """The frames of these videos, as far as they are there, by video id; what cannot be read is not there."""
        if not self._most_frames:
            return {}
        try:
            dataset = self._tables.dataset(tables.REFINED)
            if dataset is None:
                return {}
            return self._read(dataset, videos)
        except GridClipError as error:
            logger.warning("the frames that were kept for refinement cannot be read (%s): they are made again", error)
            return {}

    def _read(self, dataset: lance.LanceDataset, videos: collections.abc.Sequence[VideoFile]) -> dict[str, Frames]:
        sources = {video.video_id: self._source(video) for video in videos}
        keys = self._tables.read_columns(dataset, KEYS)
        rows = np.flatnonzero(pc.is_in(keys["source"], pa.array(list(sources.values()))).to_numpy())
        if not len(rows):
            return {}
        with self._tables.reading():
            found = dataset.take(rows, columns=["video_id", "index", "start_s", "end_s", "wanted", "vector"])
            width = dataset.schema.field("vector").type.list_size
            vectors = found["vector"].combine_chunks().flatten().to_numpy().reshape(-1, width)
        names, index = np.array(found["video_id"].to_pylist(), object), found["index"].to_numpy().astype(np.int64)
        spans = np.stack([found["start_s"].to_numpy(), found["end_s"].to_numpy()], axis=1)
        wanted = found["wanted"].to_numpy()
        kept = {}
        for video_id in np.unique(names).tolist():
            own = np.flatnonzero(names == video_id)
            positions, first = np.unique(index[own], return_index=True)  # two jobs may have written a frame
            kept[video_id] = Frames(positions, vectors[own[first]], spans[own[first]], int(wanted[own[0]]))
        return kept

    def add(self, frames: collections.abc.Sequence[tuple[VideoFile, Frames]]) -> None:
        """Keeps frames, one append for all; where that cannot be, a line of the log says why."""
        if not self._most_frames or not frames:
            return
        new = _as_table([(video, self._source(video), own) for video, own in frames]).slice(0, self._most_frames)
        try:
            with self._record.locked():
                self._append(new)
        except GridClipError as error:  # read-only, or a full disk
            logger.info("%s: frames that were looked at are not kept", error)

    def _append(self, new: pa.Table) -> None:
        dataset = self._usable()
        if dataset is None or dataset.schema.field("vector").type != new.schema.field("vector").type:
            self._tables.write(tables.REFINED, new, append=False)
            return
        count = dataset.count_rows()
        if count + len(new) > self._most_frames:
            # Down to half, so that not every append has to write everything again.
            room = max(0, self._most_frames // 2 - len(new))
            with self._tables.reading():
                newest = dataset.to_table(offset=max(0, count - room), limit=room) if room else new.slice(0, 0)
            self._tables.write(tables.REFINED, pa.concat_tables([newest.cast(new.schema), new]), append=False)
        else:
            self._tables.write(tables.REFINED, new, append=True)
        if len(dataset.get_fragments()) > MOST_FRAGMENTS:
            with contextlib.suppress(OSError):  # another reader or a full disk: the files stay as they are
                care.join_files(self._tables, tables.REFINED)

    def _usable(self) -> lance.LanceDataset | None:
        """The table; None where there is none, or what is there is damaged or of another version."""
        try:
            return self._tables.dataset(tables.REFINED)
        except GridClipError as error:
            logger.warning("%s: it is made anew", error)
            self._tables.remove(tables.REFINED)
            return None

    def _source(self, video: VideoFile) -> str:
        """What a video's frames are made of; another one as soon as its file changes."""
        try:
            status = video.path.stat()
            file = f"{status.st_size} {status.st_mtime_ns}"
        except OSError:
            file = "missing"
        parts = f"{self._made_with}\n{video.video_id}\n{file}"
        return hashlib.sha256(parts.encode("utf-8", "surrogatepass")).hexdigest()[:24]


def _as_table(frames: collections.abc.Sequence[tuple[VideoFile, str, Frames]]) -> pa.Table:
    sizes = [len(own) for _, _, own in frames]
    spans = np.concatenate([own.spans for _, _, own in frames])
    return pa.table(
        {
            "video_id": pa.array(np.repeat([video.video_id for video, _, _ in frames], sizes), pa.string()),
            "index": np.concatenate([own.positions for _, _, own in frames]).astype(np.int32),
            "start_s": spans[:, 0],
            "end_s": spans[:, 1],
            "wanted": pa.array(np.repeat([own.wanted for _, _, own in frames], sizes), pa.int32()),
            "source": pa.array(np.repeat([source for _, source, _ in frames], sizes), pa.string()),
            "vector": tables.vector_column(np.concatenate([own.vectors.astype(np.float16) for _, _, own in frames])),
        }
    )
