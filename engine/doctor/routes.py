"""Findings in, the path that each stage takes and what to do for more out, by the routing that the jobs use."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from .. import routing
from .probes import Finding

CUDA_PROVIDER = "CUDAExecutionProvider"


@dataclasses.dataclass(frozen=True)
class Route:
    """What a stage of the work will use on this machine; path is None where nothing can."""

    stage: str
    path: str | None
    why: str


def facts(found: Mapping[str, Finding]) -> routing.Facts:
    """What the findings say, for the routing."""
    runtime, torch, dali, driver = (found[name] for name in ("onnxruntime", "torch", "nvidia-dali", "nvidia-smi"))
    gpu = None if driver.usable else driver.detail
    cuda = gpu
    if gpu is None and not (runtime.usable and CUDA_PROVIDER in runtime.detail):
        cuda = f"this ONNX Runtime has only {runtime.detail or 'errors'}"
    elif gpu is None and not (torch.usable and torch.detail.startswith("CUDA")):
        cuda = "this torch has no CUDA, and ONNX Runtime shares memory and stream with it"
    return routing.Facts(
        gpu_obstacle=gpu,
        cuda_obstacle=cuda,
        dali_obstacle=None if dali.usable else f"DALI is not usable ({dali.detail})",
        has_decord=found["decord"].usable,
        has_turbojpeg=found["libturbojpeg"].usable,
    )


def routes(found: Mapping[str, Finding]) -> tuple[Route, ...]:
    """The path that each stage takes, given what is usable."""

    def usable(name: str) -> bool:
        return found[name].usable

    taken = routing.route(facts(found))
    runtime_cuda, encoder_obstacle = taken.model.path == "cuda", taken.model.why_not
    torch_cuda = usable("torch") and found["torch"].detail.startswith("CUDA")
    second = "decord steps in when PyAV fails" if usable("decord") else "without a second decoder: decord is not usable"
    obstacle = taken.videos.why_not
    decoding, jpeg_on_gpu = "PyAV on the CPU", f"; not on a GPU: {obstacle}"
    if taken.videos.path == "hybrid":
        decoding, jpeg_on_gpu = "DALI on the GPU and PyAV on the CPU (hybrid)", ""
        second = f"the decoder dali leaves the CPU out; {second}"
    else:
        second += jpeg_on_gpu
    if usable("libturbojpeg"):
        jpeg, jpeg_why = "jpeg4py", found["libturbojpeg"].detail
    else:
        jpeg, jpeg_why = "Pillow", "slower; libturbojpeg is not usable"
    if taken.images.path == "dali":
        jpeg, jpeg_why = "DALI on the GPU", f"{jpeg} for what it cannot read"
    return (
        _route("find and prune packets", "PyAV", "packets only, nothing is decoded", needs=[found["av"]]),
        _route("decode videos", decoding, second, needs=[found["av"], found["Pillow"]]),
        _route("read JPEG super images", jpeg, jpeg_why + jpeg_on_gpu, needs=[found["Pillow"]]),
        _route(
            "embed images and texts",
            "ONNX Runtime on CUDA" if runtime_cuda else "ONNX Runtime on the CPU",
            found["onnxruntime"].detail if runtime_cuda else f"not on a GPU: {encoder_obstacle}",
            needs=[found["onnxruntime"], found["tokenizers"], found["ftfy"]],
        ),
        _route("store", "Lance", "one append per batch of whole videos", needs=[found["pylance"], found["pyarrow"]]),
        _route(
            "evaluate and search",
            "torch on CUDA" if torch_cuda else "torch on the CPU",
            found["torch"].detail,
            needs=[found["torch"]],
        ),
        _route(
            "export checkpoints",
            "torch to ONNX",
            "only for gridclip export, and where a checkpoint is the model",
            needs=[found[name] for name in ("torch", "onnx", "onnxruntime", "safetensors", "tokenizers")],
        ),
    )


def _route(stage: str, path: str, why: str, *, needs: list[Finding]) -> Route:
    missing = [finding.name for finding in needs if not finding.usable]
    return Route(stage, None, f"needs {', '.join(missing)}") if missing else Route(stage, path, why)


def advice(found: Mapping[str, Finding]) -> tuple[str, ...]:
    """What to do for what is missing, one sentence each."""
    lines = [f"{finding.name}: {finding.remedy}" for finding in found.values() if finding.remedy]
    runtime = found["onnxruntime"]
    if found["nvidia-smi"].usable and runtime.usable and CUDA_PROVIDER not in runtime.detail:
        lines.append(
            "the GPU is not used for embedding: pip uninstall onnxruntime onnxruntime-gpu, then pip install "
            "'onnxruntime-gpu[cuda,cudnn]'"
        )
    if found["nvidia-smi"].usable and found["torch"].usable and not found["torch"].detail.startswith("CUDA"):
        lines.append("the GPU is not used for evaluation: install a CUDA build of torch")
    return tuple(lines)
