"""Models with random weights in; images per second over batch sizes, as shares of the measured peak, out. Step E2."""

from __future__ import annotations

import contextlib
import functools
import pathlib
from collections.abc import Callable, Iterator

import numpy as np
import torch
from gridclip import GridClipError
from gridclip.engine.encoding.encoder import Encoder
from gridclip.engine.encoding.passes import Passes
from gridclip.export.clip_model import ClipConfig

from .. import matrix_rate, measure
from . import models
from .checks import Check, guarded, judged, measured
from .plans import Work
from .predictions import held_against


def run(work: Work) -> Iterator[Check]:
    """Every shape of the plan; the matrix product takes turns with every setting."""
    for shape in work.plan.models:
        yield from guarded(models.describe(shape), check_shape(work, shape))


def check_shape(work: Work, shape: ClipConfig) -> Iterator[Check]:
    """Each setting's rate, then the best one held against the peak of one large matrix product."""
    name = models.describe(shape)
    folder = models.random_folder(shape, "fp16", work.folder / "models")
    on_gpu = work.place.device_id is not None
    device, dtype = ("cuda", torch.float16) if on_gpu else ("cpu", torch.float32)
    product = matrix_rate.matrix_product(device, dtype, work.plan.matrix_side)
    product.multiply()
    flop = matrix_rate.flop_per_image(shape)
    peaks: list[float] = []
    rates: dict[str, float] = {}
    for batch_size in work.plan.batch_sizes:
        for cuda_graph in work.plan.cuda_graphs:
            setting = f"batches of {batch_size}{', CUDA graph' if cuda_graph else ''}"
            try:
                encoder = _encoder(work, folder, cuda_graph=cuda_graph)
                passes = encoder.image_passes(batch_size)
            except (
                GridClipError,
                RuntimeError,
            ) as error:  # RuntimeError: what ONNX Runtime and torch raise of themselves
                yield judged(f"{name}, {setting}", False, " ".join(str(error).split())[:200])
                continue
            with contextlib.closing(passes):
                images = _images(work, batch_size, shape.image_size)
                encode = functools.partial(encode_batches, passes, images, work.plan.batches)
                encode()
                candidates: dict[str, Callable[[], object]] = {"product": product.multiply, "encode": encode}
                seconds = measure.medians(measure.interleaved(candidates, repetitions=work.plan.repetitions))
            peaks.append(product.flop / seconds["product"])
            rates[setting] = measure.significant(batch_size * work.plan.batches / seconds["encode"])
            share = rates[setting] * flop / peaks[-1]
            told = f"{rates[setting]:,.4g} images/s, {share:.0%} of {peaks[-1] / 1e12:,.4g} TFLOP/s"
            yield measured(f"{name}, {setting}", told, images_per_s=rates[setting], share=measure.significant(share))
    if rates:
        best = max(rates, key=rates.__getitem__)
        facts = {"matrix_flop_per_s": measure.significant(float(np.median(peaks))), "flop_per_image": float(flop)}
        yield held_against(f"{name}, best: {best}", "encode", rates[best], facts, floors=work.plan.floors, all=rates)


def encode_batches(passes: Passes, images: np.ndarray | torch.Tensor, count: int) -> None:
    """The same batch `count` times, as many in flight as there may be."""
    for _ in range(count):
        passes.put(images, 0)
        if passes.in_flight == passes.depth:
            passes.collect()
        passes.launch(len(images))
    while passes.in_flight:
        passes.collect()


def images_per_s(work: Work, encoder: Encoder, batch_size: int) -> float:
    """The encoder's rate alone."""
    with contextlib.closing(encoder.image_passes(batch_size)) as passes:
        images = _images(work, batch_size, encoder.info.image_size)
        encode = functools.partial(encode_batches, passes, images, work.plan.batches)
        encode()
        seconds = measure.medians(measure.interleaved({"encode": encode}, repetitions=work.plan.repetitions))
    return batch_size * work.plan.batches / seconds["encode"]


def _encoder(work: Work, folder: pathlib.Path, *, cuda_graph: bool) -> Encoder:
    place = work.place
    return Encoder(folder, provider=place.providers[0], device_id=place.device_id or 0, cuda_graph=cuda_graph)


def _images(work: Work, batch_size: int, size_px: int) -> np.ndarray | torch.Tensor:
    """Noise where the decoder leaves super images: on the card, or in the host's memory without one."""
    images = np.random.default_rng(0).integers(0, 256, (batch_size, size_px, size_px, 3), dtype=np.uint8)
    if work.place.device_id is None:
        return images
    return torch.from_numpy(images).to(f"cuda:{work.place.device_id}")
