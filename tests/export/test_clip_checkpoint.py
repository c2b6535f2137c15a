"""Checkpoints in every layout against the weights they were made from, and everything that is not CLIP."""

import dataclasses
import json
import os
import pathlib
import pickle
import shutil
import zipfile

import numpy as np
import onnxruntime
import pytest
import safetensors.torch
import torch
from gridclip import GridClipError
from gridclip.export import clip_graphs
from gridclip.export.clip_checkpoint import build_model, load_checkpoint
from gridclip.export.clip_model import ClipConfig, normalise_pixels
from gridclip.export.positions import resize_image_positions

from .conftest import (
    CONFIG,
    Reference,
    random_clip,
    write_hugging_face,
    write_open_clip,
    write_state_dict,
    write_torchscript,
)


def test_every_layout_gives_the_same_model(layout, clip, super_images, token_ids, reference):
    checkpoint = load_checkpoint(layout)
    assert checkpoint.config == CONFIG
    assert all(torch.equal(checkpoint.state_dict[key], value) for key, value in clip.state_dict().items())
    model = build_model(checkpoint)
    with torch.no_grad():
        images = model.encode_image(normalise_pixels(torch.from_numpy(super_images)))
        texts = model.encode_text(torch.from_numpy(token_ids))
    unit = torch.nn.functional.normalize
    np.testing.assert_allclose(unit(images), reference.images(super_images), atol=1e-6)
    np.testing.assert_allclose(unit(texts), reference.texts(token_ids), atol=1e-6)


def test_sizes_come_from_the_weights(tmp_path):
    config = CONFIG.__class__(48, 16, 192, 1, 3, 128, 2, 2, 33, 700, 20, vision_mlp_width=300, activation="gelu")
    path = write_state_dict(random_clip(config), tmp_path)
    assert load_checkpoint(path, activation="gelu").config == config


def test_the_causal_mask_beside_the_weights_is_ignored(tmp_path, clip):
    state_dict = clip.state_dict() | {"attn_mask": torch.zeros(20, 20), "input_resolution": torch.tensor(32)}
    torch.save(state_dict, tmp_path / "clip.pt")
    assert load_checkpoint(tmp_path / "clip.pt").config == CONFIG


@pytest.mark.parametrize(
    ("name", "sidecar", "activation"),
    [
        ("clip.pt", None, "quick_gelu"),
        ("clip.safetensors", None, "gelu"),
        ("open_clip_pytorch_model.bin", None, "gelu"),
        ("ViT-B-32-quickgelu-laion400m.pt", None, "quick_gelu"),
        ("ViT-B-32-laion2b.pt", None, "gelu"),
        ("open_clip_model.safetensors", {"quick_gelu": True}, "quick_gelu"),
        ("clip.pt", {}, "gelu"),
    ],
)
def test_activation_is_told_by_the_config_or_the_name(tmp_path, clip, name, sidecar, activation):
    save = safetensors.torch.save_file if name.endswith("safetensors") else torch.save
    save(clip.state_dict(), tmp_path / name)
    if sidecar is not None:
        model = {"vision_cfg": {"width": 128}, "text_cfg": {"heads": 1}} | sidecar
        preprocess = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
        (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": model, "preprocess_cfg": preprocess}))
    config = load_checkpoint(tmp_path / name).config
    assert config.activation == activation
    assert config.image_mean == ((0.5, 0.5, 0.5) if sidecar is not None else CONFIG.image_mean)
    assert load_checkpoint(tmp_path / name, activation="gelu").config.activation == "gelu"


# Of open_clip's plain ViTs: LAION's, DataComp's and DFN's models.
SHAPES = {
    "ViT-B-32-256": ClipConfig(256, 32, 768, 1, 12, 512, 1, 8, 77, 521, 512),
    "ViT-B-16": ClipConfig(224, 16, 768, 1, 12, 512, 1, 8, 77, 521, 512),
    "ViT-L-14": ClipConfig(224, 14, 1024, 1, 16, 768, 1, 12, 77, 521, 768),
    "ViT-L-14-336": ClipConfig(336, 14, 1024, 1, 16, 768, 1, 12, 77, 521, 768),
    "ViT-H-14-378-quickgelu": ClipConfig(378, 14, 1280, 1, 16, 1024, 1, 16, 77, 521, 1024),
    "ViT-g-14": ClipConfig(224, 14, 1408, 1, 16, 1024, 1, 16, 77, 521, 1024),
    "ViT-bigG-14": ClipConfig(224, 14, 1664, 1, 16, 1280, 1, 20, 77, 521, 1280),
}


@pytest.mark.parametrize("name", SHAPES)
def test_each_shape_of_open_clip_gives_the_reference_s_embeddings(tmp_path, name):
    """The real widths, heads, patches and resolution; one layer a tower, with small MLPs; no config beside them."""
    activation = "quick_gelu" if "quickgelu" in name else "gelu"
    mlps = {"vision_mlp_width": 256, "text_mlp_width": 128}
    clip = random_clip(dataclasses.replace(SHAPES[name], activation=activation, **mlps))
    write_open_clip(clip, tmp_path).rename(tmp_path / f"{name}.pt")
    checkpoint = load_checkpoint(tmp_path / f"{name}.pt")
    assert checkpoint.config == clip.config
    model = build_model(checkpoint)
    clip_graphs.write_image_graph(model, tmp_path / "image.onnx", "fp32")
    clip_graphs.write_text_graph(model, tmp_path / "text.onnx", "fp32")
    size = clip.config.image_size
    images = np.random.default_rng(0).integers(0, 256, (1, size, size, 3), dtype=np.uint8)
    ids = np.array([[519, 5, 7, 300, 520, 0, 0], [519, 520, 0, 0, 0, 0, 0]])
    for graph, inputs, expected in (
        ("image", {"super_images": images}, Reference(clip).images(images)),
        ("text", {"token_ids": ids}, Reference(clip).texts(ids)),
    ):
        session = onnxruntime.InferenceSession(tmp_path / f"{graph}.onnx", providers=["CPUExecutionProvider"])
        np.testing.assert_allclose(session.run(None, inputs)[0], expected, atol=5e-6)


@pytest.mark.parametrize(
    ("tower", "key", "value"),
    [
        ("text_cfg", "no_causal_mask", True),
        ("text_cfg", "pool_type", "last"),
        ("vision_cfg", "pool_type", "avg"),
        ("vision_cfg", "timm_model_name", "vit_base_patch16_siglip_224"),
        ("vision_cfg", "norm_kwargs", {"eps": 1e-6}),
    ],
)
def test_a_config_of_open_clip_that_is_half_known_is_refused(tmp_path, clip, tower, key, value):
    torch.save(clip.state_dict(), tmp_path / "open_clip_model.pt")
    towers = {"vision_cfg": {"width": 128, "pool_type": "tok"}, "text_cfg": {"heads": 1, "no_causal_mask": False}}
    file = tmp_path / "open_clip_config.json"
    file.write_text(json.dumps({"model_cfg": towers}))
    assert load_checkpoint(tmp_path / "open_clip_model.pt").config.vision_heads == 2
    towers[tower][key] = value
    file.write_text(json.dumps({"model_cfg": towers}))
    with pytest.raises(GridClipError, match=rf"open_clip_config\.json is not .*{tower}\.{key} is "):
        load_checkpoint(tmp_path / "open_clip_model.pt")


def test_wrapped_state_dicts_of_open_clip_are_gelu(tmp_path, clip):
    path = write_open_clip(clip, tmp_path).rename(tmp_path / "epoch_3.pt")
    assert load_checkpoint(path).config.activation == "gelu"


def test_custom_text_tower_of_open_clip(tmp_path, clip):
    text = ("transformer.", "token_embedding.", "positional_embedding", "ln_final.", "text_projection")
    state_dict = {f"text.{key}" if key.startswith(text) else key: value for key, value in clip.state_dict().items()}
    torch.save(state_dict, tmp_path / "clip.pt")
    assert load_checkpoint(tmp_path / "clip.pt").config == CONFIG


def test_hugging_face_config_gives_heads_activation_and_end_token(tmp_path, clip):
    folder = write_hugging_face(clip, tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"] |= {"num_attention_heads": 4, "hidden_act": "gelu"}
    config["text_config"] |= {"hidden_act": "gelu", "eos_token_id": 7, "bos_token_id": 3}
    (folder / "config.json").write_text(json.dumps(config))
    read = load_checkpoint(folder).config
    assert (read.vision_heads, read.activation, read.start_token, read.end_token) == (4, "gelu", 3, 7)
    assert load_checkpoint(folder / "model.safetensors").config == read
    config["vision_config"]["num_attention_heads"] = 5
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(GridClipError, match="must be a multiple of vision_heads"):
        load_checkpoint(folder)


def test_sharded_hugging_face_folder(tmp_path, clip):
    folder = write_hugging_face(clip, tmp_path)
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    shards = {"a.safetensors": names[:30], "b.safetensors": names[30:]}
    for shard, keys in shards.items():
        safetensors.torch.save_file({key: weights[key] for key in keys}, folder / shard)
    index = {"weight_map": {key: shard for shard, keys in shards.items() for key in keys}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert load_checkpoint(folder).config == CONFIG
    (folder / "b.safetensors").unlink()
    with pytest.raises(GridClipError, match="b.safetensors, which is not beside it"):
        load_checkpoint(folder)


def test_longer_context_is_interpolated_and_shorter_is_cut(checkpoint, clip, token_ids):
    loaded = load_checkpoint(checkpoint)
    longer = build_model(loaded, context_length=33)
    assert longer.positional_embedding.shape == (33, CONFIG.text_width)
    # Linear interpolation written out: position p of 33 sits at (p + 0.5) * 20 / 33 - 0.5 of the old 20.
    old = clip.positional_embedding.numpy()
    at = np.clip((np.arange(33) + 0.5) * 20 / 33 - 0.5, 0, 19)
    expected = np.stack([np.interp(at, np.arange(20), old[:, c]) for c in range(old.shape[1])], axis=1)
    np.testing.assert_allclose(longer.positional_embedding, expected, atol=1e-6)
    shorter = build_model(loaded, context_length=10)
    short = torch.from_numpy(token_ids[:3, :10])
    assert torch.equal(shorter.encode_text(short), clip.encode_text(short))


def test_other_image_sizes_interpolate_the_grid(checkpoint, clip):
    model = build_model(load_checkpoint(checkpoint), image_size=48)
    assert model.visual.positional_embedding.shape == (1 + 6 * 6, CONFIG.vision_width)
    assert torch.equal(model.visual.positional_embedding[0], clip.visual.positional_embedding[0])
    # A plane stays a plane, away from the borders where the bicubic kernel is cut.
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    plane = torch.cat([torch.zeros(1, 1), (2 * y + 3 * x).reshape(-1, 1)])
    resized = resize_image_positions(plane, 32)[1:, 0].reshape(32, 32)
    at = (torch.arange(32) + 0.5) / 2 - 0.5
    expected = 2 * at[:, None] + 3 * at[None]
    torch.testing.assert_close(resized[6:-6, 6:-6], expected[6:-6, 6:-6])


@pytest.mark.parametrize(("option", "value"), [("image_size", 33), ("image_size", 4), ("context_length", 1)])
def test_impossible_sizes_are_refused(checkpoint, option, value):
    with pytest.raises(GridClipError, match=str(value)):
        build_model(load_checkpoint(checkpoint), **{option: value})


def _not_clip(folder: pathlib.Path) -> dict[str, tuple[pathlib.Path, str]]:
    good = write_state_dict(random_clip(CONFIG), folder / "good")
    whole = torch.load(good)
    cases = {}

    def case(name: str, content: object, message: str) -> None:
        path = folder / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            torch.save(content, path)
        cases[name] = (path, message)

    case("linear.pt", torch.nn.Linear(2, 2).state_dict(), "no 'visual.conv1.weight'")
    case("list.pt", [torch.zeros(2)], "holds a list")
    case("empty.pt", b"", "cannot be read")
    case("text.pt", b"hello, this is not a checkpoint", "cannot be read")
    case("letters.pt", bytes(range(97, 123)) * 50, "cannot be read")
    case("passwords.pt", b"root:x:0:0:root:/root:/bin/sh\nq\x80\x02", "cannot be read")
    case("pickle.pt", pickle.dumps({"a": 1}, protocol=2), "cannot be read")
    case("truncated.pt", good.read_bytes()[: good.stat().st_size // 2], "cannot be read")
    case("truncated.safetensors", b"\x10\x00\x00\x00\x00\x00\x00\x00{" + b" " * 5, "cannot be read")
    case("lfs.pt", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer")
    case("resnet.pt", {"visual.layer1.0.conv1.weight": torch.zeros(1)}, "ResNet")
    case("missing.pt", {k: v for k, v in whole.items() if k != "ln_final.weight"}, "missing ln_final.weight")
    case("extra.pt", whole | {"logit_bias": torch.zeros(1)}, "unknown logit_bias")
    case("shape.pt", whole | {"text_projection": torch.zeros(3, 3)}, "wrong shape text_projection")
    return cases


def test_what_is_not_clip_gets_one_clear_error(tmp_path):
    for path, message in _not_clip(tmp_path).values():
        with pytest.raises(GridClipError, match=message) as caught:
            load_checkpoint(path)
        assert str(path) in str(caught.value)
    with pytest.raises(GridClipError, match="holds no weights"):
        load_checkpoint(tmp_path)
    with pytest.raises(GridClipError, match="does not exist"):
        load_checkpoint(tmp_path / "nowhere.pt")


class _Hostile:
    def __init__(self, target: pathlib.Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def test_a_hostile_state_dict_is_not_run(tmp_path):
    torch.save({"visual.conv1.weight": _Hostile(tmp_path / "ran")}, tmp_path / "zip.pt")
    (tmp_path / "bare.pt").write_bytes(pickle.dumps(_Hostile(tmp_path / "ran"), protocol=2))
    for name in ("zip.pt", "bare.pt"):
        with pytest.raises(GridClipError, match="cannot be read"):
            load_checkpoint(tmp_path / name)
    assert not (tmp_path / "ran").exists()


def _rewrite(archive: pathlib.Path, out: pathlib.Path, edits: dict[str, bytes | None]) -> None:
    """Copy a zip with some entries (by the end of their names) replaced, or left out for None."""
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(out, "w") as target:
        for name in source.namelist():
            edited = [content for ending, content in edits.items() if name.endswith(ending)]
            if edited == [None]:
                continue
            target.writestr(name, edited[0] if edited else source.read(name))


def test_a_hostile_torchscript_archive_is_not_run(tmp_path, clip):
    archive = write_torchscript(clip, tmp_path / "good")
    hostile = pickle.dumps(_Hostile(tmp_path / "ran"), protocol=2)
    _rewrite(archive, tmp_path / "pickle.pt", {"/data.pkl": hostile})
    with pytest.raises(GridClipError, match="posix.mkdir"):
        load_checkpoint(tmp_path / "pickle.pt")
    assert not (tmp_path / "ran").exists()
    # The code of an archive is never looked at: with nonsense in its place the weights are still there.
    _rewrite(archive, tmp_path / "code.pt", {".py": b"import os; os.mkdir('ran')", "constants.pkl": hostile})
    assert load_checkpoint(tmp_path / "code.pt").config == CONFIG
    _rewrite(archive, tmp_path / "lost.pt", {"/data/3": None})
    with pytest.raises(GridClipError, match="cannot be read"):
        load_checkpoint(tmp_path / "lost.pt")
    damaged = bytearray(archive.read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    (tmp_path / "damaged.pt").write_bytes(damaged)
    with pytest.raises(GridClipError, match="cannot be read"):
        load_checkpoint(tmp_path / "damaged.pt")
    shutil.copy(archive, tmp_path / "short.pt")
    os.truncate(tmp_path / "short.pt", archive.stat().st_size - 100)
    with pytest.raises(GridClipError, match="cannot be read"):
        load_checkpoint(tmp_path / "short.pt")


@pytest.mark.parametrize("content", [{1: 2}, {None: torch.zeros(1)}, {("a",): 1}, {"state_dict": {1: 2}}, {}])
def test_a_state_dict_with_other_keys_than_names_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "odd.pt")
    with pytest.raises(GridClipError, match=r"odd\.pt"):
        load_checkpoint(tmp_path / "odd.pt")


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "5", '{"weight_map": 5}', '{"weight_map": {"a": ["x"]}}'])
def test_an_index_of_the_wrong_types_is_named(tmp_path, text):
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(GridClipError, match="is not the index of a sharded checkpoint"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "open_clip_config.json", "preprocessor_config.json"])
def test_a_deeply_nested_config_is_named(tmp_path, clip, name):
    path = write_state_dict(clip, tmp_path)
    (path.parent / name).write_text('{"a":' * 100_000)
    with pytest.raises(GridClipError, match=f"{name} is not the config of a model"):
        load_checkpoint(path)


@pytest.mark.parametrize("name", ["x/data.pkl", "x/data/0"])
@pytest.mark.parametrize("kind", ["state dict", "torchscript"])
def test_an_archive_that_inflates_is_not_unpacked(tmp_path, monkeypatch, name, kind):
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda *_: pytest.fail("it was unpacked"))
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        if kind == "torchscript":
            archive.writestr("x/constants.pkl", b"")
        with archive.open(name, "w") as entry:
            for _ in range(100):
                entry.write(bytes(1 << 20))
    assert path.stat().st_size < 1 << 20
    with pytest.raises(GridClipError, match="unpacks to 104,857,600 bytes, expected at most"):
        load_checkpoint(path)


@pytest.mark.parametrize("tensor", [torch.zeros(1).expand(1 << 40, 64), torch.eye(3).to_sparse()])
def test_a_tensor_without_its_values_in_the_file_is_refused(tmp_path, clip, tensor):
    torch.save(clip.state_dict() | {"token_embedding.weight": tensor}, tmp_path / "expanded.pt")
    with pytest.raises(GridClipError, match="token_embedding.weight .* no plain tensor"):
        load_checkpoint(tmp_path / "expanded.pt")
