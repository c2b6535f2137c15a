"""A seed in; long videos with near duplicates, captions with times, the queries among them, and their frames out.

No file is written: the pictures go from the painter to the encoder. Videos come in families: the scenes of the first
one are in the others, too, each with another motion or with its second object in another corner, in another order and
with other lengths. So a query has to find one scene of some thirty in one video, and that scene's closest rivals are
in the other video of the same family.

The development videos are made of combinations of colour, shape and texture that training saw, in scenes that it did
not see; the held ones of combinations that it never saw.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterator
from typing import Literal

import numpy as np

from ..dali_pipes.sampling import wanted_frames
from ..engine.annotations.annotations import Query
from .demo import scenes

FRAME_RATE = 12  # frames per second of every video
SCENES = (20, 40)  # of a video
SECONDS = (3.0, 9.0)  # of a scene; short ones are as frequent as long ones on a scale of ratios
FAMILY = 2  # videos of near duplicates
QUERIES = 3  # of a video
SPLITS = ("development", "held")
Split = Literal["development", "held"]


@dataclasses.dataclass(frozen=True)
class LongVideo:
    """Some scenes one after the other.

    Attributes:
        video_id: unique in a set.
        scenes: 20 to 40.
        captions: one a scene.
    """

    video_id: str
    scenes: tuple[scenes.Scene, ...]
    captions: tuple[str, ...]

    @property
    def bounds(self) -> np.ndarray:
        """int64 [scenes + 1]: the frame at which each scene begins, and the number of frames."""
        frames = [round(scene.duration_s * FRAME_RATE) for scene in self.scenes]
        return np.concatenate([[0], np.cumsum(frames)])

    @property
    def duration_s(self) -> float:
        """Seconds."""
        return int(self.bounds[-1]) / FRAME_RATE

    def span(self, scene: int) -> tuple[float, float]:
        """Start and end of a scene in seconds."""
        start, end = self.bounds[scene : scene + 2].tolist()
        return start / FRAME_RATE, end / FRAME_RATE

    def wanted(self, fps: float) -> np.ndarray:
        """Indices of the wanted frames, int64 [n], as of a file of so many frames."""
        return wanted_frames(int(self.bounds[-1]), FRAME_RATE, fps=fps)

    def frames(self, indices: np.ndarray) -> Iterator[np.ndarray]:
        """The pictures of some frames, ascending, each uint8 [HEIGHT_PX, WIDTH_PX, 3]."""
        owners = np.searchsorted(self.bounds, indices, side="right") - 1
        for owner in np.unique(owners).tolist():
            painter = scenes.Painter(self.scenes[owner])
            for index in indices[owners == owner].tolist():
                yield np.asarray(painter.frame((index - int(self.bounds[owner])) / FRAME_RATE))


@dataclasses.dataclass(frozen=True)
class VideoSet:
    """Videos, and the captions among theirs that are asked for.

    Attributes:
        split: whose scenes they are made of.
        videos: in families.
        queries: each fits one scene of the set and no other.
    """

    split: Split
    videos: list[LongVideo]
    queries: list[Query]


def make_set(split: Split, count: int, *, seed: int) -> VideoSet:
    """The first `count` videos of a split; none shares a combination with the other."""
    videos = [
        video
        for family in range(-(-count // FAMILY))
        for video in _family(split, family, seed, count - family * FAMILY)
    ]
    return VideoSet(split, videos, _queries(videos, seed))


def other_captions(count: int, *, seed: int) -> list[str]:
    """Captions of scenes that training may have seen and no set shows: what users ask elsewhere, for QB-Norm's bank."""
    rng = np.random.default_rng((seed, len(SPLITS) + 1))
    return [scenes.caption(scenes.make_scene(rng, unseen=False), rng) for _ in range(count)]


def described(scene: scenes.Scene) -> tuple[object, ...]:
    """What a caption tells of a scene: where two scenes agree in it, no caption tells them apart."""
    size = "" if scene.motion in ("grow", "shrink") else scene.size
    return scene.colour, scene.shape, size, scene.motion, scene.texture, scene.background, scene.companion


def _family(split: Split, number: int, seed: int, most: int) -> Iterator[LongVideo]:
    rng = np.random.default_rng((seed, SPLITS.index(split), number))
    count = int(rng.integers(SCENES[0], SCENES[1] + 1))
    first = [scenes.make_scene(rng, unseen=split == "held") for _ in range(count)]
    for member in range(min(FAMILY, most)):
        shown = first
        if member:
            shown = [scenes.near_duplicate(first[each], rng) for each in rng.permutation(len(first)).tolist()]
        lasting = [dataclasses.replace(scene, duration_s=_duration_s(rng)) for scene in shown]
        captions = tuple(scenes.caption(scene, rng) for scene in lasting)
        yield LongVideo(f"long_{number * FAMILY + member:05d}", tuple(lasting), captions)


def _duration_s(rng: np.random.Generator) -> float:
    return round(float(np.exp(rng.uniform(*np.log(SECONDS)))), 1)


def _queries(videos: list[LongVideo], seed: int) -> list[Query]:
    """QUERIES of each video, by chance, of those with all there is to be told, which fit no other scene of the set."""
    rng = np.random.default_rng((seed, len(SPLITS)))
    shown = collections.Counter(described(scene) for video in videos for scene in video.scenes)
    queries: list[Query] = []
    for video in videos:
        unique = [
            number
            for number, scene in enumerate(video.scenes)
            if scene.companion is not None and shown[described(scene)] == 1
        ]
        for number in sorted(rng.permutation(unique)[:QUERIES].tolist()):
            queries.append(Query(len(queries), video.video_id, video.captions[number], *video.span(number)))
    return queries
