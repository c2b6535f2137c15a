"""A corpus in; ways to find the ten best videos of a query out, each of which is built, opened, and then asked.

A peer finds super images, as its users do, and a video is as good as its best one (`max`); the same is asked of
GridCLIP, and its other ways to score besides. Packages are imported where they are used: a process measures one system
and holds no other's.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import pathlib
import shutil
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from .search_corpus import BEST_SUPER_IMAGE, READ_ROWS, SCORINGS, TOP, Corpus, video_number

if TYPE_CHECKING:
    from ..engine.choices import IndexMode

NEAREST = 200  # super images that a peer is asked for: ten videos' worth, and some
FREE_SHARE = 0.6  # of the memory that is free, for a system that holds all vectors in float32
CODE_AXES = 8  # of a vector that share a byte of product quantisation
CODES = 256  # of a byte
LIST_POINTS = 64  # vectors that train each centroid of faiss' lists, or codes; its guide asks for 39 and more

Effort = Mapping[str, int]


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a system found, best first.

    Attributes:
        videos: int64 [<= TOP].
        super_images: int64 [<= NEAREST]; None where a system tells videos only.
    """

    videos: np.ndarray
    super_images: np.ndarray | None = None


Ask = Callable[[np.ndarray], Answer]  # a query float32 [D] in


class System(Protocol):
    """One way to search.

    Attributes:
        name: as shown.
        scorings: names of SCORINGS, for each of which its best videos can be asked.
        efforts: settings of a search, from little work to much; one that is empty where there is nothing to set.
    """

    @property
    def name(self) -> str: ...

    @property
    def scorings(self) -> tuple[str, ...]: ...

    @property
    def efforts(self) -> tuple[Effort, ...]: ...

    def settings(self, corpus: Corpus) -> dict[str, Any]:
        """Of the build, for the report."""

    def refusal(self, corpus: Corpus) -> str | None:
        """Why it cannot be measured here; None: it can."""

    def build(self, corpus: Corpus, folder: pathlib.Path) -> None:
        """Puts all that is needed to answer into an empty folder."""

    def open(self, folder: pathlib.Path, scoring: str) -> Callable[[Effort], Ask]:
        """Opens what was built; the result makes what answers with an effort's settings."""


@dataclasses.dataclass(frozen=True)
class Product:
    """All vectors in memory in float32, one matrix product a query."""

    name: str = "numpy product"
    scorings: tuple[str, ...] = (BEST_SUPER_IMAGE,)
    efforts: tuple[Effort, ...] = ({},)

    def settings(self, corpus: Corpus) -> dict[str, Any]:
        return {"held": "float32 in memory"}

    def refusal(self, corpus: Corpus) -> str | None:
        return _too_large(corpus)

    def build(self, corpus: Corpus, folder: pathlib.Path) -> None:
        for name in ("vectors.npy", "offsets.npy"):
            os.link(corpus.folder / name, folder / name)

    def open(self, folder: pathlib.Path, scoring: str) -> Callable[[Effort], Ask]:
        held = Corpus(folder)  # as far as vectors and offsets go
        vectors, offsets, row = np.empty(held.vectors.shape, np.float32), held.offsets, 0
        for block in held.blocks():
            vectors[row : row + len(block)] = block
            row += len(block)

        def ask(query: np.ndarray) -> Answer:
            similar = vectors @ query
            return Answer(_largest(np.maximum.reduceat(similar, offsets[:-1])), _largest(similar))

        return lambda effort: ask


@dataclasses.dataclass(frozen=True)
class Exact:
    """GridCLIP without an index: all of the store is read, or kept in memory where that is little."""

    name: str = "gridclip exact"
    scorings: tuple[str, ...] = tuple(SCORINGS)
    efforts: tuple[Effort, ...] = ({},)

    def settings(self, corpus: Corpus) -> dict[str, Any]:
        return {"index": "exact"}

    def refusal(self, corpus: Corpus) -> str | None:
        return None

    def build(self, corpus: Corpus, folder: pathlib.Path) -> None:
        _link_store(corpus, folder)

    def open(self, folder: pathlib.Path, scoring: str) -> Callable[[Effort], Ask]:
        return _searching(folder, scoring, "exact")


@dataclasses.dataclass(frozen=True)
class Indexed:
    """GridCLIP with what `gridclip index` makes: Lance's index names candidates, and they are scored exactly."""

    name: str = "gridclip index"
    scorings: tuple[str, ...] = tuple(SCORINGS)
    efforts: tuple[Effort, ...] = ({},)

    def settings(self, corpus: Corpus) -> dict[str, Any]:
        from ..engine.index import building, vectors

        return {"index": "ann", "kind": vectors.KIND, "bits": [building.MEAN_BITS, building.ROW_BITS]}

    def refusal(self, corpus: Corpus) -> str | None:
        return None

    def build(self, corpus: Corpus, folder: pathlib.Path) -> None:
        from ..engine.index.building import index_store
        from ..engine.store.store import Store

        _link_store(corpus, folder)
        index_store(Store.open(folder))

    def open(self, folder: pathlib.Path, scoring: str) -> Callable[[Effort], Ask]:
        return _searching(folder, scoring, "ann")


@dataclasses.dataclass(frozen=True)
class Faiss:
    """A faiss index in memory, as clip-retrieval holds them, read from its file.

    Attributes:
        recipe: its index factory's, with the number of lists and of codes to be filled in.
        whole: whether it holds the vectors in float32.
    """

    name: str
    recipe: str
    efforts: tuple[Effort, ...]
    whole: bool
    scorings: tuple[str, ...] = (BEST_SUPER_IMAGE,)

    def settings(self, corpus: Corpus) -> dict[str, Any]:
        rows, width = corpus.vectors.shape
        lists = max(1, min(round(4 * rows**0.5), rows // LIST_POINTS))  # faiss' guide: 4 to 16 times the root
        return {"factory": self.recipe.format(lists=lists, codes=width // CODE_AXES), "metric": "inner product"}

    def refusal(self, corpus: Corpus) -> str | None:
        if importlib.util.find_spec("faiss") is None:
            return "faiss-cpu is not installed: pip install '.[bench]'"
        return _too_large(corpus) if self.whole else None

    def build(self, corpus: Corpus, folder: pathlib.Path) -> None:
        import faiss

        (rows, width), factory = corpus.vectors.shape, self.settings(corpus)["factory"]
        index = faiss.index_factory(width, factory, faiss.METRIC_INNER_PRODUCT)
        if not index.is_trained:
            index.do_polysemous_training = False  # for a filter that is not used; it takes most of the time
            chosen = np.random.default_rng(0).random(rows) < LIST_POINTS * max(index.nlist, CODES) / rows
            parts = np.split(chosen, range(READ_ROWS, rows, READ_ROWS))
            index.train(np.concatenate([block[part] for block, part in zip(corpus.blocks(), parts, strict=True)]))
        for block in corpus.blocks():
            index.add(block)
        faiss.write_index(index, str(folder / "index.faiss"))
        os.link(corpus.folder / "offsets.npy", folder / "offsets.npy")

    def open(self, folder: pathlib.Path, scoring: str) -> Callable[[Effort], Ask]:
        import faiss

        index, offsets = faiss.read_index(str(folder / "index.faiss")), np.load(folder / "offsets.npy")

        def asking(effort: Effort) -> Ask:
            for parameter, value in effort.items():
                faiss.ParameterSpace().set_index_parameter(index, parameter, value)

            def ask(query: np.ndarray) -> Answer:
                found = index.search(query[None], NEAREST)[1][0]
                return _of_super_images(found[found >= 0], offsets)

            return ask

        return asking


def systems() -> list[System]:
    """All that is measured."""
    return [
        Product(),
        Exact(),
        Indexed(),
        Faiss("faiss IVF-PQ", "IVF{lists},PQ{codes}", tuple({"nprobe": each} for each in (8, 32, 128)), whole=False),
        Faiss("faiss HNSW", "HNSW32,Flat", tuple({"efSearch": each} for each in (256, 1024, 2048, 4096)), whole=True),
    ]


def _searching(folder: pathlib.Path, scoring: str, index: IndexMode) -> Callable[[Effort], Ask]:
    from ..engine.search.search import Searcher
    from ..engine.store.store import Store

    searcher = Searcher(Store.open(folder), **SCORINGS[scoring], index=index, device="cpu")

    def ask(query: np.ndarray) -> Answer:
        return Answer(np.array([video_number(hit.video_id) for hit in searcher.search(query, TOP)]))

    return lambda effort: ask


def _of_super_images(found: np.ndarray, offsets: np.ndarray) -> Answer:
    """The videos of super images, nearest first."""
    owners = np.searchsorted(offsets, found, side="right") - 1
    first = np.sort(np.unique(owners, return_index=True)[1])
    return Answer(owners[first][:TOP], found)


def _largest(scores: np.ndarray) -> np.ndarray:
    """int64 [<= TOP]: where the largest scores are, falling."""
    best = np.argpartition(-scores, min(TOP, len(scores)) - 1)[:TOP]
    found: np.ndarray = best[np.argsort(-scores[best], kind="stable")]
    return found


def _too_large(corpus: Corpus) -> str | None:
    needed, free = corpus.vectors.size * 4, _available_bytes()
    if needed <= FREE_SHARE * free:
        return None
    return f"it holds {needed / 2**30:.1f} GiB of vectors, and {free / 2**30:.1f} GiB of memory are free"


def _available_bytes() -> int:
    """Free memory, with what the system would give back of its page cache; Linux only."""
    for line in pathlib.Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/meminfo has no MemAvailable")


def _link_store(corpus: Corpus, folder: pathlib.Path) -> None:
    """The same files under second names: Lance adds files and replaces none, so that both stores stay as they are."""
    shutil.copytree(corpus.store, folder, copy_function=os.link, dirs_exist_ok=True)
