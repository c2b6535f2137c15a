"""benchmarks/encode.py, encode_peers.py and matrix_rate.py: the formula, the mapping of weights, what is left out."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable

import numpy as np
import pytest
import torch
from gridclip.benchmarks import encode, encode_peers, matrix_rate
from gridclip.benchmarks.encode_peers import LeftOut, Task
from gridclip.engine.encoding.encoder import Encoder
from gridclip.export.clip_checkpoint import _from_hugging_face
from gridclip.export.clip_model import CLIP, ClipConfig
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

TINY = ClipConfig(
    image_size=56,
    patch_size=14,
    vision_width=64,
    vision_layers=2,
    vision_heads=2,
    text_width=32,
    text_layers=1,
    text_heads=1,
    context_length=8,
    vocab_size=50,
    embed_dim=24,
    vision_mlp_width=160,
)


def make_task(scratch: pathlib.Path, batches: int = 1) -> Task:
    torch.manual_seed(0)
    model = CLIP(TINY).requires_grad_(False).eval()
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (2, 56, 56, 3), dtype=np.uint8) for _ in range(batches)]
    return Task(model, images, 1, "cpu", torch.float32, scratch)


def test_flop_per_image_are_those_that_torch_counts() -> None:
    model = CLIP(TINY).requires_grad_(False).eval()
    # The counter knows the products inside attention only where they are products of their own.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model.encode_image(torch.zeros(1, 3, 56, 56))
    assert matrix_rate.flop_per_image(TINY) == counter.get_total_flops()


@pytest.mark.parametrize(("image_size", "gflop"), [(224, 162), (336, 382)])
def test_flop_of_vit_l_14(image_size: int, gflop: int) -> None:
    config = dataclasses.replace(encode.VIT_L_14, image_size=image_size)
    assert round(matrix_rate.flop_per_image(config) / 1e9) == gflop


def test_matrix_product_multiplies_what_it_counts() -> None:
    product = matrix_rate.matrix_product("cpu", torch.float32, 8)
    with FlopCounterMode(display=False) as counter:
        product.multiply()
    assert product.flop == counter.get_total_flops() == 2 * 8**3


def test_weights_under_transformers_names_are_those_that_the_checkpoint_reader_takes(tmp_path: pathlib.Path) -> None:
    model = make_task(tmp_path).model
    back = _from_hugging_face(encode_peers.hugging_face_weights(model))
    expected = {f"visual.{key}": tensor for key, tensor in model.visual.state_dict().items()}
    assert back.keys() == expected.keys()
    assert all(torch.equal(back[key], expected[key]) for key in expected)


@pytest.mark.may_skip
@pytest.mark.parametrize(
    ("package", "make"),
    [
        ("transformers", encode_peers.transformers_sdpa),
        ("openvino", encode_peers.openvino_of_graph),
        ("openvino", encode_peers.openvino_of_torch),
    ],
)
def test_peers_embed_as_torch_does(
    package: str, make: Callable[[Task], encode_peers.Candidate], tmp_path: pathlib.Path
) -> None:
    task = make_task(tmp_path, batches=2)
    try:
        candidate = make(task)
    except LeftOut as reason:
        pytest.skip(f"{package} is an optional peer: {reason}")
    found = candidate()
    assert found.shape == (4, 24)
    np.testing.assert_allclose(found, encode_peers.torch_eager(task)(), atol=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_graphs_embed_as_torch_does(precision: str, tmp_path: pathlib.Path) -> None:
    task = make_task(tmp_path, batches=2)
    cosines = (encode_peers.onnxruntime_on_cpu(task, precision)() * encode_peers.torch_eager(task)()).sum(1)
    assert cosines.min() > 0.999


def test_passes_give_all_batches_in_their_order(tiny_model_dir: pathlib.Path) -> None:
    encoder = Encoder(tiny_model_dir, provider="cpu", num_threads=1)
    size = encoder.info.image_size
    batches = list(np.random.default_rng(0).integers(0, 256, (5, 2, size, size, 3), dtype=np.uint8))
    found = encode_peers.through_passes(encoder.image_passes(2), batches)
    np.testing.assert_allclose(found, encoder.encode_images(np.concatenate(batches)), atol=1e-5)


def test_a_peer_that_is_not_there_is_left_out_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(task: Task) -> encode_peers.Candidate:
        encode_peers._imported("gridclip_no_such_package")
        raise AssertionError

    monkeypatch.setattr(
        encode, "peers", lambda device, precisions: {"torch eager fp32": encode_peers.torch_eager, "absent": absent}
    )
    found = encode.run(config=TINY, batch_size=1, repetitions=1, threads=1, matrix_side=8)
    reason = found["absent"]["left_out"]
    assert "gridclip_no_such_package" in reason and "pip install '.[bench]'" in reason
    assert found["torch eager fp32"]["smallest_cosine"] == pytest.approx(1)
    assert found[encode.PRODUCT]["tflop_per_s"] > 0


def test_compiling_needs_a_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    monkeypatch.setattr(encode_peers.shutil, "which", lambda name: None)
    with pytest.raises(LeftOut, match="C\\+\\+ compiler"):
        encode_peers.torch_compiled(make_task(tmp_path))


def test_without_a_gpu_one_sentence_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as stop:
        encode.main(["--device", "cuda", "--json", str(tmp_path / "x.json")])
    assert stop.value.code == 1
    assert capsys.readouterr().err == encode.NO_GPU + "\n"
    assert not (tmp_path / "x.json").exists()
