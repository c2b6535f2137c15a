"""A corpus in; ways to find the ten best videos of a query out, each of which is built, opened, and then asked.

A peer finds super images, as its users do, and a video is as good as its best one (`max`); the same is asked of
GridCLIP, and its own default, softmax, besides. Packages are imported where they are used: a process measures one system
and holds no other's.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import inspect
import os
import pathlib
import shutil
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from .search_corpus import AGGREGATES, TOP, Corpus, video_number

NEAREST = 200  # super images that a peer is asked for: ten videos' worth, and some
PRODUCT_SHARE = 0.6  # of the memory that is free, for a system that holds all vectors in float32
CODE_AXES = 8  # of a vector that share a byte of product quantisation
PARTITION_ROWS = 4096  # of Lance's IVF, its own recommendation
LIST_POINTS = 64  # vectors that train each centroid of faiss' lists, or codes; its guide asks for 39
CODES = 256  # of a byte

Effort = Mapping[str, int]


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a system found, best first.

    Attributes:
        videos: int64 [<= TOP].
        super_images: int64, at least TOP; None where a system tells videos only.
    """

    videos: np.ndarray
    super_images: np.ndarray | None = None


Ask = Callable[[np.ndarray], Answer]  # a query float32 [D] in


class System(Protocol):
    """One way to search.

    Attributes:
        name: as shown.
        aggregate: whose best videos are asked for, a name of AGGREGATES.
        efforts: settings of a search, from little work to much; one that is empty where there is nothing to set.
        settings: of the build, for the report.
    """

    name: str
    aggregate: str
    efforts: tuple[Effort, ...]

    def settings(self, corpus: Corpus) -> dict[str, Any]: ...

    def refusal(self, corpus: Corpus) -> str | None:
        """Why it cannot be measured here; None: it can."""

    def build(self, corpus: Corpus, folder: pathlib.Path) -> None:
        """Puts all that is needed to answer into an empty folder."""

    def open(self, folder: pathlib.Path) -> Callable[[Effort], Ask]:
        """Opens what was built; the result makes what answers with an effort's settings."""


@dataclasses.dataclass(frozen=True)
class Product:
    """All vectors in memory in float32, one matrix product a query."""

    name: str = "numpy product"
    aggregate: str = "max"
    efforts: tuple[Effort, ...] = ({},)

    def settings(self, corpus: Corpus) -> dict[str, Any]:
        return {"held": "float32 in memory"}

    def refusal(self, corpus: Corpus) -> str | None:
        return _too_large(corpus)

    def build(self, corpus: Corpus, folder: pathlib.Path) -> None:
        for name in ("vectors.npy", "offsets.npy"):
            _linked(corpus.folder / name, folder / name)

    def open(self, folder: pathlib.Path) -> Callable[[Effort], Ask]:
        mapped, offsets = np.load(folder / "vectors.npy", mmap_mode="r"), np.load(folder / "offsets.npy")
        vectors = np.empty(mapped.shape, np.float32)
        for first in range(0, len(vectors), PARTITION_ROWS):
            vectors[first : first + PARTITION_ROWS] = mapped[first : first + PARTITION_ROWS]

        def ask(query: np.ndarray) -> Answer:
            similar = vectors @ query
            return Answer(_largest(np.maximum.reduceat(similar, offsets[:-1])), _largest(similar))

        return lambda effort: ask


@dataclasses.dataclass(frozen=True)
class Exact:
    """GridCLIP without an index: the whole store is read, or kept in memory where it is small."""

    aggregate: str
    efforts: tuple[Effort, ...] = ({},)

    @property
    def name(self) -> str:
        return f"gridclip exact, {self.aggregate}"

    def settings(self, corpus: Corpus) -> dict[str, Any]:
        return {}

    def refusal(self, corpus: Corpus) -> str | None:
        return None

    def build(self, corpus: Corpus, folder: pathlib.Path) -> None:
        _linked_store(corpus, folder)

    def open(self, folder: pathlib.Path) -> Callable[[Effort], Ask]:
        ask = _searching(folder, self.aggregate, **_exact_options())
        return lambda effort: ask


@dataclasses.dataclass(frozen=True)
class Indexed:
    """GridCLIP with what `gridclip index` makes: candidates by Lance's index, scored exactly."""

    aggregate: str
    efforts: tuple[Effort, ...] = ({},)

    @property
    def name(self) -> str:
        return f"gridclip index, {self.aggregate}"

    def settings(self, corpus: Corpus) -> dict[str, Any]:
        return {}

    def refusal(self, corpus: Corpus) -> str | None:
        return None

    def build(self, corpus: Corpus, folder: pathlib.Path) -> None:
        from ..engine.store.store import Store

        _linked_store(corpus, folder)
        importlib.import_module(INDEX_MODULE).index_store(Store.open(folder))

    def open(self, folder: pathlib.Path) -> Callable[[Effort], Ask]:
        ask = _searching(folder, self.aggregate, index="ann")
        return lambda effort: ask


@dataclasses.dataclass(frozen=True)
class LanceIndex:
    """Lance's own index on the vectors' column of a store, asked directly; `refine` re-scores with the vectors.

    Attributes:
        kind: Lance's name of the index.
    """

    kind: str
    efforts: tuple[Effort, ...]
    aggregate: str = "max"

    @property
    def name(self) -> str:
        return f"Lance {self.kind}"

    def settings(self, corpus: Corpus) -> dict[str, Any]:
        coded = {"num_sub_vectors": corpus.vectors.shape[1] // CODE_AXES} if self.kind.endswith("PQ") else {}
        return {"metric": "cosine", "target_partition_size": PARTITION_ROWS, **coded}

    def refusal(self, corpus: Corpus) -> str | None:
        return None

    def build(self, corpus: Corpus, folder: pathlib.Path) -> None:
        import lance

        _linked_store(corpus, folder)
        lance.dataset(str(folder / LANCE_TABLE)).create_index("vector", self.kind, **self.settings(corpus))
        _linked(corpus.folder / "offsets.npy", folder / "offsets.npy")

    def open(self, folder: pathlib.Path) -> Callable[[Effort], Ask]:
        import lance

        dataset, offsets = lance.dataset(str(folder / LANCE_TABLE)), np.load(folder / "offsets.npy")

        def asking(effort: Effort) -> Ask:
            wanted = {"column": "vector", "k": NEAREST, "metric": "cosine", **effort}

            def ask(query: np.ndarray) -> Answer:
                found = dataset.to_table(nearest={**wanted, "q": query}, columns=["video_id", "index", "_distance"])
                videos = np.array([video_number(name) for name in found["video_id"].to_pylist()], np.int64)
                return _of_super_images(offsets[videos] + found["index"].to_numpy(), offsets)

            return ask

        return asking


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
    aggregate: str = "max"

    def settings(self, corpus: Corpus) -> dict[str, Any]:
        rows, width = corpus.vectors.shape
        lists = max(1, min(round(4 * rows**0.5), rows // 40))  # faiss' guide; it wants 39 vectors for each list
        return {"factory": self.recipe.format(lists=lists, codes=width // CODE_AXES), "metric": "inner product"}

    def refusal(self, corpus: Corpus) -> str | None:
        if importlib.util.find_spec("faiss") is None:
            return "faiss-cpu is not installed: pip install '.[bench]'"
        return _too_large(corpus) if self.whole else None

    def build(self, corpus: Corpus, folder: pathlib.Path) -> None:
        import faiss

        vectors, settings = corpus.vectors, self.settings(corpus)
        index = faiss.index_factory(vectors.shape[1], settings["factory"], faiss.METRIC_INNER_PRODUCT)
        if not index.is_trained:
            index.do_polysemous_training = False  # for a filter that is not used; it takes most of the time
            some = np.random.default_rng(0).permutation(len(vectors))[: LIST_POINTS * max(index.nlist, CODES)]
            index.train(vectors[np.sort(some)].astype(np.float32))
        for first in range(0, len(vectors), 1 << 15):
            index.add(vectors[first : first + (1 << 15)].astype(np.float32))
        faiss.write_index(index, str(folder / "index.faiss"))
        _linked(corpus.folder / "offsets.npy", folder / "offsets.npy")

    def open(self, folder: pathlib.Path) -> Callable[[Effort], Ask]:
        import faiss

        faiss.omp_set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
        index, offsets = faiss.read_index(str(folder / "index.faiss")), np.load(folder / "offsets.npy")

        def asking(effort: Effort) -> Ask:
            for parameter, value in effort.items():
                faiss.ParameterSpace().set_index_parameter(index, parameter, value)

            def ask(query: np.ndarray) -> Answer:
                found = index.search(query[None], NEAREST)[1][0]
                return _of_super_images(found[found >= 0], offsets)

            return ask

        return asking


INDEX_MODULE = "gridclip.engine.index.building"
LANCE_TABLE = "super_images.lance"


def systems() -> list[System]:
    """All that this version can measure."""
    lance_efforts = tuple({"nprobes": probes, "refine_factor": 2} for probes in (4, 16, 64))
    return [
        Product(),
        *(Exact(aggregate) for aggregate in AGGREGATES),
        *indexed(),
        LanceIndex("IVF_PQ", tuple({**effort, "refine_factor": 5} for effort in lance_efforts)),
        LanceIndex("IVF_SQ", lance_efforts),
        LanceIndex("IVF_HNSW_SQ", tuple({**effort, "ef": 2 * NEAREST} for effort in lance_efforts)),
        Faiss("faiss IVF-PQ", "IVF{lists},PQ{codes}", tuple({"nprobe": each} for each in (8, 32, 128)), whole=False),
        Faiss("faiss HNSW", "HNSW32,Flat", tuple({"efSearch": each} for each in (256, 512, 1024)), whole=True),
    ]


def indexed() -> list[System]:
    """GridCLIP with its index, where this version has one."""
    package = INDEX_MODULE.rpartition(".")[0]
    return [Indexed(aggregate) for aggregate in AGGREGATES] if importlib.util.find_spec(package) else []


def _exact_options() -> dict[str, Any]:
    """What keeps a searcher from an index, where it knows of one."""
    from ..engine.search.search import Searcher

    return {"index": "exact"} if "index" in inspect.signature(Searcher).parameters else {}


def _searching(folder: pathlib.Path, aggregate: str, **options: Any) -> Ask:
    from ..engine.search.search import Searcher
    from ..engine.store.store import Store

    searcher = Searcher(Store.open(folder), aggregate=aggregate, device="cpu", **options)
    return lambda query: Answer(np.array([video_number(hit.video_id) for hit in searcher.search(query, TOP)]))


def _of_super_images(found: np.ndarray, offsets: np.ndarray) -> Answer:
    """The videos of super images, nearest first."""
    owners = np.searchsorted(offsets, found, side="right") - 1
    first = np.sort(np.unique(owners, return_index=True)[1])
    return Answer(owners[first][:TOP], found[:TOP])


def _largest(scores: np.ndarray) -> np.ndarray:
    best = np.argpartition(-scores, min(TOP, len(scores)) - 1)[:TOP]
    found: np.ndarray = best[np.argsort(-scores[best], kind="stable")]
    return found


def _too_large(corpus: Corpus) -> str | None:
    needed = corpus.vectors.size * 4
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    free = max(free, _available_bytes())
    if needed <= PRODUCT_SHARE * free:
        return None
    return f"it holds {needed / 2**30:.1f} GiB of vectors, and {free / 2**30:.1f} GiB of memory are free"


def _available_bytes() -> int:
    """With what the system would give back of its page cache."""
    for line in pathlib.Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


def _linked(source: pathlib.Path, target: pathlib.Path) -> None:
    """The same file under a second name: it is written once, however many systems are measured."""
    os.link(source, target)


def _linked_store(corpus: Corpus, folder: pathlib.Path) -> None:
    """Lance adds files and replaces none, so that stores may share the ones they began with."""
    shutil.copytree(corpus.store, folder, copy_function=os.link, dirs_exist_ok=True)
