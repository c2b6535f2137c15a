"""The folder that a command has filled in; what it holds out, read without the product, to be compared."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import json
import pathlib

import lance
import numpy as np

PARTS = "*.part"
SAME_COSINE = 1 - 1e-6


@dataclasses.dataclass(frozen=True)
class State:
    """What a command has left.

    Attributes:
        items: for each video (or caption) every copy that is there: vectors float64 [L, D], or digests of its files.
        failures: (video, stage) of failures.jsonl.
        leftovers: files and folders that only a running job may have.
    """

    items: dict[str, list[np.ndarray | dict[str, str]]]
    failures: list[tuple[str, str]]
    leftovers: list[str]


@dataclasses.dataclass(frozen=True)
class Difference:
    """How a state differs from the undisturbed one. Empty lists: it does not."""

    lost: list[str]
    doubled: list[str]
    different: list[str]
    unasked: list[str]
    failures: list[str]
    leftovers: list[str]

    def found(self) -> dict[str, list[str]]:
        """The lists that are not empty."""
        return {name: values for name, values in dataclasses.asdict(self).items() if values}


def compare(expected: State, found: State) -> Difference:
    """What is lost, doubled, different, or should not be there."""
    common = expected.items.keys() & found.items.keys()
    return Difference(
        lost=sorted(expected.items.keys() - common),
        doubled=sorted(name for name in found.items if len(found.items[name]) > 1),
        different=sorted(
            name for name in common if not all(_same(expected.items[name][0], copy) for copy in found.items[name])
        ),
        unasked=sorted(found.items.keys() - common),
        failures=[f"{video} ({stage})" for video, stage in sorted(set(expected.failures) ^ set(found.failures))]
        + [f"{video} twice" for (video, _), count in collections.Counter(found.failures).items() if count > 1],
        leftovers=found.leftovers,
    )


def _same(first: np.ndarray | dict[str, str], second: np.ndarray | dict[str, str]) -> bool:
    if isinstance(first, dict) or isinstance(second, dict):
        return first == second
    if first.shape != second.shape:
        return False
    if np.array_equal(first, second):
        return True
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return bool(((first * second).sum(1) >= SAME_COSINE * norms).all())


def of_store(folder: pathlib.Path) -> State:
    """A store's videos and captions, from its Lance files."""
    items: dict[str, list[np.ndarray | dict[str, str]]] = {}
    for name, rows in _copies(folder / "super_images.lance"):
        items.setdefault(name, []).append(rows)
    for row in _rows(folder / "queries.lance"):
        key = f"caption {row['video_id']}: {row['text']}"
        items.setdefault(key, []).append(np.array([row["vector"]], np.float64))
    return State(items, _failures(folder), _leftovers(folder))


def of_stores(folder: pathlib.Path) -> State:
    """All stores in a folder; what they hold and name is told apart by their names."""
    items: dict[str, list[np.ndarray | dict[str, str]]] = {}
    failures, leftovers = [], []
    for path in sorted(folder.iterdir()) if folder.exists() else []:
        state = of_store(path)
        items |= {f"{path.name}: {name}": copies for name, copies in state.items.items()}
        failures += [(f"{path.name}: {video}", stage) for video, stage in state.failures]
        leftovers += [f"{path.name}/{name}" for name in state.leftovers]
    return State(items, failures, leftovers)


def _copies(dataset: pathlib.Path) -> list[tuple[str, np.ndarray]]:
    """(video, vectors) of every run of rows that begins with index 0."""
    runs: list[tuple[str, list[list[float]]]] = []
    for row in _rows(dataset):
        if row["index"] == 0 or not runs or runs[-1][0] != row["video_id"] or row["index"] != len(runs[-1][1]):
            runs.append((row["video_id"], []))
        runs[-1][1].append(row["vector"])
    return [(name, np.array(vectors, np.float64)) for name, vectors in runs]


def _rows(dataset: pathlib.Path) -> list[dict]:
    if not (dataset / "_versions").is_dir():
        return []
    return lance.dataset(str(dataset)).scanner(scan_in_order=True).to_table().to_pylist()


def of_folders(folder: pathlib.Path) -> State:
    """JPEG folders of super images."""
    items: dict[str, list[np.ndarray | dict[str, str]]] = {
        path.name: [{file.name: _digest(file) for file in sorted(path.iterdir())}]
        for path in folder.glob("*")
        if path.is_dir() and not path.name.startswith(".")
    }
    return State(items, _failures(folder), _leftovers(folder))


def _digest(file: pathlib.Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _failures(folder: pathlib.Path) -> list[tuple[str, str]]:
    path = folder / "failures.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [(record["video_id"], record["stage"]) for record in map(json.loads, lines)]


def _leftovers(folder: pathlib.Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob(PARTS))
