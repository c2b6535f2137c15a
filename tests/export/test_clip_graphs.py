"""The ONNX graphs against embeddings computed in float64 with torch's own transformer layers."""

import collections
import dataclasses

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from gridclip.export import clip_graphs, graph_writer
from gridclip.export.clip_model import CLIP

from .conftest import CONFIG, Reference, random_clip

TOLERANCE = {"fp32": 2e-6, "fp16": 3e-3}


def _run(path, **inputs):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(["embeddings"], inputs)[0]


def _write(clip: CLIP, folder, precision):
    clip_graphs.write_image_graph(clip, folder / "image.onnx", precision)
    clip_graphs.write_text_graph(clip, folder / "text.onnx", precision)
    return folder / "image.onnx", folder / "text.onnx"


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_embeddings_equal_the_reference(tmp_path, super_images, token_ids, precision, activation):
    clip = random_clip(dataclasses.replace(CONFIG, activation=activation))
    reference = Reference(clip)
    image, text = _write(clip, tmp_path, precision)
    found = _run(image, super_images=super_images)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, reference.images(super_images), atol=TOLERANCE[precision])
    np.testing.assert_allclose(_run(text, token_ids=token_ids), reference.texts(token_ids), atol=TOLERANCE[precision])


def test_int8_is_close_and_its_weights_are_bytes(tmp_path, clip, super_images, token_ids, reference):
    image, text = _write(clip, tmp_path, "int8")
    found = _run(image, super_images=super_images[:2])
    assert (found * reference.images(super_images[:2])).sum(axis=1).min() > 0.99
    assert (_run(text, token_ids=token_ids) * reference.texts(token_ids)).sum(axis=1).min() > 0.99
    weights = {tuple(t.dims): t.data_type for t in onnx.load(image, load_external_data=False).graph.initializer}
    assert weights[128, 512] == weights[128, 384] == onnx.TensorProto.INT8


@pytest.mark.parametrize("precision", graph_writer.PRECISIONS)
def test_graphs_have_the_contract_s_form(tmp_path, clip, precision):
    expected = {
        "image": ("super_images", onnx.TensorProto.UINT8, ["B", 32, 32, 3]),
        "text": ("token_ids", onnx.TensorProto.INT64, ["B", "T"]),
    }
    for path in _write(clip, tmp_path, precision):
        onnx.checker.check_model(path)
        model = onnx.load(path, load_external_data=False)
        (value,), (out,) = model.graph.input, model.graph.output
        dims = [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        assert (value.name, value.type.tensor_type.elem_type, dims) == expected[path.stem]
        assert (out.name, out.type.tensor_type.elem_type) == ("embeddings", onnx.TensorProto.FLOAT)
        layers = {"image": CONFIG.vision_layers, "text": CONFIG.text_layers}[path.stem]
        assert graph_writer.count_fused_attention(path) == layers
        assert not [node for node in model.graph.node if node.op_type == "Softmax"]
        assert path.stat().st_size < 60_000 < path.with_name(f"{path.name}.data").stat().st_size


def test_fp16_adds_biases_where_it_adds_and_normalises(tmp_path, clip):
    for path in _write(clip, tmp_path, "fp16"):
        nodes = onnx.load(path, load_external_data=False).graph.node
        layers = {"image": CONFIG.vision_layers, "text": CONFIG.text_layers}[path.stem]
        fused = [node for node in nodes if node.op_type == "SkipLayerNormalization"]
        assert len(fused) == 2 * layers and all(len(node.input) == 5 for node in fused)
        assert sum(node.op_type == "Add" for node in nodes) == layers + 1  # before the activation; position embeddings


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_precisions_for_cpus_norm_apart_from_adding(tmp_path, clip, precision):
    for path in _write(clip, tmp_path, precision):
        counts = collections.Counter(node.op_type for node in onnx.load(path, load_external_data=False).graph.node)
        layers = {"image": CONFIG.vision_layers, "text": CONFIG.text_layers}[path.stem]
        assert counts["SkipLayerNormalization"] == 0 and counts["Sum"] == 2 * layers
        assert counts["Add"] == (3 * layers + 1 if precision == "fp32" else 1)


def test_embeddings_have_unit_length_and_do_not_depend_on_the_batch(tmp_path, clip, super_images):
    image, _ = _write(clip, tmp_path, "fp32")
    whole = _run(image, super_images=super_images)
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(
        np.concatenate([_run(image, super_images=row[None]) for row in super_images]), whole, atol=1e-6
    )


def test_texts_may_be_padded_to_any_length_with_anything(tmp_path, clip):
    _, text = _write(clip, tmp_path, "fp32")
    short = np.array([[CONFIG.start_token, 5, 6, CONFIG.end_token]])
    expected = _run(text, token_ids=short)
    for padding in (0, 9, CONFIG.end_token):
        padded = np.pad(short, ((0, 0), (0, 16)), constant_values=padding)
        np.testing.assert_allclose(_run(text, token_ids=padded), expected, atol=1e-6)


def test_end_token_need_not_be_the_last_of_the_vocabulary(tmp_path):
    clip = random_clip(dataclasses.replace(CONFIG, start_token=3, end_token=7))
    _, text = _write(clip, tmp_path, "fp32")
    ids = np.array([[3, 500, 6, 7, 0, 0], [3, 8, 7, 7, 7, 7]])
    np.testing.assert_allclose(_run(text, token_ids=ids), Reference(clip).texts(ids), atol=2e-6)


@pytest.mark.parametrize("size", [24, 40])
def test_preprocessing_of_another_mean_and_size_is_folded(tmp_path, size):
    config = dataclasses.replace(CONFIG, image_size=size, image_mean=(0.5, 0.4, 0.3), image_std=(0.2, 0.3, 0.5))
    clip = random_clip(config)
    weight, bias = graph_writer.fold_preprocessing(clip.visual.conv1.weight, config.image_mean, config.image_std)
    patch = np.random.default_rng(0).integers(0, 256, (8, 8, 3))
    pixels = torch.from_numpy((patch / 255 - config.image_mean) / config.image_std).permute(2, 0, 1)
    expected = (clip.visual.conv1.weight.double() * pixels).sum((1, 2, 3))
    torch.testing.assert_close(torch.from_numpy(patch.reshape(-1)).float() @ weight + bias, expected.float())
    clip_graphs.write_image_graph(clip, tmp_path / "image.onnx", "fp32")
    assert _run(tmp_path / "image.onnx", super_images=np.zeros((2, size, size, 3), np.uint8)).shape == (2, 48)


def test_quantised_weights_stay_in_7_bits():
    weight = torch.randn(5, 40) * torch.tensor([1e-3, 1, 50, 0, 1])[:, None]
    quantised, scale = graph_writer.quantise_per_channel(weight)
    assert quantised.dtype == torch.int8 and quantised.abs().max() == 63
    torch.testing.assert_close(quantised * scale[:, None], weight, atol=float(scale.max()) / 2, rtol=0)
    assert ((quantised * scale[:, None] - weight).abs() <= scale[:, None] * 0.501).all()


def test_unknown_precision_is_refused(tmp_path, clip):
    with pytest.raises(ValueError, match="fp8"):
        clip_graphs.write_image_graph(clip, tmp_path / "image.onnx", "fp8")
