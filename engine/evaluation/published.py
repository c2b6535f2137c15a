"""The name of a benchmark in, what others have published on it out, with the source of each figure: a table of data.

Figures are as their authors give them, measured by nobody here. To add one, put a line into PUBLISHED.
"""

from __future__ import annotations

import collections.abc
import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Published:
    """One published result.

    Attributes:
        method: its name.
        trained: on the benchmark's own training split; False: as pretrained.
        sum_recall: R@1 + R@5 + R@10 + R@100, percent.
        source: where it is published.
    """

    method: str
    trained: bool
    sum_recall: float
    source: str


SUM_CUTOFFS = (1, 5, 10, 100)  # of which the published SumR are sums
TITLES = {"activitynet": "ActivityNet Captions val_1"}
PUBLISHED = {
    "activitynet": (
        Published("CLIP ViT-L/14, frame by frame", False, 172.9, "TF-PRVR's baseline, NeurIPS 2026"),
        Published("TF-PRVR on the same features", False, 193.9, "TF-PRVR, NeurIPS 2026"),
        Published("ProPy", True, 180.0, "Pan et al., Findings of EMNLP 2025, arXiv 2508.19024"),
        Published("MS-SL++", True, 141.1, "Chen et al., PRVR, 2025, arXiv 2208.12510v2"),
    )
}


def to_json(benchmark: str) -> dict[str, Any]:
    """The benchmark's results, ready for json.dump."""
    return {"benchmark": benchmark, "published": [dataclasses.asdict(each) for each in PUBLISHED[benchmark]]}


def as_text(benchmark: str, own: collections.abc.Mapping[str, float]) -> str:
    """A table of one's own SumR, by what they are called, and the published ones, the best first.

    Args:
        benchmark: a key of PUBLISHED.
        own: SumR in percent over SUM_CUTOFFS.
    """
    rows = [(name, "this run", value, "") for name, value in own.items()]
    rows += [
        (each.method, "trained" if each.trained else "not trained", each.sum_recall, each.source)
        for each in PUBLISHED[benchmark]
    ]
    rows.sort(key=lambda row: -row[2])
    width = max(len(row[0]) for row in rows)
    lines = [f"{TITLES[benchmark]}, published by their authors (4,917 videos or nearly all)", f"{'':{width}}    SumR"]
    lines += [f"{name:{width}}  {value:6.1f}  {how:11}  {source}".rstrip() for name, how, value, source in rows]
    return "\n".join(lines)
