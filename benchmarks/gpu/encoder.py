"""Models with random weights in; whether the card embeds as fp32 on the CPU does, with which kernels, out. Step D."""

from __future__ import annotations

import collections
import contextlib
import json
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnxruntime
from gridclip import GridClipError
from gridclip.engine.encoding import attention_kernels
from gridclip.engine.encoding.encoder import Encoder
from gridclip.engine.encoding.providers import EXECUTION_PROVIDERS, Provider
from gridclip.export.clip_model import ClipConfig
from gridclip.export.verify import SMALLEST_COSINE

from ..encode_peers import through_passes
from . import models
from .checks import Check, guarded, judged, measured, not_possible
from .plans import Work

CPU = EXECUTION_PROVIDERS["cpu"]
COPIES = ("MemcpyToHost", "MemcpyFromHost")
NO_BF16 = "`gridclip export` writes fp32, fp16 and int8 graphs, none in bf16"


def run(work: Work) -> Iterator[Check]:
    """Every shape of the plan: embeddings, then kernels, then where nodes run; TensorRT, which takes minutes, last."""
    place = work.place
    for shape in work.plan.models:
        expected, images = _expected(work, shape)
        for precision in work.plan.precisions:
            name = f"{models.describe(shape)}, {precision}"
            folder = models.random_folder(shape, precision, work.folder / "models")
            yield from guarded(name, check_provider(work, folder, place.providers[0], images, expected, name))
            yield from guarded(f"{name}: attention kernels", check_kernels(work, folder, shape, name))
            yield from guarded(f"{name}: where nodes run", check_placement(work, folder, images, name))
        yield not_possible(f"{models.describe(shape)}, bf16", NO_BF16)
    for provider in place.providers[1:]:
        shape, precision = work.plan.models[0], work.plan.precisions[0]
        expected, images = _expected(work, shape)
        name = f"{models.describe(shape)}, {precision}"
        folder = models.random_folder(shape, precision, work.folder / "models")
        yield from guarded(f"{name}, {provider}", check_provider(work, folder, provider, images, expected, name))


def check_provider(
    work: Work, folder: pathlib.Path, provider: Provider, images: np.ndarray, expected: np.ndarray, label: str
) -> Iterator[Check]:
    """Embeddings of a provider, by passes as in a job, with and without a CUDA graph as the plan says.

    Args:
        images: uint8 [B, S, S, 3].
        expected: float32 [B, D], of the same weights in fp32 on the CPU.
    """
    for cuda_graph in work.plan.cuda_graphs:
        name = f"{label}, {provider}{', CUDA graph' if cuda_graph else ''}"
        try:
            encoder = Encoder(folder, provider=provider, device_id=work.place.device_id or 0, cuda_graph=cuda_graph)
            with contextlib.closing(encoder.image_passes(max(1, len(images) // 4))) as passes:
                batches = np.array_split(images, 4)
                cosines = np.sum(through_passes(passes, batches) * expected, axis=1)
        except GridClipError as error:
            yield not_possible(name, str(error)) if provider == "tensorrt" else judged(name, False, str(error))
            continue
        lowest, floor = float(cosines.min()), SMALLEST_COSINE[encoder.info.precision]
        told = f"smallest cosine to fp32 on the CPU {lowest:.6f}, at least {floor:g} wanted"
        yield judged(name, lowest >= floor, told, cosines=[round(float(value), 7) for value in cosines])


def check_kernels(work: Work, folder: pathlib.Path, shape: ClipConfig, label: str) -> Iterator[Check]:
    """Which attention kernels ran: none may be the unfused one."""
    name = f"{label}: attention kernels"
    if work.place.device_id is None:
        yield not_possible(name, "these kernels are a GPU's")
        return
    kernels = attention_kernels.find_kernels(folder, device_id=work.place.device_id)
    nodes = shape.vision_layers
    right = not kernels[attention_kernels.UNFUSED] and sum(kernels.values()) == nodes
    yield judged(name, right, attention_kernels.judge(kernels, nodes), kernels=dict(kernels))


def check_placement(work: Work, folder: pathlib.Path, images: np.ndarray, label: str) -> Iterator[Check]:
    """Which provider ran each node of the image graph: on a card, none on the CPU, and no copies between the two."""
    name = f"{label}: where nodes run"
    provider = EXECUTION_PROVIDERS[work.place.providers[0]]
    options: dict[str, Any] = {} if work.place.device_id is None else {"device_id": str(work.place.device_id)}
    placed = find_placement(folder / "image.onnx", (provider, options), images[:2])
    told = ", ".join(f"{where} x {sum(found.values())}" for where, found in placed.items())
    values = {where: dict(found) for where, found in placed.items()}
    if provider == CPU:
        yield measured(name, told, nodes=values)
        return
    astray = [op for where, found in placed.items() for op in found if where == CPU or op in COPIES]
    told += f"; on the CPU, or copies: {', '.join(astray)}" if astray else "; none on the CPU, no copies"
    yield judged(name, bool(placed) and not astray, told, nodes=values)


def find_placement(
    graph: pathlib.Path, provider: tuple[str, dict[str, Any]], images: np.ndarray
) -> dict[str, collections.Counter[str]]:
    """How many nodes of each kind ran on each provider, in ONNX Runtime's own profile of one pass."""
    with tempfile.TemporaryDirectory() as scratch:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.enable_profiling = True
        options.profile_file_prefix = str(pathlib.Path(scratch) / "profile")
        session = onnxruntime.InferenceSession(str(graph), options, providers=[provider])
        session.run(None, {"super_images": images})
        return parse_profile(pathlib.Path(session.end_profiling()).read_text("utf-8"))


def parse_profile(text: str) -> dict[str, collections.Counter[str]]:
    """Nodes by provider and operator in the JSON of a profile, each node's kernel once."""
    placed: dict[str, collections.Counter[str]] = {}
    for event in json.loads(text):
        told = event.get("args", {})
        if event.get("cat") == "Node" and str(event.get("name", "")).endswith("_kernel_time") and told.get("provider"):
            placed.setdefault(told["provider"], collections.Counter())[told["op_name"]] += 1
    return placed


def _expected(work: Work, shape: ClipConfig) -> tuple[np.ndarray, np.ndarray]:
    """fp32 embeddings on the CPU, float32 [B, D], and their images: noise, and waves as smooth as photographs."""
    images = make_images(work.plan.images, shape.image_size)
    folder = models.random_folder(shape, "fp32", work.folder / "models")
    return Encoder(folder, provider="cpu").encode_images(images), images


def make_images(count: int, size_px: int) -> np.ndarray:
    """uint8 [count, size_px, size_px, 3]: every second one noise, the others waves."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, size_px, size_px, 3), dtype=np.uint8)
    rows, columns = np.mgrid[:size_px, :size_px] / size_px
    for number in range(1, count, 2):
        across, down, phase = rng.uniform(2, 20, (3, 3))
        waves = np.sin(columns[..., None] * across + rows[..., None] * down + phase)
        images[number] = (128 + 100 * waves).astype(np.uint8)
    return images
