"""The image graph with cells against a masked attention over all tokens, in float64, with torch's own layers."""

import dataclasses
import pathlib

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from gridclip.export import clip_graphs, graph_writer
from gridclip.export.clip import ClipForExport
from gridclip.export.clip_model import CLIP, normalise_pixels
from gridclip.export.model_info import ModelFacts

from .conftest import CONFIG, Reference, cell_of_each_patch, random_clip

# 5 x 5 patches: cells of 2 x 2 and 3 x 3 differ in their number of patches, and neither divides 40 evenly by 8.
UNEVEN = dataclasses.replace(CONFIG, image_size=40)


def _write(clip: CLIP, folder: pathlib.Path, precision: str, **options) -> pathlib.Path:
    clip_graphs.write_image_graph(clip, folder / "image.onnx", precision)
    path = folder / "image_cells.onnx"
    clip_graphs.write_cells_graph(clip, path, precision, weights_of=folder / "image.onnx", **options)
    return path


def _run(path: pathlib.Path, **inputs: np.ndarray) -> np.ndarray:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(["embeddings"], inputs)[0]


def _run_cells(clip: CLIP, path: pathlib.Path, images: np.ndarray, cells: int) -> np.ndarray:
    return _run(path, super_images=images, cell_patches=ClipForExport(clip, None).facts.cell_patches(cells))


def _facts(image_size: int, patch_size: int) -> ModelFacts:
    sizes = {"image_size": image_size, "patch_size": patch_size, "embed_dim": 4, "context_length": 5}
    return ModelFacts(**sizes, start_token=0, end_token=1)


def _images(size: int, count: int = 3) -> np.ndarray:
    return np.random.default_rng(size).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("config", [CONFIG, UNEVEN], ids=["even", "uneven"])
def test_cells_equal_the_reference_and_the_super_image_stays(tmp_path, precision, config):
    clip, images = random_clip(config), _images(config.image_size)
    path = _write(clip, tmp_path, precision)
    plain = _run(tmp_path / "image.onnx", super_images=images)
    for cells in (2, 3, 4):
        found = _run_cells(clip, path, images, cells)
        assert found.dtype == np.float32 and found.shape == (len(images), 1 + cells**2, config.embed_dim)
        np.testing.assert_allclose(np.linalg.norm(found, axis=2), 1, atol=1e-6)
        assert (found[:, 0].astype(float) * plain).sum(axis=1).min() > 1 - 1e-6
        expected = Reference(clip).cells(images, cells)
        cosines = (found * expected).sum(axis=2)
        assert cosines.min() > {"fp32": 1 - 1e-6, "fp16": 0.9999, "int8": 0.98}[precision]
        # Far from trivial: the cells are neither each other nor the super image.
        assert (expected[:, 0] * expected[:, 1]).sum(1).max() < 0.98 and np.ptp(expected, axis=1).max() > 0.1


def test_int8_leaves_the_super_image_to_the_bit(tmp_path, clip, super_images):
    path = _write(clip, tmp_path, "int8")
    plain = _run(tmp_path / "image.onnx", super_images=super_images)
    assert np.array_equal(_run_cells(clip, path, super_images, 2)[:, 0], plain)


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
@pytest.mark.parametrize("cell_layers", [1, 2])
def test_cell_tokens_may_begin_at_a_later_layer(tmp_path, activation, cell_layers):
    clip, images = random_clip(dataclasses.replace(CONFIG, activation=activation)), _images(32)
    path = _write(clip, tmp_path, "fp32", cell_layers=cell_layers)
    expected = Reference(clip).cells(images, 2, cell_layers)
    np.testing.assert_allclose(_run_cells(clip, path, images, 2), expected, atol=2e-6)
    assert np.abs(expected - Reference(clip).cells(images, 2, 3 - cell_layers)).max() > 0.01
    patches = torch.from_numpy(ClipForExport(clip, None).facts.cell_patches(2))
    pixels = normalise_pixels(torch.from_numpy(images))
    found = torch.nn.functional.normalize(clip.visual.forward_cells(pixels, patches, cell_layers), dim=-1)
    np.testing.assert_allclose(found, expected, atol=2e-6)


@pytest.mark.parametrize("cell_layers", [0, 3])
def test_layers_that_are_not_there_are_refused(tmp_path, clip, cell_layers):
    with pytest.raises(ValueError, match=rf"cell_layers \({cell_layers}\) must be in \[1, 2\]"):
        _write(clip, tmp_path, "fp32", cell_layers=cell_layers)


def test_a_cell_sees_its_own_pixels_only(tmp_path, clip):
    """Of two super images that differ in one cell, the other cells are the same; in later layers patches mix."""
    shallow = random_clip(dataclasses.replace(CONFIG, vision_layers=1))
    path = _write(shallow, tmp_path, "fp32")
    images = _images(32, 1).repeat(2, axis=0)
    images[1, :16, 16:] = 255 - images[1, :16, 16:]  # top right: cell 1
    before, after = _run_cells(shallow, path, images, 2)
    changed = np.abs(before - after).max(axis=1)
    assert changed[[1, 3, 4]].max() == 0 and changed[[0, 2]].min() > 1e-3


@pytest.mark.parametrize("precision", graph_writer.PRECISIONS)
def test_weights_lie_in_the_plain_graphs_file_and_attention_is_fused(tmp_path, clip, precision):
    path = _write(clip, tmp_path, precision)
    onnx.checker.check_model(path)
    model = onnx.load(path, load_external_data=False)
    assert [value.name for value in model.graph.input] == ["super_images", "cell_patches"]
    # Half of them are of class token and patches and hide nothing: what keeps them fused on a GPU.
    attention = [node for node in model.graph.node if node.op_type == "MultiHeadAttention"]
    assert sorted(len(node.input) for node in attention) == [3] * CONFIG.vision_layers + [6] * CONFIG.vision_layers
    assert graph_writer.count_fused_attention(path) == ClipForExport(clip, None).cells.attention_nodes == len(attention)
    assert not [node for node in model.graph.node if node.op_type == "Softmax"]
    places = {e.value for t in model.graph.initializer for e in t.external_data if e.key == "location"}
    assert places == {"image.onnx.data"} and not path.with_name("image_cells.onnx.data").exists()
    assert path.stat().st_size < 90_000
    # ONNX Runtime has these on the CPU only, and a CUDA graph cannot hold what comes from there.
    assert {"EyeLike", "Range", "NonZero"}.isdisjoint(node.op_type for node in model.graph.node)


@pytest.mark.parametrize("size", [224, 336])
@pytest.mark.parametrize("cells", [2, 3, 4])
def test_a_patch_belongs_to_the_cell_of_its_centre(size, cells):
    config = dataclasses.replace(CONFIG, image_size=size, patch_size=14)
    found, expected = _facts(size, 14).cell_patches(cells), cell_of_each_patch(config, cells)
    assert found.shape == (cells**2, config.grid**2) and found.dtype == bool
    assert [column.argmax() if column.any() else None for column in found.T] == expected
    assert found.sum(axis=0).max() == 1 and found.any(axis=1).all() and None not in expected


def test_patches_of_the_margin_belong_to_none():
    found = _facts(29, 1).cell_patches(3)  # cells of 9 pixels, 2 left
    assert found.sum() == 27 * 27 and found.any(axis=1).all()


@pytest.mark.parametrize("cells", [-1, 0, 1, 5])
def test_cells_without_a_patch_are_refused(clip, cells):
    facts = ClipForExport(clip, None).facts
    with pytest.raises(ValueError, match=rf"cells \({cells}\) must be in \[2, 4\].* 4 x 4 patches"):
        facts.cell_patches(cells)
    assert not facts.allows_cells(cells) and facts.allows_cells(4)


def test_a_model_of_one_patch_has_no_cells(tmp_path):
    clip = random_clip(dataclasses.replace(CONFIG, image_size=8))
    assert ClipForExport(clip, None).cells is None
