"""Model folders: what is in them, that they are whole or absent, and that --model finds or makes them."""

import dataclasses
import hashlib
import json
import math
import pathlib
import shutil

import numpy as np
import onnxruntime
import pytest
import tokenizers
from gridclip import GridClipError
from gridclip.export import clip as clip_module
from gridclip.export import folder as folder_module
from gridclip.export import verify as verify_module
from gridclip.export.clip import ClipForExport
from gridclip.export.folder import ensure_model_folder, export_model, is_model_folder
from gridclip.export.model_info import read_model_info, write_model_info

from .conftest import CONFIG, Reference, random_clip, write_state_dict


def _embed(folder: pathlib.Path, name: str, inputs: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(folder / f"{name}.onnx", providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: inputs})[0]


def test_every_layout_exports_the_same_embeddings(layout, tmp_path, super_images, token_ids, reference):
    info = export_model(str(layout), tmp_path / "out")
    np.testing.assert_allclose(
        _embed(tmp_path / "out", "image", super_images), reference.images(super_images), atol=2e-6
    )
    np.testing.assert_allclose(_embed(tmp_path / "out", "text", token_ids), reference.texts(token_ids), atol=2e-6)
    assert info.fingerprint == folder_module._fingerprint(ClipForExport(reference.model, None), "fp32")


def test_model_json_says_everything(checkpoint, tmp_path):
    made = export_model(str(checkpoint), tmp_path / "out")
    assert made == read_model_info(tmp_path / "out")
    info = json.loads((tmp_path / "out" / "model.json").read_text())
    assert info.pop("cells_smallest_cosine") > 0.99999
    cosines = info.pop("smallest_cosine")
    assert set(cosines) == {"image", "text"} and min(cosines.values()) > 0.99999
    assert len(info.pop("fingerprint")) == 64
    assert info.pop("logit_scale") == pytest.approx(np.exp(4.0))
    assert info == {
        "format": 1,
        "name": "clip",
        "family": "clip",
        "source": "clip.pt",
        "source_sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
        "precision": "fp32",
        "image_size": 32,
        "patch_size": 8,
        "embed_dim": 48,
        "context_length": 20,
        "vocab_size": CONFIG.vocab_size,
        "start_token": CONFIG.vocab_size - 2,
        "end_token": CONFIG.vocab_size - 1,
        "pad_token": 0,
        "causal_text": True,
        "pooling": "end_token",
        "text_cleaning": "clip",
        "activation": "quick_gelu",
        "fused_attention": {"image": 2, "text": 3},
        "has_cells": True,
        "cells_fused_attention": 4,
    }
    graphs = {"image.onnx", "image.onnx.data", "image_cells.onnx", "text.onnx", "text.onnx.data"}
    assert {file.name for file in (tmp_path / "out").iterdir()} == graphs | {"tokenizer.json", "model.json"}
    assert [file.name for file in tmp_path.iterdir()] == ["out"]
    assert (
        tokenizers.Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json")).get_vocab_size() == CONFIG.vocab_size
    )


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_other_precisions_pass_their_own_check(checkpoint, tmp_path, precision, super_images, reference):
    info = export_model(str(checkpoint), tmp_path / "out", precision=precision)
    assert info.precision == precision
    assert min(info.smallest_cosine.values()) > verify_module.SMALLEST_COSINE[precision]
    assert info.layers_kept_fp32 == (0 if precision == "int8" else None)
    found = _embed(tmp_path / "out", "image", super_images[:2])
    assert (found * reference.images(super_images[:2])).sum(axis=1).min() > 0.99


def test_int8_keeps_layers_with_outliers_in_fp32(tmp_path):
    clip = random_clip(CONFIG)
    # The same function with outliers between the layers: channels made large by a norm and small again by the weights.
    for block in clip.visual.transformer.blocks:
        block.ln_2.weight[::32] *= 256
        block.ln_2.bias[::32] *= 256
        block.mlp.c_fc.weight[:, ::32] /= 256
    hard = write_state_dict(clip, tmp_path / "hard")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folder_module, "_OUTLIER_LIMITS", (math.inf,))
        with pytest.raises(GridClipError, match="int8 image graph differs from torch"):
            export_model(str(hard), tmp_path / "out", precision="int8")
    info = export_model(str(hard), tmp_path / "out", precision="int8")
    assert info.layers_kept_fp32 >= 2
    assert info.smallest_cosine["image"] >= 0.98


@pytest.mark.parametrize("context_length", [12, 77, 128])
def test_other_sizes(checkpoint, tmp_path, context_length):
    info = export_model(str(checkpoint), tmp_path / "out", context_length=context_length, image_size=48)
    assert (info.context_length, info.image_size) == (context_length, 48)
    ids = np.zeros((2, context_length), np.int64)
    ids[:, -1] = CONFIG.end_token
    assert _embed(tmp_path / "out", "text", ids).shape == (2, 48)
    assert _embed(tmp_path / "out", "image", np.zeros((1, 48, 48, 3), np.uint8)).shape == (1, 48)


def test_fingerprint_tells_models_apart(checkpoint, tmp_path):
    other = write_state_dict(random_clip(CONFIG, seed=1), tmp_path / "other")
    infos = [
        export_model(str(checkpoint), tmp_path / "a"),
        export_model(str(other), tmp_path / "b"),
        export_model(str(checkpoint), tmp_path / "c", precision="fp16"),
        export_model(str(checkpoint), tmp_path / "d", image_size=48),
        export_model(str(checkpoint), tmp_path / "e", context_length=30),
        export_model(str(checkpoint), tmp_path / "f", activation="gelu"),
    ]
    assert len({info.fingerprint for info in infos}) == len(infos)
    assert export_model(str(checkpoint), tmp_path / "g").fingerprint == infos[0].fingerprint


@pytest.mark.parametrize("graph", ["image", "text"])
def test_a_graph_that_differs_from_torch_leaves_no_folder(checkpoint, tmp_path, monkeypatch, graph):
    write = getattr(clip_module, f"write_{graph}_graph")
    wrong = random_clip(CONFIG, seed=1)
    monkeypatch.setattr(clip_module, f"write_{graph}_graph", lambda _clip, *args: write(wrong, *args))
    with pytest.raises(GridClipError, match=f"{graph} graph differs from torch: smallest cosine"):
        export_model(str(checkpoint), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    export_model(str(checkpoint), tmp_path / "out", verify=False)
    assert is_model_folder(tmp_path / "out")


def test_cells_that_differ_from_torch_leave_no_folder(checkpoint, tmp_path, monkeypatch):
    write = clip_module.write_cells_graph
    monkeypatch.setattr(
        clip_module, "write_cells_graph", lambda _clip, *args, **options: write(wrong, *args, **options)
    )
    wrong = random_clip(CONFIG, seed=1)
    with pytest.raises(GridClipError, match="image_cells graph differs from torch: smallest cosine"):
        export_model(str(checkpoint), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_cells_without_fused_attention_fail(checkpoint, tmp_path, monkeypatch):
    count = verify_module.count_fused_attention
    monkeypatch.setattr(
        verify_module, "count_fused_attention", lambda path: 3 if path.stem == "image_cells" else count(path)
    )
    with pytest.raises(GridClipError, match="graph with cells has 3 fused attention nodes, expected 4"):
        export_model(str(checkpoint), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_the_demos_model_has_cells_in_every_precision(tiny_checkpoint, tmp_path, precision):
    info = export_model(str(tiny_checkpoint), tmp_path / "out", precision=precision)
    assert info.cells_smallest_cosine >= {"fp16": 0.999, "int8": 0.98}[precision]
    assert info.cells_fused_attention == 2 * info.fused_attention["image"]
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "out").iterdir()}
    assert sizes["image_cells.onnx"] < sizes["image.onnx.data"] / 4 and "image_cells.onnx.data" not in sizes


def test_weights_that_are_not_numbers_fail(tmp_path):
    clip = random_clip(CONFIG)
    clip.visual.proj[0, 0] = float("nan")
    path = write_state_dict(clip, tmp_path / "nan")
    with pytest.raises(GridClipError, match="nan"):
        export_model(str(path), tmp_path / "out")


def test_a_layer_without_fused_attention_fails(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(verify_module, "count_fused_attention", lambda _path: 1)
    with pytest.raises(GridClipError, match="fused attention"):
        export_model(str(checkpoint), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_only_a_model_folder_is_replaced(checkpoint, tmp_path):
    (tmp_path / "empty").mkdir()
    export_model(str(checkpoint), tmp_path / "empty")
    assert export_model(str(checkpoint), tmp_path / "empty", precision="int8") == read_model_info(tmp_path / "empty")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("years of work")
    with pytest.raises(GridClipError, match="not a model folder"):
        export_model(str(checkpoint), tmp_path / "home")
    assert (tmp_path / "home" / "thesis.txt").read_text() == "years of work"


def test_a_full_disk_is_a_clear_error(checkpoint, tmp_path, monkeypatch):
    def no_space(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(clip_module, "write_text_graph", no_space)
    with pytest.raises(GridClipError, match="cannot write the model folder .*No space left"):
        export_model(str(checkpoint), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_wrong_arguments_are_named(checkpoint, tmp_path):
    with pytest.raises(GridClipError, match="precision 'fp8' is unknown: expected one of fp32, fp16, int8"):
        export_model(str(checkpoint), tmp_path / "out", precision="fp8")
    with pytest.raises(GridClipError, match="'ViT-Z/9' is neither .*: did you mean ViT-L/14 or .*list_models"):
        export_model("ViT-Z/9", tmp_path / "out")


def test_a_vocabulary_that_changed_makes_another_model_folder(checkpoint, tmp_path):
    bare, elsewhere, made = tmp_path / "bare" / "clip.pt", tmp_path / "elsewhere", set()
    bare.parent.mkdir()
    elsewhere.mkdir()
    shutil.copy(checkpoint, bare)
    with pytest.raises(GridClipError, match="pass a `tokenizer`"):
        ensure_model_folder(str(bare), tmp_path / "cache")
    [vocabulary] = checkpoint.parent.glob("*tokenizer.json")
    for space in ("", " "):
        (elsewhere / "tokenizer.json").write_text(vocabulary.read_text() + space)
        for named in (elsewhere, elsewhere / "tokenizer.json"):
            made.add(ensure_model_folder(str(bare), tmp_path / "cache", tokenizer=named))
    assert len(made) == 2 and all(map(is_model_folder, made))
    with pytest.raises(GridClipError, match="`tokenizer` .*nowhere does not exist"):
        ensure_model_folder(str(bare), tmp_path / "cache", tokenizer=tmp_path / "nowhere")


def test_ensure_takes_model_folders_and_exports_the_rest_once(checkpoint, tmp_path, monkeypatch):
    export_model(str(checkpoint), tmp_path / "out")
    assert ensure_model_folder(str(tmp_path / "out"), tmp_path / "cache") == tmp_path / "out"
    with pytest.raises(GridClipError, match="image_size 32, not 48"):
        ensure_model_folder(str(tmp_path / "out"), tmp_path / "cache", image_size=48)
    with pytest.raises(GridClipError, match="vocabulary of its own: leave out `tokenizer`"):
        ensure_model_folder(str(tmp_path / "out"), tmp_path / "cache", tokenizer=tmp_path / "out" / "tokenizer.json")
    made = ensure_model_folder(str(checkpoint), tmp_path / "cache")
    assert is_model_folder(made) and made.is_relative_to(tmp_path / "cache")
    assert ensure_model_folder(str(checkpoint), tmp_path / "cache", image_size=48) != made
    with monkeypatch.context() as patch:
        patch.setattr(folder_module, "export_model", lambda *_args, **_options: pytest.fail("exported again"))
        assert ensure_model_folder(str(checkpoint), tmp_path / "cache", image_size=None) == made
    # One from before there were cells is made anew, and stays the same model to every store.
    before = read_model_info(made)
    (made / "image_cells.onnx").unlink()
    old = dataclasses.replace(before, has_cells=None, cells_fused_attention=None, cells_smallest_cosine=None)
    write_model_info(old, made)
    assert ensure_model_folder(str(checkpoint), tmp_path / "cache") == made
    assert read_model_info(made) == before and (made / "image_cells.onnx").is_file()
    # Another checkpoint under the same name is another model.
    copy = tmp_path / "copy"
    path = write_state_dict(random_clip(CONFIG), copy)
    first = ensure_model_folder(str(path), tmp_path / "cache")
    path.unlink()
    write_state_dict(random_clip(dataclasses.replace(CONFIG, embed_dim=40)), copy)
    second = ensure_model_folder(str(path), tmp_path / "cache")
    assert read_model_info(second).embed_dim == 40 and first != second


def test_verify_images_are_real_pictures():
    images = verify_module.verify_images(112)
    assert images.shape == (4, 112, 112, 3) and images.dtype == np.uint8
    assert images.std(axis=(1, 2)).min() > 10


def test_reference_differs_between_models(super_images):
    first, second = (Reference(random_clip(CONFIG, seed)).images(super_images) for seed in (0, 1))
    assert (first * second).sum(axis=1).max() < 0.9
