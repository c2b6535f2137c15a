"""What ONNX Runtime raises in; sentences out: a graph or a model.json that is damaged fails when it runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from onnxruntime.capi import onnxruntime_pybind11_state as runtime

from ... import GridClipError

# They have no base class of their own.
RUNTIME_ERRORS = (
    runtime.EPFail,
    runtime.EngineError,
    runtime.Fail,
    runtime.InvalidArgument,
    runtime.InvalidGraph,
    runtime.NotImplemented,
    runtime.RuntimeException,
)


@contextlib.contextmanager
def explain_runtime_errors() -> Iterator[None]:
    """Raises GridClipError for what ONNX Runtime raises while a graph runs."""
    try:
        yield
    except RUNTIME_ERRORS as error:
        raise GridClipError(f"the model cannot be run: {error}; export it again") from error
