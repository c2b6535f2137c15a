"""Facts of a card in, what each rate should be out: predicted before it is measured, with the floor it is held against.

Every formula is data: a factor, facts that multiply and facts that divide. The text in the JSON is written from it, so
that what is shown is what was computed.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal

from .. import measure
from .checks import Check

# 1080p H.264 frames per second of one NVDEC engine of an H100, assumed: about 5,100 from its 7 engines. Not measured.
NVDEC_1080P_PER_S = 730.0


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What a rate should be.

    Attributes:
        unit: of the result.
        factor, times, over: result = factor * product of the facts `times` / product of the facts `over`.
        bound: the result must be at least, or at most, `floor`; "none": it is held against nothing.
        floor: a number in the result's unit; None: the prediction itself.
        why: where the formula comes from.
    """

    unit: str
    factor: float
    times: tuple[str, ...]
    over: tuple[str, ...]
    bound: Literal["at least", "at most", "none"]
    floor: float | None
    why: str

    @property
    def formula(self) -> str:
        """As text, with the names of the facts."""
        return " / ".join([" * ".join([f"{self.factor:g}", *self.times]), *self.over])

    def value(self, facts: Mapping[str, float]) -> float:
        """The predicted number; raises KeyError where a fact is missing."""
        return (
            self.factor * math.prod(facts[name] for name in self.times) / math.prod(facts[name] for name in self.over)
        )


PREDICTIONS: dict[str, Prediction] = {
    "NVDEC busy": Prediction(
        "%", 100, (), (), "at least", 85, "feeding NVDEC is all that --decoder dali has to do: its engines never wait"
    ),
    "pruned over whole files": Prediction(
        "times", 1, ("packets",), ("kept_packets",), "at least", 3, "NVDEC's time grows with the packets that it gets"
    ),
    "frames decoded": Prediction(
        "frames/s", NVDEC_1080P_PER_S, ("engines",), (), "none", None, "all engines, each as fast as one of an H100"
    ),
    "super images of --decoder dali": Prediction(
        "super images/s",
        NVDEC_1080P_PER_S,
        ("engines", "super_images"),
        ("kept_packets",),
        "none",
        None,
        "the packets that pruning keeps, through all engines",
    ),
    "hybrid over dali": Prediction(
        "times", 1, ("dali_and_pyav_per_s",), ("dali_per_s",), "at least", 1.2, "processors decode beside NVDEC"
    ),
    "encode": Prediction(
        "images/s",
        0.6,
        ("matrix_flop_per_s",),
        ("flop_per_image",),
        "at least",
        None,
        "a large fused transformer reaches 60% of one matrix product's rate, measured in the same run",
    ),
    "end to end over the slower stage": Prediction(
        "times", 1.05, (), (), "at most", 1.15, "decoding and encoding overlap; what is left is start and end"
    ),
    "embed-images": Prediction(
        "images/s", 1, ("slower_per_s",), (), "none", None, "the slower of nvJPEG and the encoder, each alone"
    ),
}


def predict(name: str, facts: Mapping[str, float]) -> dict[str, Any]:
    """A prediction with its facts, for the JSON."""
    entry = PREDICTIONS[name]
    value = entry.value(facts)
    used = {fact: facts[fact] for fact in (*entry.times, *entry.over)}
    told: dict[str, Any] = {"formula": entry.formula, "facts": used, "value": measure.significant(value)}
    told |= {"unit": entry.unit, "why": entry.why}
    if entry.bound != "none":
        told |= {"bound": entry.bound, "floor": measure.significant(value if entry.floor is None else entry.floor)}
    return told


def held_against(
    label: str, name: str, result: float, facts: Mapping[str, float], *, floors: bool, **more: Any
) -> Check:
    """A rate beside its prediction.

    Args:
        label: of the check.
        name: of the prediction.
        result: what was measured, in the prediction's unit.
        facts: what the formula needs.
        floors: whether the sizes are large enough to hold the result against the floor; else it is only told.
        more: further figures.
    """
    prediction = predict(name, facts)
    told = f"{result:,.4g} {prediction['unit']}, predicted {prediction['value']:,.4g}"
    values = {"result": measure.significant(result), **more}
    if "floor" not in prediction:
        return Check(label, "measured", told, values, prediction)
    if not floors:
        return Check(label, "measured", f"{told} (too little work for a verdict)", values, prediction)
    floor = prediction["floor"]
    told += f", {prediction['bound']} {floor:,.4g} wanted"
    reached = result >= floor if prediction["bound"] == "at least" else result <= floor
    return Check(label, "pass" if reached else "fail", told, values, prediction)


def formulas() -> dict[str, dict[str, Any]]:
    """All predictions without their facts: what stands in the JSON before anything is measured."""
    return {
        name: {
            "formula": entry.formula,
            "unit": entry.unit,
            "bound": entry.bound,
            "floor": entry.floor,
            "why": entry.why,
        }
        for name, entry in PREDICTIONS.items()
    }
