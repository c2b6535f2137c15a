"""The torch model's own rules: sizes, and the layers it is trained with."""

import dataclasses

import pytest
import torch
from gridclip.export.clip_model import CLIP, ClipConfig, config_from_state_dict, normalise_pixels

from .conftest import CONFIG


def test_config_fills_in_what_openai_leaves_out():
    assert (CONFIG.vision_mlp_width, CONFIG.text_mlp_width) == (512, 256)
    assert (CONFIG.start_token, CONFIG.end_token) == (CONFIG.vocab_size - 2, CONFIG.vocab_size - 1)
    assert CONFIG.grid == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"activation": "relu"}, "activation \\('relu'\\) must be one of quick_gelu, gelu"),
        ({"image_size": 33}, "image_size \\(33\\) must be a multiple of patch_size \\(8\\)"),
        ({"vision_heads": 3}, "vision_width \\(128\\) must be a multiple of vision_heads \\(3\\)"),
        ({"text_heads": 0}, "text_width \\(64\\) must be a multiple of text_heads \\(0\\)"),
    ],
)
def test_impossible_configs_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **change)


@pytest.mark.parametrize(("width", "heads"), [(64, 1), (768, 12), (1024, 16), (1280, 16), (1408, 16), (1664, 16)])
def test_heads_follow_the_width(width, heads):
    config = ClipConfig(16, 8, width, 1, heads, 64, 1, 1, 8, 20, 16)
    with torch.device("meta"):
        state_dict = CLIP(config).state_dict()
    assert config_from_state_dict(state_dict) == config


def test_a_new_model_can_be_trained():
    torch.manual_seed(0)
    model = CLIP(CONFIG)
    images = torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8)
    ids = torch.randint(0, 500, (4, 8))
    ids[:, -1] = CONFIG.end_token
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(30):
        image = torch.nn.functional.normalize(model.encode_image(normalise_pixels(images)), dim=-1)
        text = torch.nn.functional.normalize(model.encode_text(ids), dim=-1)
        loss = torch.nn.functional.cross_entropy(model.logit_scale.exp() * image @ text.T, torch.arange(4))
        losses.append(float(loss.detach()))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert losses[-1] < 0.2 < losses[0]
