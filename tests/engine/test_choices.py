"""engine/choices.py: what is stated there and, for want of a way up, in rooms below the engine is the same."""

from __future__ import annotations

import inspect
import subprocess
import sys
from typing import get_args

from gridclip.dali_pipes import sampling
from gridclip.dali_pipes.cpu import damage, decoders
from gridclip.dali_pipes.processes import pool
from gridclip.engine import choices
from gridclip.engine.encoding import providers
from gridclip.export import clip_model, folder, graph_writer


def test_it_brings_in_nothing_of_the_package() -> None:
    program = "import sys, gridclip.engine.choices; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    own = {name for name in loaded if name.startswith("gridclip")}
    assert own == {"gridclip", "gridclip.engine", "gridclip.engine.choices"}


def test_sampling() -> None:
    assert get_args(sampling.Mode) == choices.SAMPLING_MODES
    by_default = sampling.Sampling(
        fps=choices.FPS,
        grid_size=choices.GRID_SIZE,
        super_img_size=choices.SUPER_IMG_SIZE,
        min_frames=choices.MIN_FRAMES,
        mode=choices.SAMPLING_MODE,
        edit_lists=choices.EDIT_LISTS,
        decode=choices.DECODE,
    )
    assert get_args(sampling.Decode) == choices.DECODE_MODES
    assert get_args(sampling.EditLists) == choices.EDIT_LIST_RULES
    assert sampling.Sampling() == by_default


def test_decoding() -> None:
    assert choices.TIME_LIMIT_S == pool.DEFAULT_TIME_LIMIT_S
    assert {decoders.AUTO, *decoders.DECODERS} < set(choices.DECODERS)
    assert set(get_args(damage.OnDamage)) == set(choices.DAMAGE_RULES)


def test_models() -> None:
    assert set(choices.PROVIDERS) == {"auto", *providers.EXECUTION_PROVIDERS}
    assert choices.PRECISIONS == graph_writer.PRECISIONS
    assert inspect.signature(folder.export_model).parameters["precision"].default == choices.PRECISION
    assert set(choices.ACTIVATIONS) == set(clip_model.ACTIVATIONS)


def test_every_default_is_one_of_its_choices() -> None:
    for default, offered in (
        (choices.SAMPLING_MODE, choices.SAMPLING_MODES),
        (choices.DECODER, choices.DECODERS),
        (choices.ON_DAMAGE, choices.DAMAGE_RULES),
        (choices.PROVIDER, choices.PROVIDERS),
        (choices.PRECISION, choices.PRECISIONS),
        (choices.AGGREGATE, choices.AGGREGATES),
        (choices.MISSING, choices.MISSING_RULES),
        (choices.INDEX, choices.INDEX_MODES),
        (choices.FEATURE_FORMAT, choices.FEATURE_FORMATS),
    ):
        assert default in offered
