"""A model folder whose embeddings a test can compute by hand."""

import json
import pathlib

import numpy as np
import onnx
import tokenizers
from onnx import TensorProto, helper, numpy_helper

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789,.!?'&<>é"
START, END = len(LETTERS) + 1, len(LETTERS) + 2
TABLE = np.random.default_rng(0).normal(size=(END + 1, 3)).astype(np.float32)
TABLE[0] = 0  # padding does not count
SIZE_PX = 64


def model_json(**changes) -> dict:
    """What model.json says, as it was written before there were families."""
    return {
        "format": 1,
        "name": "fake",
        "precision": "fp32",
        "image_size": SIZE_PX,
        "embed_dim": 3,
        "context_length": 20,
        "vocab_size": END + 1,
        "start_token": START,
        "end_token": END,
        "fingerprint": "f" * 64,
        **changes,
    }


def write(folder: pathlib.Path, **changes) -> pathlib.Path:
    """A model: an image is its mean colour, a text the sum of its tokens' vectors, both of unit length.

    Args:
        folder: made if it is missing.
        changes: of model.json.
    """
    folder.mkdir(parents=True, exist_ok=True)
    size_px = changes.get("image_size", SIZE_PX)
    (folder / "model.json").write_text(json.dumps(model_json(**changes)))
    vocabulary = {letter: index + 1 for index, letter in enumerate(LETTERS)} | {"?unk": 0}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="?unk"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [
            tokenizers.pre_tokenizers.WhitespaceSplit(),
            tokenizers.pre_tokenizers.Split(tokenizers.Regex("."), "isolated"),
        ]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    _save(
        folder / "image.onnx",
        [
            helper.make_node("Cast", ["super_images"], ["pixels"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["pixels", "spatial"], ["sum"], keepdims=0),
        ],
        [np.array([1, 2], np.int64)],
        ["spatial"],
        "super_images",
        TensorProto.UINT8,
        ["B", size_px, size_px, 3],
    )
    _save(
        folder / "text.onnx",
        [
            helper.make_node("Gather", ["table", "token_ids"], ["vectors"]),
            helper.make_node("ReduceSum", ["vectors", "tokens"], ["sum"], keepdims=0),
        ],
        [TABLE, np.array([1], np.int64)],
        ["table", "tokens"],
        "token_ids",
        TensorProto.INT64,
        ["B", "T"],
    )
    return folder


def _save(path, nodes, constants, names, input_name, input_type, input_shape) -> None:
    nodes = [*nodes, helper.make_node("LpNormalization", ["sum"], ["embeddings"], axis=1, p=2)]
    graph = helper.make_graph(
        nodes,
        path.stem,
        [helper.make_tensor_value_info(input_name, input_type, input_shape)],
        [helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, ["B", 3])],
        [numpy_helper.from_array(value, name) for value, name in zip(constants, names, strict=True)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)


def image_embedding(images: np.ndarray) -> np.ndarray:
    """float64 [B, 3]: what the image graph gives."""
    means = images.reshape(len(images), -1, 3).mean(1)
    return means / np.linalg.norm(means, axis=1, keepdims=True)


def text_embedding(token_ids: list[int]) -> np.ndarray:
    """float64 [3]: what the text graph gives for one text's tokens, start and end included."""
    total = TABLE[token_ids].astype(float).sum(0)
    return total / np.linalg.norm(total)
