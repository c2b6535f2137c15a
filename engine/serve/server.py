"""A store, a model and a folder of videos in, a running server out, until it is stopped."""

from __future__ import annotations

import dataclasses
import ipaddress
import logging
import socket
from collections import Counter
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any

from ... import GridClipError, __version__
from .. import choices
from ..listing.finding import Where
from ..search.search import Searcher
from ..store.reader import SuperImageReader
from ..store.store import Store
from .addresses import check_host, is_loopback
from .answers import Answers, TextEncoder
from .bounds import Bounds
from .contents import Contents
from .library import Library
from .live import Counts, Live

if TYPE_CHECKING:
    from .app import Service

logger = logging.getLogger(__name__)

MOST_FOLDERS = 200  # that the page offers


def serve(
    encoder: TextEncoder,
    store: Store,
    video_dir: Where | None,
    *,
    host: str = choices.SERVE_HOST,
    port: int = choices.SERVE_PORT,
    token: str | None = None,
    aggregate: str = choices.AGGREGATE,
    temperature: float = choices.TEMPERATURE,
    level: choices.Level | None = None,
    grid_size: int | None = None,
    index: choices.IndexMode = choices.INDEX,
    started: Callable[[str], None] = lambda address: None,
) -> None:
    """Serves the page until the process is told to stop.

    Args:
        encoder: the model that the store was made with.
        store: read only; what a job adds meanwhile is found.
        video_dir: a folder, a list of paths, tars or a URL; None: there are no pictures and nothing can be played.
        host, port: where to listen; port 0: any free one.
        token: what a visitor has to know; needed where others than this machine reach `host`.
        aggregate, temperature, level, grid_size, index: see `Searcher`.
        started: is called with the page's address once it can be opened.

    Raises:
        ArgumentError: `host` can be reached by others and there is no `token`, or that is no good.
        GridClipError: the store or the folder cannot be used, the extra `serve` is not installed, or the port is taken.
    """
    check_host(host, token)
    bounds = Bounds()
    try:
        import uvicorn
    except ModuleNotFoundError as error:
        raise _not_installed(error) from error
    searcher = Searcher(
        store, aggregate=aggregate, temperature=temperature, level=level, grid_size=grid_size, index=index
    )
    service = make_service(encoder, searcher, store.reader(level, grid_size), video_dir, bounds)
    config = uvicorn.Config(
        service.application(local=is_loopback(host), token=token),
        http="h11",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=bounds.connections,
        timeout_graceful_shutdown=2,
    )

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            service.let_listeners_go()
            super().handle_exit(sig, frame)

    server = Server(config)
    listening = _listening(host, port)
    started(_address(host, listening.getsockname()[1], token))
    try:
        server.run(sockets=[listening])
    except KeyboardInterrupt:  # uvicorn has stopped in order, and hands the signal on: it is how a server ends
        pass
    finally:
        listening.close()


def make_service(
    encoder: TextEncoder,
    searcher: Searcher,
    reader: SuperImageReader,
    video_dir: Where | None,
    bounds: Bounds,
) -> Service:
    """The service of a searcher's store, which the reader counts; raises GridClipError where it cannot be served."""
    try:
        from .app import Service
    except ModuleNotFoundError as error:
        raise _not_installed(error) from error
    searcher.store.require_model(encoder.info.to_json())
    library = Library(video_dir)
    contents = Contents(reader)
    answers = Answers(searcher, contents, encoder, bounds, library.date)

    def look() -> Counts:
        answers.refresh()
        return contents.count()

    def describe() -> dict[str, Any]:
        return {
            "model": encoder.info.name,
            "aggregate": str(searcher.scoring),
            "view": str(reader.view),
            **dataclasses.asdict(contents.count()),
            "folders": folders_of(contents.video_ids()),
            "dates": library.has_dates,
            "version": __version__,
        }

    super_image = (reader.view.grid_size or 1, encoder.info.image_size)
    return Service(answers, library, describe, super_image, lambda: Live(look, answers.measure_noise, bounds), bounds)


def folders_of(video_ids: list[str]) -> list[str]:
    """The folders that ids lie in, at any depth, those with most videos where there are too many; sorted."""
    counts: Counter[str] = Counter()
    for video_id in video_ids:
        parts = video_id.split("/")
        counts.update("/".join(parts[:depth]) for depth in range(1, len(parts)))
    return sorted(folder for folder, _ in counts.most_common(MOST_FOLDERS))


def _listening(host: str, port: int) -> socket.socket:
    try:
        listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise GridClipError(
            f"cannot listen at `host={host}`, `port={port}`: {error.strerror or error}; where another program listens "
            "there, give another `port` (0: any free one)"
        ) from error
    # Connections inherit it. Without it an answer's body waits for the client to have acknowledged its head: 40 ms.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def _address(host: str, port: int, token: str | None) -> str:
    try:
        shown = f"[{host}]" if ipaddress.ip_address(host).version == 6 else host
    except ValueError:
        shown = host
    return f"http://{shown}:{port}/" + (f"?token={token}" if token else "")


def _not_installed(error: ModuleNotFoundError) -> GridClipError:
    return GridClipError(
        f"the page needs {error.name}, which is not installed: it is part of the extra `serve`; "
        "in the clone of the repository, pip install '.[serve]'"
    )
