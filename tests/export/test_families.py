"""Another encoder family takes a module and a line in the table: export, Encoder and Tokenizer need no other change."""

import pathlib

import numpy as np
import pytest
import torch
from gridclip import GridClipError
from gridclip.engine.encoding.encoder import Encoder
from gridclip.export import clip
from gridclip.export.families import FAMILIES, find_family
from gridclip.export.folder import ensure_model_folder, export_model
from gridclip.export.model_info import read_model_info
from gridclip.export.weights import read_weights

from . import toy_family
from .toy_family import CONTEXT_LENGTH, END, IMAGE_SIZE_PX, LETTERS, PAD

TINY_CLIP = pathlib.Path(__file__).parents[2] / "benchmarks" / "demo" / "tiny_clip.pt"


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A checkpoint of a family that is in the table for the time of a test."""
    monkeypatch.setitem(FAMILIES, "toy", toy_family)
    return toy_family.write_checkpoint(tmp_path / "checkpoint")


def unit(rows) -> np.ndarray:
    rows = np.asarray(rows)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def expected_texts(checkpoint: pathlib.Path, texts: list[str], longest: int = CONTEXT_LENGTH) -> np.ndarray:
    """float64 [Q, D], from nothing but the weights and the definition."""
    vectors = torch.load(checkpoint)["toy.text"].double().numpy()
    rows = []
    for text in texts:
        letters = [LETTERS.index(letter) for letter in text][: longest - 1]
        padding = [PAD] * (CONTEXT_LENGTH - len(letters) - 1)
        rows.append(vectors[[*letters, END, *padding]].mean(0))
    return unit(rows)


def test_a_new_family_is_exported_loaded_and_embeds(toy, tmp_path):
    made = export_model(str(toy), tmp_path / "model")
    assert (made.family, made.embed_dim, made.name) == ("toy", 7, "toy")
    assert made.has_cells is False and not (tmp_path / "model" / "image_cells.onnx").exists()
    assert made == read_model_info(tmp_path / "model") and min(made.smallest_cosine.values()) > 0.99999
    encoder = Encoder(tmp_path / "model", provider="cpu", num_threads=1)
    images = np.random.default_rng(0).integers(0, 256, (3, IMAGE_SIZE_PX, IMAGE_SIZE_PX, 3), dtype=np.uint8)
    matrix = torch.load(toy)["toy.image"].double().numpy()
    np.testing.assert_allclose(
        encoder.encode_images(images), unit(images.reshape(3, -1, 3).mean(1) @ matrix), atol=1e-5
    )
    texts = ["A Cat", "a cat", "", "x" * 100, "Two   spaces", "no more than twelve"]
    found = encoder.encode_texts(texts, batch_size=2)
    np.testing.assert_allclose(found, expected_texts(toy, texts), atol=1e-5)
    # Every row is as long as the model's context, however short the texts of its batch may be.
    assert encoder.tokenizer(["a"]).tolist() == [[0, END] + [PAD] * (CONTEXT_LENGTH - 2)]
    cut = encoder.encode_texts(texts, batch_size=2, max_length=12)
    np.testing.assert_allclose(cut, expected_texts(toy, texts, longest=12), atol=1e-5)
    assert encoder.encode_texts([]).shape == (0, 7) and encoder.tokenizer([]).shape == (0, CONTEXT_LENGTH)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_new_family_takes_the_options_of_export(toy, tmp_path, precision):
    folder = ensure_model_folder(str(toy), tmp_path / "cache", image_size=32, context_length=9, precision=precision)
    info = read_model_info(folder)
    assert (info.family, info.precision, info.image_size, info.context_length) == ("toy", precision, 32, 9)
    with pytest.raises(GridClipError, match="a toy has no activation, not even 'gelu'"):
        ensure_model_folder(str(toy), tmp_path / "cache", activation="gelu")


def test_each_checkpoint_finds_its_family(toy, layout, tmp_path):
    assert find_family(read_weights(toy)) is toy_family
    assert find_family(read_weights(layout)) is clip
    assert all(family.load and family.recognises for family in FAMILIES.values())


def test_a_checkpoint_of_no_family_is_refused_with_what_it_has(tmp_path):
    path = toy_family.write_checkpoint(tmp_path)
    named = r"toy\.pt .*\(siglip, pe, eva, metaclip2, clip\): it has 2 tensors, such as 'toy.image', 'toy.text'; "
    with pytest.raises(GridClipError, match=named):
        export_model(str(path), tmp_path / "model")
    torch.save({}, path)
    with pytest.raises(GridClipError, match="it has 0 tensors; expected"):
        export_model(str(path), tmp_path / "model")


def test_clips_fingerprint_is_what_it_was_before_there_were_families(tmp_path):
    """Stores name it: with another one, all that was embedded so far would belong to another model."""
    info = export_model(str(TINY_CLIP), tmp_path / "model", verify=False)
    assert info.fingerprint == "69574401a5273054503d95981ebc1954edaa9783c2ab0faf3696e152a7db1d4c"
    assert info.smallest_cosine is None
