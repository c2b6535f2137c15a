"""Runs of super images of many videos in, whole videos of embeddings in a store out: batches filled across videos."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import time
from collections.abc import Sequence

import numpy as np

from ... import GridClipError
from ...dali_pipes import workers
from ...dali_pipes.source import Failure, SuperImages, VideoFile
from ...dali_pipes.workers import Work
from ..encoder import Encoder
from ..store import Store, VideoEmbedding
from .failures import FailureLog, failures_path
from .listing import Listing
from .progress import Interrupted, JobSummary, Tally

# A store's append costs some milliseconds and a file, and a killed job loses what it has not appended.
APPEND_VIDEOS = 100
APPEND_SECONDS = 20.0
# Large batches feed a GPU. A CPU gains nothing from them, and Ctrl-C has to wait for the one that is running.
BATCH_SIZES = {"cpu": 8, "cuda": 100}


def open_store(
    path: pathlib.Path, encoder: Encoder, videos: Sequence[VideoFile], *, resume: bool, overwrite: bool
) -> tuple[Store, set[str]]:
    """Opens the store of a job and decides what is left to do.

    Returns:
        The store, and the ids of the videos that are in it already.

    Raises:
        GridClipError: it was made by another model, or it holds some of the videos and neither resume nor overwrite is
            given.
    """
    if resume and overwrite:
        raise ValueError("resume and overwrite exclude each other")
    store = Store.open(path, create=True)
    if overwrite:
        if (store.model or encoder.info)["fingerprint"] == encoder.info["fingerprint"]:
            store.clear_super_images()
        else:
            store.clear()  # queries of another model are of no use beside the new videos
    store.check_model(encoder.info)
    stored = store.finished_videos()
    again = sum(video.video_id in stored for video in videos)
    if again and not resume:
        raise GridClipError(
            f"the store {store.path} already has {again} of the {len(videos)} videos: continue with --resume, or embed "
            "them again with --overwrite"
        )
    return store, stored


def embed(
    listing: Listing,
    works: Sequence[Work[SuperImages]],
    encoder: Encoder,
    store: Store,
    stored: set[str],
    *,
    batch_size: int | None,
    num_workers: int,
    time_limit_s: float,
    num_shards: int = 1,
    shard_id: int = 0,
) -> JobSummary:
    """Embeds the videos of a listing that are not stored: worker processes make super images while this one encodes.

    Args:
        listing: what to embed, and what is lost already.
        works: yield super images of the model's size; see `workers.run`.
        encoder, store: where embeddings come from and where they go.
        stored: videos to leave out.
        batch_size: super images per pass, >= 1; default by the encoder's provider.
        num_workers, time_limit_s: see `workers.run`.
        num_shards, shard_id: name the failures' file; the listing is this shard's already.

    Raises:
        GridClipError: the store cannot be written. What was appended before stays.
        Interrupted: Ctrl-C. Finished videos are in the store.
    """
    if batch_size is None:
        batch_size = BATCH_SIZES[encoder.provider]
    elif batch_size < 1:
        raise ValueError(f"batch_size ({batch_size}) must be >= 1")
    todo = [video for video in listing.videos if video.video_id not in stored]
    finished_before = len(listing.videos) - len(todo)
    with (
        FailureLog(failures_path(store.path, num_shards, shard_id)) as failures,
        Tally("embedded", "videos", len(todo), failures, finished_before=finished_before) as tally,
    ):
        for failure in listing.failures:
            failures.add(failure)
        batches = Batches(encoder, store, tally, batch_size)
        jobs = workers.run(
            todo, works, num_workers=num_workers, time_limit_s=time_limit_s, size=lambda run: len(run.images)
        )
        try:
            with contextlib.closing(jobs) as results:
                for video, result in results:
                    if isinstance(result, SuperImages):
                        batches.add(result)
                    elif isinstance(result, Failure):
                        batches.drop(video.video_id)
                        tally.add_failure(result)
                    else:
                        batches.finish(video.video_id)
            batches.flush()
        except KeyboardInterrupt as error:
            batches.append_finished()
            raise Interrupted(tally.summary()) from error
        if num_shards == 1:  # other shards may still be writing
            store.compact()
        return tally.summary()


@dataclasses.dataclass
class _Video:
    """A video on its way through the batches."""

    video_id: str
    start_s: list[np.ndarray] = dataclasses.field(default_factory=list)
    end_s: list[np.ndarray] = dataclasses.field(default_factory=list)
    vectors: list[np.ndarray] = dataclasses.field(default_factory=list)
    delivered: int = 0
    encoded: int = 0
    finished: bool = False
    dropped: bool = False


class Batches:
    """Collects super images of many videos into batches of one size, and appends whole videos to the store.

    Args:
        encoder, store: where embeddings come from and where they go.
        tally: told of super images, finished videos and failures.
        batch_size: super images per pass.
    """

    def __init__(self, encoder: Encoder, store: Store, tally: Tally, batch_size: int) -> None:
        self._encoder = encoder
        self._store = store
        self._tally = tally
        size = encoder.info["image_size"]
        self._batch = np.empty((batch_size, size, size, 3), np.uint8)
        self._filled = 0
        self._owners: list[tuple[_Video, int]] = []  # whose the first rows of the batch are, and how many
        self._open: dict[str, _Video] = {}
        self._complete: list[VideoEmbedding] = []
        self._appended_at = time.monotonic()

    def add(self, run: SuperImages) -> None:
        """Takes the next run of a video; runs of one video come in order."""
        video = self._open.setdefault(run.video_id, _Video(run.video_id))
        video.start_s.append(run.start_s)
        video.end_s.append(run.end_s)
        video.delivered += len(run.images)
        taken = 0
        while taken < len(run.images):
            count = min(len(run.images) - taken, len(self._batch) - self._filled)
            self._batch[self._filled : self._filled + count] = run.images[taken : taken + count]
            self._owners.append((video, count))
            self._filled += count
            taken += count
            if self._filled == len(self._batch):
                self._encode()
        self._append_if_due()

    def finish(self, video_id: str) -> None:
        """The video has delivered everything."""
        video = self._open.setdefault(video_id, _Video(video_id))
        video.finished = True
        self._close_if_complete(video)
        self._append_if_due()

    def drop(self, video_id: str) -> None:
        """The video is lost; nothing of it will be stored."""
        video = self._open.pop(video_id, None)
        if video is not None:
            video.dropped = True

    def flush(self) -> None:
        """Encodes what waits for a full batch, and appends every finished video."""
        if self._filled:
            self._encode()
        self.append_finished()

    def append_finished(self) -> None:
        """Appends the videos that are finished and encoded."""
        complete, self._complete = self._complete, []
        self._store.append_videos(complete)
        self._appended_at = time.monotonic()

    def _append_if_due(self) -> None:
        overdue = time.monotonic() - self._appended_at > APPEND_SECONDS
        if len(self._complete) >= APPEND_VIDEOS or (self._complete and overdue):
            self.append_finished()

    def _encode(self) -> None:
        vectors = self._encoder.encode_images(self._batch[: self._filled])
        self._tally.add_super_images(self._filled)
        owners, self._owners, self._filled = self._owners, [], 0
        first = 0
        for video, count in owners:
            if not video.dropped:
                video.vectors.append(vectors[first : first + count].astype(np.float16))
                video.encoded += count
                self._close_if_complete(video)
            first += count

    def _close_if_complete(self, video: _Video) -> None:
        if not video.finished or video.encoded < video.delivered:
            return
        del self._open[video.video_id]
        if not video.delivered:
            self._tally.add_failure(Failure(video.video_id, "decode", "no super image came out"))
            return
        try:
            parts = (np.concatenate(part) for part in (video.start_s, video.end_s, video.vectors))
            self._complete.append(VideoEmbedding(video.video_id, *parts))
            self._tally.add_done()
        except ValueError as error:  # not finite
            self._tally.add_failure(Failure(video.video_id, "encode", str(error)))
