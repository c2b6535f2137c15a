"""A model folder and super images or captions in, L2-normalised CLIP embeddings float32 [B, D] out (ONNX Runtime)."""

from __future__ import annotations

import functools
import logging
import pathlib
from collections.abc import Sequence
from typing import Literal

import numpy as np
import onnxruntime

from .. import GridClipError
from .model_folder import read_info
from .text import Tokenizer

logger = logging.getLogger(__name__)

Provider = Literal["auto", "cpu", "cuda"]
EXECUTION_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class Encoder:
    """Runs the graphs of a model folder; each is loaded at its first use.

    Args:
        model_dir: a model folder.
        provider: where the graphs run; "auto" is CUDA where ONNX Runtime has it.
        num_threads: CPU threads of ONNX Runtime, default one per core.

    Attributes:
        info: the content of model.json.
        provider: "cpu" or "cuda".

    Raises:
        GridClipError: `model_dir` is no model folder, or ONNX Runtime here has no such provider.
    """

    def __init__(self, model_dir: pathlib.Path, *, provider: Provider = "auto", num_threads: int | None = None) -> None:
        if num_threads is not None and num_threads < 1:
            raise ValueError(f"num_threads ({num_threads}) must be >= 1")
        self._model_dir = pathlib.Path(model_dir)
        self.info = read_info(self._model_dir)
        self.provider = choose_provider(provider)
        self._num_threads = num_threads

    def encode_images(self, super_images: np.ndarray) -> np.ndarray:
        """Embeds a batch of super images.

        Args:
            super_images: uint8 [B, S, S, 3], RGB, S the model's image size.

        Returns:
            float32 [B, D].
        """
        size = self.info["image_size"]
        if super_images.dtype != np.uint8 or super_images.ndim != 4 or super_images.shape[1:] != (size, size, 3):
            raise ValueError(
                f"super_images ({super_images.dtype} {list(super_images.shape)}) must be uint8 [B, {size}, {size}, 3]: "
                f"the model {self.info['name']} has image size {size}"
            )
        if not len(super_images):
            return np.zeros((0, self.info["embed_dim"]), np.float32)
        return self._image_session.run(["embeddings"], {"super_images": np.ascontiguousarray(super_images)})[0]

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
        embeddings = np.zeros((len(texts), self.info["embed_dim"]), np.float32)
        # Attention is causal, so what follows the end token changes nothing: cut it, texts of like length together.
        lengths = (token_ids == self.info["end_token"]).argmax(1) + 1
        order = np.argsort(lengths, kind="stable")
        for first in range(0, len(texts), batch_size):
            rows = order[first : first + batch_size]
            batch = np.ascontiguousarray(token_ids[rows, : lengths[rows].max()])
            embeddings[rows] = self._text_session.run(["embeddings"], {"token_ids": batch})[0]
        return embeddings

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """The model folder's tokenizer."""
        return Tokenizer(self._model_dir)

    @functools.cached_property
    def _image_session(self) -> onnxruntime.InferenceSession:
        return self._session("image.onnx")

    @functools.cached_property
    def _text_session(self) -> onnxruntime.InferenceSession:
        return self._session("text.onnx")

    def _session(self, name: str) -> onnxruntime.InferenceSession:
        path = self._model_dir / name
        if not path.is_file():
            raise GridClipError(f"{self._model_dir} lacks {name}: export the model again")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if self._num_threads is not None:
            options.intra_op_num_threads = self._num_threads
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=[EXECUTION_PROVIDERS[self.provider]])
        except Exception as error:
            raise GridClipError(f"{path} cannot be loaded: {error}; export the model again") from error
        # ONNX Runtime goes on without a provider that it cannot load.
        if session.get_providers()[0] != EXECUTION_PROVIDERS[self.provider]:
            raise GridClipError(f"ONNX Runtime could not start {self.provider}: see `gridclip doctor`, or use the CPU")
        return session


def choose_provider(provider: Provider) -> Literal["cpu", "cuda"]:
    """The provider to use: the given one, if ONNX Runtime here has it; for "auto" the fastest that it has."""
    available = onnxruntime.get_available_providers()
    if provider == "auto":
        return "cuda" if EXECUTION_PROVIDERS["cuda"] in available else "cpu"
    if provider not in EXECUTION_PROVIDERS:
        raise ValueError(f"provider ({provider!r}) must be auto, {' or '.join(EXECUTION_PROVIDERS)}")
    if EXECUTION_PROVIDERS[provider] not in available:
        raise GridClipError(
            f"provider {provider} is not in this ONNX Runtime (it has {', '.join(available)}): install gridclip[gpu], "
            "or use the CPU"
        )
    return provider
