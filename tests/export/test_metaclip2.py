"""MetaCLIP 2 against transformers: embeddings, cells, token ids, and what is refused."""

import json
import pathlib
import string

import numpy as np
import pytest
import tokenizers
import torch
from gridclip import GridClipError
from gridclip.engine.encoding.encoder import Encoder
from gridclip.export import metaclip2
from gridclip.export.families import find_family
from gridclip.export.folder import export_model
from gridclip.export.graph_writer import PRECISIONS
from gridclip.export.verify import CAPTIONS, SMALLEST_COSINE
from gridclip.export.weights import read_weights
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from .conftest import random_images

SIZE_PX, LENGTH, DIM = 32, 16, 40
TOWER = {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2, "num_attention_heads": 1}
TEXT = {"hidden_size": 128, "intermediate_size": 192, "num_hidden_layers": 3, "num_attention_heads": 2}
TEXTS = [
    "A man plays the Violin, loudly!",
    "",
    "two dogs;  a cat\tand the (red) ball &amp; more",
    "the quick brown fox jumps over the lazy dog and then goes on and on and on until the row is full " * 3,
    "Ein Hund fängt den Ball \u2014 50%",
    "犬がボールを捕まえる",
]
CORPUS = [*TEXTS, *CAPTIONS, string.ascii_letters, string.digits]


def xlm_tokenizer(corpus: list[str], vocab_size: int = 400) -> tokenizers.Tokenizer:
    """A small vocabulary of XLM-V's kind: unigrams, with <s> <pad> </s> <unk> first and <mask> last; case counts."""
    tokenizer = tokenizers.Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(tokenizers.Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=vocab_size, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.add_special_tokens(["<mask>"])
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    return tokenizer


def random_model(vocab_size: int, *, activation: str = "quick_gelu"):
    """A transformers MetaClip2Model with every bias and norm at work, in float32 that fp16 holds exactly."""
    import transformers

    torch.manual_seed(0)
    text = TEXT | {"vocab_size": vocab_size, "max_position_embeddings": LENGTH, "hidden_act": activation}
    text |= {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
    vision = TOWER | {"image_size": SIZE_PX, "patch_size": 8, "hidden_act": activation}
    config = transformers.MetaClip2Config(text_config=text, vision_config=vision, projection_dim=DIM)
    model = transformers.MetaClip2Model(config)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape)
        if "norm" in name or "layrnorm" in name:
            value = name.endswith("weight") + 0.3 * noise
        elif name.endswith("bias"):
            value = 0.2 * noise
        else:
            value = parameter.data * 1.5 + 0.03 * noise
        parameter.data = value.half().float()
    return model.requires_grad_(False).eval()


def write_folder(model, tokenizer: tokenizers.Tokenizer, folder: pathlib.Path) -> pathlib.Path:
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.4] * 3, "image_std": [0.3] * 3}))
    return folder


@pytest.fixture(scope="module")
def tokenizer() -> tokenizers.Tokenizer:
    return xlm_tokenizer(CORPUS)


@pytest.fixture(scope="module")
def model(tokenizer):
    return random_model(tokenizer.get_vocab_size())


@pytest.fixture(scope="module")
def folder(model, tokenizer, tmp_path_factory) -> pathlib.Path:
    return write_folder(model, tokenizer, tmp_path_factory.mktemp("metaclip2") / "checkpoint")


def own_ids(tokenizer: tokenizers.Tokenizer, texts: list[str]) -> torch.Tensor:
    """int64 [Q, LENGTH] as Meta's code has them made: by transformers, padded and cut to the maximal length."""
    import transformers

    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer.from_str(tokenizer.to_str()),
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
    )
    ids = fast(texts, padding="max_length", truncation=True, max_length=LENGTH)["input_ids"]
    return torch.tensor(ids)


def unit(rows: torch.Tensor) -> np.ndarray:
    return torch.nn.functional.normalize(rows, dim=-1).numpy()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_embeddings_are_those_of_transformers(tokenizer, model, folder, tmp_path, precision):
    info = export_model(str(folder), tmp_path / "model", precision=precision)
    assert info.fused_attention == {"image": 2, "text": 3} and info.cells_fused_attention == 4
    assert (info.family, info.pooling, info.causal_text, info.text_cleaning) == ("metaclip2", "end_token", True, "none")
    assert (info.start_token, info.pad_token, info.end_token, info.context_length) == (0, 1, 2, LENGTH)
    encoder = Encoder(tmp_path / "model", provider="cpu", num_threads=1)
    images = random_images(SIZE_PX, count=5)
    pixels = (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - 0.4) / 0.3
    expected = unit(model.get_image_features(pixel_values=pixels).pooler_output)
    assert (encoder.encode_images(images) * expected).sum(1).min() >= SMALLEST_COSINE[precision]
    with_cells = encoder.encode_images(images, cells=2)
    assert with_cells.shape == (5, 5, DIM) and (with_cells[:, 0] * expected).sum(1).min() >= SMALLEST_COSINE[precision]
    expected = unit(model.get_text_features(input_ids=own_ids(tokenizer, TEXTS)).pooler_output)
    found = encoder.encode_texts(TEXTS, batch_size=4)
    assert (found * expected).sum(1).min() >= SMALLEST_COSINE[precision]


def test_padding_does_not_count_with_transformers_attention_mask(tokenizer, model):
    """Whether it is given one or not: tokens see none after them, and a text is read at its end token."""
    ids = own_ids(tokenizer, TEXTS[:3])
    masked = model.get_text_features(input_ids=ids, attention_mask=(ids != 1).long()).pooler_output
    torch.testing.assert_close(masked, model.get_text_features(input_ids=ids).pooler_output, rtol=0, atol=1e-5)


def test_ids_of_activitynet_s_captions_are_those_of_the_own_tokenizer(shared_data, tmp_path):
    """With a small vocabulary of XLM-V's kind, made of some of the captions: the real one is not at hand."""
    content = json.loads((shared_data / "annotations" / "activitynet_val_1.json").read_text())
    captions = [text for video in content.values() for text in video["sentences"]]
    assert len(captions) == 17_505
    tokenizer = xlm_tokenizer(captions[:2000], 800)
    folder = write_folder(random_model(tokenizer.get_vocab_size()), tokenizer, tmp_path / "checkpoint")
    export_model(str(folder), tmp_path / "model", verify=False)
    found = Encoder(tmp_path / "model", provider="cpu").tokenizer(captions)
    expected = own_ids(tokenizer, captions).numpy()
    assert (found == 1).any() and (expected[:, -1] == 2).any(), "some are padded, some are cut"
    np.testing.assert_array_equal(found, expected[:, : found.shape[1]])
    assert (expected[:, found.shape[1] :] == 1).all()


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_metas_files_are_known_by_the_size_of_their_vocabulary(tmp_path, monkeypatch, tokenizer, activation):
    """A file in open_clip's layout, whose name tells the activation, with XLM-V's tokenizer.json beside it."""
    from gridclip.export.clip_checkpoint import load_checkpoint

    model = random_model(tokenizer.get_vocab_size(), activation=activation)
    folder = write_folder(model, tokenizer, tmp_path / "checkpoint")
    tensors = load_checkpoint(folder).state_dict
    name = f"metaclip2_x_{'quickgelu_' if activation == 'quick_gelu' else ''}32px_worldwide"
    torch.save({"state_dict": tensors}, tmp_path / f"{name}.pt")
    tokenizer.save(str(tmp_path / f"{name}.tokenizer.json"))
    monkeypatch.setattr(metaclip2, "XLM_V_TOKENS", tokenizer.get_vocab_size())
    weights = read_weights(tmp_path / f"{name}.pt")
    assert find_family(weights) is metaclip2
    info = export_model(str(tmp_path / f"{name}.pt"), tmp_path / "model")
    assert (info.family, info.activation, info.end_token) == ("metaclip2", activation, 2)
    found = Encoder(tmp_path / "model", provider="cpu", num_threads=1).encode_texts(TEXTS)
    expected = unit(model.get_text_features(input_ids=own_ids(tokenizer, TEXTS)).pooler_output)
    assert (found * expected).sum(1).min() >= SMALLEST_COSINE["fp32"]


def test_open_clips_config_says_where_a_text_is_read(tmp_path, tokenizer, model, folder):
    from gridclip.export.clip_checkpoint import load_checkpoint

    text = {"context_length": LENGTH, "vocab_size": tokenizer.get_vocab_size(), "width": 128, "heads": 4, "layers": 3}
    text |= {"hf_tokenizer_name": "facebook/xlm-v-base", "pool_type": "eos", "eos_id": 2}
    vision = {"image_size": SIZE_PX, "layers": 2, "width": 64, "patch_size": 8}
    config = {"model_cfg": {"embed_dim": DIM, "quick_gelu": True, "vision_cfg": vision, "text_cfg": text}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    torch.save(load_checkpoint(folder).state_dict, tmp_path / "open_clip_pytorch_model.bin")
    found = load_checkpoint(tmp_path)
    assert (found.config.end_token, found.config.text_heads, found.config.activation) == (2, 4, "quick_gelu")


def test_what_is_refused(tmp_path, tokenizer, model, folder):
    import safetensors.torch

    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    broken = write_folder(model, tokenizer, tmp_path / "broken")
    missing = "text_model.encoder.layers.1.mlp.fc1.bias"
    safetensors.torch.save_file(
        {key: each for key, each in tensors.items() if key != missing}, broken / "model.safetensors"
    )
    with pytest.raises(GridClipError, match=r"transformer\.resblocks\.1\.mlp\.c_fc\.bias"):
        export_model(str(broken), tmp_path / "a")
    other = tokenizers.Tokenizer(
        models.WordLevel({f"w{n}": n for n in range(tokenizer.get_vocab_size())}, unk_token="w0")
    )
    other.save(str(tmp_path / "other.json"))
    with pytest.raises(GridClipError, match=r"has no '<s>', which XLM-V's has"):
        export_model(str(folder), tmp_path / "b", tokenizer=tmp_path / "other.json")
    assert not metaclip2.recognises(read_weights(pathlib.Path(__file__).parents[2] / "benchmarks/demo/tiny_clip.pt"))
