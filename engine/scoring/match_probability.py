"""Cosines of a model in, how probably each text and picture match out, for models that were trained to say it."""

from __future__ import annotations

import numpy as np

from ... import GridClipError
from ...export.model_info import ModelFacts


def match_probability(cosines: np.ndarray, facts: ModelFacts) -> np.ndarray:
    """sigmoid(logit_scale * cosine + logit_bias), after Zhai et al., "Sigmoid Loss for Language Image Pre-Training".

    Args:
        cosines: float, of any shape, between a text and a super image, each as the model gives it: not scores of a
            whole video, and not of means.
        facts: of the model that made both.

    Returns:
        float64 of that shape, in [0, 1]. It is calibrated for the model's training pictures, not for super images.

    Raises:
        GridClipError: the model has no scale or no bias: its cosines rank, they say nothing absolute.
    """
    if facts.logit_scale is None or facts.logit_bias is None:
        raise GridClipError(
            f"a model of the family {facts.family} gives no match probability: it was not trained with a bias of the "
            "logits (sigmoid loss), as SigLIP is; use its cosines to rank"
        )
    logits = facts.logit_scale * np.asarray(cosines, np.float64) + facts.logit_bias
    # e^-|x| cannot overflow.
    small = np.exp(-np.abs(logits))
    probabilities: np.ndarray = np.where(logits >= 0, 1 / (1 + small), small / (1 + small))
    return probabilities
