"""Videos and which of their wanted frames to look at in, the embeddings of these frames out: kept, or decoded again.

Decoding runs in worker processes, as that of whole videos does, and only the GOPs that hold the frames are decoded. A
video that fails costs itself: it has no frames, and a line of the log says why.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import itertools
import logging
import time
from typing import Any

import numpy as np

from ...dali_pipes.contract import Event, Failure, Notice, VideoFile
from ...dali_pipes.cpu import some_frames, tasks
from ...dali_pipes.cpu.damage import OnDamage
from ...dali_pipes.processes import pool
from ..encoding.encoder import Encoder
from ..jobs.ledger import batch_size_for, embed_all
from ..store.store import VideoEmbedding
from .cache import FrameCache
from .choice import Coarse
from .score import Frames

logger = logging.getLogger(__name__)

VIDEOS_AT_ONCE = 64  # whose new frames are kept in one append


@dataclasses.dataclass
class Cost:
    """What looking has cost so far.

    Attributes:
        passes: frames that went through the encoder.
        packets: that were given to a decoder.
        seconds: for all of it.
        kept: frames that were there from an earlier query.
        failed: videos that could not be looked at.
    """

    passes: int = 0
    packets: int = 0
    seconds: float = 0.0
    kept: int = 0
    failed: int = 0

    def to_json(self) -> dict[str, Any]:
        """Ready for json.dump."""
        return {**dataclasses.asdict(self), "seconds": round(self.seconds, 3)}

    def __str__(self) -> str:
        failed = f", {self.failed:,} videos failed" if self.failed else ""
        return (
            f"{self.passes:,} encoder passes, {self.packets:,} packets decoded, {self.kept:,} frames from the cache"
            f"{failed}, {self.seconds:.1f} s"
        )


@dataclasses.dataclass(frozen=True)
class Request:
    """Frames to look at.

    Attributes:
        positions: int64 [n], ascending, among the wanted frames of the video.
        rows: coarse embeddings of the video: a file that would have another number is another one.
    """

    positions: np.ndarray
    rows: int


class Looker:
    """Looks at frames of videos; not for several threads at once.

    Args:
        encoder: of the model that the store was made with.
        videos: files by id.
        coarse: how the store's embeddings were sampled.
        cache: of the store.
        num_workers: decoding processes.
        time_limit_s: seconds without a result after which a decoder counts as hung.
        on_damage: see `reading.open_reading`.

    Attributes:
        cost: of everything so far.
    """

    def __init__(
        self,
        encoder: Encoder,
        videos: collections.abc.Mapping[str, VideoFile],
        coarse: Coarse,
        cache: FrameCache,
        *,
        num_workers: int,
        time_limit_s: float = pool.DEFAULT_TIME_LIMIT_S,
        on_damage: OnDamage = "nearest",
    ) -> None:
        self.cost = Cost()
        self._encoder, self._videos, self._coarse, self._cache = encoder, videos, coarse, cache
        self._num_workers, self._time_limit_s, self._on_damage = num_workers, time_limit_s, on_damage
        self._lost: set[str] = set()  # not tried again

    def look(self, wanted: collections.abc.Mapping[str, Request]) -> dict[str, Frames]:
        """The frames of each video, fewer where it has fewer; a video that cannot be looked at is left out.

        Args:
            wanted: by video id.

        Raises:
            GridClipError: no video can be decoded any more (a full disk, no worker process starts).
        """
        begun = time.perf_counter()
        found: dict[str, Frames] = {}
        try:
            waiting = iter(sorted(wanted))
            while some := list(itertools.islice(waiting, VIDEOS_AT_ONCE)):
                found |= self._look({video_id: wanted[video_id] for video_id in some})
        finally:
            self.cost.seconds += time.perf_counter() - begun
        return found

    def _look(self, wanted: dict[str, Request]) -> dict[str, Frames]:
        for video_id in wanted.keys() - self._videos.keys() - self._lost:
            self._lose(video_id, "no file for this video")
        usable = [self._videos[video_id] for video_id in wanted if video_id not in self._lost]
        kept = self._cache.read(usable)
        missing: dict[str, Request] = {}
        for video in usable:
            each = wanted[video.video_id]
            held = kept.get(video.video_id)
            left = each.positions if held is None else held.lacks(each.positions)
            if len(left):
                missing[video.video_id] = Request(left, each.rows)
        made = self._make(missing)
        self._cache.add([(self._videos[video_id], frames) for video_id, frames in made.items()])
        found = {}
        for video_id in wanted.keys() - self._lost:
            parts = [each[video_id] for each in (kept, made) if video_id in each]
            frames = _joined(parts).take(wanted[video_id].positions) if parts else None
            if frames:
                found[video_id] = frames
        self.cost.kept += sum(map(len, found.values())) - sum(map(len, made.values()))
        return found

    def _make(self, missing: dict[str, Request]) -> dict[str, Frames]:
        """Decodes and encodes."""
        if not missing:
            return {}
        sink = _Sink(self.cost)
        events = pool.run(
            [self._videos[video_id] for video_id in missing],
            some_frames.tasks(
                {video_id: each.positions for video_id, each in missing.items()},
                self._coarse.sampling,
                self._encoder.info.image_size,
                on_damage=self._on_damage,
            ),
            num_workers=min(self._num_workers, len(missing)),
            time_limit_s=self._time_limit_s,
            size=tasks.count_super_images,
        )
        lengths: dict[str, int] = {}
        embed_all(
            self._checked(events, missing, lengths), self._encoder, batch_size_for(self._encoder.provider, None), sink
        )
        for failure in sink.failures:
            self._lose(failure.video_id, failure.reason)
        made = {}
        for video in sink.done:
            assert video.start_s is not None and video.end_s is not None
            positions = missing[video.video_id].positions[: len(video.vectors)]
            spans = np.stack([video.start_s, video.end_s], axis=1)
            made[video.video_id] = Frames(positions, video.vectors, spans, lengths[video.video_id])
        return made

    def _checked(
        self,
        events: collections.abc.Generator[tuple[VideoFile, Event], None, None],
        wanted: dict[str, Request],
        lengths: dict[str, int],
    ) -> collections.abc.Generator[tuple[VideoFile, Event], None, None]:
        """The events, but for those of files that the store was not made of; notes packets and the videos' lengths."""
        others: set[str] = set()
        for video, event in events:
            if video.video_id in others:
                continue
            if isinstance(event, some_frames.SomeFrames):
                self.cost.packets += event.packets
                lengths[video.video_id] = event.wanted
                rows = self._coarse.rows(event.wanted)
                if rows != wanted[video.video_id].rows:
                    others.add(video.video_id)
                    reason = f"it makes {rows} {self._coarse.view.level} embeddings, the store has another file's"
                    yield video, Failure(video.video_id, "sample", f"{reason}: {wanted[video.video_id].rows}")
                    continue
            yield video, event

    def _lose(self, video_id: str, reason: str) -> None:
        self._lost.add(video_id)
        self.cost.failed += 1
        logger.warning("%s: %s: it keeps its coarse score", video_id, reason)


def _joined(parts: list[Frames]) -> Frames:
    positions = np.concatenate([part.positions for part in parts])
    order = np.argsort(positions)
    vectors, spans = (np.concatenate([getattr(part, name) for part in parts])[order] for name in ("vectors", "spans"))
    return Frames(positions[order], vectors, spans, parts[0].wanted)


class _Sink:
    """Where the encoder's results go: see batches.Sink."""

    def __init__(self, cost: Cost) -> None:
        self.done: list[VideoEmbedding] = []
        self.failures: list[Failure] = []
        self._cost = cost

    def add_super_images(self, super_images: int) -> None:
        self._cost.passes += super_images

    def add_encoder_time(self, seconds: float) -> None:
        pass

    def add_notice(self, notice: Notice) -> None:
        logger.info("%s: %s", notice.video_id, notice.detail)

    def restart(self, video_id: str) -> None:
        pass

    def finish(self, video: VideoEmbedding) -> None:
        self.done.append(video)

    def fail(self, failure: Failure) -> None:
        self.failures.append(failure)
