"""What ONNX Runtime, torch and the driver have in, the provider that runs the graphs out: "cpu", "cuda", "tensorrt"."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import io
import logging
from typing import Literal

import onnxruntime

from ... import GridClipError
from ...dali_pipes.nvdali.nvidia_driver import first_gpu

logger = logging.getLogger(__name__)

Provider = Literal["auto", "cpu", "cuda", "tensorrt"]
EXECUTION_PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
INSTALL = "pip uninstall onnxruntime onnxruntime-gpu, then pip install 'onnxruntime-gpu[cuda,cudnn]'"


def available_providers() -> list[str]:
    """ONNX Runtime's names of the providers that it was built with, and of those that were registered as plug-ins."""
    _load_cuda()
    names = list(onnxruntime.get_available_providers())
    return names + sorted({device.ep_name for device in onnxruntime.get_ep_devices()} - set(names))


def installed_wheels() -> list[str]:
    """The installed distributions that bring ONNX Runtime; of several, the last one has overwritten the others."""
    return sorted(set(importlib.metadata.packages_distributions().get("onnxruntime", [])))


def choose_provider(provider: Provider) -> Literal["cpu", "cuda", "tensorrt"]:
    """The provider to use: the given one, if ONNX Runtime here has it; for "auto" the fastest that it has.

    A machine with an NVIDIA GPU that "auto" cannot use gets a warning.

    Raises:
        GridClipError: a provider was named that cannot be used.
    """
    if provider == "cpu":
        return "cpu"
    if provider != "auto" and provider not in EXECUTION_PROVIDERS:
        raise ValueError(f"provider ({provider!r}) must be auto, {', '.join(EXECUTION_PROVIDERS)}")
    wanted: Literal["cuda", "tensorrt"] = "cuda" if provider == "auto" else provider
    obstacle = _obstacle(wanted)
    if obstacle is None:
        return wanted
    if provider != "auto":
        raise GridClipError(f"`provider={provider!r}` cannot be used: {obstacle}; or use the CPU")
    if first_gpu() is not None:
        logger.warning("THE GPU IS NOT USED, the model runs on the CPU: %s (no GPU wanted? `num_gpus=0`)", obstacle)
    return "cpu"


def check_gpus(provider: Provider, num_gpus: int) -> None:
    """Raises GridClipError where a job asks for more GPUs than there are."""
    if num_gpus < 2:
        return
    if provider == "cpu":
        raise GridClipError(
            f"{num_gpus} GPUs were asked for (`num_gpus`), and ONNX Runtime has none here; see `gridclip doctor`"
        )
    import torch

    if num_gpus > torch.cuda.device_count():
        raise GridClipError(
            f"{num_gpus} GPUs were asked for (`num_gpus`), and torch shows {torch.cuda.device_count()} on this machine"
        )


def _obstacle(provider: Literal["cuda", "tensorrt"]) -> str | None:
    """Why the graphs cannot run there, and what to do; None where they can."""
    available = available_providers()
    if EXECUTION_PROVIDERS[provider] not in available:
        wheels = installed_wheels()
        both = f"{' and '.join(wheels)} overwrite each other's files and " if len(wheels) > 1 else ""
        return f"{both}this ONNX Runtime has only {', '.join(available)}: {INSTALL}"
    if not _torch_has_cuda():
        return "torch shows no GPU, see `gridclip doctor`"
    return None


def _torch_has_cuda() -> bool:
    """ONNX Runtime shares memory and stream with torch, so both must see the GPU."""
    import torch

    return torch.cuda.is_available()


@functools.cache
def _load_cuda() -> None:
    """Loads CUDA and cuDNN from their wheels, where ONNX Runtime does not look by itself; it prints what it misses."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        onnxruntime.preload_dlls()
    if printed.getvalue():
        logger.debug("onnxruntime.preload_dlls: %s", printed.getvalue().strip())
