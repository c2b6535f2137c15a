"""A DALI graph in, a running pipeline out, and its outputs as torch tensors: what both pipelines have in common."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from typing import Any

import torch

from ... import GridClipError
from ..contract import PipelineError

logger = logging.getLogger(__name__)

INSTALL = "pip install nvidia-dali-cuda130"


def ops() -> tuple[Any, Any]:
    """DALI's operators and types; raises GridClipError where it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from nvidia.dali import fn, types
    except ImportError as error:
        raise GridClipError(f"DALI cannot be used ({error}): {INSTALL}, or `decoder='pyav'`") from error
    return fn, types


def start(graph: Callable[[], tuple[Any, ...]], device_id: int | None, *, max_items: int, num_threads: int) -> Any:
    """Builds a pipeline whose outputs are what `graph` returns.

    The dynamic executor gives every batch memory of its own: outputs stay valid for as long as they are held.
    """
    ops()
    from nvidia.dali import Pipeline

    pipeline = Pipeline(
        batch_size=max_items, num_threads=num_threads, device_id=device_id, prefetch_queue_depth=1, exec_dynamic=True
    )
    with pipeline:
        pipeline.set_outputs(*graph())
    try:
        pipeline.build()
    except RuntimeError as error:
        raise GridClipError(f"DALI cannot build its pipeline: {describe(error)}") from error
    return pipeline


def as_torch(tensor: Any) -> torch.Tensor:
    """A tensor of DALI's, without a copy."""
    return torch.from_dlpack(tensor)


def check_shape(what: str, found: tuple[int, ...], expected: tuple[int, ...]) -> None:
    """Raises PipelineError where DALI made more, fewer or other pixels than it was asked for."""
    if found != expected:
        raise PipelineError(f"DALI: {what} came back as {list(found)}, expected {list(expected)}")


def describe(error: RuntimeError) -> str:
    """What went wrong, in one line, of DALI's long messages."""
    text = str(error)
    cause = text.split("encountered:", 1)[-1].strip() or text.strip()
    return "DALI: " + " ".join(cause.split("C++ context")[0].split())[:200]
