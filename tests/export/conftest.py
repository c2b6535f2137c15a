"""A tiny CLIP with random weights, its embeddings computed independently, and the layouts it may be saved in."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import warnings

import numpy as np
import pytest
import safetensors.torch
import torch
from gridclip.export.clip_model import CLIP, ClipConfig
from gridclip.export.tokenizer_files import END_TOKEN, START_TOKEN, clip_tokenizer
from torch import nn

MEAN = np.array([0.48145466, 0.4578275, 0.40821073])
STD = np.array([0.26862954, 0.26130258, 0.27577711])
MERGES = [("t", "h"), ("th", "e</w>"), ("a", "n"), ("i", "n"), ("an", "d</w>"), ("e", "r"), ("in", "g</w>")]
CONFIG = ClipConfig(
    image_size=32,
    patch_size=8,
    vision_width=128,
    vision_layers=2,
    vision_heads=2,
    text_width=64,
    text_layers=3,
    text_heads=1,
    context_length=20,
    vocab_size=512 + len(MERGES) + 2,
    embed_dim=48,
)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


def random_clip(config: ClipConfig, seed: int = 0) -> CLIP:
    """Weights that fp16 holds exactly, with every bias and norm at work and activations that are far from linear."""
    generator = torch.Generator().manual_seed(seed)
    model = CLIP(config)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if "ln_" in name:
            value = name.endswith("weight") + 0.3 * noise
        elif parameter.dim() > 1:
            value = parameter.data * 1.5 + 0.01 * noise
        else:
            value = 0.2 * noise if parameter.dim() else torch.tensor(4.0)
        parameter.data = value.half().float()
    return model.requires_grad_(False).eval()


def random_images(size_px: int, count: int = 4) -> np.ndarray:
    """uint8 [count, size_px, size_px, 3]: noise, black, white, all levels from black to white, more noise."""
    images = np.random.default_rng(0).integers(0, 256, (count, size_px, size_px, 3), dtype=np.uint8)
    images[1], images[2] = 0, 255
    images[3] = np.linspace(0, 255, images[3].size).reshape(images[3].shape)
    return images


@pytest.fixture(scope="session")
def clip() -> CLIP:
    return random_clip(CONFIG)


@pytest.fixture(scope="session")
def super_images() -> np.ndarray:
    """uint8 [5, 32, 32, 3]: smooth colours, noise, black, white, and one that a photo-like gradient fills."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    images[1] = np.linspace(0, 255, 32 * 32 * 3).reshape(32, 32, 3)
    images[2], images[3] = 0, 255
    images[4] = rng.integers(0, 256, (1, 1, 3))
    return images


@pytest.fixture(scope="session")
def token_ids() -> np.ndarray:
    """int64 [4, 20]: short and full, padded with 0 and with the end token."""
    rng = np.random.default_rng(1)
    ids = rng.integers(0, CONFIG.vocab_size - 2, (4, CONFIG.context_length))
    ids[:, 0] = CONFIG.start_token
    ids[0, 5], ids[0, 6:] = CONFIG.end_token, 0
    ids[1, 9:] = CONFIG.end_token
    ids[2, 1], ids[2, 2:] = CONFIG.end_token, 0
    ids[3, -1] = CONFIG.end_token
    return ids


def write_vocabulary(path: pathlib.Path) -> None:
    """The tiny model's vocabulary in OpenAI's layout."""
    letters = [chr(c) for c in [*range(33, 127), *range(161, 173), *range(174, 256), *range(256, 324)]]
    tokens = letters + [c + "</w>" for c in letters] + [a + b for a, b in MERGES] + [START_TOKEN, END_TOKEN]
    clip_tokenizer({token: i for i, token in enumerate(tokens)}, MERGES).save(str(path))


def write_state_dict(model: CLIP, folder: pathlib.Path) -> pathlib.Path:
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({key: value.half() for key, value in model.state_dict().items()}, folder / "clip.pt")
    write_vocabulary(folder / "clip.tokenizer.json")
    return folder / "clip.pt"


def write_torchscript(model: CLIP, folder: pathlib.Path) -> pathlib.Path:
    """What OpenAI's archives are: a half-precision model with its compiled code, its sizes as buffers."""
    folder.mkdir(parents=True, exist_ok=True)
    config = model.config
    copy = CLIP(config)
    copy.load_state_dict(model.state_dict())
    for name in ("context_length", "vocab_size"):
        copy.register_buffer(name, torch.tensor(getattr(config, name)))
    pixels = torch.zeros(1, 3, config.image_size, config.image_size).half()
    ids = torch.full((1, config.context_length), config.end_token)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, and tracing fixes the batch size
        methods = {"encode_image": pixels, "encode_text": ids}
        traced = torch.jit.trace_module(copy.half().eval(), methods, check_trace=False)
        torch.jit.save(traced, str(folder / "archive.pt"))
    write_vocabulary(folder / "archive.tokenizer.json")
    return folder / "archive.pt"


def write_open_clip(model: CLIP, folder: pathlib.Path) -> pathlib.Path:
    """A training checkpoint of a model wrapped for distributed training."""
    folder.mkdir(parents=True, exist_ok=True)
    state_dict = {f"module.{key}": value for key, value in model.state_dict().items()}
    torch.save({"epoch": 3, "name": "run", "state_dict": state_dict}, folder / "vit-quickgelu-e3.pt")
    write_vocabulary(folder / "tokenizer.json")
    return folder / "vit-quickgelu-e3.pt"


def write_hugging_face(model: CLIP, folder: pathlib.Path) -> pathlib.Path:
    folder.mkdir(parents=True, exist_ok=True)
    weights = model.state_dict()
    out = {
        "logit_scale": weights["logit_scale"],
        "visual_projection.weight": weights["visual.proj"].T.contiguous(),
        "text_projection.weight": weights["text_projection"].T.contiguous(),
        "vision_model.embeddings.class_embedding": weights["visual.class_embedding"],
        "vision_model.embeddings.patch_embedding.weight": weights["visual.conv1.weight"],
        "vision_model.embeddings.position_embedding.weight": weights["visual.positional_embedding"],
        "text_model.embeddings.token_embedding.weight": weights["token_embedding.weight"],
        "text_model.embeddings.position_embedding.weight": weights["positional_embedding"],
        "text_model.embeddings.position_ids": torch.arange(model.config.context_length)[None],
    }
    for kind in ("weight", "bias"):
        out[f"vision_model.pre_layrnorm.{kind}"] = weights[f"visual.ln_pre.{kind}"]
        out[f"vision_model.post_layernorm.{kind}"] = weights[f"visual.ln_post.{kind}"]
        out[f"text_model.final_layer_norm.{kind}"] = weights[f"ln_final.{kind}"]
        for tower, prefix, layers in (("vision", "visual.", model.config.vision_layers), ("text", "", 3)):
            for i in range(layers):
                old, new = f"{prefix}transformer.resblocks.{i}", f"{tower}_model.encoder.layers.{i}"
                for name, part in zip("qkv", weights[f"{old}.attn.in_proj_{kind}"].chunk(3), strict=True):
                    out[f"{new}.self_attn.{name}_proj.{kind}"] = part.contiguous()
                out[f"{new}.self_attn.out_proj.{kind}"] = weights[f"{old}.attn.out_proj.{kind}"]
                out[f"{new}.layer_norm1.{kind}"] = weights[f"{old}.ln_1.{kind}"]
                out[f"{new}.layer_norm2.{kind}"] = weights[f"{old}.ln_2.{kind}"]
                out[f"{new}.mlp.fc1.{kind}"] = weights[f"{old}.mlp.c_fc.{kind}"]
                out[f"{new}.mlp.fc2.{kind}"] = weights[f"{old}.mlp.c_proj.{kind}"]
    safetensors.torch.save_file(out, folder / "model.safetensors")
    config = model.config
    tower = {"hidden_act": config.activation, "layer_norm_eps": 1e-5}
    (folder / "config.json").write_text(
        json.dumps(
            {
                "model_type": "clip",
                "vision_config": tower | {"num_attention_heads": config.vision_heads},
                "text_config": tower | {"num_attention_heads": config.text_heads, "eos_token_id": 2},
            }
        )
    )
    write_vocabulary(folder / "tokenizer.json")
    return folder


LAYOUTS = {
    "torchscript": write_torchscript,
    "state_dict": write_state_dict,
    "open_clip": write_open_clip,
    "hugging_face": write_hugging_face,
}


@pytest.fixture(scope="session", params=LAYOUTS)
def layout(request: pytest.FixtureRequest, clip: CLIP, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The tiny model's checkpoint in each layout."""
    return LAYOUTS[request.param](clip, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="session")
def checkpoint(clip: CLIP, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return write_state_dict(clip, tmp_path_factory.mktemp("checkpoint"))


def cell_of_each_patch(config: ClipConfig, cells: int) -> list[int | None]:
    """The cell that holds each patch's centre, patches row by row; None in the margin."""
    side = config.image_size // cells
    found: list[int | None] = []
    for y in range(config.grid):
        for x in range(config.grid):
            centre_y, centre_x = (y + 0.5) * config.patch_size, (x + 0.5) * config.patch_size
            boxes = [(row * side, column * side) for row in range(cells) for column in range(cells)]
            holds = [top <= centre_y < top + side and left <= centre_x < left + side for top, left in boxes]
            found.append(holds.index(True) if True in holds else None)
    return found


@dataclasses.dataclass(frozen=True)
class Reference:
    """CLIP's embeddings computed with torch's own transformer layers, in float64, from nothing but the weights."""

    model: CLIP

    def images(self, super_images: np.ndarray) -> np.ndarray:
        weights = {key: value.double() for key, value in self.model.state_dict().items()}
        x = self._tokens(super_images, weights)
        x = self._layers(x, weights, "visual.", self.model.config.vision_heads, None)
        x = self._norm(x[:, 0], weights, "visual.ln_post") @ weights["visual.proj"]
        return nn.functional.normalize(x).numpy()

    def cells(self, super_images: np.ndarray, cells: int, cell_layers: int | None = None) -> np.ndarray:
        """float64 [B, 1 + cells * cells, D]: one attention over all tokens, masked."""
        weights = {key: value.double() for key, value in self.model.state_dict().items()}
        heads, count = self.model.config.vision_heads, cells**2
        layers = self.model.config.vision_layers
        first = layers - (cell_layers or layers)
        x = self._tokens(super_images, weights)
        x = self._layers(x, weights, "visual.", heads, None, range(first))
        plain = x.shape[1]
        hidden = torch.ones(plain + count, plain + count, dtype=torch.bool)
        hidden[:plain, :plain] = False
        owner = cell_of_each_patch(self.model.config, cells)
        for cell in range(count):
            hidden[plain + cell, plain + cell] = False
            for patch, owned_by in enumerate(owner):
                hidden[plain + cell, 1 + patch] = owned_by != cell
        x = torch.cat([x] + count * [x[:, :1]], 1)
        mask = torch.zeros(hidden.shape, dtype=torch.float64).masked_fill(hidden, -torch.inf)
        x = self._layers(x, weights, "visual.", heads, mask, range(first, layers))
        rows = torch.cat([x[:, :1], x[:, plain:]], 1)
        embeddings = self._norm(rows, weights, "visual.ln_post") @ weights["visual.proj"]
        return nn.functional.normalize(embeddings, dim=-1).numpy()

    def texts(self, token_ids: np.ndarray) -> np.ndarray:
        weights = {key: value.double() for key, value in self.model.state_dict().items()}
        ids = torch.from_numpy(token_ids)
        length = ids.shape[1]
        x = weights["token_embedding.weight"][ids] + weights["positional_embedding"][:length]
        mask = torch.full((length, length), -torch.inf, dtype=torch.float64).triu(1)
        x = self._layers(x, weights, "", self.model.config.text_heads, mask)
        x = self._norm(x, weights, "ln_final")
        ends = [row.tolist().index(self.model.config.end_token) for row in ids]
        x = torch.stack([row[end] for row, end in zip(x, ends, strict=True)]) @ weights["text_projection"]
        return nn.functional.normalize(x).numpy()

    def _tokens(self, super_images: np.ndarray, weights: dict[str, torch.Tensor]) -> torch.Tensor:
        pixels = torch.from_numpy(((super_images / 255 - MEAN) / STD).transpose(0, 3, 1, 2).copy())
        patch = self.model.config.patch_size
        patches = nn.functional.conv2d(pixels, weights["visual.conv1.weight"], stride=patch)
        x = patches.reshape(len(pixels), len(patches[0]), -1).permute(0, 2, 1)
        cls = weights["visual.class_embedding"].repeat(len(x), 1, 1)
        return self._norm(torch.cat([cls, x], 1) + weights["visual.positional_embedding"], weights, "visual.ln_pre")

    def _norm(self, x: torch.Tensor, weights: dict[str, torch.Tensor], name: str) -> torch.Tensor:
        return nn.functional.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"])

    def _layers(
        self,
        x: torch.Tensor,
        weights: dict[str, torch.Tensor],
        prefix: str,
        heads: int,
        mask: torch.Tensor | None,
        chosen: range | None = None,
    ) -> torch.Tensor:
        quick = self.model.config.activation == "quick_gelu"
        activation = (lambda h: h / (1 + torch.exp(-1.702 * h))) if quick else nn.functional.gelu
        names = {
            "self_attn.in_proj_": "attn.in_proj_",
            "self_attn.out_proj.": "attn.out_proj.",
            "linear1.": "mlp.c_fc.",
            "linear2.": "mlp.c_proj.",
            "norm1.": "ln_1.",
            "norm2.": "ln_2.",
        }
        count = sum(f"{prefix}transformer.resblocks.{index}.ln_1.weight" in weights for index in range(100))
        for index in range(count) if chosen is None else chosen:
            block = f"{prefix}transformer.resblocks.{index}."
            width, hidden = x.shape[-1], len(weights[f"{block}mlp.c_fc.weight"])
            layer = nn.TransformerEncoderLayer(
                width, heads, hidden, 0.0, activation, batch_first=True, norm_first=True, dtype=torch.float64
            )
            layer.load_state_dict(
                {a + kind: weights[block + b + kind] for a, b in names.items() for kind in ("weight", "bias")}
            )
            with torch.no_grad():
                x = layer(x, src_mask=mask)  # in training mode: eval mode would take another, fused, path
        return x


@pytest.fixture(scope="session")
def reference(clip: CLIP) -> Reference:
    return Reference(clip)
