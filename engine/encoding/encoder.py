"""A model folder and super images or captions in, L2-normalised CLIP embeddings float32 [B, D] out (ONNX Runtime)."""

from __future__ import annotations

import functools
import logging
import pathlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime

from ... import GridClipError
from ...export.model_info import read_model_info
from .cpu_passes import CpuPasses
from .image_graph import ImageGraph
from .passes import Passes
from .providers import EXECUTION_PROVIDERS, Provider, choose_provider
from .runtime_errors import explain_runtime_errors
from .text import Tokenizer

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)


class Encoder:
    """Runs the graphs of a model folder; each is loaded at its first use.

    Args:
        model_dir: a model folder.
        provider: where the graphs run; "auto" is CUDA where ONNX Runtime has it, and TensorRT is only taken when named.
        num_threads: CPU threads of ONNX Runtime, default one per core.
        device_id: the GPU, for the other providers than "cpu".
        cuda_graph: on a GPU, record each batch's kernels once and replay them.

    Attributes:
        model_dir, cuda_graph: as given.
        info: what model.json says.
        provider: "cpu", "cuda" or "tensorrt".
        device_id: the GPU; None on the CPU.

    Raises:
        GridClipError: `model_dir` is no model folder, or ONNX Runtime here has no such provider.
    """

    def __init__(
        self,
        model_dir: pathlib.Path,
        *,
        provider: Provider = "auto",
        num_threads: int | None = None,
        device_id: int = 0,
        cuda_graph: bool = False,
    ) -> None:
        if num_threads is not None and num_threads < 1:
            raise ValueError(f"num_threads ({num_threads}) must be >= 1")
        self.model_dir = pathlib.Path(model_dir)
        self.info = read_model_info(self.model_dir)
        self.provider = choose_provider(provider)
        self._num_threads = num_threads
        self.device_id = None if self.provider == "cpu" else device_id
        self.cuda_graph = cuda_graph
        self._sessions: dict[str, onnxruntime.InferenceSession] = {}

    def image_passes(self, batch_size: int, cells: int | None = None) -> Passes:
        """Passes of one batch size through an image graph, for jobs that embed many super images.

        Args:
            batch_size: super images of a pass, >= 1.
            cells: see `encode_images`.
        """
        if self.device_id is None:
            return CpuPasses(self._image_graph(cells, self._loaded), batch_size)
        from .cuda_passes import CudaPasses  # imports torch

        # Not the session of encode_images(), whose shapes a CUDA graph does not fit.
        graph = self._image_graph(cells, functools.partial(self._session, cuda_graph=self.cuda_graph))
        return CudaPasses(graph, self._stream, batch_size, cuda_graph=self.cuda_graph)

    def encode_images(self, super_images: np.ndarray, cells: int | None = None) -> np.ndarray:
        """Embeds a batch of super images.

        Args:
            super_images: uint8 [B, S, S, 3], RGB, S the model's image size.
            cells: cells per row and column of the super images, to embed each of them, too, in the same pass; see
                `ModelFacts.cell_patches`. Default: none.

        Returns:
            float32 [B, D]; with cells [B, 1 + cells * cells, D]: the super image, which is the same with and without,
            then its cells row by row, left to right, unused ones included.

        Raises:
            ValueError: the super images are of another kind or size, or `cells` is out of range.
            GridClipError: the model folder has no graph with cells.
        """
        size = self.info.image_size
        if super_images.dtype != np.uint8 or super_images.ndim != 4 or super_images.shape[1:] != (size, size, 3):
            raise ValueError(
                f"super_images ({super_images.dtype} {list(super_images.shape)}) must be uint8 [B, {size}, {size}, 3]: "
                f"the model {self.info.name} has image size {size}"
            )
        graph = self._image_graph(cells, self._loaded)
        if not len(super_images):
            return np.zeros(graph.embeddings_shape(0), np.float32)
        return graph.run(super_images)

    def encode_texts(
        self,
        texts: Sequence[str],
        *,
        batch_size: int = 128,
        max_chars: int | None = None,
        max_length: int | None = None,
    ) -> np.ndarray:
        """Embeds texts.

        Args:
            texts: Q captions.
            batch_size: texts per pass, >= 1.
            max_chars: see `Tokenizer`.
            max_length: see `Tokenizer`.

        Returns:
            float32 [Q, D].
        """
        if batch_size < 1:
            raise ValueError(f"batch_size ({batch_size}) must be >= 1")
        token_ids = self.tokenizer(texts, max_chars=max_chars, max_length=max_length)
        embeddings = np.zeros((len(texts), self.info.embed_dim), np.float32)
        lengths = np.full(len(texts), token_ids.shape[1])
        if self.info.ignores_padding:  # so cut it off, texts of like length together
            lengths = (token_ids == self.info.end_token).argmax(1) + 1
        order = np.argsort(lengths, kind="stable")
        for first in range(0, len(texts), batch_size):
            rows = order[first : first + batch_size]
            batch = np.ascontiguousarray(token_ids[rows, : lengths[rows].max()])
            with explain_runtime_errors():
                embeddings[rows] = self._loaded("text.onnx").run(["embeddings"], {"token_ids": batch})[0]
        return embeddings

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """The model folder's tokenizer."""
        return Tokenizer(self.model_dir)

    @functools.cached_property
    def _stream(self) -> torch.cuda.Stream:
        """The stream that ONNX Runtime shares with torch: copies and kernels follow each other without a wait."""
        import torch

        return torch.cuda.Stream(device=self.device_id)  # type: ignore[no-untyped-call]

    def _image_graph(self, cells: int | None, load: Callable[[str], onnxruntime.InferenceSession]) -> ImageGraph:
        """The graph for super images with or without cells, its session as `load` gives it for a file's name."""
        size_px, dim = self.info.image_size, self.info.embed_dim
        if cells is None:
            return ImageGraph(load("image.onnx"), size_px, (dim,))
        if self.info.has_cells is None:
            raise GridClipError(
                f"the model folder {self.model_dir} is from before GridCLIP could embed the cells of super images: "
                "export the model again, which changes none of its other embeddings, or leave out `cells`"
            )
        if not self.info.has_cells:
            raise GridClipError(
                f"the model {self.info.name} cannot embed the cells of super images (family {self.info.family}): "
                "leave out `cells`"
            )
        patches = self.info.cell_patches(cells)
        return ImageGraph(load("image_cells.onnx"), size_px, (1 + len(patches), dim), {"cell_patches": patches})

    def _loaded(self, name: str) -> onnxruntime.InferenceSession:
        if name not in self._sessions:
            self._sessions[name] = self._session(name)
        return self._sessions[name]

    def _session(self, name: str, *, cuda_graph: bool = False) -> onnxruntime.InferenceSession:
        path = self.model_dir / name
        if not path.is_file():
            raise GridClipError(f"{self.model_dir} lacks {name}: export the model again")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        # Threads that wait for work would otherwise keep the cores from the processes that decode.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if self._num_threads is not None:
            options.intra_op_num_threads = self._num_threads
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=self._providers(cuda_graph))
        except Exception as error:
            raise GridClipError(f"{path} cannot be loaded: {error}; export the model again") from error
        # ONNX Runtime goes on without a provider that it cannot load.
        if session.get_providers()[0] != EXECUTION_PROVIDERS[self.provider]:
            raise GridClipError(f"ONNX Runtime could not start {self.provider}: see `gridclip doctor`, or use the CPU")
        self._check_sizes(session, path)
        return session

    def _check_sizes(self, session: onnxruntime.InferenceSession, path: pathlib.Path) -> None:
        """Raises GridClipError where a graph has other sizes than model.json says; sizes that it leaves open pass."""
        try:
            sizes = {"embed_dim": session.get_outputs()[0].shape[-1]}
            if path.name.startswith("image"):
                sizes["image_size"] = session.get_inputs()[0].shape[1]
        except IndexError as error:
            raise GridClipError(
                f"{path} has other inputs and outputs than a model's: export the model again"
            ) from error
        for name, size in sizes.items():
            told = getattr(self.info, name)
            if isinstance(size, int) and size != told:
                raise GridClipError(
                    f"{path} has {name} {size}, model.json beside it says {told}: export the model again"
                )

    def _providers(self, cuda_graph: bool) -> list[Any]:
        """ONNX Runtime's providers in the order of preference, with their options."""
        if self.device_id is None:
            return [EXECUTION_PROVIDERS["cpu"]]
        stream = str(self._stream.cuda_stream)
        cuda = {
            "device_id": str(self.device_id),
            "user_compute_stream": stream,
            "arena_extend_strategy": "kSameAsRequested",  # the rest of the memory is for DALI
            "enable_cuda_graph": str(int(cuda_graph)),
        }
        providers: list[Any] = [(EXECUTION_PROVIDERS["cuda"], cuda)]
        if self.provider == "tensorrt":
            tensorrt = {
                "device_id": str(self.device_id),
                "user_compute_stream": stream,
                "trt_fp16_enable": str(int(self.info.precision == "fp16")),
                "trt_engine_cache_enable": "1",  # building an engine takes minutes
                "trt_engine_cache_path": str(self.model_dir / "tensorrt"),
                "trt_cuda_graph_enable": str(int(cuda_graph)),
            }
            providers.insert(0, (EXECUTION_PROVIDERS["tensorrt"], tensorrt))
        return providers
