"""A torch CLIP model and uint8 super images in; for each runtime a function out that embeds these images.

All of them take the same super images from the host's memory and give float32 [N, D] of unit length back to it, with
the same weights. One that cannot run here raises LeftOut with the reason.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import importlib
import os
import pathlib
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..engine.encoding.encoder import Encoder
from ..engine.encoding.passes import Passes
from ..export.clip_graphs import write_image_graph
from ..export.clip_model import CLIP, normalise_pixels
from ..export.model_info import ModelInfo, write_model_info

Candidate = Callable[[], np.ndarray]


class LeftOut(Exception):
    """A peer that cannot run on this machine; the message says why."""


@dataclasses.dataclass(frozen=True)
class Task:
    """What every candidate does.

    Attributes:
        model: gives the weights, fp32 on the CPU.
        batches: uint8 [B, S, S, 3] each; a candidate embeds all of them per call.
        threads: of the CPU.
        device: "cpu" or "cuda".
        dtype: in which torch computes.
        scratch: a folder for graphs.
    """

    model: CLIP
    batches: list[np.ndarray]
    threads: int
    device: str
    dtype: torch.dtype
    scratch: pathlib.Path


def torch_eager(task: Task) -> Candidate:
    """The torch model as it is; its attention is torch's scaled_dot_product_attention."""
    return _with_torch(task, _on_device(task, task.model.visual))


def torch_compiled(task: Task) -> Candidate:
    """torch.compile with its defaults."""
    compilers = [os.environ.get("CXX", ""), "g++", "c++", "clang++"]
    if task.device == "cpu" and not any(map(shutil.which, filter(None, compilers))):
        raise LeftOut("torch.compile needs a C++ compiler, and there is none here")
    candidate = _with_torch(task, torch.compile(_on_device(task, task.model.visual)))
    try:
        candidate()  # this compiles
    except (RuntimeError, OSError) as error:  # what inductor raises for a compiler that fails, or Triton that lacks
        raise LeftOut(f"torch.compile failed: {_first_line(error)}") from error
    return candidate


def transformers_sdpa(task: Task) -> Candidate:
    """Hugging Face transformers' CLIPVisionModelWithProjection with scaled_dot_product_attention."""
    transformers = _imported("transformers")
    config = task.model.config
    tower = transformers.CLIPVisionModelWithProjection(
        transformers.CLIPVisionConfig(
            hidden_size=config.vision_width,
            intermediate_size=config.vision_mlp_width,
            projection_dim=config.embed_dim,
            num_hidden_layers=config.vision_layers,
            num_attention_heads=config.vision_heads,
            image_size=config.image_size,
            patch_size=config.patch_size,
            hidden_act=config.activation,
            attn_implementation="sdpa",
        )
    ).eval()
    tower.load_state_dict(hugging_face_weights(task.model), assign=True)
    tower = tower.requires_grad_(False).to(task.device, task.dtype)
    return _with_torch(task, lambda pixels: tower(pixel_values=pixels).image_embeds)


def hugging_face_weights(model: CLIP) -> dict[str, Tensor]:
    """The image tower's weights under the names that transformers gives them; views, not copies."""
    weights = {}
    for key, tensor in model.visual.state_dict().items():
        if key == "proj":
            weights["visual_projection.weight"] = tensor.T
            continue
        for old, new in _HUGGING_FACE_NAMES:
            key = key.replace(old, new)
        if ".attn.in_proj_" in key:
            for part, rows in zip("qkv", tensor.chunk(3), strict=True):
                weights[key.replace(".attn.in_proj_", f".self_attn.{part}_proj.")] = rows
        else:
            weights[key] = tensor
    return weights


_HUGGING_FACE_NAMES = (
    ("class_embedding", "vision_model.embeddings.class_embedding"),
    ("positional_embedding", "vision_model.embeddings.position_embedding.weight"),
    ("conv1.", "vision_model.embeddings.patch_embedding."),
    ("ln_pre.", "vision_model.pre_layrnorm."),  # misspelt there
    ("ln_post.", "vision_model.post_layernorm."),
    ("transformer.resblocks.", "vision_model.encoder.layers."),
    (".ln_1.", ".layer_norm1."),
    (".ln_2.", ".layer_norm2."),
    (".attn.out_proj.", ".self_attn.out_proj."),
    (".mlp.c_fc.", ".mlp.fc1."),
    (".mlp.c_proj.", ".mlp.fc2."),
)


def onnxruntime_on_cpu(task: Task, precision: str) -> Candidate:
    """GridCLIP's graph in ONNX Runtime on the CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = task.threads
    # Its threads otherwise go on spinning for a while after each call, on the cores that the next candidate is given.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(_graph(task, precision), options, providers=["CPUExecutionProvider"])
    return lambda: np.concatenate([session.run(None, {"super_images": batch})[0] for batch in task.batches])


def onnxruntime_on_cuda(task: Task, precision: str) -> Candidate:
    """GridCLIP's graph in ONNX Runtime with CUDA, in a job's passes: IO binding, the next copy during a pass."""
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise LeftOut("this ONNX Runtime has no CUDA: pip install '.[gpu]'")
    folder = task.scratch / precision
    write_image_folder(task.model, folder, precision)
    passes = Encoder(folder, provider="cuda").image_passes(len(task.batches[0]))
    return lambda: through_passes(passes, task.batches)


def write_image_folder(model: CLIP, folder: pathlib.Path, precision: str) -> None:
    """A model folder without a text graph, of a model whose weights do not matter."""
    folder.mkdir(parents=True)
    write_image_graph(model, folder / "image.onnx", precision)
    names = ("image_size", "embed_dim", "context_length", "start_token", "end_token")
    sizes = {name: getattr(model.config, name) for name in names}
    info = ModelInfo(name="random weights", precision=precision, fingerprint="", **sizes)
    write_model_info(info, folder)


def through_passes(passes: Passes, batches: list[np.ndarray]) -> np.ndarray:
    """Embeddings of all batches, as many in flight as there may be."""
    embeddings = []
    for batch in batches:
        passes.put(batch, 0)
        if passes.in_flight == passes.depth:
            embeddings.append(passes.collect())
        passes.launch(len(batch))
    while passes.in_flight:
        embeddings.append(passes.collect())
    return np.concatenate(embeddings)


def openvino_of_graph(task: Task) -> Candidate:
    """OpenVINO with the fp32 graph that ONNX Runtime gets; its reader takes the fused operators apart."""
    openvino = _openvino()
    graph = openvino.Core().read_model(_graph(task, "fp32"))
    return _with_openvino(task, openvino, graph, lambda batch: batch)


def openvino_of_torch(task: Task) -> Candidate:
    """OpenVINO with the graph that it makes of the torch model itself."""
    openvino = _openvino()
    with _no_trace_warnings():
        graph = openvino.convert_model(task.model.visual, example_input=_pixels(task.batches[0]))
    return _with_openvino(task, openvino, graph, lambda batch: _pixels(batch).numpy())


def _with_openvino(
    task: Task, openvino: ModuleType, graph: Any, prepare: Callable[[np.ndarray], np.ndarray]
) -> Candidate:
    graph.reshape(list(prepare(task.batches[0]).shape))
    settings = {
        "INFERENCE_NUM_THREADS": task.threads,
        "INFERENCE_PRECISION_HINT": "f32",  # its default is bf16 where the processor has that
        "PERFORMANCE_HINT": "LATENCY",  # one batch at a time on all cores, as the others have it
    }
    compiled = openvino.Core().compile_model(graph, "CPU", settings)

    def candidate() -> np.ndarray:
        return _unit(np.concatenate([compiled([prepare(batch)])[0] for batch in task.batches]))

    return candidate


def _openvino() -> ModuleType:
    # openvino reports its import and every conversion to its makers, and writes a client id into the home folder, when
    # this package can be imported. A benchmark has nothing to report.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    return _imported("openvino")


def _imported(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise LeftOut(f"{name} cannot be imported ({_first_line(error)}): pip install '.[bench]'") from error


def _with_torch(task: Task, encode: Callable[[Tensor], Tensor]) -> Candidate:
    batches = [torch.from_numpy(batch) for batch in task.batches]
    if task.device == "cuda":
        batches = [batch.pin_memory() for batch in batches]

    @torch.inference_mode()
    def candidate() -> np.ndarray:
        embedded = []
        for batch in batches:
            pixels = normalise_pixels(batch.to(task.device, non_blocking=True)).to(task.dtype)
            embedded.append(F.normalize(encode(pixels).float(), dim=-1))
        return torch.cat(embedded).cpu().numpy()

    return candidate


def _on_device(task: Task, module: nn.Module) -> nn.Module:
    if task.device == "cpu" and task.dtype == torch.float32:
        return module
    return copy.deepcopy(module).to(task.device, task.dtype)


def _graph(task: Task, precision: str) -> pathlib.Path:
    path = task.scratch / f"{precision}.onnx"
    if not path.exists():
        write_image_graph(task.model, path, precision)
    return path


def _pixels(batch: np.ndarray) -> Tensor:
    return normalise_pixels(torch.from_numpy(batch)).contiguous()


def _unit(embeddings: np.ndarray) -> np.ndarray:
    return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200]


@contextlib.contextmanager
def _no_trace_warnings() -> Iterator[None]:
    """Silences what tracing says of itself, and of sizes in the model's code: they stay as they are traced."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        yield
