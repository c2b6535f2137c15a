"""Batches into the graphs of a model folder, and clear errors for what is no model folder."""

import json
import pathlib
import shutil

import fake_model
import numpy as np
import pytest
import torch
from gridclip import GridClipError
from gridclip.engine.encoding.encoder import Encoder
from gridclip.export.families import find_family
from gridclip.export.family import LoadOptions
from gridclip.export.weights import read_weights


@pytest.fixture
def model_dir(tmp_path):
    return fake_model.write(tmp_path / "model")


def test_images(model_dir):
    encoder = Encoder(model_dir, provider="cpu", num_threads=1)
    images = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
    images[:, :, :, 0] //= np.arange(1, 6, dtype=np.uint8)[:, None, None]
    embeddings = encoder.encode_images(images)
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(embeddings, fake_model.image_embedding(images), atol=1e-5)
    flipped = images[:, ::-1]  # not contiguous
    np.testing.assert_allclose(encoder.encode_images(flipped), embeddings, atol=1e-5)
    assert encoder.encode_images(images[:0]).shape == (0, 3)


@pytest.mark.parametrize("cells", [2, 3])
def test_cells_are_those_of_the_torch_model_and_the_super_image_stays(tiny_checkpoint, tiny_model_dir, cells):
    encoder = Encoder(tiny_model_dir, provider="cpu", num_threads=1)
    size = encoder.info.image_size
    images = np.random.default_rng(0).integers(0, 256, (3, size, size, 3), dtype=np.uint8)
    found = encoder.encode_images(images, cells)
    assert found.shape == (3, 1 + cells**2, encoder.info.embed_dim) and found.dtype == np.float32
    np.testing.assert_allclose(found[:, 0], encoder.encode_images(images), atol=1e-5)
    model = find_family(read_weights(tiny_checkpoint)).load(read_weights(tiny_checkpoint), LoadOptions())
    with torch.inference_mode():
        expected = torch.nn.functional.normalize(model.cells.embed(torch.from_numpy(images), cells), dim=-1)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert encoder.encode_images(images[:0], cells).shape == (0, 1 + cells**2, encoder.info.embed_dim)


def test_cells_that_a_model_folder_cannot_give(model_dir, tiny_model_dir, tmp_path):
    images = np.zeros((1, 64, 64, 3), np.uint8)
    for embed in (lambda encoder: encoder.encode_images(images, 2), lambda encoder: encoder.image_passes(4, cells=2)):
        with pytest.raises(GridClipError, match="from before GridCLIP could embed the cells.*export the model again"):
            embed(Encoder(model_dir, provider="cpu"))
        without = fake_model.write(tmp_path / "without", has_cells=False)
        with pytest.raises(GridClipError, match=r"fake cannot embed the cells .*\(family clip\): leave out `cells`"):
            embed(Encoder(without, provider="cpu"))
    encoder = Encoder(tiny_model_dir, provider="cpu")
    for cells in (0, 1, 9):
        with pytest.raises(ValueError, match=rf"cells \({cells}\) must be in \[2, 8\]"):
            encoder.image_passes(4, cells)
    lost = tmp_path / "lost"
    shutil.copytree(tiny_model_dir, lost)
    (lost / "image_cells.onnx").unlink()
    with pytest.raises(GridClipError, match=r"lacks image_cells\.onnx: export the model again"):
        Encoder(lost, provider="cpu").image_passes(4, cells=2)


def test_texts_of_any_length_keep_their_order(model_dir):
    encoder = Encoder(model_dir)
    letters = fake_model.LETTERS[:26]
    texts = [letters[: length % 24] for length in range(0, 70, 7)] + ["", "q" * 50]
    embeddings = encoder.encode_texts(texts, batch_size=3)
    expected = [
        fake_model.text_embedding(
            [fake_model.START, *(letters.index(letter) + 1 for letter in text[:18]), fake_model.END]
        )
        for text in texts
    ]
    np.testing.assert_allclose(embeddings, expected, atol=1e-5)
    assert encoder.encode_texts([]).shape == (0, 3)


@pytest.fixture
def with_facts(tiny_model_dir, tmp_path):
    """A function that makes the tiny model one of a family with other facts; its graphs stay."""

    def make(**facts: object) -> Encoder:
        folder = tmp_path / "-".join(facts)
        shutil.copytree(tiny_model_dir, folder)
        content = json.loads((folder / "model.json").read_text())
        (folder / "model.json").write_text(json.dumps(content | facts))
        return Encoder(folder, provider="cpu", num_threads=1)

    return make


TEXTS = ["a red circle moves", "", "two squares and a green triangle move to the left"]


def test_padding_that_is_ignored_may_be_any_token(tiny_model_dir, with_facts):
    plain, padded = Encoder(tiny_model_dir, provider="cpu", num_threads=1), with_facts(pad_token=7)
    assert padded.tokenizer(["a"])[0, -1] == 7 and plain.tokenizer(["a"])[0, -1] == 0
    np.testing.assert_array_equal(padded.encode_texts(TEXTS), plain.encode_texts(TEXTS))


@pytest.mark.parametrize("facts", [{"causal_text": False}, {"pooling": "last_token"}])
@pytest.mark.parametrize("max_length", [None, 9])
def test_rows_are_whole_where_padding_counts(with_facts, monkeypatch, facts, max_length):
    """Whatever the batch and the longest text asked for: such a model knows no other rows."""
    encoder = with_facts(pad_token=7, start_token=None, **facts)
    rows = []
    session = encoder._loaded("text.onnx")

    class Spy:
        def run(self, names: list[str], inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
            rows.append(inputs["token_ids"])
            return session.run(names, inputs)

    monkeypatch.setattr(encoder, "_loaded", lambda name: Spy())
    encoder.encode_texts(TEXTS, batch_size=2, max_length=max_length)
    assert [row.shape[1] for row in rows] == [encoder.info.context_length] * 2
    ids = np.concatenate(rows)
    assert (ids[:, -1] == 7).all() and (ids == encoder.info.end_token).sum(1).tolist() == [1, 1, 1]
    assert max_length is None or (ids[:, max_length:] == 7).all()


def test_wrong_shapes_are_named(model_dir):
    encoder = Encoder(model_dir)
    with pytest.raises(ValueError, match=r"uint8 \[2, 32, 32, 3\].*uint8 \[B, 64, 64, 3\]"):
        encoder.encode_images(np.zeros((2, 32, 32, 3), np.uint8))
    with pytest.raises(ValueError, match="float32"):
        encoder.encode_images(np.zeros((2, 64, 64, 3), np.float32))


def test_what_is_no_model_folder(model_dir, tmp_path):
    with pytest.raises(GridClipError, match=r"not a model folder.*gridclip export"):
        Encoder(tmp_path)
    (model_dir / "image.onnx").unlink()
    (model_dir / "text.onnx").write_bytes(b"nonsense")
    encoder = Encoder(model_dir)
    with pytest.raises(GridClipError, match=r"lacks image\.onnx"):
        encoder.encode_images(np.zeros((1, 64, 64, 3), np.uint8))
    with pytest.raises(GridClipError, match=r"text\.onnx cannot be loaded"):
        encoder.encode_texts(["a"])
    fake_model.write(tmp_path / "newer", format=2)
    with pytest.raises(GridClipError, match="format 2, expected 1"):
        Encoder(tmp_path / "newer")
    (model_dir / "model.json").write_text('{"format": 1}')
    with pytest.raises(GridClipError, match="lacks name"):
        Encoder(model_dir)


def test_a_provider_that_is_missing(model_dir, monkeypatch):
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    assert Encoder(model_dir).provider == "cpu"
    with pytest.raises(GridClipError, match=r"`provider='cuda'` cannot be used.*onnxruntime-gpu"):
        Encoder(model_dir, provider="cuda")


def test_a_graph_that_fails_when_it_runs_is_a_sentence(tiny_model_dir: pathlib.Path, tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model_dir, folder)
    record = json.loads((folder / "model.json").read_text("utf-8"))
    (folder / "model.json").write_text(json.dumps(record | {"start_token": 10**6}))
    with pytest.raises(GridClipError, match="cannot be run.*export it again"):
        Encoder(folder, provider="cpu").encode_texts(["a red circle"])
