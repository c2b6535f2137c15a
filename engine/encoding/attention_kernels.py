"""A model folder in, the kernels that its attention nodes run on a GPU out: none may be the unfused fallback.

ONNX Runtime picks a kernel for every fused attention node by GPU, precision and shape, and says nothing when it falls
back to plain matrix products and a softmax ("MATH"). Asked by an environment variable, it prints its choice.
"""

from __future__ import annotations

import collections
import os
import pathlib
import re
import subprocess
import sys

import numpy as np

from ... import GridClipError

VARIABLE = "ORT_ENABLE_ATTENTION_KERNEL_DEBUG_INFO"
UNFUSED = "MATH"
_CHOICE = re.compile(r"Operator=(?:MultiHead)?Attention\b.*?\bSdpaKernel=(\w+)")
LIMIT_S = 600.0


def find_kernels(model_dir: pathlib.Path, *, batch_size: int = 8, device_id: int = 0) -> collections.Counter[str]:
    """How many attention nodes of the image graph ran on which kernel, in one pass on a GPU.

    Names are ONNX Runtime's: FLASH_ATTENTION, EFFICIENT_ATTENTION, CUDNN_FLASH_ATTENTION, TRT_FUSED_ATTENTION, MATH ...

    Raises:
        GridClipError: the model does not run on the GPU.
    """
    # The variable is read when the nodes are made, and printing goes past Python: so a process of its own.
    ended = subprocess.run(
        [sys.executable, "-m", __name__, str(model_dir), str(batch_size), str(device_id)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
        env={**os.environ, VARIABLE: "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    if ended.returncode:
        raise GridClipError(f"{model_dir} does not run on the GPU: {(ended.stderr.strip() or '?').splitlines()[-1]}")
    return parse_choices(ended.stdout)


def parse_choices(printed: str) -> collections.Counter[str]:
    """The kernels in what ONNX Runtime has printed."""
    return collections.Counter(_CHOICE.findall(printed))


def judge(kernels: collections.Counter[str], attention_nodes: int) -> str:
    """One line: the kernels, and what is wrong with them."""
    told = ", ".join(f"{kernel} x {count}" for kernel, count in sorted(kernels.items())) or "none was told"
    if kernels[UNFUSED]:
        return f"{told}: {kernels[UNFUSED]} of {attention_nodes} nodes run unfused: export with `precision='fp16'`"
    if sum(kernels.values()) != attention_nodes:
        return f"{told}: the model has {attention_nodes} attention nodes, so ONNX Runtime did not tell of all"
    return f"{told}: all fused"


def main() -> None:
    """One pass, for `find_kernels`."""
    from .encoder import Encoder

    encoder = Encoder(pathlib.Path(sys.argv[1]), provider="cuda", device_id=int(sys.argv[3]))
    size = encoder.info.image_size
    encoder.encode_images(np.zeros((int(sys.argv[2]), size, size, 3), np.uint8))


if __name__ == "__main__":
    main()
