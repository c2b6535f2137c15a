"""Answers, a library and a workshop in, the ASGI application out: each route, and what it does with a request."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import importlib.resources
import pathlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, ParamSpec, TypeVar

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from ... import GridClipError, __version__
from ...dali_pipes import ids
from ...dali_pipes.contract import VideoFile
from . import questions
from .answers import Answers
from .bounds import MOST_PICTURES, Bounds
from .files import file_response, made_response, placed_response
from .guard import Guard
from .library import Library
from .live import Live
from .metrics import Counted, Metrics
from .openapi import document
from .orders import NO_FILE, Clip, Made, Order, Pixels, Still, Strip
from .refusal import BUSY, TOO_LARGE, UNUSABLE, Refusal
from .workshop import Workshop

P = ParamSpec("P")
T = TypeVar("T")
Handler = Callable[[Request], Awaitable[Response]]

STRIP_FRAMES = 12  # where nobody says how many
STILL_STEP_S = 0.1  # stills nearer than this are one, so that they are made once
PAGE_FILES = {
    "index.html": "text/html",
    "page.css": "text/css",
    "page.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}


class Service:
    """The routes of the page.

    Args:
        answers: of the store.
        library: where the videos' files are.
        describe: what is served, for /api/info.
        super_image: grid size and side in pixels of the store's super images, for posted pictures.
        make_live: the look at the store's counts; called when the server starts.
        bounds: see there.
    """

    def __init__(
        self,
        answers: Answers,
        library: Library,
        describe: Callable[[], dict[str, Any]],
        super_image: tuple[int, int],
        make_live: Callable[[], Live],
        bounds: Bounds,
    ) -> None:
        self._answers, self._library, self._describe, self._bounds = answers, library, describe, bounds
        self._super_image = super_image
        self._searching = concurrent.futures.ThreadPoolExecutor(bounds.searching, "search")
        self._searches = 0
        self._live, self._workshop, self.metrics = make_live(), Workshop(bounds), Metrics()
        folder = importlib.resources.files(__package__) / "page"
        self._page = {name: (folder / name).read_bytes() for name in PAGE_FILES}
        self._watch()

    def application(self, *, local: bool, token: str | None) -> Starlette:
        """The application; the guard's arguments are `Guard`'s."""
        routes = [
            Route("/", functools.partial(self._file, "index.html"), methods=["GET"]),
            Route("/api/search", _refusing(self._search), methods=["GET"]),
            Route("/api/search", _refusing(self._search_picture), methods=["POST"]),
            Route("/api/info", _refusing(self._info), methods=["GET"]),
            Route("/api/events", _refusing(self._events), methods=["GET"]),
            Route("/api/strip/{video_id:path}", _refusing(self._strip), methods=["GET"]),
            Route("/api/frame/{video_id:path}", _refusing(self._still), methods=["GET"]),
            Route("/api/clip/{video_id:path}", _refusing(self._clip), methods=["GET"]),
            Route("/media/{video_id:path}", _refusing(self._media), methods=["GET"]),
            Route("/metrics", self._metrics, methods=["GET"]),
            Route("/healthz", self._health, methods=["GET"]),
            Route("/openapi.json", self._openapi, methods=["GET"]),
            *(Route(f"/{name}", functools.partial(self._file, name), methods=["GET"]) for name in PAGE_FILES),
        ]
        known = frozenset(route.path.partition("/{")[0] for route in routes)
        return Starlette(
            routes=routes,
            middleware=[
                Middleware(Counted, metrics=self.metrics, routes=known),
                Middleware(Guard, local=local, token=token),
            ],
            lifespan=self._lifespan,
            exception_handlers={404: _no_route, 405: _no_route},
        )

    def let_listeners_go(self) -> None:
        """Ends the answers that never end, so that the server can be stopped; may be called by a signal's handler."""
        self._live.ended = True

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        following = asyncio.create_task(self._live.follow())
        try:
            yield
        finally:
            following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await following
            self._searching.shutdown(wait=False, cancel_futures=True)
            await asyncio.to_thread(self._workshop.close)

    async def _file(self, name: str, _: Request) -> Response:
        return Response(self._page[name], media_type=PAGE_FILES[name], headers={"cache-control": "no-cache"})

    async def _search(self, request: Request) -> Response:
        question = questions.read_question(request.query_params)
        return self._told(await self._thinking(self._answers.of_question, question))

    async def _search_picture(self, request: Request) -> Response:
        question = questions.read_question(request.query_params, with_picture=True)
        body = await self._body(request)
        made = await self._made(Pixels("the picture", NO_FILE, body, *self._super_image))
        return self._told(await self._thinking(self._answers.of_picture, question, made.data))

    def _told(self, answer: dict[str, Any]) -> Response:
        for row in answer["results"]:
            name = self._library.name(row["video_id"])
            row["file"] = None if name is None else ids.printable(name)
            row["local"] = self._library.is_local(row["video_id"])
        return JSONResponse(answer)

    async def _info(self, _: Request) -> Response:
        return JSONResponse(await self._thinking(self._describe))

    async def _events(self, _: Request) -> Response:
        return StreamingResponse(self._live.listen(), media_type="text/event-stream")

    async def _strip(self, request: Request) -> Response:
        frames = questions.read_count(request.query_params, "frames", STRIP_FRAMES, MOST_PICTURES)
        video = await self._video(request)
        return made_response(request, await self._made(Strip(video.video_id, video.place, frames)))

    async def _still(self, request: Request) -> Response:
        at_s = round(questions.read_second(request.query_params, "at") / STILL_STEP_S) * STILL_STEP_S
        video = await self._video(request)
        return made_response(request, await self._made(Still(video.video_id, video.place, at_s)))

    async def _clip(self, request: Request) -> Response:
        span = questions.read_span(request.query_params)
        video = await self._video(request)
        made = await self._made(Clip(video.video_id, video.place, span.start_s, span.end_s))
        saved = f"{_file_name(video.video_id)}_{span.start_s:g}-{span.end_s:g}.{made.media_type.rpartition('/')[2]}"
        return made_response(request, made, name=saved if request.query_params.get("save") else None)

    async def _media(self, request: Request) -> Response:
        place = (await self._video(request)).place
        if isinstance(place, pathlib.Path):
            return file_response(place)
        return await placed_response(request, place)

    async def _metrics(self, _: Request) -> Response:
        return Response(self.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def _health(self, _: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def _openapi(self, _: Request) -> Response:
        return JSONResponse(document(__version__))

    async def _video(self, request: Request) -> VideoFile:
        video_id = questions.read_id(request.path_params["video_id"])
        return await asyncio.to_thread(self._library.file, video_id)

    async def _made(self, order: Order) -> Made:
        # Tried twice by the pool, and whoever comes later waits for those before.
        limit_s = self._bounds.make_s * 3
        try:
            return await asyncio.wait_for(self._workshop.order(order), limit_s)
        except TimeoutError:
            raise Refusal(BUSY, f"it was not made within {limit_s:g} s: try again later") from None

    async def _thinking(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Calls it in one of the threads that search; raises Refusal where too many wait or it takes too long."""
        if self._searches >= self._bounds.searching + self._bounds.waiting_searches:
            raise Refusal(BUSY, "too many searches are waiting: try again in a second")
        self._searches += 1
        try:
            work = asyncio.get_running_loop().run_in_executor(
                self._searching, functools.partial(function, *args, **kwargs)
            )
            work.add_done_callback(self._searched)
            return await asyncio.wait_for(asyncio.shield(work), self._bounds.answer_s)
        except TimeoutError:
            raise Refusal(BUSY, f"no answer within {self._bounds.answer_s:g} s: try again later") from None

    def _searched(self, work: asyncio.Future[Any]) -> None:
        """One search less, finished or cancelled; whoever asked may be gone."""
        self._searches -= 1
        if not work.cancelled():
            work.exception()

    async def _body(self, request: Request) -> bytes:
        """The request's body within its bounds of bytes and seconds."""
        most = self._bounds.picture_bytes
        body = bytearray()
        try:
            async with asyncio.timeout(self._bounds.body_s):
                async for part in request.stream():
                    body += part
                    if len(body) > most:
                        raise Refusal(TOO_LARGE, f"the picture is larger than {most >> 20} MiB: send a smaller one")
        except TimeoutError:
            raise Refusal(BUSY, f"the picture did not come within {self._bounds.body_s:g} s") from None
        except ClientDisconnect:
            raise Refusal(UNUSABLE, "the picture did not come whole") from None
        return bytes(body)

    def _watch(self) -> None:
        watch = self.metrics.watch
        watch("videos", "Videos in the store.", lambda: self._live.counts.videos)
        watch("embeddings", "Embeddings in the store.", lambda: self._live.counts.embeddings)
        watch("searches_waiting", "Searches that run or wait.", lambda: self._searches)
        watch("orders_waiting", "Pictures and clips that are made or wait.", lambda: self._workshop.waiting)
        watch("orders_made", "Pictures and clips made so far.", lambda: self._workshop.made)
        watch("orders_failed", "Pictures and clips that could not be made.", lambda: self._workshop.failed)
        watch("pictures_held_bytes", "Finished pictures in memory.", lambda: self._workshop.pictures.bytes)
        watch("clips_held_bytes", "Finished clips in memory.", lambda: self._workshop.clips.bytes)


def _refusing(handler: Handler) -> Handler:
    """A handler whose refusals, and what the library says of a store, become answers."""

    @functools.wraps(handler)
    async def refuse(request: Request) -> Response:
        try:
            return await handler(request)
        except Refusal as refusal:
            headers = {"retry-after": "2"} if refusal.status == BUSY else None
            return JSONResponse({"error": str(refusal)}, refusal.status, headers)
        except GridClipError as error:
            return JSONResponse({"error": str(error)}, UNUSABLE)

    return refuse


async def _no_route(_: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 404)
    sentence = "there is nothing at this address" if status == 404 else "this address does not take that method"
    return JSONResponse({"error": f"{sentence}; /openapi.json lists what there is"}, status)


def _file_name(video_id: str) -> str:
    """What is left of an id in the name of a saved file: a header holds ASCII only."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", video_id).strip("-.")[-80:] or "clip"
