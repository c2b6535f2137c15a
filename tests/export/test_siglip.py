"""SigLIP and SigLIP 2 against transformers: embeddings, token ids, and what is refused."""

import json
import re
import string

import numpy as np
import pytest
import safetensors.torch
import tokenizers
import torch
from gridclip import GridClipError
from gridclip.engine.encoding.encoder import Encoder
from gridclip.export import siglip
from gridclip.export.families import find_family
from gridclip.export.folder import export_model
from gridclip.export.graph_writer import PRECISIONS
from gridclip.export.verify import CAPTIONS, SMALLEST_COSINE
from gridclip.export.weights import read_weights

from .conftest import random_images
from .siglip_checkpoints import TOKENIZERS, random_model, write_folder

TEXTS = [
    "A man plays the Violin, loudly!",
    "",
    "two dogs;  a cat\tand the (red) ball",
    "the quick brown fox jumps over the lazy dog and then goes on and on and on until the row is full " * 3,
    "naïve façade \u2014 50% off",
]


CORPUS = [*TEXTS, *CAPTIONS, string.ascii_letters, string.digits]


@pytest.fixture(scope="module", params=TOKENIZERS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def tokenizer(kind) -> tokenizers.Tokenizer:
    return TOKENIZERS[kind](CORPUS)


@pytest.fixture(scope="module")
def model(tokenizer):
    return random_model(tokenizer.get_vocab_size())


@pytest.fixture(scope="module")
def folder(model, tokenizer, tmp_path_factory):
    return write_folder(model, tokenizer, tmp_path_factory.mktemp("siglip"))


def own_ids(kind: str, tokenizer: tokenizers.Tokenizer, texts: list[str], length: int) -> np.ndarray:
    """int64 [Q, length] as transformers' own tokenizer makes them, told to pad to the maximal length."""
    import transformers

    end, pad = {"siglip": ("</s>", "</s>"), "siglip2": ("<eos>", "<pad>")}[kind]
    copy = tokenizers.Tokenizer.from_str(tokenizer.to_str())
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=copy, eos_token=end, pad_token=pad, unk_token="<unk>", padding_side="right"
    )
    if kind == "siglip":  # big_vision's canonicalisation, character by character
        kept = ["".join(letter for letter in text.lower() if letter not in string.punctuation) for text in texts]
        texts = [re.sub(r"\s+", " ", text).strip() for text in kept]
    else:  # transformers' Siglip2Tokenizer
        texts = [text.lower() for text in texts]
    return np.array(fast(texts, padding="max_length", truncation=True, max_length=length)["input_ids"], np.int64)


def unit(rows: torch.Tensor) -> np.ndarray:
    return torch.nn.functional.normalize(rows, dim=-1).numpy()


def expected_images(model, images: np.ndarray) -> np.ndarray:
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    return unit(model.get_image_features(pixel_values=pixels).pooler_output)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_embeddings_are_those_of_transformers(kind, tokenizer, model, folder, tmp_path, precision):
    info = export_model(str(folder), tmp_path / "model", precision=precision)
    assert info.fused_attention == {"image": 3, "text": 3}
    assert (info.family, info.pooling, info.causal_text, info.start_token) == ("siglip", "last_token", False, None)
    assert info.context_length == 16 and info.embed_dim == 48 and info.has_cells is False
    assert info.logit_scale == pytest.approx(np.exp(2.5)) and info.logit_bias == -9
    encoder = Encoder(tmp_path / "model", provider="cpu", num_threads=1)
    images = random_images(32, count=5)
    cosines = (encoder.encode_images(images) * expected_images(model, images)).sum(1)
    assert cosines.min() >= SMALLEST_COSINE[precision]
    ids = torch.from_numpy(own_ids(kind, tokenizer, TEXTS, 16))
    found = encoder.encode_texts(TEXTS, batch_size=2)
    cosines = (found * unit(model.get_text_features(input_ids=ids).pooler_output)).sum(1)
    assert cosines.min() >= SMALLEST_COSINE[precision]
    # The padding counts: without it the last position would be another one.
    assert encoder.tokenizer(["a"]).shape == (1, 16)


def test_ids_of_activitynet_s_captions_are_those_of_the_own_tokenizer(kind, shared_data, tmp_path):
    """With a small vocabulary of the family's kind, made of some of the captions: the real ones are not at hand."""
    content = json.loads((shared_data / "annotations" / "activitynet_val_1.json").read_text())
    captions = [text for video in content.values() for text in video["sentences"]]
    assert len(captions) == 17_505
    tokenizer = TOKENIZERS[kind](captions[:2000])
    folder = write_folder(random_model(tokenizer.get_vocab_size()), tokenizer, tmp_path / "checkpoint")
    export_model(str(folder), tmp_path / "model", verify=False)
    found = Encoder(tmp_path / "model", provider="cpu").tokenizer(captions)
    np.testing.assert_array_equal(found, own_ids(kind, tokenizer, captions, 16))


def test_an_image_size_that_patches_do_not_divide_leaves_out_the_rest(tmp_path, tokenizer):
    """As so400m-patch14-384 has it: 27 x 27 patches of 14 pixels."""
    model = random_model(tokenizer.get_vocab_size(), image_size=38, patch_size=12)
    folder = write_folder(model, tokenizer, tmp_path / "checkpoint")
    assert export_model(str(folder), tmp_path / "model").image_size == 38
    images = random_images(38, count=5)
    found = Encoder(tmp_path / "model", provider="cpu", num_threads=1).encode_images(images)
    np.testing.assert_allclose(found, expected_images(model, images), atol=1e-5)


def test_another_image_size_interpolates_the_positions(tmp_path, folder):
    info = export_model(str(folder), tmp_path / "model", image_size=48)
    assert (
        info.image_size == 48
        and Encoder(tmp_path / "model", provider="cpu").encode_images(random_images(48, count=5)).any()
    )
    with pytest.raises(GridClipError, match="image size 50 does not suit .* multiple of its patch size 8"):
        export_model(str(folder), tmp_path / "other", image_size=50)


def test_options_that_do_not_suit_are_refused(tmp_path, folder):
    with pytest.raises(GridClipError, match="context length 12 does not suit .* last of its 16 positions"):
        export_model(str(folder), tmp_path / "model", context_length=12)
    with pytest.raises(GridClipError, match=r"leave out `activation` \('gelu'\)"):
        export_model(str(folder), tmp_path / "model", activation="gelu")


def without(name):
    return lambda tensors: tensors.pop(name)


def put(name, tensor):
    return lambda tensors: tensors.update({name: tensor})


HEAD, POSITIONS = "vision_model.head.probe", "vision_model.embeddings.position_embedding.weight"


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (without(HEAD), f"missing {HEAD}"),
        (without("logit_bias"), "missing logit_bias"),
        (without("text_model.head.bias"), r"missing text_model\.head\.bias"),
        (without(POSITIONS), f"missing {POSITIONS}"),
        (put("text_model.rotary", torch.zeros(2)), r"unknown text_model\.rotary"),
        (put(HEAD, torch.zeros(1, 2, 48)), rf"wrong shape {HEAD} \(1, 2, 48\) instead of \(1, 1, 48\)"),
        (
            put("text_model.head.weight", torch.zeros(40, 32)),
            r"text_model\.head\.weight \(40, 32\) instead of \(48, 32\)",
        ),
        (put(POSITIONS, torch.zeros(25, 48)), "has 25 positions, but an image of 32 pixels has 4 x 4 patches of 8"),
        # SigLIP 2's models for images of any shape.
        (
            put("vision_model.embeddings.patch_embedding.weight", torch.zeros(48, 192)),
            r"patch_embedding\.weight has 2 dimensions, expected 4",
        ),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_by_its_tensor_s_name(tmp_path, folder, damage, complaint):
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in folder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    damage(tensors)
    safetensors.torch.save_file(tensors, copy / "model.safetensors")
    assert find_family(read_weights(copy)) is siglip
    with pytest.raises(GridClipError, match=f"{copy.name}.*{complaint}"):
        export_model(str(copy), tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"hidden_act": "gelu"}, "vision_config.hidden_act is 'gelu', expected 'gelu_pytorch_tanh'"),
        ({"layer_norm_eps": 1e-5}, "vision_config.layer_norm_eps is 1e-05"),
        ({"vision_use_head": False}, "vision_config.vision_use_head is False"),
        ({"num_attention_heads": 5}, "says 5 heads in the vision tower, which its width 48 is no multiple of"),
        ({"num_attention_heads": "many"}, "is not the config of a SigLIP model"),
    ],
)
def test_a_config_that_says_what_is_not_known_is_refused(tmp_path, folder, change, complaint):
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in folder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    config = json.loads((copy / "config.json").read_text())
    config["vision_config"].update(change)
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(GridClipError, match=re.escape(complaint)):
        export_model(str(copy), tmp_path / "model")
    (copy / "config.json").unlink()
    with pytest.raises(GridClipError, match=r"no config\.json beside its weights"):
        export_model(str(copy), tmp_path / "model")


def test_a_vocabulary_of_another_kind_is_refused(tmp_path, folder):
    words = {
        f"w{index}": index
        for index in range(json.loads((folder / "config.json").read_text())["text_config"]["vocab_size"])
    }
    tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="w0")).save(str(tmp_path / "words.json"))
    with pytest.raises(GridClipError, match="neither the end token '</s>' of SigLIP nor '<eos>' and '<pad>'"):
        export_model(str(folder), tmp_path / "model", tokenizer=tmp_path / "words.json")
