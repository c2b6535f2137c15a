"""Every request in, only those of the owner's own pages on to the application; every answer out with safe headers."""

from __future__ import annotations

import hmac
import logging
import re
import urllib.parse

from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.requests import cookie_parser
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .addresses import is_loopback
from .refusal import BAD_REQUEST, FORBIDDEN, UNAUTHORISED, Refusal

logger = logging.getLogger(__name__)

COOKIE = "gridclip_token"
# Nothing from outside, no code but the page's own file; pictures of `blob:` are those that a user drops on the page.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; media-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
SAFE_HEADERS = {
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class Guard:
    """ASGI middleware; see the first line.

    A page of a stranger cannot ask through the owner's browser: its requests carry another Host (DNS rebinding), or
    are called cross-site by the browser, or lack the cookie, which is sent to pages of the same site only.

    Args:
        app: what is guarded.
        local: the server listens to this machine only, so that the Host can only be this machine's.
        token: None: whoever reaches the server is let in.
    """

    def __init__(self, app: ASGIApp, *, local: bool, token: str | None) -> None:
        self._app, self._local, self._token = app, local, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def send_safely(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in SAFE_HEADERS.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-store")
            await send(message)

        response = self._turned_away(scope)
        try:
            await (response or self._app)(scope, receive, send_safely)
        except Exception:
            logger.exception("a request to %s failed", scope["path"])
            if started:
                raise
            sentence = "the server has a fault; its log says more"
            await JSONResponse({"error": sentence}, 500)(scope, receive, send_safely)

    def _turned_away(self, scope: Scope) -> Response | None:
        """The answer to who does not belong; None: to the application."""
        headers = Headers(scope=scope)
        try:
            self._check_origin(headers)
            if self._token is None or scope["path"] == "/healthz":
                return None
            return self._check_token(scope, headers, self._token)
        except Refusal as refusal:
            return JSONResponse({"error": str(refusal)}, refusal.status)

    def _check_origin(self, headers: Headers) -> None:
        host = headers.get("host", "")
        if self._local and not is_loopback(_without_port(host)):
            raise Refusal(
                BAD_REQUEST, "the Host header names another machine: open the page at http://localhost or 127.0.0.1"
            )
        origin = headers.get("origin")
        foreign = origin is not None and urllib.parse.urlsplit(origin).netloc != host
        navigation = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
        if foreign or (headers.get("sec-fetch-site") == "cross-site" and not navigation):
            raise Refusal(FORBIDDEN, "another site's page asks: only the page of this server may")

    def _check_token(self, scope: Scope, headers: Headers, token: str) -> Response | None:
        query = QueryParams(scope["query_string"].decode("latin-1"))
        if scope["path"] == "/" and _equal(query.get("token", ""), token):
            # Out of the address bar and the history, into a cookie that scripts cannot read.
            kept = [(name, value) for name, value in query.multi_items() if name != "token"]
            response = RedirectResponse("/" + (f"?{urllib.parse.urlencode(kept)}" if kept else ""), 303)
            response.set_cookie(COOKIE, token, httponly=True, samesite="strict", path="/")
            return response
        bearer = headers.get("authorization", "").removeprefix("Bearer ")
        if _equal(bearer, token) or _equal(cookie_parser(headers.get("cookie", "")).get(COOKIE, ""), token):
            return None
        raise Refusal(UNAUTHORISED, "open the page with ?token=..., or send the header Authorization: Bearer ...")


def _without_port(host: str) -> str:
    """`localhost` of `localhost:8000`, `::1` of `[::1]:8000`."""
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]]+))(?::[0-9]{1,5})?", host)
    return (found[1] or found[2]).lower() if found else ""


def _equal(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), token.encode())
