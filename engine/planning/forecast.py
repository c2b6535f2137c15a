"""The size of a job and some cards in, hours, bytes and the stage that bounds out.

It is arithmetic whose every number says where it comes from. None was measured on a GPU: `gridclip bench gpu` does it.
"""

from __future__ import annotations

import dataclasses
import os
from typing import Any, Literal

from ... import ArgumentError
from ...dali_pipes.places import size_bytes
from ...dali_pipes.sampling import Sampling, super_image_count
from ..choices import CARDS
from ..listing.listing import list_videos
from .plan import FP16_BYTES, Plan

Origin = Literal["given", "counted", "assumed", "data sheet", "measured"]

# What a card is said to have: NVDEC engines, and dense fp16 matrix TFLOP/s, of NVIDIA's data sheets.
_ENGINES = {"a800": 5, "a100": 5, "h100": 7, "h200": 7}
_TFLOP_PER_S = {"a800": 312.0, "a100": 312.0, "h100": 989.0, "h200": 989.0}
NVDEC_1080P_PER_S = 730.0  # frames of one engine
KEPT_PACKETS = (46.0, 240.0)  # that NVDEC decodes for a super image of four frames, easy and hard videos
MATRIX_SHARE = 0.6
VIDEO_S, VIDEO_MBIT_PER_S = 120.0, 2.0  # where nobody gives videos
BOOKS_PER_S = 4900.0  # `gridclip bench books`: 100,000 videos of 15 super images, 2 cores
ROW_BYTES = 44  # of a row beside its vector: id, index, times, level, grid size
# ViT-L/14: layers, width, patch size.
LAYERS, WIDTH, PATCH_PX, EMBED_DIM = 24, 1024, 14, 768


@dataclasses.dataclass(frozen=True)
class Number:
    """One number of the arithmetic: what it is, its value and unit, and where it comes from."""

    name: str
    value: float
    unit: str
    origin: Origin
    why: str


@dataclasses.dataclass(frozen=True)
class Forecast:
    """What a job would take.

    Attributes:
        card, cards: the kind and how many there are.
        videos, super_images: of the job.
        decode_h, encode_h, books_h: hours of each stage by itself, (at best, at worst).
        read_bytes: of video files, all of them: pruning saves decoding, and reading only where a file is sought in.
        stored_bytes: of vectors and their rows.
        numbers: what all this follows from.
    """

    card: str
    cards: int
    videos: int
    super_images: int
    decode_h: tuple[float, float]
    encode_h: tuple[float, float]
    books_h: tuple[float, float]
    read_bytes: int
    stored_bytes: int
    numbers: tuple[Number, ...]

    @property
    def stages(self) -> dict[str, tuple[float, float]]:
        """Hours by stage."""
        return {"decoding": self.decode_h, "encoding": self.encode_h, "the books": self.books_h}

    @property
    def hours(self) -> tuple[float, float]:
        """Of the job, at best and at worst: the stages overlap, so that the slowest counts."""
        best, worst = (max(hours[end] for hours in self.stages.values()) for end in (0, 1))
        return best, worst

    @property
    def bound(self) -> tuple[str, str]:
        """The slowest stage, at best and at worst."""
        best, worst = (max(self.stages, key=lambda stage: self.stages[stage][end]) for end in (0, 1))
        return best, worst

    def to_json(self) -> dict[str, Any]:
        """The forecast as plain dicts and lists."""
        return dataclasses.asdict(self) | {"hours": self.hours, "bound": self.bound}

    def __str__(self) -> str:
        """A table, and below it where each number comes from."""
        best, worst = self.bound
        rows = [
            ("forecast", f"{self.videos:,} videos, {self.super_images:,} super images, {self.cards} x {self.card}"),
            ("hours", f"{_span(self.hours)}: {best if best == worst else f'{best} or {worst}'} bounds"),
            *((f"  {stage}", f"{_span(hours)} alone") for stage, hours in self.stages.items()),
            ("read", f"{self.read_bytes / 1e12:,.2f} TB, at most {self.read_bytes / 3.6e9 / self.hours[0]:,.0f} MB/s"),
            ("stored", f"{self.stored_bytes / 1e9:,.1f} GB"),
        ]
        lines = [f"{name:17} {value}" for name, value in rows]
        lines.append("It follows from these numbers, of which none was measured on such a card:")
        lines += [f"  {each.value:,.6g} {each.unit}, {each.name}: {each.origin} ({each.why})" for each in self.numbers]
        return "\n".join(lines)


def forecast(
    plan: Plan | None,
    sampling: Sampling,
    *,
    card: str,
    cards: int,
    videos: int | None = None,
    video_bytes: int | None = None,
) -> Forecast:
    """What so many cards would take for a job.

    Args:
        plan: counted videos, which stand for all where `videos` are more; None: videos as they are assumed.
        sampling: which frames, and how large a super image is.
        card: one of `choices.CARDS`.
        cards: how many.
        videos: of the job; default: those of the plan.
        video_bytes: of the files of the plan's videos; None: as they are assumed.

    Raises:
        ArgumentError: there is no such card, or neither a plan with videos nor a number.
    """
    if card not in CARDS:
        raise ArgumentError(f"`card={card!r}` must be one of {', '.join(CARDS)}")
    if plan is not None and not plan.videos:
        raise ArgumentError("no video can be used, so that there is nothing to forecast")
    if plan is None and videos is None:
        raise ArgumentError("a forecast needs `videos`, or `video_dir` or `video_info` to count them")
    per_video = _per_video(plan, sampling, video_bytes)
    count = videos if videos is not None else plan.videos if plan is not None else 0
    super_images = round(count * per_video["super images"].value)
    engines = Number("NVDEC engines of a card", _ENGINES[card], "engines", "data sheet", card)
    engine_per_s = Number("of 1080p H.264 by one engine", NVDEC_1080P_PER_S, "frames/s", "assumed", "as one of an H100")
    cells = sampling.grid_sizes[0] ** 2
    packets = [
        Number(f"to decode for a super image, {name}", each * cells / 4, "frames", "assumed", "after pruning, 1080p")
        for name, each in zip(("easy videos", "hard videos"), KEPT_PACKETS, strict=True)
    ]
    matrix = Number("fp16 matrix rate of a card", _TFLOP_PER_S[card], "TFLOP/s", "data sheet", card)
    share = Number("of it that the encoder reaches", MATRIX_SHARE, "share", "assumed", "a large fused transformer")
    flop = Number(
        "of ViT-L/14", flop_per_image(sampling.super_img_size), "FLOP/image", "counted", "its matrix products"
    )
    books = Number(
        "through one driver's books", BOOKS_PER_S, "videos/s", "measured", "gridclip bench books on 2 CPU cores"
    )
    decode_h = [super_images * each.value / (cards * engines.value * engine_per_s.value) / 3600 for each in packets]
    encode_h = super_images * flop.value / (cards * matrix.value * 1e12 * share.value) / 3600
    books_h = count / books.value / 3600
    origin: Origin = "given" if videos is not None else "counted"
    return Forecast(
        card=card,
        cards=cards,
        videos=count,
        super_images=super_images,
        decode_h=(decode_h[0], decode_h[1]),
        encode_h=(encode_h, encode_h),
        books_h=(books_h, books_h),
        read_bytes=round(count * per_video["bytes"].value),
        stored_bytes=(super_images + round(count * per_video["cells"].value)) * (EMBED_DIM * FP16_BYTES + ROW_BYTES),
        numbers=(
            Number("of the job", count, "videos", origin, "`videos`" if videos is not None else "those of the plan"),
            *per_video.values(),
            engines,
            engine_per_s,
            *packets,
            matrix,
            share,
            flop,
            books,
        ),
    )


def measure_bytes(video_dir: str | os.PathLike[str]) -> int:
    """The bytes of the videos of a folder, a list, tars or a URL; files that are gone meanwhile count as none."""
    return sum(size_bytes(video.place) for video in list_videos(video_dir).videos)


def flop_per_image(size_px: int) -> float:
    """Of ViT-L/14: multiplications and additions of its matrix products, for one super image of this size."""
    tokens = (size_px // PATCH_PX) ** 2 + 1
    layer = 24 * tokens * WIDTH**2 + 4 * tokens**2 * WIDTH  # QKV, output and MLP; attention's two products
    patches = 2 * (tokens - 1) * 3 * PATCH_PX**2 * WIDTH
    return float(LAYERS * layer + patches + 2 * WIDTH * EMBED_DIM)


def _per_video(plan: Plan | None, sampling: Sampling, video_bytes: int | None) -> dict[str, Number]:
    """Super images, cells and bytes of a video, and its length."""
    if plan is None:
        frames = max(1, int(VIDEO_S * sampling.fps))
        count = sum(super_image_count(frames, size, sampling.stride_of(size)) for size in sampling.grid_sizes)
        seconds = Number("of a video", VIDEO_S, "seconds", "assumed", "about that of ActivityNet's")
        why = "from its length and the sampling"
        images = Number("of a video", count, "super images", "counted", why)
        cells = Number("of a video", frames * len(sampling.grids_with_cells), "cells", "counted", why)
    else:
        why = f"the mean of {plan.videos:,} videos"
        seconds = Number("of a video", plan.duration_s / plan.videos, "seconds", "counted", why)
        images = Number("of a video", plan.super_images / plan.videos, "super images", "counted", why)
        cells = Number("of a video", plan.cells / plan.videos, "cells", "counted", why)
    if video_bytes is not None and plan is not None:
        size = Number("of a video", video_bytes / plan.videos, "bytes", "counted", "of the files")
    else:
        size = Number("of a video", seconds.value * VIDEO_MBIT_PER_S * 1e6 / 8, "bytes", "assumed", "2 Mbit/s")
    return {"seconds": seconds, "super images": images, "cells": cells, "bytes": size}


def _span(hours: tuple[float, float]) -> str:
    best, worst = (f"{each:,.1f}" if each >= 1 else f"{each:,.2g}" for each in hours)
    return best if best == worst else f"{best} to {worst}"
