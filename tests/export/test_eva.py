"""EVA02-CLIP against its definition, written here in float64 with rotations as products of complex numbers."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest
import torch
from gridclip import GridClipError
from gridclip.engine.encoding.encoder import Encoder
from gridclip.export import eva
from gridclip.export.families import find_family
from gridclip.export.folder import export_model
from gridclip.export.graph_writer import PRECISIONS
from gridclip.export.verify import SMALLEST_COSINE
from gridclip.export.weights import read_weights
from torch.nn import functional as F

from .conftest import CONFIG, random_images, write_vocabulary

WIDTH, HEADS, LAYERS, PATCH_PX, GRID, HIDDEN = 128, 2, 2, 8, 4, 170
TEXT_WIDTH, TEXT_HEADS, TEXT_LAYERS, LENGTH, DIM = 64, 1, 3, 12, 40
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # OpenAI's
TEXTS = ["a man plays the violin", "", "Two dogs, and THE ball &amp; a cat", "the and in the " * 20]
TRUNK = "visual.trunk"


def random_weights() -> dict[str, torch.Tensor]:
    """open_clip's layout, with every bias and norm at work."""
    generator = torch.Generator().manual_seed(5)
    tensors: dict[str, torch.Tensor] = {}

    def put(name: str, *shape: int, scale: float | None = None, around: float = 0.0) -> None:
        std = shape[-1] ** -0.5 if scale is None else scale
        tensors[name] = (around + std * torch.randn(shape, generator=generator)).half().float()

    def norm(name: str, width: int) -> None:
        put(f"{name}.weight", width, scale=0.3, around=1.0)
        put(f"{name}.bias", width, scale=0.3)

    def linear(name: str, outputs: int, inputs: int, *, bias: bool = True, scale: float | None = None) -> None:
        put(f"{name}.weight", outputs, inputs, scale=scale)
        if bias:
            put(f"{name}.bias", outputs, scale=0.2)

    put(f"{TRUNK}.cls_token", 1, 1, WIDTH, scale=0.5)
    put(f"{TRUNK}.pos_embed", 1, 1 + GRID**2, WIDTH, scale=0.5)
    put(f"{TRUNK}.patch_embed.proj.weight", WIDTH, 3, PATCH_PX, PATCH_PX, scale=0.05)
    put(f"{TRUNK}.patch_embed.proj.bias", WIDTH, scale=0.2)
    for index in range(LAYERS):
        block = f"{TRUNK}.blocks.{index}"
        norm(f"{block}.norm1", WIDTH)
        for part in "qkv":
            linear(f"{block}.attn.{part}_proj", WIDTH, WIDTH, bias=part != "k", scale=2 * WIDTH**-0.5)
        norm(f"{block}.attn.norm", WIDTH)
        linear(f"{block}.attn.proj", WIDTH, WIDTH)
        norm(f"{block}.norm2", WIDTH)
        linear(f"{block}.mlp.fc1_g", HIDDEN, WIDTH)
        linear(f"{block}.mlp.fc1_x", HIDDEN, WIDTH)
        norm(f"{block}.mlp.norm", HIDDEN)
        linear(f"{block}.mlp.fc2", WIDTH, HIDDEN)
    norm(f"{TRUNK}.norm", WIDTH)
    linear(f"{TRUNK}.head", DIM, WIDTH)
    put("text.token_embedding.weight", CONFIG.vocab_size, TEXT_WIDTH, scale=0.5)
    put("text.positional_embedding", LENGTH, TEXT_WIDTH, scale=0.2)
    for index in range(TEXT_LAYERS):
        block = f"text.transformer.resblocks.{index}"
        norm(f"{block}.ln_1", TEXT_WIDTH)
        put(f"{block}.attn.in_proj_weight", 3 * TEXT_WIDTH, TEXT_WIDTH, scale=2 * TEXT_WIDTH**-0.5)
        put(f"{block}.attn.in_proj_bias", 3 * TEXT_WIDTH, scale=0.2)
        linear(f"{block}.attn.out_proj", TEXT_WIDTH, TEXT_WIDTH)
        norm(f"{block}.ln_2", TEXT_WIDTH)
        linear(f"{block}.mlp.c_fc", 4 * TEXT_WIDTH, TEXT_WIDTH)
        linear(f"{block}.mlp.c_proj", TEXT_WIDTH, 4 * TEXT_WIDTH)
    norm("text.ln_final", TEXT_WIDTH)
    put("text.text_projection", TEXT_WIDTH, DIM)
    tensors["logit_scale"] = torch.tensor(4.6)
    return tensors


def write_checkpoint(
    tensors: dict[str, torch.Tensor], folder: pathlib.Path, config: dict[str, object] | None = None
) -> pathlib.Path:
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(tensors, folder / "open_clip_pytorch_model.bin")
    write_vocabulary(folder / "tokenizer.json")
    if config is not None:
        (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder / "open_clip_pytorch_model.bin"


@dataclasses.dataclass(frozen=True)
class Definition:
    """Embeddings float64 of unit length from nothing but the weights, one image or text at a time."""

    weights: dict[str, torch.Tensor]

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", {key: value.double() for key, value in self.weights.items()})

    def image(self, pixels: np.ndarray, grid: int = GRID) -> np.ndarray:
        """uint8 [S, S, 3]."""
        w = self.weights
        scaled = (torch.from_numpy(pixels).double() / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
        patches = [
            scaled[y * PATCH_PX : (y + 1) * PATCH_PX, x * PATCH_PX : (x + 1) * PATCH_PX].permute(2, 0, 1).flatten()
            for y in range(grid)
            for x in range(grid)
        ]
        tokens = self._linear(torch.stack(patches), f"{TRUNK}.patch_embed.proj")
        tokens = torch.cat([w[f"{TRUNK}.cls_token"][0], tokens]) + w[f"{TRUNK}.pos_embed"][0]
        for index in range(LAYERS):
            block = f"{TRUNK}.blocks.{index}"
            normed = self._norm(tokens, f"{block}.norm1", 1e-6)
            q, k, v = (self._linear(normed, f"{block}.attn.{part}_proj") for part in "qkv")
            mixed = self._norm(attend(q, k, v, HEADS, turns=turns(grid)), f"{block}.attn.norm", 1e-6)
            tokens = tokens + self._linear(mixed, f"{block}.attn.proj")
            normed = self._norm(tokens, f"{block}.norm2", 1e-6)
            gates, values = (self._linear(normed, f"{block}.mlp.fc1_{part}") for part in "gx")
            hidden = self._norm(gates / (1 + (-gates).exp()) * values, f"{block}.mlp.norm", 1e-6)
            tokens = tokens + self._linear(hidden, f"{block}.mlp.fc2")
        embedding = self._linear(self._norm(tokens[:1], f"{TRUNK}.norm", 1e-6), f"{TRUNK}.head")
        return F.normalize(embedding)[0].numpy()

    def text(self, ids: list[int]) -> np.ndarray:
        """Start token, text and end token."""
        w = self.weights
        tokens = w["text.token_embedding.weight"][ids] + w["text.positional_embedding"][: len(ids)]
        hidden = torch.ones(len(ids), len(ids), dtype=torch.bool).triu(1)
        for index in range(TEXT_LAYERS):
            block = f"text.transformer.resblocks.{index}"
            normed = self._norm(tokens, f"{block}.ln_1", 1e-5)
            packed = normed @ w[f"{block}.attn.in_proj_weight"].T + w[f"{block}.attn.in_proj_bias"]
            mixed = attend(*packed.chunk(3, dim=1), TEXT_HEADS, hidden=hidden)
            tokens = tokens + self._linear(mixed, f"{block}.attn.out_proj")
            wide = self._linear(self._norm(tokens, f"{block}.ln_2", 1e-5), f"{block}.mlp.c_fc")
            tokens = tokens + self._linear(wide * (1 + torch.erf(wide / 2**0.5)) / 2, f"{block}.mlp.c_proj")
        return F.normalize(self._norm(tokens[-1:], "text.ln_final", 1e-5) @ w["text.text_projection"])[0].numpy()

    def _linear(self, x, name):
        weight = self.weights[f"{name}.weight"].flatten(1)
        return x @ weight.T + self.weights.get(f"{name}.bias", torch.zeros(len(weight), dtype=torch.float64))

    def _norm(self, x, name, eps):
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt()
        return scaled * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]


def turns(grid: int) -> torch.Tensor:
    """Complex [1 + P, pairs]: rows turn the first half, columns the second, as if there were 16 of each."""
    quarter = WIDTH // HEADS // 4
    frequencies = [10000 ** (-index / quarter) for index in range(quarter)]
    places = [(y * 16 / grid, x * 16 / grid) for y in range(grid) for x in range(grid)]
    angles = [[y * f for f in frequencies] + [x * f for f in frequencies] for y, x in places]
    return torch.exp(1j * torch.tensor([[0.0] * (2 * quarter), *angles], dtype=torch.float64))


def attend(q, k, v, heads, *, turns=None, hidden=None):
    out = []
    for q_head, k_head, v_head in zip(*(each.chunk(heads, dim=1) for each in (q, k, v)), strict=True):
        if turns is not None:
            q_head, k_head = (
                torch.view_as_real(torch.view_as_complex(x.unflatten(1, (-1, 2)).contiguous()) * turns).flatten(1)
                for x in (q_head, k_head)
            )
        scores = q_head @ k_head.T / q_head.shape[1] ** 0.5
        if hidden is not None:
            scores = scores.masked_fill(hidden, -torch.inf)
        out.append(scores.softmax(1) @ v_head)
    return torch.cat(out, 1)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_embeddings_follow_the_definition(tmp_path, precision):
    tensors = random_weights()
    checkpoint = write_checkpoint(tensors, tmp_path / "checkpoint")
    info = export_model(str(checkpoint), tmp_path / "model", precision=precision)
    assert info.fused_attention == {"image": LAYERS, "text": TEXT_LAYERS}
    assert (info.family, info.image_size, info.context_length, info.embed_dim) == ("eva", 32, LENGTH, DIM)
    assert info.has_cells is False and info.logit_scale == pytest.approx(np.exp(4.6))
    encoder = Encoder(tmp_path / "model", provider="cpu", num_threads=1)
    definition, images = Definition(tensors), random_images(32)
    expected = np.stack([definition.image(image) for image in images])
    assert (encoder.encode_images(images) * expected).sum(1).min() >= SMALLEST_COSINE[precision]
    ids = [row[: row.index(info.end_token) + 1] for row in encoder.tokenizer(TEXTS).tolist()]
    assert len(ids[3]) == LENGTH and (info.text_cleaning, info.pad_token) == ("clip", 0)
    expected_texts = np.stack([definition.text(row) for row in ids])
    assert (encoder.encode_texts(TEXTS, batch_size=3) * expected_texts).sum(1).min() >= SMALLEST_COSINE[precision]
    if precision == "fp32":
        np.testing.assert_allclose(encoder.encode_images(images), expected, atol=2e-5)
        np.testing.assert_allclose(encoder.encode_texts(TEXTS), expected_texts, atol=1e-5)


def test_positions_matter_as_the_definition_says(tmp_path):
    """Two images with the same patches in other places differ, in the graph as much as in the definition."""
    tensors = random_weights()
    tensors[f"{TRUNK}.pos_embed"][:, 1:] = 0  # what is left is the rotation
    export_model(str(write_checkpoint(tensors, tmp_path / "checkpoint")), tmp_path / "model")
    image = random_images(32)[0]
    turned = np.stack([image, np.roll(image, PATCH_PX, axis=1), np.roll(image, PATCH_PX, axis=0)])
    found = Encoder(tmp_path / "model", provider="cpu", num_threads=1).encode_images(turned)
    expected = np.stack([Definition(tensors).image(each) for each in turned])
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert min(abs(expected[0] - other).max() for other in expected[1:]) > 1e-3
    assert abs(expected[1] - expected[2]).max() > 1e-3, "rows and columns turn other channels"


def test_another_image_size_has_rotations_between_those_of_the_first(tmp_path):
    tensors = random_weights()
    checkpoint = write_checkpoint(tensors, tmp_path / "checkpoint")
    info = export_model(str(checkpoint), tmp_path / "model", image_size=48, context_length=8)
    assert (info.image_size, info.context_length) == (48, 8)
    positions = tensors[f"{TRUNK}.pos_embed"][0]
    image = positions[1:].T.reshape(1, WIDTH, GRID, GRID)
    larger = F.interpolate(image, size=(6, 6), mode="bicubic", antialias=True, align_corners=False).flatten(2)[0].T
    tensors[f"{TRUNK}.pos_embed"] = torch.cat([positions[:1], larger])[None]
    images = random_images(48)
    expected = np.stack([Definition(tensors).image(each, grid=6) for each in images])
    found = Encoder(tmp_path / "model", provider="cpu", num_threads=1).encode_images(images)
    np.testing.assert_allclose(found, expected, atol=2e-5)


BAAI = {
    "attn.q_proj.bias": "attn.q_bias",
    "attn.v_proj.bias": "attn.v_bias",
    "attn.norm.weight": "attn.inner_attn_ln.weight",
    "attn.norm.bias": "attn.inner_attn_ln.bias",
    **{
        f"mlp.{old}.{kind}": f"mlp.{new}.{kind}"
        for old, new in (("fc1_g", "w1"), ("fc1_x", "w2"), ("fc2", "w3"), ("norm", "ffn_ln"))
        for kind in ("weight", "bias")
    },
}


def in_baai_s_layout(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As BAAI saves it: the same names but for some, and the tables of the rotation, once for every layer."""
    out = {}
    for name, tensor in tensors.items():
        new = name.replace("visual.trunk.", "visual.")
        head, block, inner = new.partition("blocks.")
        number, dot, part = inner.partition(".")
        out[f"{head}{block}{number}{dot}{BAAI.get(part, part)}" if block else new] = tensor
    table = turns(GRID)[1:].repeat_interleave(2, dim=1)
    for prefix in ("visual", *(f"visual.blocks.{index}.attn" for index in range(LAYERS))):
        out[f"{prefix}.rope.freqs_cos"] = table.real.half()
        out[f"{prefix}.rope.freqs_sin"] = table.imag.half()
    return out


def test_baai_s_layout_is_the_same_model(tmp_path):
    tensors = random_weights()
    paths = [
        write_checkpoint(tensors, tmp_path / "open_clip"),
        write_checkpoint(in_baai_s_layout(tensors), tmp_path / "baai"),
    ]
    assert all(find_family(read_weights(path)) is eva for path in paths)
    one, other = (export_model(str(path), path.parent / "model", verify=False).fingerprint for path in paths)
    assert one == other


def test_other_tables_of_rotation_are_refused(tmp_path):
    tensors = in_baai_s_layout(random_weights())
    tensors["visual.blocks.1.attn.rope.freqs_cos"] = tensors["visual.rope.freqs_sin"]
    checkpoint = write_checkpoint(tensors, tmp_path / "checkpoint")
    with pytest.raises(GridClipError, match=r"blocks\.1\.attn\.rope\.freqs_cos is of other rotary positions"):
        export_model(str(checkpoint), tmp_path / "model")


CONFIG_TOLD = {
    "model_cfg": {
        "embed_dim": DIM,
        "vision_cfg": {
            "image_size": 32,
            "timm_model_name": "eva02_large_patch14_clip_224",
            "timm_model_pretrained": False,
            "timm_pool": "token",
            "timm_proj": None,
        },
        "text_cfg": {"context_length": LENGTH, "vocab_size": CONFIG.vocab_size, "width": TEXT_WIDTH, "layers": 3},
        "custom_text": True,
    },
    "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]},
}


def test_the_config_beside_it_is_obeyed_and_what_no_such_model_has_is_refused(tmp_path):
    config = json.loads(json.dumps(CONFIG_TOLD))
    config["model_cfg"]["text_cfg"]["heads"] = 2
    checkpoint = write_checkpoint(random_weights(), tmp_path / "checkpoint", config)
    model = eva.load(read_weights(checkpoint), eva_options()).model
    assert (model.config.image_mean, model.config.text_heads) == ((0.5,) * 3, 2)
    for tower, key, value, complaint in (
        ("text_cfg", "pool_type", "last", "text_cfg.pool_type is 'last', which no EVA02-CLIP model has"),
        ("vision_cfg", "timm_model_name", "eva_giant_patch14_224", "expected an EVA02 model"),
        ("vision_cfg", "timm_pool", "avg", "pooled by 'avg'"),
    ):
        config = json.loads(json.dumps(CONFIG_TOLD))
        config["model_cfg"][tower][key] = value
        checkpoint = write_checkpoint(random_weights(), tmp_path / "checkpoint", config)
        with pytest.raises(GridClipError, match=complaint):
            export_model(str(checkpoint), tmp_path / "model")


def eva_options():
    from gridclip.export.family import LoadOptions

    return LoadOptions()


@pytest.mark.parametrize(
    ("name", "tensor", "complaint"),
    [
        (f"{TRUNK}.head.bias", None, "missing visual.trunk.head.bias"),
        (f"{TRUNK}.blocks.1.attn.norm.weight", None, "missing visual.trunk.blocks.1.attn.norm.weight"),
        ("text.ln_final.bias", None, "missing text.ln_final.bias"),
        # The larger models of the family have norms after the layers and scales, others a bias of the keys.
        (f"{TRUNK}.blocks.0.gamma_1", torch.ones(WIDTH), "unknown visual.trunk.blocks.0.gamma_1"),
        (f"{TRUNK}.blocks.0.attn.k_proj.bias", torch.ones(WIDTH), "unknown visual.trunk.blocks.0.attn.k_proj.bias"),
        (f"{TRUNK}.blocks.0.mlp.fc2.bias", torch.ones(3), r"fc2.bias \(3,\) instead of \(128,\)"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_by_its_tensor_s_name(tmp_path, name, tensor, complaint):
    tensors = random_weights()
    tensors.pop(name, None)
    if tensor is not None:
        tensors[name] = tensor
    checkpoint = write_checkpoint(tensors, tmp_path / "checkpoint")
    assert find_family(read_weights(checkpoint)) is eva
    with pytest.raises(GridClipError, match=rf"is not an EVA02-CLIP checkpoint: .*{complaint}"):
        export_model(str(checkpoint), tmp_path / "model")
    with pytest.raises(GridClipError, match="activation is gelu"):
        export_model(str(checkpoint), tmp_path / "model", activation="quick_gelu")
