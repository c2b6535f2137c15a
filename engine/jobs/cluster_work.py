"""Videos in, embeddings of whole videos or finished JPEG folders out: what a worker of a cluster is there for."""

from __future__ import annotations

import dataclasses
import pathlib
import secrets
from collections.abc import Callable, Iterator
from typing import Protocol, TypeAlias

from ... import GridClipError
from ...dali_pipes.contract import VideoFile
from ...export.model_info import read_model_info
from ..encoding.encoder import Encoder
from ..encoding.providers import Provider
from .device_messages import Message, MessageSink
from .devices import MakeCpuSource, MakeSource
from .folder_messages import FolderNews, MadeFolder, tell
from .ledger import PassKinds, batch_size_for, embed_all

EVERYWHERE = "expected at the same path on every node (a shared drive)"

Send: TypeAlias = Callable[[Message | MadeFolder], None]


class Work(Protocol):
    """What all workers of a job do; it travels to each of them.

    `unfitness` says why no worker can do it on this machine, None where one can, going on from "the node NAME ".
    `begin` makes the tools that all rounds of a worker use.
    """

    def unfitness(self) -> str | None: ...

    def begin(self, cores: int, *, has_gpu: bool) -> Tools: ...


class Tools(Protocol):
    """A worker's own: sends messages of what becomes of videos, until there are no more."""

    def run(self, videos: Iterator[VideoFile], send: Send, *, careful: bool) -> None: ...


@dataclasses.dataclass(frozen=True)
class Embedding:
    """Embeds videos.

    Attributes:
        model_dir, provider, cuda_graph: see `Encoder`; the provider is that of a worker with a GPU.
        fingerprint: of the model.
        batch_size: super images per pass; None: the default of the worker's provider.
        passes: see `ledger.pass_kinds`.
        make_source: makes the source of fresh videos, on the worker's machine.
        make_careful_source: of those that were in work when a worker died.
    """

    model_dir: pathlib.Path
    provider: Provider
    cuda_graph: bool
    fingerprint: str
    batch_size: int | None
    passes: PassKinds
    make_source: MakeSource
    make_careful_source: MakeCpuSource

    def unfitness(self) -> str | None:
        """Raises GridClipError where there is no model folder, or a damaged one."""
        if not self.model_dir.is_dir():
            return f"has no model folder {self.model_dir}: {EVERYWHERE}"
        if read_model_info(self.model_dir).fingerprint != self.fingerprint:
            return f"has another model in {self.model_dir} than the driver: expected the same one"
        return None

    def begin(self, cores: int, *, has_gpu: bool) -> Tools:
        """Loads the model."""
        encoder = Encoder(
            self.model_dir,
            provider=self.provider if has_gpu else "cpu",
            num_threads=None if has_gpu else cores,
            cuda_graph=self.cuda_graph,
        )
        return _Embedder(self, encoder, cores)


@dataclasses.dataclass(frozen=True)
class _Embedder:
    work: Embedding
    encoder: Encoder
    cores: int

    def run(self, videos: Iterator[VideoFile], send: Send, *, careful: bool) -> None:
        if careful:
            source = self.work.make_careful_source(num_workers=1)
        else:
            source = self.work.make_source(device_id=self.encoder.device_id, num_workers=self.cores)
        size = batch_size_for(self.encoder.provider, self.work.batch_size)
        embed_all(source(videos), self.encoder, size, MessageSink(send), self.work.passes)


class Save(Protocol):
    """Makes the folders of videos; see `folder_messages.tell` for what it says of them."""

    def __call__(self, videos: Iterator[VideoFile], *, part_dir: pathlib.Path, num_workers: int) -> FolderNews: ...


@dataclasses.dataclass(frozen=True)
class Saving:
    """Writes JPEG folders.

    Attributes:
        part_dir: the job's place for unfinished work, on the disk that all nodes share. Each worker has its own in it:
            one that nobody hears of any more may still write.
        save: makes the folders of fresh videos.
        save_carefully: of those that were in work when a worker died.
    """

    part_dir: pathlib.Path
    save: Save
    save_carefully: Save

    def unfitness(self) -> str | None:
        """Where the drive is not shared, the folders would be written to the node's own."""
        return None if self.part_dir.is_dir() else f"has no folder {self.part_dir}: {EVERYWHERE}"

    def begin(self, cores: int, *, has_gpu: bool) -> Tools:
        """Makes the worker's place for unfinished folders."""
        own = self.part_dir / f"worker-{secrets.token_hex(4)}"
        try:
            own.mkdir()
        except OSError as error:
            raise GridClipError(f"cannot write to {self.part_dir}: {error.strerror}") from error
        return _Saver(self, own, cores)


@dataclasses.dataclass(frozen=True)
class _Saver:
    work: Saving
    own: pathlib.Path
    cores: int

    def run(self, videos: Iterator[VideoFile], send: Send, *, careful: bool) -> None:
        save = self.work.save_carefully if careful else self.work.save
        tell(save(videos, part_dir=self.own, num_workers=1 if careful else self.cores), MessageSink(send))
