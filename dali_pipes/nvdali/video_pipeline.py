"""Batches of pruned segments in, super images uint8 [L, S, S, 3] out: DALI decodes, resizes and lays out the grids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from ..contract import CompressedSegment
from ..layout import SuperImageSize
from ..sampling import DECODE_HEIGHT_PX, DECODE_WIDTH_PX, Sampling, super_image_count
from .graph import as_torch, check_shape, describe, ops, start
from .pipeline_threads import PipelineError

# Whether DALI pins the threads of a pipeline to cores: those of every pipeline to the same, the first ones. Not swept
# yet: no card was at hand (`gridclip bench gpu` on one sweeps it).
AFFINE = False


class VideoPipeline:
    """One DALI pipeline: video bytes -> NVDEC (or the CPU) -> 446 x 336 -> cell -> grid -> the model's size.

    The whole graph runs where the frames are decoded; nothing but the compressed bytes crosses the bus.

    Args:
        sampling: grid sizes and super image size; cells are filled row by row, the rest is black. Overlapping super
            images are not for DALI.
        image_size: super images are resized to it.
        device_id: the GPU; None is the CPU variant of the same graph (VP8, VP9 and MJPEG only).
        max_items: most segments of a batch.
        num_threads: of DALI; on a GPU each feeds a decoder of its own, on the CPU each decodes.
        more_sizes: further sizes in which the same frames are laid out.
    """

    def __init__(
        self,
        sampling: Sampling,
        image_size: int,
        *,
        device_id: int | None,
        max_items: int,
        num_threads: int,
        more_sizes: Sequence[SuperImageSize] = (),
    ) -> None:
        self._sampling = sampling
        self._sizes = (SuperImageSize(sampling.super_img_size, image_size), *more_sizes)
        self._pipeline = start(
            lambda: _graph(sampling, self._sizes, device_id), device_id, max_items=max_items, num_threads=num_threads
        )

    def decode(self, batch: Sequence[CompressedSegment]) -> list[torch.Tensor]:
        """The super images of each segment, uint8 [L, S, S, 3], in DALI's own memory, which lives as long as they do.

        With several sizes those of a segment follow each other, in the order of the sizes.

        Raises:
            PipelineError: a segment cannot be decoded, or other frames came back than were asked for. The pipeline must
                not be used again.
        """
        try:
            self._pipeline.feed_input("data", [np.frombuffer(segment.data, np.uint8) for segment in batch])
            self._pipeline.feed_input("frames", [segment.positions for segment in batch])
            *grids, shapes = self._pipeline.run()
        except RuntimeError as error:
            raise PipelineError(describe(error)) from error
        check_shape("a batch's number of segments", (len(grids[0]), len(shapes)), (len(batch), len(batch)))
        return [
            images
            for index, segment in enumerate(batch)
            for images in self._cut(segment, [as_torch(each[index]) for each in grids], as_torch(shapes[index]))
        ]

    def _cut(
        self, segment: CompressedSegment, grids: list[torch.Tensor], frames_shape: torch.Tensor
    ) -> Iterator[torch.Tensor]:
        """A segment's own super images: all are padded to the length of the batch's longest, which hides missing ones.

        Args:
            grids: of each size and in it of each grid size, uint8 [at least its count of super images, S, S, 3].
            frames_shape: int64 [4], the shape of the frames as they were decoded.

        Yields:
            For each size uint8 [L, S, S, 3].
        """
        frames, *rest = map(int, frames_shape)
        check_shape(f"frames of {segment.video_id}", (frames,), (len(segment.positions),))
        check_shape(
            f"frames of {segment.video_id}, in bytes at their own size",
            (frames * int(np.prod(rest)),),
            (segment.decoded_bytes,),
        )
        counts = [super_image_count(frames, grid_size) for grid_size in self._sampling.grid_sizes]
        for number, size in enumerate(self._sizes):
            of_size = grids[number * len(counts) : (number + 1) * len(counts)]
            parts = [each[:count] for each, count in zip(of_size, counts, strict=True)]
            images = parts[0] if len(parts) == 1 else torch.cat(parts)
            expected = (len(segment.start_s), size.image_size, size.image_size, 3)
            check_shape(f"super images of {segment.video_id}", tuple(images.shape), expected)
            yield images


def _graph(sampling: Sampling, sizes: Sequence[SuperImageSize], device_id: int | None) -> tuple[Any, ...]:
    """The super images of each size and in it of each grid size, from one decoder's frames, and the shape of these."""
    fn, types = ops()
    bicubic = {"interp_type": types.INTERP_CUBIC, "antialias": True}
    data = fn.external_source(name="data", dtype=types.UINT8, ndim=1)
    frames = fn.external_source(name="frames", dtype=types.INT32, ndim=1)
    # Without pad_mode="none" DALI makes up black frames where the video has none.
    device = "cpu" if device_id is None else "mixed"
    video = fn.decoders.video(data, frames=frames, pad_mode="none", affine=AFFINE, device=device)
    resized = fn.resize(video, size=[DECODE_HEIGHT_PX, DECODE_WIDTH_PX], **bicubic)
    grids = []
    for size in sizes:
        for grid_size in sampling.grid_sizes:
            cell_px = size.laid_out_px // grid_size
            cells = fn.resize(resized, size=[cell_px, cell_px], **bicubic)
            grids.append(_lay_out(fn, cells, grid_size, cell_px, size.laid_out_px, size.image_size, bicubic))
    return *grids, video.shape(dtype=types.INT64)


def _lay_out(fn: Any, cells: Any, grid_size: int, cell_px: int, size: int, image_size: int, bicubic: Any) -> Any:
    """Cells [W, C, C, 3] as super images [L, S, S, 3]: frame l * N * N + r * N + c in row r, column c of grid l."""
    padded = fn.pad(cells, axes=[0], align=[grid_size**2], fill_value=0)
    grids = fn.reshape(padded, shape=[-1, grid_size, grid_size, cell_px, cell_px, 3], layout="")
    grids = fn.transpose(grids, perm=[0, 1, 3, 2, 4, 5])
    grids = fn.reshape(grids, shape=[-1, grid_size * cell_px, grid_size * cell_px, 3], layout="FHWC")
    if size > grid_size * cell_px:
        grids = fn.pad(grids, axes=[1, 2], shape=[size, size], fill_value=0)
    return grids if image_size == size else fn.resize(grids, size=[image_size, image_size], **bicubic)
