"""PE-Core against its definition, written here in float64 with rotations as products of complex numbers."""

import dataclasses
import pathlib

import numpy as np
import pytest
import torch
from gridclip import GridClipError
from gridclip.engine.encoding.encoder import Encoder
from gridclip.export import pe
from gridclip.export.families import find_family
from gridclip.export.folder import export_model
from gridclip.export.graph_writer import PRECISIONS
from gridclip.export.tokenizer_files import load_vocabulary
from gridclip.export.verify import SMALLEST_COSINE
from gridclip.export.weights import read_weights
from torch.nn import functional as F

from .conftest import CONFIG, random_images, write_vocabulary

WIDTH, HEADS, LAYERS, PATCH_PX, GRID, POOL_HEADS = 128, 2, 2, 8, 4, 8
TEXT_WIDTH, TEXT_HEADS, TEXT_LAYERS, LENGTH, DIM = 64, 1, 3, 12, 40
TEXTS = ["a man plays the violin", "", "Two dogs, and THE ball &amp; a cat", "the and in the " * 20]


def random_weights(*, class_token: bool) -> dict[str, torch.Tensor]:
    """Meta's layout, with every bias and norm at work."""
    generator = torch.Generator().manual_seed(5)
    tensors: dict[str, torch.Tensor] = {}

    def put(name: str, *shape: int, scale: float | None = None, around: float = 0.0) -> None:
        std = shape[-1] ** -0.5 if scale is None else scale
        tensors[name] = (around + std * torch.randn(shape, generator=generator)).half().float()

    def norm(name: str, width: int) -> None:
        put(f"{name}.weight", width, scale=0.3, around=1.0)
        put(f"{name}.bias", width, scale=0.3)

    def linear(name: str, outputs: int, inputs: int) -> None:
        put(f"{name}.weight", outputs, inputs)
        put(f"{name}.bias", outputs, scale=0.2)

    def attention(name: str, width: int) -> None:
        put(f"{name}.in_proj_weight", 3 * width, width, scale=2 * width**-0.5)
        put(f"{name}.in_proj_bias", 3 * width, scale=0.2)
        linear(f"{name}.out_proj", width, width)

    def layers(prefix: str, width: int, count: int) -> None:
        for index in range(count):
            block = f"{prefix}transformer.resblocks.{index}"
            norm(f"{block}.ln_1", width)
            attention(f"{block}.attn", width)
            norm(f"{block}.ln_2", width)
            linear(f"{block}.mlp.c_fc", 3 * width, width)
            linear(f"{block}.mlp.c_proj", width, 3 * width)

    put("visual.conv1.weight", WIDTH, 3, PATCH_PX, PATCH_PX, scale=0.05)
    if class_token:
        put("visual.class_embedding", WIDTH, scale=0.5)
    put("visual.positional_embedding", GRID**2 + class_token, WIDTH, scale=0.5)
    norm("visual.ln_pre", WIDTH)
    layers("visual.", WIDTH, LAYERS)
    norm("visual.ln_post", WIDTH)
    put("visual.attn_pool.probe", 1, 1, WIDTH, scale=1.0)
    attention("visual.attn_pool.attn", WIDTH)
    norm("visual.attn_pool.layernorm", WIDTH)
    linear("visual.attn_pool.mlp.c_fc", 4 * WIDTH, WIDTH)
    linear("visual.attn_pool.mlp.c_proj", WIDTH, 4 * WIDTH)
    put("visual.proj", WIDTH, DIM)
    put("token_embedding.weight", CONFIG.vocab_size, TEXT_WIDTH, scale=0.5)
    put("positional_embedding", LENGTH, TEXT_WIDTH, scale=0.2)
    layers("", TEXT_WIDTH, TEXT_LAYERS)
    norm("ln_final", TEXT_WIDTH)
    put("text_projection", TEXT_WIDTH, DIM)
    tensors["logit_scale"] = torch.tensor(4.6)
    return tensors


def write_checkpoint(tensors: dict[str, torch.Tensor], folder: pathlib.Path) -> pathlib.Path:
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(tensors, folder / "PE-Core.pt")
    write_vocabulary(folder / "PE-Core.tokenizer.json")
    return folder / "PE-Core.pt"


@dataclasses.dataclass(frozen=True)
class Definition:
    """Embeddings float64 of unit length from nothing but the weights, one image or text at a time."""

    weights: dict[str, torch.Tensor]

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", {key: value.double() for key, value in self.weights.items()})

    def image(self, pixels: np.ndarray, grid: int = GRID) -> np.ndarray:
        """uint8 [S, S, 3]."""
        w = self.weights
        scaled = torch.from_numpy(pixels).double() / 127.5 - 1
        patches = [
            scaled[y * PATCH_PX : (y + 1) * PATCH_PX, x * PATCH_PX : (x + 1) * PATCH_PX].permute(2, 0, 1).flatten()
            for y in range(grid)
            for x in range(grid)
        ]
        tokens = torch.stack(patches) @ w["visual.conv1.weight"].flatten(1).T
        class_token = "visual.class_embedding" in w
        places = [(x + class_token, y + class_token) for y in range(grid) for x in range(grid)]
        if class_token:
            tokens = torch.cat([w["visual.class_embedding"][None], tokens])
            places = [(0, 0), *places]
        tokens = self._norm(tokens + w["visual.positional_embedding"], "visual.ln_pre")
        for index in range(LAYERS):
            tokens = self._layer(tokens, f"visual.transformer.resblocks.{index}", HEADS, self._turns(places), None)
        tokens = self._norm(tokens, "visual.ln_post")
        pooled = self._attention(
            w["visual.attn_pool.probe"][0], tokens, "visual.attn_pool.attn", POOL_HEADS, None, None
        )
        pooled = pooled + self._mlp(self._norm(pooled, "visual.attn_pool.layernorm"), "visual.attn_pool.mlp")
        return F.normalize(pooled @ w["visual.proj"])[0].numpy()

    def text(self, ids: list[int]) -> np.ndarray:
        """Start token, text and end token."""
        w = self.weights
        tokens = w["token_embedding.weight"][ids] + w["positional_embedding"][: len(ids)]
        hidden = torch.ones(len(ids), len(ids), dtype=torch.bool).triu(1)
        for index in range(TEXT_LAYERS):
            tokens = self._layer(tokens, f"transformer.resblocks.{index}", TEXT_HEADS, None, hidden)
        return F.normalize(self._norm(tokens[-1:], "ln_final") @ w["text_projection"])[0].numpy()

    def _turns(self, places: list[tuple[int, int]]) -> torch.Tensor:
        """Complex [L, pairs]: the first half turns with the column, the second with the row."""
        quarter = WIDTH // HEADS // 4
        frequencies = [10000 ** (-index / quarter) for index in range(quarter)]
        angles = [[x * f for f in frequencies] + [y * f for f in frequencies] for x, y in places]
        return torch.exp(1j * torch.tensor(angles, dtype=torch.float64))

    def _layer(self, x, name, heads, turns, hidden):
        normed = self._norm(x, f"{name}.ln_1")
        x = x + self._attention(normed, normed, f"{name}.attn", heads, turns, hidden)
        return x + self._mlp(self._norm(x, f"{name}.ln_2"), f"{name}.mlp")

    def _attention(self, queries, others, name, heads, turns, hidden):
        w, width = self.weights, queries.shape[-1]
        parts = zip(w[f"{name}.in_proj_weight"].chunk(3), w[f"{name}.in_proj_bias"].chunk(3), strict=True)
        q, k, v = (x @ m.T + b for x, (m, b) in zip((queries, others, others), parts, strict=True))
        out = []
        for head in range(heads):
            channels = slice(head * width // heads, (head + 1) * width // heads)
            q_head, k_head = q[:, channels], k[:, channels]
            if turns is not None:
                q_head, k_head = (
                    torch.view_as_real(torch.view_as_complex(x.unflatten(1, (-1, 2)).contiguous()) * turns).flatten(1)
                    for x in (q_head, k_head)
                )
            scores = q_head @ k_head.T / (width // heads) ** 0.5
            if hidden is not None:
                scores = scores.masked_fill(hidden, -torch.inf)
            out.append(scores.softmax(1) @ v[:, channels])
        return torch.cat(out, 1) @ w[f"{name}.out_proj.weight"].T + w[f"{name}.out_proj.bias"]

    def _norm(self, x, name):
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return scaled * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def _mlp(self, x, name):
        w = self.weights
        hidden = x @ w[f"{name}.c_fc.weight"].T + w[f"{name}.c_fc.bias"]
        hidden = hidden * (1 + torch.erf(hidden / 2**0.5)) / 2
        return hidden @ w[f"{name}.c_proj.weight"].T + w[f"{name}.c_proj.bias"]


@pytest.mark.parametrize("class_token", [True, False])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_embeddings_follow_the_definition(tmp_path, precision, class_token):
    tensors = random_weights(class_token=class_token)
    checkpoint = write_checkpoint(tensors, tmp_path / "checkpoint")
    info = export_model(str(checkpoint), tmp_path / "model", precision=precision)
    assert info.fused_attention == {"image": LAYERS + 1, "text": TEXT_LAYERS}
    assert (info.family, info.image_size, info.context_length, info.embed_dim) == ("pe", 32, LENGTH, DIM)
    assert info.has_cells is False and info.logit_scale == pytest.approx(np.exp(4.6))
    encoder = Encoder(tmp_path / "model", provider="cpu", num_threads=1)
    definition, images = Definition(tensors), random_images(32)
    expected = np.stack([definition.image(image) for image in images])
    cosines = (encoder.encode_images(images) * expected).sum(1)
    assert cosines.min() >= SMALLEST_COSINE[precision]
    ids = [row[: row.index(info.end_token) + 1] for row in encoder.tokenizer(TEXTS).tolist()]
    assert len(ids[3]) == LENGTH
    expected = np.stack([definition.text(row) for row in ids])
    assert (encoder.encode_texts(TEXTS, batch_size=3) * expected).sum(1).min() >= SMALLEST_COSINE[precision]
    if precision == "fp32":
        np.testing.assert_allclose(encoder.encode_texts(TEXTS), expected, atol=1e-5)


def test_positions_matter_as_the_definition_says(tmp_path):
    """Two images with the same patches in other places differ, in the graph as much as in the definition."""
    tensors = random_weights(class_token=True)
    tensors["visual.positional_embedding"][1:] = 0  # what is left is the rotation
    checkpoint = write_checkpoint(tensors, tmp_path / "checkpoint")
    export_model(str(checkpoint), tmp_path / "model")
    image = random_images(32)[0]
    both = np.stack([image, np.roll(image, PATCH_PX, axis=1)])
    found = Encoder(tmp_path / "model", provider="cpu", num_threads=1).encode_images(both)
    expected = np.stack([Definition(tensors).image(each) for each in both])
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert abs(expected[0] - expected[1]).max() > 1e-3


def test_another_image_size_has_rotations_of_its_own(tmp_path):
    tensors = random_weights(class_token=True)
    checkpoint = write_checkpoint(tensors, tmp_path / "checkpoint")
    info = export_model(str(checkpoint), tmp_path / "model", image_size=48, context_length=8)
    assert (info.image_size, info.context_length) == (48, 8)
    positions = tensors["visual.positional_embedding"]
    image = positions[1:].T.reshape(1, WIDTH, GRID, GRID)
    larger = F.interpolate(image, size=(6, 6), mode="bilinear", align_corners=False).flatten(2)[0].T
    tensors["visual.positional_embedding"] = torch.cat([positions[:1], larger])
    images = random_images(48)
    expected = np.stack([Definition(tensors).image(each, grid=6) for each in images])
    found = Encoder(tmp_path / "model", provider="cpu", num_threads=1).encode_images(images)
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_ids_are_clip_s(tmp_path):
    """PE-Core's own tokenizer is OpenAI's, with another length."""
    checkpoint = write_checkpoint(random_weights(class_token=True), tmp_path / "checkpoint")
    info = export_model(str(checkpoint), tmp_path / "model", verify=False)
    assert (info.text_cleaning, info.pad_token, info.start_token, info.end_token) == ("clip", 0, 519, 520)
    own = load_vocabulary(checkpoint, CONFIG.vocab_size).tokenizer
    ids = own.encode("the and", add_special_tokens=False).ids
    row = Encoder(tmp_path / "model", provider="cpu").tokenizer(["  The\tAND "])[0].tolist()
    assert row == [519, *ids, 520] + [0] * (LENGTH - len(ids) - 2)


def in_timm_s_layout(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As open_clip saves PE-Core: timm's image tower under visual.trunk, the texts under text."""
    out = {"visual.trunk.head.bias": torch.zeros(DIM)}
    for name, tensor in tensors.items():
        if not name.startswith("visual."):
            out[name if name == "logit_scale" else f"text.{name}"] = tensor
    block = "visual.transformer.resblocks"
    pairs = {
        "visual.conv1.weight": "patch_embed.proj.weight",
        "visual.attn_pool.probe": "attn_pool.latent",
    }
    for kind in ("weight", "bias"):
        pairs |= {f"visual.ln_pre.{kind}": f"norm_pre.{kind}", f"visual.ln_post.{kind}": f"norm.{kind}"}
        pool = "visual.attn_pool"
        pairs |= {f"{pool}.attn.out_proj.{kind}": f"attn_pool.proj.{kind}"}
        pairs |= {f"{pool}.layernorm.{kind}": f"attn_pool.norm.{kind}"}
        pairs |= {f"{pool}.mlp.c_fc.{kind}": f"attn_pool.mlp.fc1.{kind}"}
        pairs |= {f"{pool}.mlp.c_proj.{kind}": f"attn_pool.mlp.fc2.{kind}"}
        for index in range(LAYERS):
            pairs |= {f"{block}.{index}.attn.in_proj_{kind}": f"blocks.{index}.attn.qkv.{kind}"}
            pairs |= {f"{block}.{index}.attn.out_proj.{kind}": f"blocks.{index}.attn.proj.{kind}"}
            pairs |= {f"{block}.{index}.ln_1.{kind}": f"blocks.{index}.norm1.{kind}"}
            pairs |= {f"{block}.{index}.ln_2.{kind}": f"blocks.{index}.norm2.{kind}"}
            pairs |= {f"{block}.{index}.mlp.c_fc.{kind}": f"blocks.{index}.mlp.fc1.{kind}"}
            pairs |= {f"{block}.{index}.mlp.c_proj.{kind}": f"blocks.{index}.mlp.fc2.{kind}"}
        packed = tensors[f"visual.attn_pool.attn.in_proj_{kind}"]
        out[f"visual.trunk.attn_pool.q.{kind}"] = packed[:WIDTH].clone()
        out[f"visual.trunk.attn_pool.kv.{kind}"] = packed[WIDTH:].clone()
    out |= {f"visual.trunk.{new}": tensors[old] for old, new in pairs.items()}
    out["visual.trunk.head.weight"] = tensors["visual.proj"].T.contiguous()
    out["visual.trunk.pos_embed"] = tensors["visual.positional_embedding"][None]
    if "visual.class_embedding" in tensors:
        out["visual.trunk.cls_token"] = tensors["visual.class_embedding"][None, None]
    return out


@pytest.mark.parametrize("class_token", [True, False])
def test_open_clip_s_layout_is_the_same_model(tmp_path, class_token):
    tensors = random_weights(class_token=class_token)
    checkpoint = write_checkpoint(tensors, tmp_path / "meta")
    other = write_checkpoint(in_timm_s_layout(tensors), tmp_path / "open_clip")
    assert find_family(read_weights(other)) is pe
    fingerprints = [
        export_model(str(path), path.parent / "model", verify=False).fingerprint for path in (checkpoint, other)
    ]
    assert fingerprints[0] == fingerprints[1]


def test_open_clip_s_layout_is_refused_where_it_does_not_fit(tmp_path):
    tensors = in_timm_s_layout(random_weights(class_token=True))
    tensors["visual.trunk.head.bias"] += 1
    other = write_checkpoint(tensors, tmp_path / "open_clip")
    with pytest.raises(GridClipError, match=r"visual\.trunk\.head\.bias is not 0"):
        export_model(str(other), tmp_path / "model")
    tensors["visual.trunk.head.bias"] *= 0
    del tensors["visual.trunk.attn_pool.kv.bias"]
    other = write_checkpoint(tensors, tmp_path / "open_clip")
    with pytest.raises(GridClipError, match=r"missing visual\.attn_pool\.keys_values\.bias"):
        export_model(str(other), tmp_path / "model")


@pytest.mark.parametrize(
    ("name", "tensor", "complaint"),
    [
        ("visual.attn_pool.probe", None, "missing visual.attn_pool.probe"),
        ("visual.ln_pre.bias", None, "missing visual.ln_pre.bias"),
        ("visual.proj", None, "missing visual.proj"),
        # The models for language and for space have scales in their layers.
        ("visual.transformer.resblocks.0.ls_1.gamma", torch.ones(WIDTH), "unknown visual.transformer.resblocks.0.ls_1"),
        (
            "visual.positional_embedding",
            torch.ones(19, WIDTH),
            r"positional_embedding \(19, 128\) instead of \(17, 128\)",
        ),
        ("visual.attn_pool.mlp.c_proj.bias", torch.ones(3), r"c_proj.bias \(3,\) instead of \(128,\)"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_by_its_tensor_s_name(tmp_path, name, tensor, complaint):
    tensors = random_weights(class_token=True)
    tensors.pop(name, None)
    if tensor is not None:
        tensors[name] = tensor
    checkpoint = write_checkpoint(tensors, tmp_path / "checkpoint")
    assert find_family(read_weights(checkpoint)) is pe
    with pytest.raises(GridClipError, match=rf"PE-Core\.pt is not a PE-Core checkpoint: .*{complaint}"):
        export_model(str(checkpoint), tmp_path / "model")
    with pytest.raises(GridClipError, match="whose activation is gelu"):
        export_model(str(checkpoint), tmp_path / "model", activation="quick_gelu")
