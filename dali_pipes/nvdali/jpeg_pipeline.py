"""Batches of JPEG files in, super images uint8 [L, S, S, 3] out: DALI decodes (nvJPEG) and resizes, without a crop."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ..contract import CompressedImages
from .graph import as_torch, check_shape, describe, ops, start
from .pipeline_threads import PipelineError

# Share of the JPEG files that the card's own JPEG decoder gets, the rest goes to its cores; DALI's own default. Not
# swept yet: no card was at hand (`gridclip bench decode` on one sweeps it).
HW_DECODER_LOAD = 0.65


class JpegPipeline:
    """One DALI pipeline: JPEG files -> nvJPEG (or the CPU) -> the model's size.

    Args:
        image_size: width and height of the super images in pixels.
        device_id: the GPU; None is the CPU variant of the same graph.
        max_items: most JPEG files of a batch.
        num_threads: of DALI.
        hw_decoder_load: share of the files that the hardware JPEG decoder gets, 0 to 1.
    """

    def __init__(
        self,
        image_size: int,
        *,
        device_id: int | None,
        max_items: int,
        num_threads: int,
        hw_decoder_load: float = HW_DECODER_LOAD,
    ) -> None:
        self._image_size = image_size
        self._pipeline = start(
            lambda: (_graph(image_size, device_id, hw_decoder_load),),
            device_id,
            max_items=max_items,
            num_threads=num_threads,
        )

    def decode(self, batch: Sequence[CompressedImages]) -> list[torch.Tensor]:
        """The super images of each chunk, uint8 [L, S, S, 3], views of one tensor in DALI's own memory.

        Raises:
            PipelineError: an image cannot be decoded, or other images came back than were asked for. The pipeline must
                not be used again.
        """
        files = [np.frombuffer(file, np.uint8) for chunk in batch for file in chunk.files]
        try:
            self._pipeline.feed_input("files", files)
            (images,) = self._pipeline.run()
            together = as_torch(images.as_tensor())
        except RuntimeError as error:
            raise PipelineError(describe(error)) from error
        check_shape("JPEG files", tuple(together.shape), (len(files), self._image_size, self._image_size, 3))
        stops = list(itertools.accumulate(len(chunk.files) for chunk in batch))
        return [together[stop - len(chunk.files) : stop] for chunk, stop in zip(batch, stops, strict=True)]


def _graph(image_size: int, device_id: int | None, hw_decoder_load: float) -> Any:
    fn, types = ops()
    files = fn.external_source(name="files", dtype=types.UINT8, ndim=1)
    # Colours and orientation as the fallback's libjpeg-turbo gives them.
    options = {"output_type": types.RGB, "jpeg_fancy_upsampling": True, "adjust_orientation": False}
    # affine=True would pin the threads of every pipeline to the same cores, the first ones.
    if device_id is None:
        images = fn.decoders.image(files, device="cpu", **options)
    else:
        images = fn.decoders.image(files, device="mixed", affine=False, hw_decoder_load=hw_decoder_load, **options)
    return fn.resize(images, size=[image_size, image_size], interp_type=types.INTERP_CUBIC, antialias=True)
