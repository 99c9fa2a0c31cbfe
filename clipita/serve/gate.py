"""Let in only requests that may be answered, before anything of them is read, and guard every answer.

A browser shows this machine's pages and all others at once, and any page may send requests here. A request is refused
whose Host is not this machine (a page can make its own name lead here: DNS rebinding), whose Origin is another page, or
that lacks the token, if there is one. Bodies are limited in bytes and in time.
"""

import asyncio
import contextlib
import hmac
import time
from http.cookies import CookieError, SimpleCookie

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clipita.serve.metrics import Metrics
from clipita.serve.requests import failed
from clipita.serve.settings import Settings

COOKIE = "clipita_token"
_PAGE = ("/", "/style.css", "/page.js", "/icon.svg")  # they hold nothing of the user's, and ask for the token
_WITHOUT_TOKEN = (*_PAGE, "/health", "/ping", "/api/login")
_IMMICH = ("/predict",)
_BODIES = 16  # as many of the largest bodies are held at one time, or any number of smaller ones
_DRAIN_SECONDS = 5.0  # to read what a refused client still sends, so that it can read its answer

_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_GUARDS = (
    (b"content-security-policy", _CSP.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=()"),
)


class _Body:
    """Counts the bytes of a request's body that have come, and knows whether it is whole."""

    def __init__(self, most: int) -> None:
        self.most, self.held, self.is_whole = most, 0, False


class Gate:
    """Stands around the application, as ASGI middleware."""

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics, routes: frozenset[str]) -> None:
        self._app, self._settings, self._metrics, self._routes = app, settings, metrics, routes
        self._hosts = settings.allowed_hosts()
        self._active = self._held = 0  # requests, and bytes of their bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # a WebSocket, which nothing here speaks
            await send({"type": "websocket.close", "code": 1008})
            return
        started, status, has_begun = time.perf_counter(), 500, False

        async def guarded(message: Message) -> None:
            nonlocal status, has_begun
            if message["type"] == "http.response.start":
                status, has_begun = message["status"], True
                message["headers"] = [*message.get("headers", ()), *_GUARDS]
                if not any(name == b"cache-control" for name, _ in message["headers"]):
                    message["headers"].append((b"cache-control", b"no-store"))
            await send(message)

        refusal, body = self._refusal(scope), _Body(self._settings.max_upload)
        self._active += 1
        try:
            if refusal is not None:
                await _drain(receive, self._settings.max_upload)
                await refusal(scope, receive, guarded)
                return
            await self._app(scope, self._limited(receive, body), guarded)
        except Exception as error:
            if has_begun:
                raise
            await failed(Request(scope), error)(scope, receive, guarded)
        finally:
            self._active -= 1
            self._held -= body.held
            path = scope["path"]
            route = path if path in self._routes else "/api/photo" if path.startswith("/api/photo/") else "other"
            self._metrics.count(route, status, time.perf_counter() - started)

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        headers: dict[str, str] = {}
        for name, value in scope["headers"]:
            key = name.decode("latin-1")
            if key in headers and key in ("host", "origin", "authorization", "content-length"):
                return _refused(400, f"the header {key} comes twice.")
            headers[key] = value.decode("latin-1")
        if _name_of(headers.get("host", "")) not in self._hosts:
            return _refused(
                421, "this server does not know itself by that name. Allow it: clipita serve --allow-host NAME"
            )
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2].lower() != headers["host"].lower():
            return _refused(403, "another page may not ask this server.")
        path = scope["path"]
        is_visit = path in _PAGE and scope["method"] == "GET"
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none") and not is_visit:
            return _refused(403, "another page may not ask this server.")
        if not self._may_pass(path, headers):
            return _refused(401, "a token is needed: Authorization: Bearer TOKEN", {"www-authenticate": "Bearer"})
        length = headers.get("content-length", "0")
        if not length.isdigit() or len(length) > 18:
            return _refused(400, "the header content-length is no length.")
        if int(length) > self._settings.max_upload:
            return _refused(413, f"a request has at most {self._settings.max_upload:,} bytes.")
        if self._active >= self._settings.max_requests:
            return _refused(503, "too many requests at one time. Ask again in a moment.", {"retry-after": "1"})
        return None

    def _may_pass(self, path: str, headers: dict[str, str]) -> bool:
        token = self._settings.token
        if token is None or path in _WITHOUT_TOKEN or (self._settings.open_to_immich and path in _IMMICH):
            return True
        kind, _, given = headers.get("authorization", "").partition(" ")
        candidates = [given.strip()] if kind.lower() == "bearer" else []
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            cookie = None
        candidates += [cookie.value] if cookie is not None else []
        return any(is_token(token, candidate) for candidate in candidates)

    def _limited(self, receive: Receive, body: "_Body") -> Receive:
        """Count and time a body as it comes: not every client says its length."""
        deadline = asyncio.get_running_loop().time() + self._settings.body_seconds

        async def counted() -> Message:
            if body.is_whole:  # what comes now is that the client is gone
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, "the request came too slowly.", {"connection": "close"}) from None
            if message["type"] == "http.request":
                size = len(message.get("body", b""))
                body.held += size
                self._held += size
                body.is_whole = not message.get("more_body", False)
                if body.held > body.most:
                    raise HTTPException(413, f"a request has at most {body.most:,} bytes.", {"connection": "close"})
                if self._held > _BODIES * body.most:
                    self._held -= body.held  # now, not once it is answered: others need not be refused for it
                    body.held = 0
                    raise HTTPException(
                        503, "too much is being sent at one time. Ask again in a moment.", {"connection": "close"}
                    )
            return message

        return counted


def is_token(token: str, given: str) -> bool:
    """Compare a token with the right one in a time that says nothing about it."""
    return hmac.compare_digest(token.encode(), given.encode("utf-8", "surrogatepass"))


def _refused(status: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"detail": message}, status, {"connection": "close", **(headers or {})})


def _name_of(host: str) -> str:
    """Return the name in a Host header, without its port and brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.rpartition(":")[0].lower() if host.count(":") == 1 else host.lower()


async def _drain(receive: Receive, most: int) -> None:
    """Read and forget what a refused client sends, for a moment."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DRAIN_SECONDS):
            while most > 0:
                message = await receive()
                most -= len(message.get("body", b""))
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return
