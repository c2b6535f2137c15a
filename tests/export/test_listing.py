"""Which models are known, and which the cache folder holds."""

import json
import pathlib

import gridclip
import pytest
import torch
from click.testing import CliRunner
from gridclip.cli import main
from gridclip.export.clip_model import CLIP, ClipConfig
from gridclip.export.download import MODELS
from gridclip.export.families import FAMILIES
from gridclip.export.folder import ensure_model_folder
from gridclip.export.known_models import KNOWN_MODELS
from gridclip.export.listing import list_models
from gridclip.export.pe_model import PeConfig, PeCore
from gridclip.export.siglip_model import Siglip, SiglipConfig


def test_each_known_model_is_of_a_family_and_can_be_had():
    names = [model.name for model in KNOWN_MODELS]
    assert len(set(names)) == len(names) and set(MODELS) <= set(names)
    assert {model.family for model in KNOWN_MODELS} == set(FAMILIES)
    for model in KNOWN_MODELS:
        assert model.licence and bool(model.place) == (model.name not in MODELS)
        assert bool(model.source) == (model.msr_vtt_recall_at_1 is not None)


def siglip(image_size, patch_size, width, layers, heads, mlp_width, vocab_size):
    towers = {"text_width": width, "text_layers": layers, "text_heads": heads, "text_mlp_width": mlp_width}
    image = {"width": width, "layers": layers, "heads": heads, "mlp_width": mlp_width}
    text = {"context_length": 64, "vocab_size": vocab_size, "end_token": 1, "pad_token": 1, "text_cleaning": "none"}
    return Siglip(SiglipConfig(image_size=image_size, patch_size=patch_size, **image, **towers, **text))


MADE = {
    "ViT-L/14": lambda: CLIP(ClipConfig(224, 14, 1024, 24, 16, 768, 12, 12, 77, 49408, 768)),
    "siglip-so400m-patch14-384": lambda: siglip(384, 14, 1152, 27, 16, 4304, 32000),
    "siglip2-base-patch16-512": lambda: siglip(512, 16, 768, 12, 12, 3072, 256000),
    "PE-Core-L14-336": lambda: PeCore(PeConfig(336, 14, 1024, 24, 16, 1024, 24, 16, 32, 49408, 1024, "gelu")),
}


@pytest.mark.parametrize("name", MADE)
def test_parameters_are_those_of_a_model_of_these_sizes(name):
    (known,) = [model for model in KNOWN_MODELS if model.name == name]
    with torch.device("meta"):
        model = MADE[name]()
    assert round(sum(parameter.numel() for parameter in model.parameters()) / 1e6) == known.parameters
    config = model.config
    assert (config.image_size, getattr(config, "embed_dim", None) or config.width) == (
        known.image_size,
        known.embed_dim,
    )


def test_the_cache_s_models_are_listed(tmp_path, tiny_checkpoint):
    empty = list_models(tmp_path / "nowhere")
    assert not empty.downloaded and not empty.exported and str(empty).endswith("none")
    folder = ensure_model_folder(str(tiny_checkpoint), tmp_path)
    (tmp_path / "models" / "damaged").mkdir()
    checkpoint = tmp_path / "checkpoints" / "ViT-B-32.pt"
    checkpoint.parent.mkdir()
    checkpoint.touch()
    found = list_models(tmp_path)
    assert [model.path for model in found.exported] == [folder] and found.exported[0].info.family == "clip"
    assert found.downloaded == {"ViT-B/32": checkpoint}
    rows = {line.split("  ")[0]: line for line in str(found).splitlines()}
    assert rows["ViT-B/32"].endswith("downloaded") and not rows["ViT-L/14"].endswith("downloaded")
    assert rows["PE-Core-L14-336"].endswith("50.3")
    for model in KNOWN_MODELS:
        assert ("(unchecked)" in rows[model.name]) == (not model.licence_source)
    assert folder.name in str(found)


def test_the_command_gives_the_table_or_json(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRIDCLIP_CACHE", str(tmp_path))
    table = CliRunner().invoke(main, ["models"])
    assert table.exit_code == 0 and table.output.strip() == str(gridclip.list_models())
    told = json.loads(CliRunner().invoke(main, ["models", "--json"]).output)
    assert told["cache"] == str(tmp_path) and told["exported"] == []
    assert [model["name"] for model in told["known"] if model["checksum"] == "pinned"] == list(MODELS)
    facts = {"licence", "licence_source", "parameters", "embed_dim", "image_size", "msr_vtt_recall_at_1", "source"}
    assert facts <= set(told["known"][0])
