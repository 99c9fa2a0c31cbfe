"""A web on this machine: hosts that answer well, badly, slowly, or with lies."""

import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

PIECE = 1 << 14


class Request(NamedTuple):
    host: str
    path: str
    at: float
    headers: dict[str, str]
    body: bytes


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    web: "Web"
    is_in = False

    def do_GET(self) -> None:
        page = self.web.enter(self)
        try:
            page(self)
        except ConnectionError:
            self.close_connection = True
        finally:
            self.leave()

    do_POST = do_GET

    def leave(self) -> None:
        """Says that the answer is all but sent: once it is, the next request may be there before this is counted."""
        self.web.leave(self)

    def log_message(self, *_: object) -> None:
        pass


Answer = Callable[[Handler], None]


def answer(body: bytes = b"", status: int = 200, *, pause: float = 0.0, **headers: str | None) -> Answer:
    """An answer with its length, unless the headers say another; `_` in their names is `-`, None leaves one out.

    Args:
        pause: Seconds before each piece of 16 KiB.
    """

    def send(handler: Handler) -> None:
        handler.send_response(status)
        for name, value in ({"Content_Length": str(len(body))} | headers).items():
            if value is not None:
                handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        for start in range(0, len(body), PIECE):
            time.sleep(pause)
            if start + PIECE >= len(body):
                handler.leave()
            handler.wfile.write(body[start : start + PIECE])
        handler.close_connection |= "Content_Length" in headers  # by it the client sees where a lie ends

    return send


class Web:
    """Answers by path; of a list, each answer once, and the last from then on."""

    def __init__(self) -> None:
        self.pages: dict[str, Answer | list[Answer]] = {}
        self.requests: list[Request] = []
        self.open_now = self.open_most = 0
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("0.0.0.0", 0), type("Handler", (Handler,), {"web": self}))
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def enter(self, handler: Handler) -> Answer:
        body = handler.rfile.read(int(handler.headers["Content-Length"] or 0))
        with self._lock:
            host = handler.headers["Host"].partition(":")[0]
            self.requests.append(Request(host, handler.path, time.monotonic(), dict(handler.headers), body))
            handler.is_in = True
            self.open_now += 1
            self.open_most = max(self.open_most, self.open_now)
            page = self.pages.get(handler.path.partition("?")[0], answer(b"no such page", 404))
            if isinstance(page, list):
                return page.pop(0) if len(page) > 1 else page[0]
            return page

    def leave(self, handler: Handler) -> None:
        with self._lock:
            self.open_now -= handler.is_in
            handler.is_in = False

    def address(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    def paths(self) -> list[str]:
        return [request.path for request in self.requests]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
