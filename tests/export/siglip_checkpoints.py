"""Small SigLIP models of transformers with random weights in, Hugging Face folders with a vocabulary out."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterable
from typing import Any

import tokenizers
import torch
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

TOWER = {"hidden_size": 48, "intermediate_size": 120, "num_hidden_layers": 2, "num_attention_heads": 3}
TEXT = TOWER | {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 3, "projection_size": 48}
VOCAB_SIZE = 400


def sentencepiece_tokenizer(texts: Iterable[str]) -> tokenizers.Tokenizer:
    """A small vocabulary of SigLIP's kind: unigrams over words with a mark before them, <pad> </s> <unk> first."""
    tokenizer = tokenizers.Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(tokenizers.Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=VOCAB_SIZE, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    return tokenizer


def gemma_tokenizer(texts: Iterable[str]) -> tokenizers.Tokenizer:
    """A small vocabulary of Gemma's kind: BPE with bytes to fall back on; case counts."""
    tokenizer = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "</s>"]
    tokens = special + [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=VOCAB_SIZE, special_tokens=tokens, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing("$A <eos>", special_tokens=[("<eos>", 1)])
    return tokenizer


TOKENIZERS = {"siglip": sentencepiece_tokenizer, "siglip2": gemma_tokenizer}


def random_model(vocab_size: int, *, seed: int = 0, context_length: int = 16, **vision: Any) -> Any:
    """A transformers SiglipModel with every bias and norm at work, in float32 that fp16 holds exactly."""
    import transformers

    torch.manual_seed(seed)
    text = TEXT | {"vocab_size": vocab_size, "max_position_embeddings": context_length}
    config = transformers.SiglipConfig(
        text_config=text, vision_config=TOWER | {"image_size": 32, "patch_size": 8} | vision
    )
    model = transformers.SiglipModel(config)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape)
        if "norm" in name:
            value = name.endswith("weight") + 0.3 * noise
        elif name.endswith("bias"):
            value = 0.2 * noise
        else:
            value = parameter.data * 1.2 + 0.02 * noise
        parameter.data = value.half().float()
    model.logit_scale.data, model.logit_bias.data = torch.tensor([2.5]), torch.tensor([-9.0])
    return model.requires_grad_(False).eval()


def write_folder(model: Any, tokenizer: tokenizers.Tokenizer, folder: pathlib.Path) -> pathlib.Path:
    """What `save_pretrained` writes, with tokenizer.json and the preprocessor's config."""
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "image_processor_type": "SiglipImageProcessor"})
    )
    return folder
