"""Requests and the server's parts in, Prometheus's text out: how many, how long, how full."""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# A picture takes 0.1 s, a clip of a minute some seconds.
BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """The counters of one server."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "gridclip_requests", "Requests by route and HTTP status.", ["route", "status"], registry=self._registry
        )
        self.seconds = Histogram(
            "gridclip_request_seconds",
            "Seconds until the first byte of an answer.",
            ["route"],
            buckets=BUCKETS_S,
            registry=self._registry,
        )

    def watch(self, name: str, help: str, value: Callable[[], float]) -> None:
        """Adds a gauge that is read whenever somebody asks."""
        Gauge(f"gridclip_{name}", help, registry=self._registry).set_function(value)

    def text(self) -> bytes:
        """Prometheus's text format."""
        return generate_latest(self._registry)


class Counted:
    """ASGI middleware that counts requests; a route is its path's first part, so that ids make no new series."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics, routes: frozenset[str]) -> None:
        self._app, self._metrics, self._routes = app, metrics, routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.perf_counter()
        route = next((each for each in self._routes if scope["path"].startswith(f"{each}/")), scope["path"])
        route = route if route in self._routes else "other"

        async def send_counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._metrics.requests.labels(route, str(message["status"])).inc()
                self._metrics.seconds.labels(route).observe(time.perf_counter() - begun)
            await send(message)

        await self._app(scope, receive, send_counted)
