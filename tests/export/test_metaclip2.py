"""MetaCLIP 2 against transformers: embeddings, cells, token ids, and what is refused.

XLM-V's vocabulary is not in the repository: a small one of its kind stands for it, which transformers' own tokenizer is
made with.
"""

import json
import pathlib
import string

import numpy as np
import onnxruntime
import pytest
import safetensors.torch
import tokenizers
import torch
import transformers
from gridclip import GridClipError
from gridclip.engine.encoding.encoder import Encoder
from gridclip.export import clip, metaclip2
from gridclip.export.clip_model import CLIP, ClipConfig
from gridclip.export.families import find_family
from gridclip.export.family import LoadOptions
from gridclip.export.folder import export_model
from gridclip.export.graph_writer import PRECISIONS
from gridclip.export.known_models import known_model
from gridclip.export.verify import CAPTIONS, SMALLEST_COSINE
from gridclip.export.weights import Weights, read_weights
from tokenizers import models, normalizers, pre_tokenizers, trainers
from torch.nn import functional as F

from .conftest import MEAN, STD, Reference, random_images

LENGTH = 20
TEXTS = [
    "A man plays the Violin, loudly!",
    "",
    "Zwei Hunde;  eine KATZE\tund der (rote) Ball",
    "the quick brown fox jumps over the lazy dog and then goes on and on and on until the row is full " * 3,
    "a text that </s> ends early, as it does for transformers",
    "naïve façade \u2014 ５０% off \u732b",
]
CORPUS = [*TEXTS, *CAPTIONS, string.ascii_letters, string.digits]
TOKENS = "text_model.embeddings.token_embedding.weight"


def xlm_tokenizer(texts: list[str], vocab_size: int = 400) -> transformers.XLMRobertaTokenizer:
    """Unigrams over words with a mark before them, <s> <pad> </s> <unk> first and <mask> last; case counts."""
    trained = tokenizers.Tokenizer(models.Unigram())
    trained.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=vocab_size - 1, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    trained.train_from_iterator(texts, trainer)
    pieces = json.loads(trained.to_str())["model"]["vocab"]
    made = transformers.XLMRobertaTokenizer(vocab=[*map(tuple, pieces), ("<mask>", 0.0)])
    made.backend_tokenizer.normalizer = normalizers.NFKC()  # near to XLM-V's own, which is a table
    return made


def own_ids(tokenizer: transformers.XLMRobertaTokenizer, texts: list[str], length: int = LENGTH) -> np.ndarray:
    """int64 [Q, length], as Meta's code asks for them."""
    told = tokenizer(texts, padding="max_length", truncation=True, max_length=length)
    return np.array(told["input_ids"], np.int64)


def random_model(vocab_size: int, activation: str = "quick_gelu", length: int = LENGTH) -> transformers.MetaClip2Model:
    """Every bias and norm at work, in float32 that fp16 holds exactly."""
    torch.manual_seed(3)
    tower = {"hidden_act": activation, "projection_dim": 40}
    image = {"hidden_size": 48, "intermediate_size": 120, "num_hidden_layers": 2, "num_attention_heads": 3}
    text = {"hidden_size": 32, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 2}
    tokens = {"vocab_size": vocab_size, "max_position_embeddings": length, "bos_token_id": 0, "eos_token_id": 2}
    config = transformers.MetaClip2Config(
        vision_config=tower | image | {"image_size": 32, "patch_size": 8},
        text_config=tower | text | tokens,
        projection_dim=40,
    )
    model = transformers.MetaClip2Model(config)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape)
        if "norm" in name:  # also the misspelt "layrnorm"
            value = name.endswith("weight") + 0.3 * noise
        elif parameter.dim() > 1:
            value = 1.5 * noise * parameter.shape[-1] ** -0.5
        else:
            value = 0.2 * noise if parameter.dim() else torch.tensor(4.0)
        parameter.data = value.half().float()
    return model.requires_grad_(False).eval()


def write_folder(model: transformers.MetaClip2Model, tokenizer, folder: pathlib.Path) -> pathlib.Path:
    """What `save_pretrained` writes, with the preprocessor's config."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": [*MEAN], "image_std": [*STD]}))
    return folder


@pytest.fixture(scope="module")
def tokenizer():
    return xlm_tokenizer(CORPUS)


@pytest.fixture(scope="module", params=["quick_gelu", "gelu"])
def model(request, tokenizer):
    return random_model(len(tokenizer), request.param)


@pytest.fixture(scope="module")
def folder(model, tokenizer, tmp_path_factory):
    return write_folder(model, tokenizer, tmp_path_factory.mktemp("metaclip2"))


def unit(rows: torch.Tensor) -> np.ndarray:
    return F.normalize(rows, dim=-1).numpy()


def expected_images(model, images: np.ndarray) -> np.ndarray:
    pixels = torch.from_numpy(((images / 255 - MEAN) / STD).transpose(0, 3, 1, 2)).float()
    return unit(model.get_image_features(pixel_values=pixels).pooler_output)


def expected_texts(model, ids: np.ndarray, **options: torch.Tensor) -> np.ndarray:
    return unit(model.get_text_features(input_ids=torch.from_numpy(ids), **options).pooler_output)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_embeddings_are_those_of_transformers(model, tokenizer, folder, tmp_path, precision):
    info = export_model(str(folder), tmp_path / "model", precision=precision)
    assert info.fused_attention == {"image": 2, "text": 3} and info.cells_fused_attention == 4
    assert (info.family, info.pooling, info.causal_text, info.text_cleaning) == ("metaclip2", "end_token", True, "none")
    assert (info.start_token, info.pad_token, info.end_token) == (0, 1, 2)
    assert (info.vocab_size, info.context_length, info.embed_dim) == (len(tokenizer), LENGTH, 40)
    assert info.activation == model.config.text_config.hidden_act and info.logit_scale == pytest.approx(np.exp(4))
    encoder = Encoder(tmp_path / "model", provider="cpu", num_threads=1)
    images = random_images(32, count=5)
    cosines = (encoder.encode_images(images) * expected_images(model, images)).sum(1)
    assert cosines.min() >= SMALLEST_COSINE[precision]
    with_cells = encoder.encode_images(images, cells=2)
    assert with_cells.shape == (5, 5, 40)
    assert (with_cells[:, 0] * expected_images(model, images)).sum(1).min() >= SMALLEST_COSINE[precision]
    ids = own_ids(tokenizer, TEXTS)
    np.testing.assert_array_equal(encoder.tokenizer(TEXTS), ids)
    cosines = (encoder.encode_texts(TEXTS, batch_size=2) * expected_texts(model, ids)).sum(1)
    assert cosines.min() >= SMALLEST_COSINE[precision]
    if precision == "fp32":
        np.testing.assert_allclose(encoder.encode_images(images), expected_images(model, images), atol=1e-5)
        np.testing.assert_allclose(encoder.encode_texts(TEXTS), expected_texts(model, ids), atol=1e-5)


def test_the_other_activation_is_another_model(model, folder, tmp_path):
    """Else the comparisons above could not tell them apart."""
    config = json.loads((folder / "config.json").read_text())
    other = {"quick_gelu": "gelu", "gelu": "quick_gelu"}[model.config.text_config.hidden_act]
    loaded = metaclip2.load(read_weights(folder), LoadOptions(activation=other))
    assert config["text_config"]["hidden_act"] != other == loaded.model.config.activation
    images = random_images(32)
    found = unit(loaded.embed_images(torch.from_numpy(images)))
    assert np.abs(found - expected_images(model, images)).max() > 1e-3


def test_padding_is_never_seen(model, tokenizer, folder, tmp_path):
    """Whether transformers hides it or not, whatever it is, and when it is cut off: the tower is causal."""
    ids = own_ids(tokenizer, TEXTS)
    mask = torch.from_numpy(ids != tokenizer.pad_token_id).long()
    expected = expected_texts(model, ids, attention_mask=mask)
    np.testing.assert_allclose(expected_texts(model, ids), expected, atol=1e-6)
    export_model(str(folder), tmp_path / "model", verify=False)
    session = onnxruntime.InferenceSession(tmp_path / "model" / "text.onnx", providers=["CPUExecutionProvider"])
    for padding in (tokenizer.pad_token_id, tokenizer.eos_token_id, 7):
        rows = np.where(mask.bool().numpy(), ids, padding)
        np.testing.assert_allclose(session.run(None, {"token_ids": rows})[0], expected, atol=1e-5)
    for row, kept, wanted in zip(ids, mask.sum(1).tolist(), expected, strict=True):
        np.testing.assert_allclose(session.run(None, {"token_ids": row[None, :kept]})[0][0], wanted, atol=1e-5)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_cells_are_those_of_a_masked_attention(folder, tmp_path, precision):
    loaded = metaclip2.load(read_weights(folder), LoadOptions())
    info = export_model(str(folder), tmp_path / "model", precision=precision)
    assert info.has_cells and info.cells_smallest_cosine >= SMALLEST_COSINE[precision]
    session = onnxruntime.InferenceSession(tmp_path / "model" / "image_cells.onnx", providers=["CPUExecutionProvider"])
    images = random_images(32)
    for cells in (2, 3):
        inputs = {"super_images": images, "cell_patches": info.cell_patches(cells)}
        expected = Reference(loaded.model).cells(images, cells)
        cosines = (session.run(None, inputs)[0] * expected).sum(2)
        assert cosines.shape == (4, 1 + cells**2) and cosines.min() >= SMALLEST_COSINE[precision]


def test_a_shorter_context_cuts_texts_as_the_own_tokenizer_does(model, tokenizer, folder, tmp_path):
    info = export_model(str(folder), tmp_path / "model", context_length=9, image_size=48)
    assert (info.context_length, info.image_size) == (9, 48)
    encoder = Encoder(tmp_path / "model", provider="cpu", num_threads=1)
    ids = own_ids(tokenizer, TEXTS, 9)
    np.testing.assert_array_equal(encoder.tokenizer(TEXTS), ids)
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), expected_texts(model, ids), atol=1e-5)


def test_ids_of_activitynet_s_captions_are_those_of_the_own_tokenizer(shared_data, tmp_path):
    content = json.loads((shared_data / "annotations" / "activitynet_val_1.json").read_text())
    captions = [text for video in content.values() for text in video["sentences"]]
    assert len(captions) == 17_505
    tokenizer = xlm_tokenizer(captions[:2000], vocab_size=1000)
    folder = write_folder(random_model(len(tokenizer), length=77), tokenizer, tmp_path / "checkpoint")
    export_model(str(folder), tmp_path / "model", verify=False)
    found = Encoder(tmp_path / "model", provider="cpu").tokenizer(captions)
    np.testing.assert_array_equal(found, own_ids(tokenizer, captions, 77))


def open_clip_names(folder: pathlib.Path) -> dict[str, torch.Tensor]:
    """The weights of a Hugging Face folder under open_clip's names, which are Meta's, too."""
    return dict(metaclip2.load(read_weights(folder), LoadOptions()).weights)


def open_clip_config(vocab_size: int) -> dict[str, object]:
    text = {"hf_tokenizer_name": "facebook/xlm-v-base", "pool_type": "eos", "eos_id": 2, "context_length": LENGTH}
    return {
        "model_cfg": {
            "embed_dim": 40,
            "vision_cfg": {"image_size": 32, "layers": 2, "width": 48, "head_width": 16, "patch_size": 8},
            "text_cfg": text | {"vocab_size": vocab_size, "width": 32, "heads": 2, "layers": 3},
        },
        "preprocess_cfg": {"mean": [*MEAN], "std": [*STD], "interpolation": "bicubic"},
    }


def write_open_clip(folder: pathlib.Path, target: pathlib.Path, config: dict[str, object]) -> pathlib.Path:
    target.mkdir()
    safetensors.torch.save_file(open_clip_names(folder), target / "open_clip_model.safetensors")
    (target / "open_clip_config.json").write_text(json.dumps(config))
    (target / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    return target


@pytest.mark.parametrize("named", ["facebook/xlm-v-base", "timm/vit_huge_patch14_clip_224.metaclip2_worldwide"])
def test_open_clip_s_layout_is_the_same_model(model, tokenizer, folder, tmp_path, monkeypatch, named):
    """A copy on the hub may name itself as its tokenizer's place; it is then known by the size of its vocabulary."""
    if not named.startswith("facebook/"):
        monkeypatch.setattr(metaclip2, "_VOCAB_SIZE", len(tokenizer))
    config = open_clip_config(model.config.text_config.vocab_size)
    config["model_cfg"]["text_cfg"]["hf_tokenizer_name"] = named
    config["model_cfg"]["quick_gelu"] = model.config.text_config.hidden_act == "quick_gelu"
    copy = write_open_clip(folder, tmp_path / "open_clip", config)
    assert find_family(read_weights(copy)) is find_family(read_weights(folder)) is metaclip2
    one, other = (
        export_model(str(path), tmp_path / f"model{index}", verify=False) for index, path in enumerate((folder, copy))
    )
    assert one.fingerprint == other.fingerprint and one.activation == other.activation


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("pool_type", "argmax", "text_cfg.pool_type is 'argmax', expected 'eos'"),
        ("eos_id", None, "text_cfg.eos_id is None, expected 2"),
        ("no_causal_mask", True, "text_cfg.no_causal_mask is True, which no MetaCLIP 2 has"),
    ],
)
def test_a_config_of_open_clip_that_is_half_known_is_refused(folder, tmp_path, key, value, complaint):
    config = open_clip_config(400)
    config["model_cfg"]["text_cfg"][key] = value
    copy = write_open_clip(folder, tmp_path / "open_clip", config)
    with pytest.raises(GridClipError, match=f"open_clip_config.json is not the config of a MetaCLIP 2.*{complaint}"):
        export_model(str(copy), tmp_path / "model")


@pytest.mark.parametrize(
    ("name", "activation"),
    [("metaclip2_h14_quickgelu_224px_worldwide.pt", "quick_gelu"), ("metaclip2_b32_224px_worldwide.pt", "gelu")],
)
@pytest.mark.parametrize("wrapped", [True, False])
def test_meta_s_files_are_known_by_the_size_of_their_vocabulary(
    folder, tokenizer, tmp_path, monkeypatch, name, activation, wrapped
):
    """Their names say "quickgelu", and the code that they belong to takes gelu otherwise; no config is beside them."""
    monkeypatch.setattr(metaclip2, "_VOCAB_SIZE", len(tokenizer))
    tensors = open_clip_names(folder)
    torch.save({"epoch": 1, "state_dict": tensors} if wrapped else tensors, tmp_path / name)
    with pytest.raises(
        GridClipError, match=f"a vocabulary of its own \\({len(tokenizer)} tokens\\): pass a `tokenizer`"
    ):
        export_model(str(tmp_path / name), tmp_path / "model")
    info = export_model(str(tmp_path / name), tmp_path / "model", tokenizer=folder, verify=False)
    assert (info.family, info.activation, info.end_token) == ("metaclip2", activation, 2)


@pytest.mark.parametrize("name", ["token_embedding.weight", "text.token_embedding.weight", TOKENS])
def test_the_size_of_xlm_v_s_vocabulary_tells_the_family(tmp_path, name):
    def weights(tokens: int) -> Weights:
        return Weights(tmp_path, (tmp_path / "model.pt",), {name: torch.empty(tokens, 8, device="meta")}, False)

    assert find_family(weights(901_629)) is metaclip2
    assert not metaclip2.recognises(Weights(tmp_path, (tmp_path / "model.pt",), {name: torch.tensor(1.0)}, False))
    assert find_family(weights(49_408)) is clip


# Of facebookresearch/MetaCLIP, src/mini_clip/model_configs.
PUBLISHED = {
    "metaclip-2-worldwide-s16": ClipConfig(224, 16, 384, 12, 6, 384, 12, 6, 77, 901_629, 384),
    "metaclip-2-worldwide-b32-384": ClipConfig(384, 32, 768, 12, 12, 512, 12, 8, 77, 901_629, 512),
    "metaclip-2-worldwide-huge-378": ClipConfig(378, 14, 1280, 32, 16, 1024, 24, 16, 77, 901_629, 1024),
    "metaclip-2-worldwide-giant": ClipConfig(
        224, 14, 1664, 48, 16, 1280, 32, 20, 77, 901_629, 1280, vision_mlp_width=8192
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_list_of_models_has_what_their_sizes_make(name):
    known = known_model(name)
    with torch.device("meta"):
        parameters = sum(parameter.numel() for parameter in CLIP(PUBLISHED[name]).parameters())
    assert (known.family, known.parameters) == ("metaclip2", round(parameters / 1e6))
    assert (known.image_size, known.embed_dim) == (PUBLISHED[name].image_size, PUBLISHED[name].embed_dim)


def damaged(folder: pathlib.Path, copy: pathlib.Path, name: str, tensor: torch.Tensor | None) -> pathlib.Path:
    """The folder with a tensor left out, added or replaced."""
    copy.mkdir()
    for file in folder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    tensors.pop(name, None)
    if tensor is not None:
        tensors[name] = tensor
    safetensors.torch.save_file(tensors, copy / "model.safetensors")
    return copy


NORM, PATCHES = "text_model.final_layer_norm.bias", "vision_model.embeddings.patch_embedding.weight"


@pytest.mark.parametrize(
    ("name", "tensor", "complaint"),
    [
        (NORM, None, f"missing {NORM}"),
        (PATCHES, None, f"has no '{PATCHES}'"),
        (
            "text_model.encoder.layers.2.mlp.fc2.weight",
            None,
            r"missing text_model\.encoder\.layers\.2\.mlp\.fc2\.weight",
        ),
        (
            "text_model.encoder.layers.1.self_attn.k_proj.bias",
            None,
            r"has .*layers\.1\.self_attn\.q_proj\.bias but not",
        ),
        ("text_model.rotary", torch.zeros(2), r"unknown text_model\.rotary"),
        ("vision_model.encoder.layers.0.self_attn.q_proj.bias", None, r"layers\.0\.self_attn\.\[qkv\]_proj\.bias"),
        (NORM, torch.zeros(5), rf"wrong shape {NORM} \(5,\) instead of \(32,\)"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_by_its_tensor_s_name(folder, tmp_path, name, tensor, complaint):
    copy = damaged(folder, tmp_path / "copy", name, tensor)
    assert find_family(read_weights(copy)) is metaclip2
    with pytest.raises(GridClipError, match=complaint):
        export_model(str(copy), tmp_path / "model")
    assert not (tmp_path / "model").exists()


def edited(folder: pathlib.Path, copy: pathlib.Path, tower: str, **changes: object) -> pathlib.Path:
    """The folder with another config.json."""
    copy.mkdir()
    for file in folder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    config[tower].update(changes)
    (copy / "config.json").write_text(json.dumps(config))
    return copy


@pytest.mark.parametrize(
    ("tower", "changes", "complaint"),
    [
        ("text_config", {"eos_token_id": 49407}, r"eos_token_id 49407, but the vocabulary's '</s>' is 2"),
        ("text_config", {"hidden_act": "relu"}, r"is not the config of a MetaCLIP 2 model: .*hidden_act .*relu"),
        ("vision_config", {"layer_norm_eps": 1e-6}, "layer_norm_eps is not 1e-5"),
        ("vision_config", {"num_attention_heads": 5}, "multiple of vision_heads"),
        ("vision_config", {"num_attention_heads": "many"}, "the config beside the weights does not fit them"),
        ("text_config", {"eos_token_id": [2]}, "is not the config of a MetaCLIP 2 model"),
    ],
)
def test_a_config_that_says_what_is_not_known_is_refused(folder, tmp_path, tower, changes, complaint):
    copy = edited(folder, tmp_path / "copy", tower, **changes)
    with pytest.raises(GridClipError, match=complaint):
        export_model(str(copy), tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_hugging_face_file_without_its_config_is_refused(folder, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(metaclip2, "_VOCAB_SIZE", len(tokenizer))
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    with pytest.raises(GridClipError, match=r"no config\.json beside its weights.*pass the whole Hugging Face folder"):
        export_model(str(tmp_path / "model.safetensors"), tmp_path / "model", tokenizer=folder)


def test_a_vocabulary_of_another_kind_is_refused(folder, tokenizer, tmp_path):
    words = {f"w{index}": index for index in range(len(tokenizer))}
    tokenizers.Tokenizer(models.WordLevel(words, unk_token="w0")).save(str(tmp_path / "words.json"))
    with pytest.raises(GridClipError, match=r"has no '<s>': expected XLM-V's .*with mT5's vocabulary are not known"):
        export_model(str(folder), tmp_path / "model", tokenizer=tmp_path / "words.json")
