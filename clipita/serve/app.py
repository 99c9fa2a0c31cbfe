"""Put the server together: the page's files, its API, Immich's protocol and OpenAI's shape, behind the gate."""

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from importlib import resources

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from clipita.errors import ClipitaError
from clipita.serve.gate import Gate
from clipita.serve.immich import Immich
from clipita.serve.openai import OpenAI
from clipita.serve.page_api import PageApi
from clipita.serve.requests import failed
from clipita.serve.service import Service

_FILES = {
    "/style.css": ("style.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}


def application(service: Service, version: str) -> Starlette:
    """Return the ASGI application over a service."""
    immich, openai, api = Immich(service), OpenAI(service), PageApi(service, version)
    routes = [
        Route("/", _page("index.html", "text/html")),
        *(Route(path, _page(name, kind)) for path, (name, kind) in _FILES.items()),
        Route("/ping", immich.ping),
        Route("/predict", immich.predict, methods=["POST"]),
        Route("/v1/models", openai.models),
        Route("/v1/embeddings", openai.embeddings, methods=["POST"]),
        Route("/health", api.health),
        Route("/metrics", api.metrics),
        Route("/api/status", api.status),
        Route("/api/login", api.login, methods=["POST"]),
        Route("/api/search", api.search, methods=["POST"]),
        Route("/api/photo/{number:str}", api.photo),
        Route("/api/label", api.label, methods=["POST"]),
        Route("/api/where", api.where, methods=["POST"]),
    ]

    @contextlib.asynccontextmanager
    async def life(_: Starlette) -> AsyncGenerator[None]:
        service.start()
        try:
            yield
        finally:
            service.stop()

    known = frozenset(route.path for route in routes if "{" not in route.path)
    gate = Middleware(Gate, settings=service.settings, metrics=service.metrics, routes=known)  # pyright: ignore[reportArgumentType]
    handlers = {HTTPException: failed, ClipitaError: failed}
    return Starlette(routes=routes, middleware=[gate], exception_handlers=handlers, lifespan=life)


def _page(name: str, kind: str) -> Callable[[Request], Awaitable[Response]]:
    content = resources.files("clipita.serve").joinpath("static", name).read_bytes()

    async def answer(request: Request) -> Response:
        """Give the file; at the root, programs that want no page are told who answers, as Immich's service does."""
        if name == "index.html" and "text/html" not in request.headers.get("accept", ""):
            return JSONResponse({"message": "Immich ML"})
        return Response(content, media_type=kind, headers={"cache-control": "no-cache"})

    return answer
