"""The match probability against torch, and which models have one."""

import numpy as np
import pytest
import torch
from gridclip import GridClipError
from gridclip.engine.scoring.match_probability import match_probability
from gridclip.export.model_info import ModelFacts


def facts(scale: float | None, bias: float | None) -> ModelFacts:
    return ModelFacts(
        image_size=32, embed_dim=4, context_length=8, start_token=None, end_token=1, logit_scale=scale, logit_bias=bias
    )


def test_it_is_the_sigmoid_of_the_scaled_cosine_and_the_bias():
    cosines = np.linspace(-1, 1, 24, dtype=np.float32).reshape(4, 6)
    found = match_probability(cosines, facts(117.3, -12.9))
    expected = torch.sigmoid(117.3 * torch.from_numpy(cosines).double() - 12.9).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert found.shape == (4, 6) and found.dtype == np.float64


def test_nothing_overflows():
    with np.errstate(all="raise", under="ignore"):
        assert match_probability(np.array([-1.0, 1.0]), facts(1e4, 0.0)).tolist() == [0, 1]


@pytest.mark.parametrize(("scale", "bias"), [(100.0, None), (None, -10.0)])
def test_a_model_without_scale_or_bias_has_none(scale, bias):
    with pytest.raises(GridClipError, match="family clip gives no match probability.* use its cosines to rank"):
        match_probability(np.zeros(3), facts(scale, bias))
