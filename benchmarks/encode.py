"""ViT-L/14 with random weights in, images per second of torch, other runtimes and the exported graphs out.

    python -m gridclip.benchmarks.encode                  writes benchmarks/results/encode_cpu.json
    python -m gridclip.benchmarks.encode --device cuda    in half precision on a GPU, encode_cuda.json
    python -m gridclip.benchmarks.encode --long           three times the repetitions

Weights do not matter for speed, so the real shape with random values stands for the real model. All candidates get the
same weights, the same uint8 super images and the same cores, in turns with a large matrix product, whose rate is the
peak that a share is taken of. All candidates are in memory at once: ViT-L/14 needs 10 GB.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import os
import pathlib
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ..export.clip_model import CLIP, ClipConfig
from . import encode_peers, matrix_rate, measure
from .encode_peers import Candidate, LeftOut, Task

VIT_L_14 = ClipConfig(
    image_size=224,
    patch_size=14,
    vision_width=1024,
    vision_layers=24,
    vision_heads=16,
    text_width=768,
    text_layers=1,  # the text tower takes no part
    text_heads=12,
    context_length=77,
    vocab_size=49408,
    embed_dim=768,
)
PACKAGES = ("torch", "onnxruntime", "onnxruntime-gpu", "onnx", "numpy", "transformers", "openvino")
PRODUCT = "matrix product"
NO_GPU = "torch finds no GPU on this machine, so nothing was measured: --device cuda needs one"
DTYPES = {"cpu": torch.float32, "cuda": torch.float16}
PRECISION_NAMES = {"cpu": "fp32", "cuda": "fp16"}
BATCH_SIZES = {"cpu": 4, "cuda": 64}
BATCHES = {"cpu": 1, "cuda": 8}  # per call: on a GPU enough for copies to run beside passes
# Processor features that decide how fast int8 can be. With AVX2 alone a core multiplies at most 32 int8 pairs a cycle,
# twice its 16 of fp32; VNNI doubles that.
_INT8_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8")


def peers(device: str, precisions: Sequence[str]) -> dict[str, Callable[[Task], Candidate]]:
    """What makes each candidate, by its name; the first one is what the others are compared with."""
    name = PRECISION_NAMES[device]
    makers: dict[str, Callable[[Task], Candidate]] = {
        f"torch eager {name}": encode_peers.torch_eager,
        f"torch.compile {name}": encode_peers.torch_compiled,
        f"transformers SDPA {name}": encode_peers.transformers_sdpa,
    }
    if device == "cpu":
        makers["OpenVINO fp32"] = encode_peers.openvino_of_torch
        makers["OpenVINO fp32, GridCLIP's graph"] = encode_peers.openvino_of_graph
    runtime = encode_peers.onnxruntime_on_cpu if device == "cpu" else encode_peers.onnxruntime_on_cuda
    for precision in precisions:
        makers[f"onnxruntime {precision}"] = functools.partial(runtime, precision=precision)
    return makers


def run(
    *,
    device: str = "cpu",
    batch_size: int | None = None,
    repetitions: int = 3,
    threads: int | None = None,
    precisions: Sequence[str] = ("fp32", "fp16", "int8"),
    config: ClipConfig = VIT_L_14,
    matrix_side: int | None = None,
) -> dict[str, dict[str, Any]]:
    """Measure all candidates.

    Args:
        device: "cpu" or "cuda".
        batch_size: super images per pass; default: BATCH_SIZES.
        repetitions: measured calls of each candidate, in turns, after one that is not counted.
        threads: cores for each candidate; default: all that this process may use.
        precisions: of the graphs that ONNX Runtime runs.
        config: sizes of the model.
        matrix_side: of the matrix product that gives the peak; default: see matrix_rate.

    Returns:
        Per candidate: every repetition in seconds, images per second of the median, ratio to torch eager, smallest
        cosine to torch's embeddings in fp32, share of the matrix product's rate (int8 may exceed 1); or why it was
        left out. Under PRODUCT, that rate.
    """
    threads = threads or len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    torch.backends.cudnn.allow_tf32 = False  # the embeddings to compare with are to be fp32 throughout
    torch.manual_seed(0)
    model = CLIP(config).requires_grad_(False).eval()
    shape = (batch_size or BATCH_SIZES[device], config.image_size, config.image_size, 3)
    rng = np.random.default_rng(0)
    batches = [rng.integers(0, 256, shape, dtype=np.uint8) for _ in range(BATCHES[device])]
    product = matrix_rate.matrix_product(device, DTYPES[device], matrix_side)
    with tempfile.TemporaryDirectory() as scratch:
        task = Task(model, batches, threads, device, DTYPES[device], pathlib.Path(scratch))
        expected = encode_peers.torch_eager(dataclasses.replace(task, dtype=torch.float32))()
        candidates, left_out = _made(task, peers(device, precisions))
        cosines = {name: float((candidate() * expected).sum(axis=1).min()) for name, candidate in candidates.items()}
        product.multiply()
        seconds = measure.interleaved({PRODUCT: product.multiply, **candidates}, repetitions=repetitions)
    peak = product.flop / statistics.median(seconds.pop(PRODUCT))
    entries = _entries(seconds, cosines, images=len(expected), flop=matrix_rate.flop_per_image(config), peak=peak)
    rate = {"precision": PRECISION_NAMES[device], "side": product.side, "tflop_per_s": measure.significant(peak / 1e12)}
    return entries | {name: {"left_out": reason} for name, reason in left_out.items()} | {PRODUCT: rate}


def _made(task: Task, makers: Mapping[str, Callable[[Task], Candidate]]) -> tuple[dict[str, Candidate], dict[str, str]]:
    """The candidates that run here, and why the others do not."""
    candidates, left_out = {}, {}
    for name, make in makers.items():
        try:
            candidates[name] = make(task)
        except LeftOut as reason:
            left_out[name] = str(reason)
    return candidates, left_out


def _entries(
    seconds: Mapping[str, list[float]], cosines: Mapping[str, float], *, images: int, flop: int, peak: float
) -> dict[str, dict[str, Any]]:
    medians = measure.medians(seconds)
    eager = next(iter(medians.values()))
    return {
        name: {
            "seconds": [round(value, 4) for value in seconds[name]],
            "images_per_s": measure.significant(images / median),
            "times_torch_eager": measure.significant(eager / median),
            "share_of_peak": measure.significant(images / median * flop / peak),
            "smallest_cosine": round(cosines[name], 6),
        }
        for name, median in medians.items()
    }


def processor_flags() -> list[str]:
    """Which of the flags that matter for int8 this machine shows."""
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    words = set(cpuinfo.read_text().split()) if cpuinfo.exists() else set()
    return [flag for flag in _INT8_FLAGS if flag in words]


def main(argv: Sequence[str] | None = None) -> None:
    """The command: measures, prints and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--image-size", type=int, default=224, help="of the model in pixels, 224 or 336")
    parser.add_argument("--batch-size", type=int, help="super images per pass (default: 4, on a GPU 64)")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--long", action="store_true", help="three times the repetitions")
    parser.add_argument("--threads", type=int, help="default: one per core")
    parser.add_argument("--precisions", help="comma-separated: fp32, fp16, int8 (default: all; on a GPU fp16)")
    parser.add_argument("--json", type=pathlib.Path)
    arguments = parser.parse_args(argv)
    device = arguments.device
    if device == "cuda" and not torch.cuda.is_available():
        parser.exit(1, f"{NO_GPU}\n")
    config = dataclasses.replace(VIT_L_14, image_size=arguments.image_size)
    measured = {
        "batch_size": arguments.batch_size or BATCH_SIZES[device],
        "repetitions": arguments.repetitions * (3 if arguments.long else 1),
        "threads": arguments.threads or len(os.sched_getaffinity(0)),
        "precisions": (arguments.precisions or ("fp32,fp16,int8" if device == "cpu" else "fp16")).split(","),
    }
    settings = {
        "model": f"ViT-L/14, {config.image_size} pixels, random weights",
        "device": device if device == "cpu" else torch.cuda.get_device_name(),
        **measured,
        "batches_per_call": BATCHES[device],
        "flop_per_image": matrix_rate.flop_per_image(config),
        "int8_flags": processor_flags(),
        "load_at_start": round(os.getloadavg()[0], 2),
    }
    results = run(device=device, config=config, **measured)
    path = arguments.json or measure.RESULTS / f"encode_{device}.json"
    measure.write(path, packages=PACKAGES, settings=settings, results=results)
    _print(results)


def _print(results: Mapping[str, Mapping[str, Any]]) -> None:
    print(f"{'':32} {'images/s':>9} {'x torch':>8} {'of peak':>8} {'cosine':>9}")
    for name, entry in results.items():
        if "left_out" in entry:
            print(f"{name:32} left out: {entry['left_out']}")
        elif "images_per_s" in entry:
            figures = "{images_per_s:9.2f} {times_torch_eager:8.2f} {share_of_peak:8.0%} {smallest_cosine:9.6f}"
            print(f"{name:32} {figures.format(**entry)}")
    peak = "the peak: {tflop_per_s:.3g} TFLOP/s, one {precision} matrix product of side {side}"
    print(peak.format(**results[PRODUCT]))


if __name__ == "__main__":
    main()
