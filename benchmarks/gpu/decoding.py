"""Generated videos in; whether DALI shows every frame that PyAV shows, and the same ones after pruning, out. Step A."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from gridclip import GridClipError
from gridclip.dali_pipes.contract import CompressedSegment
from gridclip.dali_pipes.cpu.reading import Reading, open_reading
from gridclip.dali_pipes.nvdali import segments, sources
from gridclip.dali_pipes.nvdali.nvidia_driver import DecoderLimits
from gridclip.dali_pipes.nvdali.video_pipeline import VideoPipeline
from gridclip.dali_pipes.sampling import Sampling

from . import compare, videos
from .checks import Check, guarded, judged, measured, not_possible
from .plans import Place, Work
from .segments_of import pruned, whole_file
from .videos import Recipe

SIZE_PX = 112  # blocks of the frame's number are 9 pixels wide
ITEMS = 8


def run(work: Work) -> Iterator[Check]:
    """Every clip of the plan, in its order; one that fails costs itself only."""
    limits = work.place.decoder_limits()
    paths = videos.make_all(work.plan.clips, work.folder / "clips")
    for recipe, path in paths.items():
        yield from guarded(recipe.label, check_clip(work, recipe, path, limits))


def check_clip(
    work: Work, recipe: Recipe, path: pathlib.Path, limits: Mapping[str, DecoderLimits] | None
) -> Iterator[Check]:
    """All frames of the whole file against PyAV's, then pruned streams against the whole file, bit by bit.

    A video that jobs leave to the CPU is tried all the same, and told, not judged: it shows whether they still have to.
    """
    expected = compare.decode_all(path, SIZE_PX)
    label = f"{recipe.label} {recipe.height}p"
    with open_reading(path, Sampling()) as reading:
        obstacle = segments.why_not(reading, work.place.dali_device, limits)
        try:
            made = decode(new_pipeline(work.place, SIZE_PX), whole_file(path, np.arange(len(expected))))
        except GridClipError as error:
            if obstacle is None:
                raise
            yield measured(f"{label}: every frame", f"for the CPU: {obstacle}; DALI: {error}")
            return
        fit = compare.fit(made, expected)
        if obstacle is not None:
            yield measured(f"{label}: every frame", f"for the CPU: {obstacle}; DALI: {fit}", **fit.values())
            return
        yield judged(f"{label}: every frame", fit.right, str(fit), **fit.values())
        yield check_pruned(work, label, reading, made)


def check_pruned(work: Work, label: str, reading: Reading, whole: np.ndarray) -> Check:
    """Pruned for every `stride`-th frame, from each of `offsets` first frames on: the same bits as of the whole file.

    Args:
        whole: uint8 [n, SIZE_PX, SIZE_PX, 3], all frames of the file, from the same device.
    """
    name = f"{label}: pruned as whole"
    pipeline = new_pipeline(work.place, SIZE_PX)
    unequal: list[int] = []
    given_bytes = looked_at = 0
    for offset in range(work.plan.offsets):
        wanted = np.arange(offset, len(whole), work.plan.stride)
        try:
            chunks = list(pruned(reading, wanted))
        except GridClipError as error:
            return not_possible(name, f"for the CPU: {error}")
        same = (decode(pipeline, chunks) == whole[wanted]).all(axis=(1, 2, 3))
        unequal += wanted[~same].tolist()
        looked_at += len(wanted)
        given_bytes += sum(len(chunk.data) for chunk in chunks)
    told = f"{looked_at} frames, {len(unequal)} differ" + (f", e.g. frame {unequal[0]}" if unequal else ", bit-equal")
    return judged(name, not unequal, told, frames=looked_at, unequal=unequal, bytes=given_bytes)


def new_pipeline(place: Place, size_px: int) -> VideoPipeline:
    """The product's pipeline with one frame a super image."""
    sampling = Sampling(grid_size=1, super_img_size=size_px)
    threads = sources.NUM_THREADS if place.device_id is not None else 1
    return VideoPipeline(sampling, size_px, device_id=place.device_id, max_items=ITEMS, num_threads=threads)


def decode(pipeline: VideoPipeline, chunks: Sequence[CompressedSegment]) -> np.ndarray:
    """Frames of all chunks, one after the other, uint8 [n, S, S, 3] in the host's memory.

    A batch holds ITEMS chunks, fewer where their frames are large: at most 1 GiB at their own size, or one chunk.
    """
    frames: list[np.ndarray] = []
    batch: list[CompressedSegment] = []
    for chunk in chunks:
        held = sum(other.decoded_bytes for other in batch)
        if batch and (len(batch) == ITEMS or held + chunk.decoded_bytes > sources.VIDEO_LIMITS.decoded_bytes):
            frames += [made.cpu().numpy().copy() for made in pipeline.decode(batch)]
            batch = []
        batch.append(chunk)
    frames += [made.cpu().numpy().copy() for made in pipeline.decode(batch)]
    return np.concatenate(frames)
