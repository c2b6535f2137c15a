"""ViT-L/14 with random weights in, images per second of torch and of the exported graphs out.

    python -m benchmarks.encode            writes benchmarks/results/encode_cpu.json

Weights do not matter for speed, so the real shape with random values stands for the real model. All candidates get the
same uint8 super images and the same cores, in turns.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import tempfile
from collections.abc import Callable, Sequence

import numpy as np
import onnxruntime
import torch
from gridclip.export.clip_model import CLIP, ClipConfig, normalise_pixels
from gridclip.export.graphs import write_image_graph
from torch.nn import functional as F

from . import measure

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
PACKAGES = ("torch", "onnxruntime", "onnx", "numpy")
# Processor features that decide how fast int8 can be. With AVX2 alone a core multiplies at most 32 int8 pairs a cycle,
# twice its 16 of fp32; VNNI doubles that.
_INT8_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8")


def run(
    *,
    batch_size: int = 4,
    repetitions: int = 7,
    threads: int | None = None,
    precisions: Sequence[str] = ("fp32", "int8"),
    compile_torch: bool = False,
    config: ClipConfig = VIT_L_14,
) -> dict[str, object]:
    """Measure all candidates.

    Args:
        batch_size: super images per call.
        repetitions: measured calls of each candidate, in turns, after one that is not counted.
        threads: cores for each candidate; default: all that this process may use.
        precisions: graphs to measure besides torch in fp32.
        compile_torch: measure torch.compile as well (it needs a C++ compiler).
        config: sizes of the model.

    Returns:
        Per candidate: every repetition in seconds, median images per second, ratio to torch eager, and the smallest
        cosine to its embeddings.
    """
    threads = threads or int(measure.machine()["cores"])  # type: ignore[call-overload]
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = CLIP(config).requires_grad_(False).eval()
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (batch_size, config.image_size, config.image_size, 3), dtype=np.uint8)

    def with_torch(encode: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[], np.ndarray]:
        def candidate() -> np.ndarray:
            with torch.inference_mode():
                return F.normalize(encode(normalise_pixels(torch.from_numpy(images))), dim=-1).numpy()

        return candidate

    candidates = {"torch eager fp32": with_torch(model.encode_image)}
    if compile_torch:
        candidates["torch.compile fp32"] = with_torch(torch.compile(model.encode_image))
    with tempfile.TemporaryDirectory() as scratch:
        for precision in precisions:
            path = pathlib.Path(scratch) / f"{precision}.onnx"
            write_image_graph(model, path, precision)
            candidates[f"onnxruntime {precision}"] = _graph(path, images, threads)
        expected = candidates["torch eager fp32"]()
        cosines = {name: float((candidate() * expected).sum(axis=1).min()) for name, candidate in candidates.items()}
        seconds = measure.interleaved(candidates, repetitions=repetitions)
    medians = measure.medians(seconds)
    return {
        name: {
            "seconds": [round(value, 4) for value in seconds[name]],
            "images_per_s": round(batch_size / medians[name], 3),
            "times_torch_eager": round(medians["torch eager fp32"] / medians[name], 3),
            "smallest_cosine": round(cosines[name], 6),
        }
        for name in candidates
    }


def _graph(path: pathlib.Path, images: np.ndarray, threads: int) -> Callable[[], np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Its threads otherwise go on spinning for a while after each call, on the cores that the next candidate is given.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"super_images": images})[0]


def processor_flags() -> list[str]:
    """Which of the flags that matter for int8 this machine shows."""
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    words = set(cpuinfo.read_text().split()) if cpuinfo.exists() else set()
    return [flag for flag in _INT8_FLAGS if flag in words]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--precisions", default="fp32,int8", help="comma-separated: fp32, fp16, int8")
    parser.add_argument("--compile", action="store_true", help="measure torch.compile too")
    parser.add_argument("--json", type=pathlib.Path, default=measure.RESULTS / "encode_cpu.json")
    arguments = parser.parse_args()
    settings = {
        "model": "ViT-L/14, 224 pixels, random weights",
        "batch_size": arguments.batch_size,
        "repetitions": arguments.repetitions,
        "threads": arguments.threads,
        "int8_flags": processor_flags(),
        "load_at_start": round(os.getloadavg()[0], 2),
    }
    results = run(
        batch_size=arguments.batch_size,
        repetitions=arguments.repetitions,
        threads=arguments.threads,
        precisions=arguments.precisions.split(","),
        compile_torch=arguments.compile,
    )
    measure.write(arguments.json, packages=PACKAGES, settings=settings, results=results)
    print(f"{'':20} {'images/s':>9} {'x torch':>8} {'cosine':>9}")
    for name, result in results.items():
        assert isinstance(result, dict)
        print("{:20} {images_per_s:9.3f} {times_torch_eager:8.2f} {smallest_cosine:9.6f}".format(name, **result))


if __name__ == "__main__":
    main()
